"""How much of a table is embedded, how much is left, and how long its texts are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from embedmigrate.engine.model import Key
from embedmigrate.errors import ConfigError
from embedmigrate.postgres import counting, side_sql, sql
from embedmigrate.postgres.session import Connection, Database, transaction
from embedmigrate.postgres.source import row
from embedmigrate.postgres.target import Target

_COUNT_SECONDS = 3600.0
_SAMPLE = 1000
_SMALLEST_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Census:
    """Rows within `--where`; `exact` is false where they come from the planner's statistics."""

    total: int
    without_text: int
    embedded: int
    missing: int
    stale: int
    exact: bool = True

    @property
    def eligible(self) -> int:
        return self.total - self.without_text

    @property
    def pending(self) -> int:
        return self.missing + self.stale

    @property
    def coverage(self) -> float:
        return self.embedded / self.eligible if self.eligible else 1.0


async def _fetch(
    database: Database, statement: Composed | SQL, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    async def read(connection: Connection) -> list[tuple[Any, ...]]:
        async with transaction(connection, statement_seconds=_COUNT_SECONDS, read_only=True):
            return await (await connection.execute(statement, values)).fetchall()

    return await database.read(read)


async def take(database: Database, t: Target) -> Census:
    """Count exactly: one pass over the table."""
    total, without, embedded, missing, stale = (await _fetch(database, counting.counts(t)))[0]
    return Census(total, without, embedded, missing, stale)


async def estimate(database: Database, t: Target) -> Census:
    """From `reltuples` and the null fraction of the last ANALYZE; blank texts are not known."""

    async def known(oid: int) -> tuple[int, float]:
        found = await _fetch(database, counting.ESTIMATES, (oid, oid, t.vector_column))
        return int(found[0][0]), float(found[0][1])

    total, null_fraction = await known(t.table_oid)
    missing = round(total * null_fraction)
    if t.side is not None:
        kept, null_fraction = await known(t.side.oid)
        missing = max(0, total - round(kept * (1 - null_fraction)))
    return Census(total, 0, total - missing, missing, 0, exact=False)


async def orphans(database: Database, t: Target) -> int | None:
    """Vectors in the side table whose row is gone; None where there is no side table."""
    if t.side is None:
        return None
    return int((await _fetch(database, side_sql.orphans(t, t.side)))[0][0])


async def selected(database: Database, t: Target, *, after: Key | None, force: bool) -> int:
    """Rows that a run would take."""
    values = list(after) if after and force else []
    statement = counting.count_selected(t, after=after is not None, force=force)
    return int((await _fetch(database, statement, values))[0][0])


async def repeated(database: Database, t: Target, *, force: bool) -> int:
    """Rows that a run would take and whose text it would have embedded already."""
    return int((await _fetch(database, counting.repeated(t, force=force)))[0][0])


async def sample_texts(
    database: Database, t: Target, *, rows: int, total: int, force: bool
) -> list[str]:
    """About a thousand of the texts that a run would send; all of them where they are few."""
    percent = None
    if rows > _SAMPLE * 2 and total:
        percent = min(100.0, 100.0 * _SAMPLE * 2 / rows)
    found = await _fetch(database, counting.sample(t, force=force, percent=percent), (_SAMPLE,))
    if percent is not None and len(found) < _SMALLEST_SAMPLE:
        found = await _fetch(database, counting.sample(t, force=force, percent=None), (_SAMPLE,))
    return [row(t, (), source).text for (source,) in found]


async def check_key(database: Database, t: Target, key: Key, origin: str) -> None:
    """Does the given key have the type of the table's?

    Raises:
        ConfigError: It does not, or it has the wrong number of columns.
    """
    names = ", ".join(f"{k.name} {k.type}" for k in t.key)
    if len(key) != len(t.key):
        raise ConfigError(
            f"{origin} names {len(key)} value(s), the key of {t.name} is ({names})",
            code="key_invalid",
            hint='a composite key is given as a JSON list: \'["a", "b"]\'',
        )

    async def cast(connection: Connection) -> None:
        async with transaction(connection, read_only=True):
            await connection.execute(sql.cast_key(t), key)

    try:
        await database.run(cast)
    except psycopg.DataError:
        raise ConfigError(
            f"{origin} does not fit the key of {t.name}: ({names})",
            code="key_invalid",
            hint="--resume-from takes a key as the database prints it, or last"
            if origin == "--resume-from"
            else "embedmigrate generate-one takes a key as the database prints it",
        ) from None
