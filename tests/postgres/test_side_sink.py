"""What the sink of a side table stores, and what it says of rows that it leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedmigrate.postgres import resolution
from embedmigrate.postgres.resolution import Wish
from embedmigrate.postgres.session import Database as Pool
from embedmigrate.postgres.side_resolution import SideWish
from embedmigrate.postgres.sinks import open_sink
from embedmigrate.postgres.source import TableSource
from tests.provider import vector_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from embedmigrate.engine.model import Row, Written
    from embedmigrate.engine.ports import Sink
    from embedmigrate.engine.vectors import Vectors
    from tests.servers import Database
    from tests.tables import Session

ROWS = 200
WISH = Wish(
    *("docs", (), ("body",), None, "embedding", None, None, None),
    side=SideWish("kept", "embedding", "small", "embedmigrate init --sql"),
)


@pytest.fixture(params=["bigint", "numeric"])
def session(database: Database, request: pytest.FixtureRequest) -> Session:
    """Rows are copied under a key of the first type, and merged under one of the other."""
    session = database.connect()
    session.execute(
        f"CREATE TABLE docs (id {request.param} PRIMARY KEY, body text);"
        f"INSERT INTO docs SELECT n, 'text ' || n FROM generate_series(1, {ROWS}) n;"
        f"CREATE TABLE kept (id {request.param} PRIMARY KEY REFERENCES docs ON DELETE CASCADE,"
        " embedding vector(8), model text, dimensions int, text_sha256 bytea,"
        " embedded_at timestamptz)"
    )
    return session


def write(
    database: Database, act: Callable[[Sink, list[Row], Vectors], Awaitable[list[Written]]]
) -> list[Written]:
    """Lets `act` write all rows, as they were when it begins."""

    async def main() -> list[Written]:
        pool = Pool(database.url)
        await pool.open()
        try:
            target = await pool.run(lambda c: resolution.read_target(c, WISH))
            rows = [row async for row in TableSource(pool, target).rows(None, force=False)]
            vectors = np.stack([vector_of(row.text, 8) for row in rows])
            return await act(open_sink(pool, target), rows, vectors)
        finally:
            await pool.close()

    return asyncio.run(main())


def count(session: Session, condition: str = "true") -> int:
    found = session.execute(f"SELECT count(*) FROM kept WHERE {condition}").fetchone()
    assert found is not None
    return int(found[0])


def test_of_writers_at_once_each_row_has_one_that_stored_it(
    database: Database, session: Session
) -> None:
    async def race(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        return await asyncio.gather(*(sink.write(rows, vectors, force=False) for _ in range(4)))

    found = write(database, race)
    assert sum(w.stored for w in found) == count(session) == ROWS
    assert sum(w.unchanged for w in found) == 3 * ROWS
    assert not any(w.refused or w.changed or w.vanished for w in found)


def test_an_edited_row_is_handed_back_and_a_deleted_one_left_out(
    database: Database, session: Session
) -> None:
    async def late(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        session.execute("UPDATE docs SET body = 'edited' WHERE id = 7")
        session.execute("UPDATE docs SET body = NULL WHERE id = 8")
        session.execute("DELETE FROM docs WHERE id = 9")
        return [await sink.write(rows, vectors, force=False)]

    (found,) = write(database, late)
    assert (found.stored, found.vanished, found.unchanged) == (ROWS - 3, 2, 0)
    assert [row.text for row in found.changed] == ["edited"]
    assert count(session, "id IN (7, 8, 9)") == 0


def test_an_edited_row_is_not_copied_with_the_others(database: Database, session: Session) -> None:
    async def late(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        session.execute("UPDATE docs SET body = 'edited' WHERE id = 7")
        return [await sink.write(rows, vectors, force=False)]

    (found,) = write(database, late)
    assert (found.stored, len(found.changed)) == (ROWS - 1, 1)
    assert count(session, "id = 7") == 0


@pytest.mark.parametrize("force", [False, True])
def test_a_vector_of_the_present_text_is_never_replaced_by_an_older_one(
    database: Database, session: Session, *, force: bool
) -> None:
    async def overtaken(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        session.execute("UPDATE docs SET body = 'edited' WHERE id = 7")
        session.execute(
            "INSERT INTO kept SELECT 7, array_fill(1, '{8}')::vector, 'small', 8,"
            " sha256('edited'), now()"
        )
        return [await sink.write(rows, vectors, force=force)]

    (found,) = write(database, overtaken)
    assert (found.stored, found.unchanged) == (ROWS - 1, 0 if force else 1)
    assert len(found.changed) == (1 if force else 0)
    assert count(session, "text_sha256 = sha256('edited')") == 1


def test_a_row_that_a_trigger_keeps_out_is_refused_and_the_others_are_stored(
    database: Database, session: Session
) -> None:
    session.execute(
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN CASE WHEN NEW.id = 7 THEN NULL ELSE NEW END; END $$;"
        "CREATE TRIGGER keep_out BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION keep_out()"
    )

    async def once(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        return [await sink.write(rows, vectors, force=False)]

    (found,) = write(database, once)
    assert (found.stored, count(session)) == (ROWS - 1, ROWS - 1)
    assert [(f.key, f.code) for f in found.refused] == [(("7",), "write_refused")]


def test_a_row_that_a_constraint_refuses_is_isolated(database: Database, session: Session) -> None:
    session.execute("ALTER TABLE kept ADD CHECK (id <> 7)")

    async def once(sink: Sink, rows: list[Row], vectors: Vectors) -> list[Written]:
        return [await sink.write(rows, vectors, force=False)]

    (found,) = write(database, once)
    assert (found.stored, count(session)) == (ROWS - 1, ROWS - 1)
    assert [(f.key, f.code) for f in found.refused] == [(("7",), "write_refused")]
