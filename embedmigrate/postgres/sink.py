"""Writes vectors in place: one guarded statement for a batch, around rows that others hold."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from embedmigrate.engine.model import Failure, Key, Row, Written
from embedmigrate.engine.vectors import Vectors
from embedmigrate.postgres import sql
from embedmigrate.postgres.batch_sink import (
    LOCK_SECONDS,
    LOCKED_PAUSE,
    LOCKED_TRIES,
    BatchSink,
    Locked,
    by_column,
    writing,
)
from embedmigrate.postgres.session import Connection, Database, transaction
from embedmigrate.postgres.target import Target
from embedmigrate.postgres.vectors import vector_array


class _Edited(Exception):  # noqa: N818  a signal within this module
    """A trigger gave rows another text in the very update: their vectors are of the old one."""

    def __init__(self, keys: set[Key]) -> None:
        super().__init__()
        self.keys = keys


class ColumnSink(BatchSink):
    """Fills the vector column of the row itself."""

    def __init__(self, database: Database, target: Target) -> None:
        super().__init__(database, target)
        self._updates: dict[bool, bytes] = {}

    async def write(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        try:
            return await super().write(rows, vectors, force=force)
        except _Edited as edited:
            return await self._write_others(edited.keys, rows, vectors, force=force)

    async def _write_others(
        self, edited: set[Key], rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> Written:
        kept = [n for n, row in enumerate(rows) if row.key not in edited]
        written = Written()
        if kept:
            written = await self.write([rows[n] for n in kept], vectors[kept], force=force)
        refused = (_edited(row.key) for row in rows if row.key in edited)
        return replace(written, refused=(*written.refused, *refused))

    async def _store(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[Key]]:
        try:
            done = await self._database.run(
                lambda connection: self._store_all(connection, rows, vectors, force=force)
            )
        except Locked:
            done = await self._store_around_locks(rows, vectors, force=force)
        return {tuple(r[:-1]) for r in done}, [tuple(r[:-1]) for r in done if r[-1]]

    async def _store_all(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> list[tuple[Any, ...]]:
        async with writing(connection, len(rows)):
            return await self._execute(connection, rows, vectors, force=force)

    async def _store_around_locks(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> list[tuple[Any, ...]]:
        """Rows that an application holds locked do not hold up the others: they come last."""
        waiting, done = list(range(len(rows))), list[tuple[Any, ...]]()
        for _ in range(LOCKED_TRIES):
            some, theirs = [rows[n] for n in waiting], vectors[waiting]
            free, stored = await self._database.run(
                lambda connection, some=some, theirs=theirs: self._store_free(  # type: ignore[misc]
                    connection, some, theirs, force=force
                )
            )
            done += stored
            waiting = [n for n in waiting if rows[n].key not in free]
            if not waiting:
                break
            await asyncio.sleep(LOCKED_PAUSE)
        return done

    async def _store_free(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[tuple[Any, ...]]]:
        async with transaction(connection, lock_seconds=LOCK_SECONDS):
            statement, keys = sql.unlocked(self._target), by_column([r.key for r in rows])
            locked = await (await connection.execute(statement, keys)).fetchall()
            free = set(locked)
            mine = [n for n, row in enumerate(rows) if row.key in free]
            if not mine:
                return free, []
            some, theirs = [rows[n] for n in mine], vectors[mine]
            return free, await self._execute(connection, some, theirs, force=force)

    async def _execute(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> list[tuple[Any, ...]]:
        t = self._target
        values = [
            *by_column([row.key for row in rows]),
            [row.digest for row in rows],
            vector_array(vectors, element=t.vector_type, oid=t.vector_oid),
        ]
        found = await (await connection.execute(self._update(connection, force), values)).fetchall()
        if edited := {tuple(r[:-2]) for r in found if r[-1]}:
            raise _Edited(edited)  # which takes the whole transaction back
        done = [r[:-1] for r in found]
        if not t.undoable or not done:
            return done
        written = [tuple(r[:-1]) for r in done]
        again = await connection.execute(sql.still_pending(t), by_column(written))
        undone = set(await again.fetchall())
        return [(*r[:-1], r[-1] or tuple(r[:-1]) in undone) for r in done]

    def _update(self, connection: Connection, force: bool) -> bytes:
        """Composed once: that takes longer than to send it."""
        if force not in self._updates:
            self._updates[force] = sql.update(self._target, force=force).as_bytes(connection)
        return self._updates[force]


def _edited(key: Key) -> Failure:
    message = "a trigger edits the text whenever the row is written; nothing was stored"
    return Failure(key, "trigger_edits_text", message)
