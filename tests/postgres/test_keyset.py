"""Keyset paging, whatever the keys and the page: every row once, in the order of the database."""

import asyncio
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmigrate.postgres import resolution
from embedmigrate.postgres.session import Database as Pool
from embedmigrate.postgres.source import TableSource

if TYPE_CHECKING:
    from tests.servers import Database

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
keys = st.lists(st.tuples(texts, st.integers(-(2**31), 2**31 - 1)), max_size=40, unique=True)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=keys, page_rows=st.integers(1, 50), page_bytes=st.integers(1, 200), cut=st.integers(0))
def test_every_row_is_read_once_and_in_order_from_any_cursor(
    database: "Database",
    rows: list[tuple[str, int]],
    page_rows: int,
    page_bytes: int,
    cut: int,
) -> None:
    with database.connect() as session:
        session.execute("DROP TABLE IF EXISTS keyed")
        session.execute(
            "CREATE TABLE keyed (a text, b int, body text, embedding vector(2), PRIMARY KEY (a, b))"
        )
        session.cursor().executemany(
            "INSERT INTO keyed VALUES (%s, %s, 'Row ' || repeat('x', abs(%s %% 90)))",
            [(a, b, b) for a, b in rows],
        )
        wanted = session.execute(
            "SELECT a, b::text FROM keyed ORDER BY keyed.a, keyed.b"
        ).fetchall()

    async def read() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        pool = Pool(database.url, size=1)
        await pool.open()
        try:
            wish = resolution.Wish("keyed", (), ("body",), None, "embedding", None, None, None)
            target = await pool.run(lambda connection: resolution.read_target(connection, wish))
            source = TableSource(pool, target, page_rows=page_rows, page_bytes=page_bytes)
            everything = [row.key async for row in source.rows(None, force=False)]
            if not everything:
                return [], []
            cursor = everything[cut % len(everything)]
            return everything, [row.key async for row in source.rows(cursor, force=False)]
        finally:
            await pool.close()

    everything, rest = asyncio.run(read())
    assert everything == wanted
    assert rest == (everything[cut % len(everything) + 1 :] if everything else [])
