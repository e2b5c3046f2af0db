"""Twenty thousand rows under keys of eight types: every row is read, and none is read twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import pytest
from psycopg import sql

from embedmigrate.postgres import resolution
from embedmigrate.postgres.session import Database as Pool
from embedmigrate.postgres.source import TableSource, find
from tests.e2e.jobs import ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from embedmigrate.engine.model import Key, Row
    from embedmigrate.postgres.target import Target
    from tests.e2e.jobs import Job
    from tests.servers import Database
    from tests.tables import Session

ROWS = 20_000
PAGE = 700
WITHOUT_TEXT = 10

# As Prisma makes them, but in both cases, which is where collations differ from bytes.
CUID = "CASE n % 2 WHEN 0 THEN 'c' ELSE 'C' END || md5(n::text) || CASE n % 3 WHEN 0 THEN 'é' END"


@dataclass(frozen=True)
class Kind:
    """`columns` and the value of each as SQL over `n`."""

    columns: LiteralString
    values: LiteralString
    key: tuple[str, ...] = ("id",)
    extension: LiteralString | None = None


KINDS = {
    "cuid": Kind("id text COLLATE {collation}", f"coalesce({CUID}, md5(n::text) || 'X')"),
    "uuid": Kind("id uuid", "md5(n::text)::uuid"),
    "bigint": Kind("id bigint", "(n - 10000)::bigint * 461168601842"),
    "text and int": Kind(
        "tenant text, id int", "md5((n % 37)::text), (n * 7919) % 20011 - 9000", ("tenant", "id")
    ),
    # Of several scales, so that they are not in the order of their spelling.
    "numeric": Kind("id numeric", "trim_scale((n - 10000)::numeric * 1.37 / (1 + n % 3 * 999))"),
    "timestamptz": Kind(
        "id timestamptz", "'2020-03-29 00:00Z'::timestamptz + n * interval '7.123457 s'"
    ),
    "char": Kind("id char(40)", "upper(md5(n::text))"),
    "bytea": Kind("id bytea", "sha256(n::text::bytea)"),
    "citext": Kind("id citext", CUID.replace("é", "e"), extension="citext"),
}


def collation_of(session: Session) -> sql.Identifier:
    """One that orders as people do, where the server has one; else one that is not the default."""
    row = session.execute(
        "SELECT collname FROM pg_collation WHERE (collname ~* '^en[_-](US|x)' OR collname IN"
        " ('unicode', 'pg_unicode_fast', 'ucs_basic')) AND collencoding IN (-1, 6)"
        " AND collprovider <> 'i' ORDER BY collname ~* '^en' DESC, collname LIMIT 1"
    ).fetchone()
    assert row
    return sql.Identifier(row[0])


def create(session: Session, kind: Kind) -> None:
    """Every tenth row without text."""
    if kind.extension:
        known = "SELECT FROM pg_available_extensions WHERE name = %s"
        if not session.execute(known, (kind.extension,)).rowcount:
            pytest.skip(f"the server has no {kind.extension}")
        session.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(kind.extension)))
    columns = sql.SQL(kind.columns).format(collation=collation_of(session))
    key = sql.SQL(", ").join(map(sql.Identifier, kind.key))
    session.execute(
        sql.SQL("CREATE TABLE keyed ({}, body text, embedding vector(3), PRIMARY KEY ({}))").format(
            columns, key
        )
    )
    session.execute(
        sql.SQL(
            "INSERT INTO keyed SELECT {}, CASE WHEN n % {} > 0 THEN 'Row ' || n END"
            " FROM generate_series(1, {}) n ORDER BY random()"
        ).format(sql.SQL(kind.values), WITHOUT_TEXT, ROWS)
    )
    session.execute("ANALYZE keyed")


def with_target(url: str, work: Callable[[Pool, Target], object]) -> None:
    """Calls `work`, which gives a coroutine, with what the command line would open."""

    async def run() -> None:
        pool = Pool(url, size=2)
        await pool.open()
        try:
            wish = resolution.Wish("keyed", (), ("body",), None, "embedding", None, None, None)
            target = await pool.run(lambda connection: resolution.read_target(connection, wish))
            await work(pool, target)  # type: ignore[misc]
        finally:
            await pool.close()

    asyncio.run(run())


async def collect(rows: AsyncIterator[Row]) -> list[tuple[Key, str]]:
    return [(row.key, row.text) async for row in rows]


@pytest.mark.parametrize("name", KINDS)
def test_every_row_once(session: Session, database: Database, name: str) -> None:
    create(session, KINDS[name])
    wanted = Counter(f"Row {n}" for n in range(1, ROWS + 1) if n % WITHOUT_TEXT)

    async def work(pool: Pool, target: Target) -> None:
        source = TableSource(pool, target, page_rows=PAGE)
        read = await collect(source.rows(None, force=False))
        assert Counter(text for _, text in read) == wanted
        # From the middle on: exactly the rest, in the same order.
        middle = len(read) // 2
        assert await collect(source.rows(read[middle][0], force=True)) == read[middle + 1 :]
        # And by their keys, as --retry-failed and the second look do.
        some = read[:: len(read) // 50]
        found = await find(pool, target, [key for key, _ in reversed(some)])
        assert [(one.row.key, one.row.text) for one in found] == some

    with_target(database.url, work)


def test_small_pages_by_bytes(session: Session, database: Database) -> None:
    """A page that ends early, for its bytes, is not taken for the last one."""
    create(session, KINDS["text and int"])
    session.execute("UPDATE keyed SET body = body || repeat(' é', 40)")

    async def work(pool: Pool, target: Target) -> None:
        source = TableSource(pool, target, page_rows=PAGE, page_bytes=40_000)
        read = [row.text.partition(" é")[0] async for row in source.rows(None, force=False)]
        assert Counter(read) == Counter(f"Row {n}" for n in range(1, ROWS + 1) if n % WITHOUT_TEXT)

    with_target(database.url, work)


def test_rows_behind_the_cursor_are_for_the_sweep(session: Session, database: Database) -> None:
    """Inserted, or committed late, between two pages."""
    create(session, KINDS["uuid"])
    early = "00000000-0000-0000-0000-000000000001"
    late = "ffffffff-ffff-ffff-ffff-ffffffffffff"

    async def work(pool: Pool, target: Target) -> None:
        source = TableSource(pool, target, page_rows=PAGE)
        read = []
        async for row in source.rows(None, force=False):
            read.append(row.text)
            if len(read) == 2 * PAGE:
                for key in (early, late):
                    session.execute("INSERT INTO keyed VALUES (%s, %s)", (key, f"New {key}"))
        assert f"New {late}" in read
        assert f"New {early}" not in read
        session.execute("UPDATE keyed SET embedding = '[1,2,3]' WHERE id <> %s", (early,))
        swept = await collect(source.rows(None, force=False))
        assert swept == [((early,), f"New {early}")]

    with_target(database.url, work)


def test_a_whole_run(job: Job, session: Session) -> None:
    """With the model that needs no provider."""
    create(session, KINDS["cuid"])
    options = ("--table", "keyed", "--text-column", "body", "--provider", "hash")
    env = job.env | {"EMBEDMIGRATE_DIMENSIONS": None}
    ok(job.cli("generate-all", *options, "--limit", "9000", env=env))
    count = (
        "SELECT count(*), count(embedding), count(DISTINCT embedding) FROM keyed WHERE body <> ''"
    )
    assert session.execute(count).fetchone() == (18_000, 9000, 9000)
    ok(job.cli("generate-all", *options, env=env))
    assert session.execute(count).fetchone() == (18_000, 18_000, 18_000)
    assert job.provider.requests == ()
