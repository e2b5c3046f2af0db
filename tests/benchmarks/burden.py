"""`python -m tests.benchmarks.burden`: what a live index or a row trigger makes of the writing.

Vectors at random over an index that holds as many already, in the batches and with the statement of
a run but no provider, so that the server is all that is measured.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, LiteralString

import numpy as np
import psycopg
from psycopg import sql

from embedmigrate.postgres.vectors import VectorArray, VectorArrayDumper, vector_array
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


def rows_per_second(url: str, case: LiteralString, rows: int, width: int) -> float:
    """`rows` of them, the half of the table that is still empty."""
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
        began = time.perf_counter()
        _write(session, vectors[rows:], rows)
        return rows / (time.perf_counter() - began)


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
    given = parser.parse_args()
    server = PostgresServer.start(durable=True)
    try:
        server.create_database("burden")
        for name, case in CASES.items():
            found = sorted(
                rows_per_second(server.dsn("burden"), case, given.rows, given.width)
                for _ in range(given.rounds)
            )
            print(f"{name:<8} {', '.join(f'{rate:,.0f}' for rate in found)} rows/s", flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
