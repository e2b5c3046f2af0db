"""Ways to run the worker elsewhere than in the process that reads and records."""
