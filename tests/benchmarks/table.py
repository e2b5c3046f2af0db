"""The table to fill: made once from a seed, and put back after each measured process."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from embedmigrate.sample import resumes

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 1536
FILLED: LiteralString = "SELECT count(*) FROM resumes WHERE vector_dims(embedding) = 1536"
SIDE = "resume_vectors"
_RESUMES = 300
LONG, SHORT = 370, 8
"""Words of a text: about 3 KB as in a résumé, and about 55 bytes."""


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

    def restore(self, *, and_drop: tuple[str, ...] = (), side: bool = False) -> None:
        """No vector is left, nor anything else of the run before: no dead rows, no dirty pages.

        Args:
            and_drop: Tables of a contestant's own.
            side: Make an empty side table as well, as `embedmigrate init --sql` has it.
        """
        for name in ("resumes", *and_drop):
            drop = sql.SQL("DROP TABLE IF EXISTS {} CASCADE")
            self._session.execute(drop.format(sql.Identifier(name)))
        self._session.execute(
            sql.SQL(
                "CREATE TABLE resumes (key text PRIMARY KEY, body text NOT NULL,"
                " embedding {kind}({width}))"
            ).format(kind=self._kind, width=sql.Literal(WIDTH))
        )
        self._session.execute("INSERT INTO resumes (key, body) SELECT key, body FROM template")
        if side:
            ddl = sql.SQL(
                "CREATE TABLE {name} (key text PRIMARY KEY REFERENCES resumes"
                " ON DELETE CASCADE ON UPDATE CASCADE, embedding {kind}({width}) NOT NULL,"
                " model text NOT NULL, dimensions integer NOT NULL, text_sha256 bytea NOT NULL,"
                " embedded_at timestamptz NOT NULL DEFAULT now())"
            )
            named, width = sql.Identifier(SIDE), sql.Literal(WIDTH)
            self._session.execute(ddl.format(name=named, kind=self._kind, width=width))
        self._session.execute("VACUUM ANALYZE resumes")
        self._session.execute("CHECKPOINT")

    def resize(self, width: int) -> None:
        """Another width for the column, which is empty."""
        kind = sql.SQL("ALTER TABLE resumes ALTER embedding TYPE {kind}({width})")
        self._session.execute(kind.format(kind=self._kind, width=sql.Literal(width)))

    def count(self, query: LiteralString) -> int:
        """Such as FILLED."""
        return int(self._one(query))

    def written(self) -> int:
        """Bytes of the write-ahead log since the server was made."""
        return int(self._one("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    def server_cpu(self) -> float:
        """Seconds that the server's processes have used since it was started, ended ones too."""
        postmaster = int(self._one("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"))
        return processor_seconds(postmaster)

    def version(self) -> str:
        vector = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        return f"PostgreSQL {self._one('SHOW server_version')}, pgvector {self._one(vector)}"

    def close(self) -> None:
        self._session.close()

    def _one(self, query: LiteralString) -> str:
        row = self._session.execute(query).fetchone()
        assert row is not None
        return str(row[0])


def processor_seconds(parent: int) -> float:
    """Of a process, of its living children, and of those it has waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): the fourth field is the parent; 14 to 17 are utime, stime, cutime, cstime.
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
            if parent in {int(fields[1]), int(stat.parent.name)}:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def texts(rows: int, *, words: int, seed: int) -> Iterator[tuple[str, str]]:
    """Key and text; the keys are in no order, as cuid keys are not."""
    chance = random.Random(seed)
    # Real words: what does not occur in English costs a tokenizer a multiple.
    vocabulary = sorted(_words(resume.data for resume in resumes(_RESUMES)))
    for number in range(rows):
        key = f"c{chance.getrandbits(64):016x}{number:07d}"
        yield key, " ".join(chance.choices(vocabulary, k=words)).capitalize() + "."


def _words(value: object) -> set[str]:
    """Those of all strings in a document."""
    if isinstance(value, str):
        return {word for word in value.split() if word.strip(".,").isalpha()}
    if isinstance(value, dict):
        return _words(value.values())
    return set().union(*map(_words, value)) if isinstance(value, Iterable) else set()
