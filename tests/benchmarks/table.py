"""The table to fill: made once from a seed, and put back after each measured process."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 1536
LONG, SHORT = 430, 8
"""Words of a text: about 3 KB as in a résumé, and about 60 bytes."""
_SYLLABLES = ("ka", "ro", "min", "tel", "sha", "ver", "ing", "ot", "pra", "lu", "den", "si", "ma")


class Table:
    """`resumes (key text, body text, embedding)`, which `restore` makes new from a template."""

    def __init__(self, url: str, kind: LiteralString) -> None:
        self.url = url
        self.rows = 0
        self._kind = sql.SQL(kind)
        self._session = psycopg.connect(url, autocommit=True)
        self._session.execute("CREATE EXTENSION IF NOT EXISTS vector")

    def fill(self, rows: int, *, words: int, seed: int) -> None:
        """The template's rows; whatever was there before goes."""
        self._session.execute("DROP TABLE IF EXISTS template, resumes")
        self._session.execute("CREATE TABLE template (key text, body text)")
        with self._session.cursor() as cursor, cursor.copy("COPY template FROM STDIN") as copy:
            for row in texts(rows, words=words, seed=seed):
                copy.write_row(row)
        self.rows = rows

    def restore(self) -> None:
        """No vector is left, nor anything else of the run before: no dead rows, no dirty pages."""
        self._session.execute("DROP TABLE IF EXISTS resumes")
        self._session.execute(
            sql.SQL(
                "CREATE TABLE resumes (key text PRIMARY KEY, body text NOT NULL,"
                " embedding {kind}({width}))"
            ).format(kind=self._kind, width=sql.Literal(WIDTH))
        )
        self._session.execute("INSERT INTO resumes (key, body) SELECT key, body FROM template")
        self._session.execute("VACUUM ANALYZE resumes")
        self._session.execute("CHECKPOINT")

    def filled(self) -> int:
        """Rows that have a vector of the right width."""
        return int(self._one("SELECT count(*) FROM resumes WHERE vector_dims(embedding) > 0"))

    def written(self) -> int:
        """Bytes of the write-ahead log since the server was made."""
        return int(self._one("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    def version(self) -> str:
        vector = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        return f"PostgreSQL {self._one('SHOW server_version')}, pgvector {self._one(vector)}"

    def settings(self) -> dict[str, str]:
        """Those that would make a measurement worth nothing if they were not the defaults."""
        names = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
        return {name: self._one(f"SHOW {name}") for name in names}  # type: ignore[arg-type]

    def close(self) -> None:
        self._session.close()

    def _one(self, query: LiteralString) -> str:
        row = self._session.execute(query).fetchone()
        assert row is not None
        return str(row[0])


def texts(rows: int, *, words: int, seed: int) -> Iterator[tuple[str, str]]:
    """Key and text; the keys are in no order, as cuid keys are not."""
    chance = random.Random(seed)
    vocabulary = ["".join(chance.choices(_SYLLABLES, k=k)) for k in (1, 2, 2, 3, 3, 4) * 400]
    for number in range(rows):
        key = f"c{chance.getrandbits(64):016x}{number:07d}"
        yield key, " ".join(chance.choices(vocabulary, k=words)).capitalize() + "."
