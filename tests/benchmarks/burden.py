"""`python -m tests.benchmarks.burden`: what a live index or a row trigger makes of the writing.

Vectors at random over an index that holds as many already, in batches as those of a run, with an
UPDATE and no provider. What counts is the server's processor time, whatever else the machine does.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, LiteralString

import numpy as np
import psycopg
from psycopg import sql

from embedmigrate.postgres.vectors import VectorArray, VectorArrayDumper, vector_array
from tests.benchmarks.table import processor_seconds
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from psycopg.rows import TupleRow

    from embedmigrate.engine.vectors import Vectors

BATCH = 128
CASES: dict[str, LiteralString] = {
    "nothing": "SELECT",
    "hnsw": "CREATE INDEX ON t USING hnsw (embedding vector_cosine_ops)",
    "ivfflat": "CREATE INDEX ON t USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)",
    "trigger": "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN NEW.seen := now(); RETURN NEW; END$$;"
    " CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()",
}
UPDATE: LiteralString = (
    "UPDATE t SET embedding = n.v FROM unnest(%b::int[], %b::vector[]) AS n(k, v) WHERE id = n.k"
)


def microseconds(url: str, case: LiteralString, rows: int, width: int) -> float:
    """Of the server for one of the `rows` in the half of the table that is still empty."""
    vectors = np.random.default_rng(1).standard_normal((2 * rows, width), dtype=np.float32)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS vector")
        session.execute("DROP TABLE IF EXISTS t; DROP FUNCTION IF EXISTS touch")
        session.execute(
            sql.SQL(
                "CREATE TABLE t (id int PRIMARY KEY, body text, seen timestamptz,"
                " embedding vector({}))"
            ).format(sql.Literal(width))
        )
        session.adapters.register_dumper(VectorArray, VectorArrayDumper)
        session.execute(
            "INSERT INTO t SELECT n, repeat('word ', 600) FROM generate_series(0, %s) n",
            (2 * rows - 1,),
        )
        _write(session, vectors[:rows], 0)
        session.execute(case)
        session.execute("VACUUM ANALYZE t")
        session.execute("CHECKPOINT")
        row = session.execute("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")
        server = int((row.fetchone() or ("",))[0])
        before = processor_seconds(server)
        _write(session, vectors[rows:], rows)
        return (processor_seconds(server) - before) * 1e6 / rows


def _write(session: psycopg.Connection[TupleRow], vectors: Vectors, first: int) -> None:
    row = session.execute("SELECT 'vector'::regtype::oid").fetchone()
    assert row
    for at in range(0, len(vectors), BATCH):
        some = vectors[at : at + BATCH]
        keys = list(range(first + at, first + at + len(some)))
        session.execute(UPDATE, (keys, vector_array(some, element="vector", oid=row[0])))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.burden", description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(CASES), action="append")
    given = parser.parse_args()
    server = PostgresServer.start(durable=True)
    try:
        server.create_database("burden")
        for name in given.only or CASES:
            found = sorted(
                microseconds(server.dsn("burden"), CASES[name], given.rows, given.width)
                for _ in range(given.rounds)
            )
            middle = found[len(found) // 2]
            each = ", ".join(f"{one:,.0f}" for one in found)
            print(f"{name:<8} {each} µs a row, {1e6 / middle:,.0f} rows/s on one core", flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
