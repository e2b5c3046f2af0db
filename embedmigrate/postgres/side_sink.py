"""Writes vectors into a side table: new ones by binary COPY, all others by a guarded merge."""

import asyncio
from collections.abc import Sequence

from psycopg import errors

from embedmigrate.engine.model import Key, Row
from embedmigrate.engine.vectors import Vectors
from embedmigrate.postgres import side_sql
from embedmigrate.postgres.batch_sink import (
    LOCK_SECONDS,
    LOCKED_PAUSE,
    LOCKED_TRIES,
    BatchSink,
    Locked,
    by_column,
    writing,
)
from embedmigrate.postgres.copying import Origin, copied
from embedmigrate.postgres.session import Connection, Database
from embedmigrate.postgres.target import SideTable, Target
from embedmigrate.postgres.vectors import vector_array

_SHORT_LOCK_SECONDS = 0.05
"""For one row of a batch in which somebody holds a lock: the others shall not wait for it."""


class _NotAll(Exception):  # noqa: N818  a signal within this module
    """Some rows of the batch cannot be copied: the merge finds out which."""


class SideTableSink(BatchSink):
    """Keeps each vector with the hash of the text that it is of.

    No row of the source is locked by us: an edit after the look at the text leaves a vector that
    its own hash shows to be stale, just as an edit after the commit does. A row that is deleted
    takes its vector with it, or keeps it out, by the foreign key.
    """

    def __init__(self, database: Database, target: Target, side: SideTable) -> None:
        super().__init__(database, target)
        self._side = side

    async def _store(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[Key]]:
        try:
            return await self._run(rows, vectors, force=force, lock_seconds=LOCK_SECONDS), []
        except Locked:
            return await self._store_around_locks(rows, vectors, force=force), []

    async def _store_around_locks(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> set[Key]:
        """Row by row: to tell the locked ones would need a privilege to update the source."""
        waiting, done = list(range(len(rows))), set[Key]()
        for _ in range(LOCKED_TRIES):
            locked = []
            for n in waiting:
                one, its = rows[n : n + 1], vectors[n : n + 1]
                try:
                    done |= await self._run(one, its, force=force, lock_seconds=_SHORT_LOCK_SECONDS)
                except Locked:
                    locked.append(n)
            waiting = locked
            if not waiting:
                break
            await asyncio.sleep(LOCKED_PAUSE)
        return done

    async def _run(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool, lock_seconds: float
    ) -> set[Key]:
        async def work(connection: Connection) -> set[Key]:
            if self._side.copies and not force:
                try:
                    async with writing(connection, len(rows), lock_seconds=lock_seconds):
                        return await self._copy(connection, rows, vectors)
                except (_NotAll, errors.UniqueViolation, errors.ForeignKeyViolation):
                    pass  # taken back as a whole
            async with writing(connection, len(rows), lock_seconds=lock_seconds):
                return await self._merge(connection, rows, vectors, force=force)

        try:
            return await self._database.run(work)
        except errors.ForeignKeyViolation:  # deleted under the merge, which will not see it again
            return await self._database.run(work)

    async def _copy(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors
    ) -> set[Key]:
        t, side = self._target, self._side
        values = [*by_column([row.key for row in rows]), [row.digest for row in rows]]
        cursor = await connection.execute(side_sql.new_among(t), values)
        found = await cursor.fetchone()
        if not found or found[0] < len(rows):
            raise _NotAll
        data = copied(
            rows,
            vectors,
            Origin(side.model, found[1]),
            key_types=[k.type for k in t.key],
            element=t.vector_type,
        )
        async with connection.cursor() as copying:
            async with copying.copy(side_sql.copy(t, side)) as stream:
                await stream.write(data)
            if copying.rowcount < len(rows):
                raise _NotAll  # a trigger suppressed some
        return {row.key for row in rows}

    async def _merge(
        self, connection: Connection, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> set[Key]:
        t = self._target
        values = [
            *by_column([row.key for row in rows]),
            [row.digest for row in rows],
            vector_array(vectors, element=t.vector_type, oid=t.vector_oid),
        ]
        cursor = await connection.execute(side_sql.merge(t, self._side, force=force), values)
        return {tuple(key) for key in await cursor.fetchall()}
