"""Reads rows by key, page after page; a page is bounded by rows and by bytes."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedmigrate.engine.model import Key, Row
from embedmigrate.postgres import sql
from embedmigrate.postgres.durability import settle
from embedmigrate.postgres.session import Connection, Database, transaction
from embedmigrate.postgres.target import Target, TextKind
from embedmigrate.postgres.text import readable

_PAGE_ROWS = 1000
_PAGE_BYTES = 8 * 1024 * 1024
_READ_SECONDS = 600.0
"""One page may have to walk past all rows that have a vector already."""


def row(t: Target, key: Key, source: str) -> Row:
    """The row as the engine takes it: rendered text, and the hash of what it was made from."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
    text = readable(source) if t.text.kind is TextKind.JSON else source
    return Row(key, text, digest)


@dataclass(frozen=True, slots=True)
class Found:
    """A row looked up by its key."""

    row: Row
    eligible: bool
    pending: bool


async def find(database: Database, t: Target, keys: Sequence[Key]) -> list[Found]:
    """Those of the keyed rows that exist, in key order."""
    columns = [list(column) for column in zip(*keys, strict=True)]

    async def look(connection: Connection) -> list[tuple[Any, ...]]:
        async with transaction(connection, statement_seconds=_READ_SECONDS, read_only=True):
            return await (await connection.execute(sql.by_keys(t), columns)).fetchall()

    return [
        Found(row(t, tuple(r[:-3]), r[-3] or ""), eligible=r[-2], pending=r[-1])
        for r in await database.read(look)
    ]


class TableSource:
    """Walks the whole table by keyset: never OFFSET, which skips rows while the queue shrinks."""

    def __init__(
        self,
        database: Database,
        target: Target,
        *,
        page_rows: int = _PAGE_ROWS,
        page_bytes: int = _PAGE_BYTES,
    ) -> None:
        self._database = database
        self._target = target
        self._page_rows = page_rows
        self._page_bytes = page_bytes

    async def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:
        await settle(self._database)
        cursor = after
        while True:
            page = await self._page(cursor, force=force)
            size = 0
            for key, source in page:
                size += len(source)
                yield row(self._target, key, source)
            # The server may have ended the page early for its bytes; characters are at most that.
            if not page or (len(page) < self._page_rows and size * 4 < self._page_bytes):
                return
            # The cursor is the last row in the order of the database, not of Python.
            cursor = page[-1][0]

    async def _page(self, after: Key | None, *, force: bool) -> list[tuple[Key, str]]:
        statement = sql.page(self._target, after=after is not None, force=force)
        values = [*(after or ()), self._page_rows, self._page_bytes]

        async def read(connection: Connection) -> list[tuple[Any, ...]]:
            async with transaction(connection, statement_seconds=_READ_SECONDS, read_only=True):
                return await (await connection.execute(statement, values)).fetchall()

        return [(tuple(r[:-1]), r[-1]) for r in await self._database.read(read)]


class KeyedSource:
    """Only the given rows, for `generate-one` and `--retry-failed`; in the order of the keys."""

    def __init__(self, database: Database, target: Target, keys: Sequence[Key]) -> None:
        self._database = database
        self._target = target
        self._keys = keys

    async def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:  # noqa: ARG002
        for start in range(0, len(self._keys), _PAGE_ROWS):
            chunk = self._keys[start : start + _PAGE_ROWS]
            for found in await find(self._database, self._target, chunk):
                if found.eligible and (force or found.pending):
                    yield found.row
