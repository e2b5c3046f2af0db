"""The lock in the database is asked for again where the session ends in that very moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from embedmigrate.errors import DatabaseUnavailable
from embedmigrate.postgres import lock
from embedmigrate.postgres.resolution import Wish, read_target
from embedmigrate.postgres.session import Connection, Database
from tests import tables

if TYPE_CHECKING:
    from tests import servers


class Ended(Database):
    """Its first connections are ended by the administrator as soon as they are there."""

    def __init__(self, theirs: servers.Database, times: int) -> None:
        super().__init__(theirs.url)
        self._admin = theirs.connect()
        self._times = times

    async def connect(self) -> Connection:
        connection = await super().connect()
        if self._times:
            self._times -= 1
            self._admin.execute(
                "SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,)
            )
        return connection


def held(database: servers.Database, times: int) -> bool:
    """Whether anybody holds an advisory lock afterwards."""
    session = database.connect()
    tables.articles(session, 0)
    wish = Wish("articles", (), ("body",), None, "embedding", None, None, None)

    async def main() -> bool:
        plain = Database(database.url)
        connection = await plain.connect()
        target = await read_target(connection, wish)
        await connection.close()
        connection = await lock.hold(Ended(database, times), target)
        row = session.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        found = row.fetchone()
        await connection.close()
        return found == (1,)

    return asyncio.run(main())


def test_a_session_that_is_ended_is_followed_by_another(database: servers.Database) -> None:
    assert held(database, 2)


def test_a_server_that_ends_every_session_is_an_outage(database: servers.Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        held(database, 99)
