"""Commits that the server has promised and not yet written down."""

from embedmigrate.postgres.query import fetch_one
from embedmigrate.postgres.session import Connection, Database, transaction

# A transaction that has written to the log waits for it, and the log is written in order: every
# commit before this one is on disk then, whichever session made it.
# https://www.postgresql.org/docs/current/wal-async-commit.html
_DURABLE = "SET LOCAL synchronous_commit = local"
_MARK = "SELECT pg_logical_emit_message(true, 'embedmigrate', '')"


async def settle(database: Database) -> None:
    """Where `synchronous_commit` is off, wait until what was committed so far survives a crash.

    A sweep that starts afterwards finds every row that a crash has lost; without this, one right
    after the last sweep could lose rows of a run that has ended with exit code 0.

    Raises:
        DatabaseUnavailable: The database stayed away.
    """

    async def wait(connection: Connection) -> None:
        if await fetch_one(connection, "SHOW synchronous_commit") != ("off",):
            return
        async with transaction(connection):
            await connection.execute(_DURABLE)
            await connection.execute(_MARK)

    await database.read(wait)
