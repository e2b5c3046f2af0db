"""The lock in the database: one run for each target, whichever machine it starts on."""

import psycopg

from embedmigrate.errors import LockedError
from embedmigrate.postgres.session import Connection, Database, lost, meaning
from embedmigrate.postgres.target import Target

_TRIES = 4
"""Connections that may be ended while they are asked for the lock."""


async def hold(database: Database, t: Target) -> Connection:
    """A connection of its own that has the lock; closing it gives the lock back.

    Raises:
        LockedError: A session somewhere else holds it.
        EmbedMigrateError: The database cannot be asked.
    """
    for number in range(1, _TRIES + 1):
        connection = await database.connect()
        try:
            await take(connection, t)
        except psycopg.Error as error:
            await connection.close()
            if number == _TRIES or not lost(error):
                raise meaning(error) from None
        except BaseException:
            await connection.close()
            raise
        else:
            return connection
    raise AssertionError("the last try returns or raises")


async def take(connection: Connection, t: Target) -> None:
    """Take the target's advisory lock for as long as `connection` lives.

    Raises:
        LockedError: A session somewhere else holds it.
    """
    name = f"embedmigrate:{t.vectors_oid}:{t.vector_column}"
    cursor = await connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)
    )
    row = await cursor.fetchone()
    if row and row[0]:
        return
    holder, run_id = await _holder(connection, name)
    raise LockedError(
        f"another run is working on {t.place}",
        code="lock_held",
        facts=(holder,),
        hint="it runs on another machine or with another state directory: run embedmigrate status"
        " there, or wait with --lock-timeout 30m",
        details={"run_id": run_id},
    )


async def _holder(connection: Connection, name: str) -> tuple[str, str | None]:
    """Who holds the lock, for a person, and the run's id, which the session has as its name."""
    try:
        cursor = await connection.execute(
            "SELECT a.application_name, coalesce(a.client_addr::text, 'a local socket'),"
            " a.backend_start::timestamptz(0)::text"
            " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(%s, 0)",
            (name,),
        )
        row = await cursor.fetchone()
    except psycopg.Error:
        row = None
    if row is None or not row[0]:
        return "Its session in the database could not be identified.", None
    run_id = str(row[0]).removeprefix("embedmigrate ")
    words = f"The database names it '{row[0]}', connected from {row[1]} since {row[2]}."
    return words, run_id
