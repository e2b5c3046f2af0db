"""The job engine: rows → batches → outcomes → ledger → checkpoint → report."""
