"""How much the server bears beside the run: replicas that lag, WAL, and what the operator asks."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL

from embedmigrate.errors import DatabaseAuthError, TargetError
from embedmigrate.postgres.session import Connection, Database, transaction

_MB = 1_000_000
_QUERY_SECONDS = 5.0
_LAG = (
    "SELECT count(*), count(state), coalesce(extract(epoch FROM max(replay_lag)), 0)::float8,"
    " (pg_current_wal_flush_lsn() - '0/0')::float8,"
    " (min(replay_lsn) FILTER (WHERE pid NOT IN (SELECT active_pid FROM pg_replication_slots"
    " WHERE slot_type = 'logical' AND active_pid IS NOT NULL)) - '0/0')::float8"
    " FROM pg_stat_replication WHERE application_name NOT LIKE 'pg_basebackup%'"
)
"""`replay_lag` is NULL for a replica that has caught up and hears nothing new, and that of the
last answer for one that does not answer: hence the two positions in the log."""
_WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run keeps to; None for no limit.

    Attributes:
        replica_lag: Seconds that the slowest replica may be behind.
        wal_rate: MB of WAL that the whole server may write in a second, on average.
        query: SQL whose one value stops the run while it is true or above 0.
    """

    replica_lag: float | None = None
    wal_rate: float | None = None
    query: str | None = None

    def __bool__(self) -> bool:
        return (self.replica_lag, self.wal_rate, self.query) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Strain:
    """A limit that is passed: its name, and the seconds after which it may be no more."""

    reason: str
    seconds: float


class Load:
    """Looks at the server again and again; each look is a few short statements."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._limits = limits
        self._every = every
        self._clock = clock
        self._flushed = deque[tuple[float, float]]()
        self._wal: tuple[float, float] | None = None
        self._owed = 0.0

    @property
    def limited(self) -> bool:
        return bool(self._limits)

    async def check(self) -> None:
        """Before the run: can each limit be seen at all?

        Raises:
            DatabaseAuthError: The role does not see the replicas.
            TargetError: The query is not one that gives one value.
        """
        if self._limits.replica_lag is not None:
            replicas, visible, *_ = await self._one(_LAG)
            if replicas and not visible:
                raise DatabaseAuthError(
                    "this role does not see how far the replicas are",
                    code="privilege_missing",
                    hint="GRANT pg_monitor TO the role of the run, or leave out --max-replica-lag",
                )
        if self._limits.query is not None:
            await self._asked()

    async def strain(self) -> Strain | None:
        """The first limit that is passed now."""
        most = self._limits.replica_lag
        if most is not None and await self._lag() > most:
            return Strain("replica_lag", 2 * self._every)
        if self._limits.wal_rate is not None and (wait := await self._wal_debt()):
            return Strain("wal_rate", wait)
        if self._limits.query is not None and await self._asked():
            return Strain("throttle_query", 2 * self._every)
        return None

    async def _lag(self) -> float:
        """Seconds that the slowest replica is behind at least, by what it says or does not say."""
        _, _, told, flushed, replayed = await self._one(_LAG)
        now = self._clock()
        self._flushed.append((now, flushed))
        while self._flushed and (replayed is None or self._flushed[0][1] <= replayed):
            self._flushed.popleft()
        behind_since = self._flushed[0][0] if self._flushed else now
        return max(float(told), now - behind_since)

    async def _wal_debt(self) -> float:
        """Seconds until what was written is within the rate again: a token bucket of bytes."""
        rate = (self._limits.wal_rate or 0.0) * _MB
        (position,) = await self._one(_WAL)
        now, before = self._clock(), self._wal
        self._wal = (position, now)
        if before is None:
            return 0.0
        self._owed = max(0.0, self._owed + position - before[0] - rate * (now - before[1]))
        return self._owed / rate

    async def _asked(self) -> bool:
        query = self._limits.query or ""
        try:
            row = await self._one(query)
        except (psycopg.Error, TargetError) as error:
            raise _unfit(str(error).partition("\n")[0]) from None
        if len(row) != 1 or not isinstance(row[0], bool | int | float):
            raise _unfit("it must give one value, true or false or a number")
        return bool(row[0] > 0)

    async def _one(self, query: str) -> tuple[Any, ...]:
        async def look(connection: Connection) -> tuple[Any, ...]:
            async with transaction(connection, statement_seconds=_QUERY_SECONDS, read_only=True):
                try:
                    found = await (await connection.execute(SQL(query))).fetchone()
                except psycopg.errors.ReadOnlySqlTransaction:  # which otherwise is a failover
                    raise _unfit("it writes") from None
            return found or ()

        return await self._database.run(look)


def _unfit(why: str) -> TargetError:
    return TargetError(
        f"--throttle-query cannot be used: {why}",
        code="selection_invalid",
        hint="--throttle-query 'SELECT count(*) > 50 FROM pg_stat_activity WHERE state = ...'",
    )
