"""Use cases: the only place that opens things, and puts engine, database and provider together."""
