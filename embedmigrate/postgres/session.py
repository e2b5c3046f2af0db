"""Connections: how they are opened, what their errors mean, and which of them pass."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from embedmigrate.errors import (
    DatabaseAuthError,
    DatabaseUnavailable,
    EmbedMigrateError,
    TargetError,
)
from embedmigrate.postgres import sql
from embedmigrate.postgres.address import parameters
from embedmigrate.postgres.vectors import VectorArray, VectorArrayDumper
from embedmigrate.secrets import redact

Connection: TypeAlias = AsyncConnection[TupleRow]
T = TypeVar("T")

# SQLSTATE classes and codes of a connection or a server that is going away, busy or full; and of
# a statement that met somebody else's: https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = ("08", "57P01", "57P02", "57P03", "25P03", "25P04", "25006", "40001", "40P01", "55P03")
_PASSING_LATER = ("53300", "53100", "53200", "57014")
_OF_THE_ROW = ("22", "23", "P0001")
_SPEAKING = ("08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57")
"""Classes whose messages name objects and settings; the others may quote what a row holds."""
_AUTHENTICATION = re.compile(
    r"password authentication failed|no password supplied|authentication failed"
    r"|no pg_hba\.conf entry|is not permitted to log in|role \"[^\"]*\" does not exist"
    r"|permission denied for database",
    re.IGNORECASE,
)
_NO_DATABASE = re.compile(r"database \"([^\"]*)\" does not exist")
_BACKOFF = wait_random_exponential(multiplier=0.2, max=10)
_KEEPALIVE: dict[str, Any] = {
    # A silent peer is given up after about 11 s; a black hole must not hold a batch for longer.
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def sqlstate(error: BaseException) -> str:
    return (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""


def passes(error: BaseException) -> bool:
    """Whether the same statement may succeed a little later."""
    if isinstance(error, PoolTimeout):
        return True
    state = sqlstate(error)
    if not state:  # libpq saw the connection die and the server had no last word
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(_PASSING + _PASSING_LATER)


def lost(error: BaseException) -> bool:
    """Whether the connection has ended or is of no more use, rather than none being free."""
    state = sqlstate(error) or ("" if isinstance(error, PoolTimeout) else "08")
    return passes(error) and state.startswith(("08", "57P0", "25006"))


def of_the_row(error: BaseException) -> bool:
    """Whether the data of one row is at fault: isolate it."""
    return sqlstate(error).startswith(_OF_THE_ROW)


def refusal(error: psycopg.Error, where: str) -> EmbedMigrateError:
    """What a failed connection attempt means; libpq gives no SQLSTATE for it, only words."""
    words = redact(str(error))
    if missing := _NO_DATABASE.search(words):
        return TargetError(
            f'database "{missing[1]}" does not exist on {where}',
            code="database_not_found",
            hint="check the last part of DATABASE_URL or --database-url; psql -l lists them",
        )
    if _AUTHENTICATION.search(words) or sqlstate(error).startswith("28"):
        return DatabaseAuthError(
            f"login refused by {where}",
            code="database_login_refused",
            facts=(_reason(words),),
            hint="GRANT CONNECT ON DATABASE ... TO ...;"
            if "permission denied" in words
            else "check user and password: ~/.pgpass, PGPASSWORD or the database URL",
        )
    return DatabaseUnavailable(
        f"cannot connect to {where}",
        code="database_unavailable",
        facts=(_reason(words) or type(error).__name__,),
        hint="is the server up, and are host and port in DATABASE_URL or --database-url right?",
    )


def _reason(words: str) -> str:
    """The line that says what is wrong; libpq adds details and advice below it."""
    lines = [line.strip() for line in words.splitlines()]
    return next((line for line in lines if "FATAL" in line), lines[0] if lines else "")


def meaning(error: BaseException) -> EmbedMigrateError:
    """A database error that ends the run, without the row that PostgreSQL may quote in it."""
    state = sqlstate(error)
    diagnosis = error.diag if isinstance(error, psycopg.Error) else None
    primary = diagnosis.message_primary if diagnosis else None
    # A context means a function of the operator's, which may word any error as it likes.
    if not primary or not state.startswith(_SPEAKING) or (diagnosis and diagnosis.context):
        primary = f"{type(error).__name__} {state}".strip()
    message = redact(primary)
    if state.startswith("28") or state == "42501":
        return DatabaseAuthError(
            f"the database refused: {message}",
            code="privilege_missing",
            hint="embedmigrate generate-all --dry-run names the GRANT that is missing",
        )
    if state.startswith(("42", "3D", "3F")):
        return TargetError(
            f"the target no longer fits: {message}",
            code="target_changed",
            hint="embedmigrate generate-all --dry-run",
        )
    if of_the_row(error):
        return TargetError(
            f"a row cannot be read: {message}",
            code="row_unreadable",
            facts=("The database's own words are not shown because they may quote the row.",),
            hint="correct --text-sql, or leave such rows out with --where",
        )
    if passes(error):
        return DatabaseUnavailable(
            f"the database stayed away: {message}",
            code="database_unavailable",
            hint="run the same command again later",
        )
    return EmbedMigrateError(
        f"unexpected database error: {message}",
        code="internal",
        hint="look into the server's log; what was embedded is saved",
    )


class Database:
    """A small pool whose every use is one short, repeatable piece of work.

    Args:
        url: A PostgreSQL URL or keyword string.
        run_id: Shown to administrators in `pg_stat_activity`.
        size: Connections at most.
        wait: Seconds that an outage may last in the middle of a run.
    """

    def __init__(self, url: str, *, run_id: str = "", size: int = 4, wait: float = 300.0) -> None:
        given = parameters(url)
        name = f"embedmigrate {run_id}".strip()
        self.parameters = _KEEPALIVE | given | {"application_name": name}
        self._wait = wait
        self._pool = AsyncConnectionPool[Connection](
            conninfo.make_conninfo(**self.parameters),
            min_size=1,
            max_size=size,
            open=False,
            timeout=min(15.0, max(wait, 1.0)),
            reconnect_timeout=5,
            configure=_configure,
            # No prepared statements: behind a pooler the next statement meets another session.
            kwargs={"autocommit": True, "prepare_threshold": None},
        )
        # The pool's log quotes connection errors as they are; ours say the same, redacted.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)

    @property
    def place(self) -> str:
        """`user@host:port/database`, as a person knows it; no password."""
        p = self.parameters
        user = f"{p['user']}@" if p.get("user") else ""
        port = f":{p['port']}" if p.get("port") else ""
        return f"{user}{p.get('host') or 'local socket'}{port}/{p.get('dbname') or ''}"

    async def connect(self) -> Connection:
        """A connection outside of the pool, for what must outlive a statement.

        Raises:
            DatabaseAuthError: Login refused.
            TargetError: No such database.
            DatabaseUnavailable: No answer.
        """
        try:
            connection = await AsyncConnection.connect(
                conninfo.make_conninfo(**self.parameters), autocommit=True, prepare_threshold=None
            )
        except psycopg.Error as error:
            raise refusal(error, self.place) from None
        await _configure(connection)
        return connection

    async def open(self) -> None:
        """Open the pool; a first connection of our own names the cause where it fails."""
        await (await self.connect()).close()
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close(timeout=5)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on a connection, again after errors that pass, each time from its start.

        Raises:
            DatabaseUnavailable: It did not pass in time.
            EmbedMigrateError: The error does not pass.
            psycopg.Error: The data of a row is at fault (`of_the_row`).
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception(passes),
            stop=stop_after_delay(self._wait),
            wait=self._pause,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    async with self._pool.connection() as connection:
                        return await self._using(connection, work)
        except (psycopg.Error, PoolTimeout) as error:
            if of_the_row(error):
                raise
            raise meaning(error) from None
        raise AssertionError("tenacity re-raises the last error")

    async def _using(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await work(connection)
        except psycopg.errors.ReadOnlySqlTransaction:
            await connection.close()  # after a failover only a new one finds the new server
            raise

    def _pause(self, state: RetryCallState) -> float:
        """None after a connection that died while it lay idle: the next may be dead, or new."""
        error = state.outcome.exception() if state.outcome else None
        if error and lost(error) and state.attempt_number <= self._pool.max_size:
            return 0.0
        return _BACKOFF(state)

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As `run`, for work that has no row of its own to blame.

        Raises:
            TargetError: The text of some row cannot be made.
        """
        try:
            return await self.run(work)
        except psycopg.Error as error:
            raise meaning(error) from None


async def _configure(connection: Connection) -> None:
    await asyncio.sleep(0)
    connection.adapters.register_dumper(VectorArray, VectorArrayDumper)


@asynccontextmanager
async def transaction(
    connection: Connection,
    *,
    statement_seconds: float = 60.0,
    lock_seconds: float = 2.0,
    read_only: bool = False,
) -> AsyncIterator[None]:
    """One short transaction; rolled back on any error."""
    begin = sql.transaction(
        statement_ms=round(statement_seconds * 1000),
        lock_ms=round(lock_seconds * 1000),
        read_only=read_only,
    )
    await connection.execute(begin)
    try:
        yield
    except BaseException:
        if not connection.closed:
            await connection.rollback()
        raise
    await connection.commit()
