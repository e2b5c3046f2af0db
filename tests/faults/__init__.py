"""The fault matrix, run for real: every series is seeded, and repeatable by one command."""
