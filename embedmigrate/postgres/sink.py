"""Writes vectors in place: one guarded statement for a batch, and a second look at what it left."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString

import psycopg

from embedmigrate.engine.model import Failure, Key, Row, Written
from embedmigrate.engine.vectors import Vectors
from embedmigrate.errors import TargetError
from embedmigrate.postgres import sql
from embedmigrate.postgres.query import fetch_all
from embedmigrate.postgres.session import (
    Connection,
    Database,
    sqlstate,
    transaction,
)
from embedmigrate.postgres.source import find
from embedmigrate.postgres.target import Target
from embedmigrate.postgres.vectors import vector_array

_LOCK_SECONDS = 1.0
_LOCKED_TRIES = 30
_LOCKED_PAUSE = 2.0
_WIDTH: LiteralString = (
    "SELECT atttypmod FROM pg_attribute"
    " WHERE attrelid = %s::bigint::oid AND attname = %s AND NOT attisdropped"
)


class _Locked(Exception):  # noqa: N818  a signal within this module
    """Some rows of the batch are locked by somebody else."""


class _TooSlow(Exception):  # noqa: N818  a signal within this module
    """A limit on time ended the statement or the transaction: half as much may fit."""


class _Edited(Exception):  # noqa: N818  a signal within this module
    """A trigger gave rows another text in the very update: their vectors are of the old one."""

    def __init__(self, keys: set[Key]) -> None:
        super().__init__()
        self.keys = keys


class ColumnSink:
    """Fills the vector column of the row itself."""

    def __init__(self, database: Database, target: Target) -> None:
        self._database = database
        self._target = target

    async def write(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        try:
            written, restless = await self._update(rows, vectors, force=force)
        except _Edited as edited:
            return await self._write_others(edited.keys, rows, vectors, force=force)
        except _TooSlow:
            return await self._write_halves(rows, vectors, force=force)
        except psycopg.Error as error:
            await self._check_width()
            if len(rows) == 1:
                return Written(refused=(_refused(rows[0].key, error),))
            return await self._write_halves(rows, vectors, force=force)
        left = [row for row in rows if row.key not in written]
        found = await self._second_look(left, force=force) if left else Written()
        return Written(
            stored=len(written) - len(restless),
            unchanged=found.unchanged,
            vanished=found.vanished,
            changed=found.changed,
            refused=(*found.refused, *map(_restless, restless)),
        )

    async def _write_halves(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        """The batch is too slow, or refused for one row's sake: find it, store the others."""
        middle = len(rows) // 2
        first = await self.write(rows[:middle], vectors[:middle], force=force)
        second = await self.write(rows[middle:], vectors[middle:], force=force)
        return Written(
            first.stored + second.stored,
            first.unchanged + second.unchanged,
            first.vanished + second.vanished,
            first.changed + second.changed,
            first.refused + second.refused,
        )

    async def _write_others(
        self, edited: set[Key], rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> Written:
        kept = [n for n, row in enumerate(rows) if row.key not in edited]
        written = Written()
        if kept:
            written = await self.write([rows[n] for n in kept], vectors[kept], force=force)
        refused = (_edited(row.key) for row in rows if row.key in edited)
        return replace(written, refused=(*written.refused, *refused))

    async def _check_width(self) -> None:
        """The column may have been changed under the run: then it is not the row's fault.

        Raises:
            TargetError: It has another width by now.
        """
        t = self._target
        values = (t.table_oid, t.vector_column)
        found = await self._database.read(lambda c: fetch_all(c, _WIDTH, values))
        if found and found[0][0] != t.dimensions:
            raise TargetError(
                f"{t.name}.{t.vector_column} has another width than when the run began",
                code="target_changed",
                hint="embedmigrate generate-all --dry-run",
            )

    async def _update(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[Key]]:
        """Keys written, and those of them that a trigger made pending again at once."""
        try:
            done = await self._database.run(
                lambda connection: self._store(connection, rows, vectors, force=force)
            )
        except _Locked:
            done = await self._store_around_locks(rows, vectors, force=force)
        return {tuple(r[:-1]) for r in done}, [tuple(r[:-1]) for r in done if r[-1]]

    async def _store(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> list[tuple[Any, ...]]:
        try:
            async with transaction(connection, lock_seconds=_LOCK_SECONDS):
                return await self._execute(connection, rows, vectors, force=force)
        except psycopg.errors.LockNotAvailable:
            raise _Locked from None
        except (psycopg.errors.QueryCanceled, psycopg.errors.TransactionTimeout):
            if len(rows) > 1:
                raise _TooSlow from None
            raise

    async def _store_around_locks(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> list[tuple[Any, ...]]:
        """Rows that an application holds locked do not hold up the others: they come last."""
        waiting, done = list(range(len(rows))), list[tuple[Any, ...]]()
        for _ in range(_LOCKED_TRIES):
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
            await asyncio.sleep(_LOCKED_PAUSE)
        return done

    async def _store_free(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[tuple[Any, ...]]]:
        async with transaction(connection, lock_seconds=_LOCK_SECONDS):
            statement, keys = sql.unlocked(self._target), _by_column([r.key for r in rows])
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
            *_by_column([row.key for row in rows]),
            [row.digest for row in rows],
            vector_array(vectors, element=t.vector_type, oid=t.vector_oid),
        ]
        found = await (await connection.execute(sql.update(t, force=force), values)).fetchall()
        if edited := {tuple(r[:-2]) for r in found if r[-1]}:
            raise _Edited(edited)  # which takes the whole transaction back
        done = [r[:-1] for r in found]
        if not t.undoable or not done:
            return done
        written = [tuple(r[:-1]) for r in done]
        again = await connection.execute(sql.still_pending(t), _by_column(written))
        undone = set(await again.fetchall())
        return [(*r[:-1], r[-1] or tuple(r[:-1]) in undone) for r in done]

    async def _second_look(self, rows: Sequence[Row], *, force: bool) -> Written:
        """Why rows were not written: gone, filled by somebody else, or changed meanwhile."""
        sent = {row.key: row for row in rows}
        found = await find(self._database, self._target, list(sent))
        unchanged, vanished = 0, len(sent) - len(found)
        changed, refused = list[Row](), list[Failure]()
        for now in found:
            if not now.eligible:
                vanished += 1
            elif not now.pending and not force:
                unchanged += 1
            elif now.row.digest != sent[now.row.key].digest:
                changed.append(now.row)
            else:
                message = "the row stayed locked, or a trigger suppressed the update"
                refused.append(Failure(now.row.key, "write_refused", message, retryable=True))
        return Written(0, unchanged, vanished, tuple(changed), tuple(refused))


def _by_column(keys: Sequence[Key]) -> list[list[str]]:
    return [list(column) for column in zip(*keys, strict=True)]


def _refused(key: Key, error: psycopg.Error) -> Failure:
    """By SQLSTATE only: the message may quote the row."""
    return Failure(key, "write_refused", f"the database refused the row ({sqlstate(error)})")


def _edited(key: Key) -> Failure:
    message = "a trigger edits the text whenever the row is written; nothing was stored"
    return Failure(key, "trigger_edits_text", message)


def _restless(key: Key) -> Failure:
    message = "a trigger makes the row pending again as soon as its vector is written"
    return Failure(key, "trigger_undoes_write", message)
