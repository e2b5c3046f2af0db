"""Queries of the catalog: short, without a transaction of their own."""

from collections.abc import Sequence
from typing import Any, LiteralString

from embedmigrate.postgres.session import Connection


async def fetch_all(
    connection: Connection, query: LiteralString, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, values)
    return await cursor.fetchall()


async def fetch_one(
    connection: Connection, query: LiteralString, values: Sequence[Any] = ()
) -> tuple[Any, ...]:
    rows = await fetch_all(connection, query, values)
    return rows[0]
