"""One script for each way to fill the table; each is started as a process of its own.

They take the database's URL, the provider's URL, the batch size and the concurrency.
"""
