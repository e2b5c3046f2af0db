"""What every way to write a batch has in common: isolate a refused row, explain what was left."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg

from embedmigrate.engine.model import Failure, Key, Row, Written
from embedmigrate.engine.vectors import Vectors
from embedmigrate.errors import TargetError
from embedmigrate.postgres.query import fetch_all
from embedmigrate.postgres.session import Connection, Database, sqlstate, transaction
from embedmigrate.postgres.source import find
from embedmigrate.postgres.target import Target

LOCK_SECONDS = 1.0
LOCKED_TRIES = 30
LOCKED_PAUSE = 2.0
"""Seconds between two tries of rows that somebody else holds locked."""
_WIDTH: LiteralString = (
    "SELECT atttypmod FROM pg_attribute"
    " WHERE attrelid = %s::bigint::oid AND attname = %s AND NOT attisdropped"
)


class Locked(Exception):  # noqa: N818  a signal between a sink's steps
    """Some rows of the batch are locked by somebody else."""


class TooSlow(Exception):  # noqa: N818  a signal between a sink's steps
    """A limit on time ended the statement or the transaction: half as much may fit."""


class BatchSink(ABC):
    """Stores what is still right to store; a subclass knows where and how."""

    def __init__(self, database: Database, target: Target) -> None:
        self._database = database
        self._target = target

    @abstractmethod
    async def _store(
        self, rows: Sequence[Row], vectors: Vectors, *, force: bool
    ) -> tuple[set[Key], list[Key]]:
        """Keys written, and those of them that a trigger made pending again at once.

        Raises:
            TooSlow: The batch is too large for the limits on time.
            psycopg.Error: The data of a row is at fault.
        """

    async def write(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        try:
            written, restless = await self._store(rows, vectors, force=force)
        except TooSlow:
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

    async def _check_width(self) -> None:
        """The column may have been changed under the run: then it is not the row's fault.

        Raises:
            TargetError: It has another width by now.
        """
        t = self._target
        values = (t.vectors_oid, t.vector_column)
        found = await self._database.read(lambda c: fetch_all(c, _WIDTH, values))
        if found and found[0][0] != t.dimensions:
            raise TargetError(
                f"{t.place} has another width than when the run began",
                code="target_changed",
                hint="embedmigrate generate-all --dry-run",
            )

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


@asynccontextmanager
async def writing(
    connection: Connection, rows: int, *, lock_seconds: float = LOCK_SECONDS
) -> AsyncIterator[None]:
    """A transaction for so many rows, whose limits on time are signals.

    Raises:
        Locked: A row's lock was not free in time.
        TooSlow: It took too long, and half as many rows may not.
    """
    try:
        async with transaction(connection, lock_seconds=lock_seconds):
            yield
    except psycopg.errors.LockNotAvailable:
        raise Locked from None
    except (psycopg.errors.QueryCanceled, psycopg.errors.TransactionTimeout):
        if rows > 1:
            raise TooSlow from None
        raise


def by_column(keys: Sequence[Key]) -> list[list[str]]:
    return [list(column) for column in zip(*keys, strict=True)]


def _refused(key: Key, error: psycopg.Error) -> Failure:
    """By SQLSTATE only: the message may quote the row."""
    return Failure(key, "write_refused", f"the database refused the row ({sqlstate(error)})")


def _restless(key: Key) -> Failure:
    message = "a trigger makes the row pending again as soon as its vector is written"
    return Failure(key, "trigger_undoes_write", message)
