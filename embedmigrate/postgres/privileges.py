"""May this role do the job, does the server understand it, and what will make it slow?"""

from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL

from embedmigrate.errors import DatabaseAuthError, TargetError
from embedmigrate.postgres import sql
from embedmigrate.postgres.query import fetch_all, fetch_one
from embedmigrate.postgres.session import Connection
from embedmigrate.postgres.side_sql import KEPT
from embedmigrate.postgres.target import Target

_ON_INSERT, _ON_UPDATE = 4, 16
"""Bits of `pg_trigger.tgtype` (src/include/catalog/pg_trigger.h)."""


async def check_privileges(connection: Connection, t: Target) -> None:
    """May this role read what is embedded and write the vector?

    Raises:
        DatabaseAuthError: With the GRANT that is missing; `details` name the privilege.
    """
    read = [*(k.name for k in t.key), *t.text.columns]
    source = _Table(t.schema, t.name, t.table_oid)
    if t.side is None:
        await _usage(connection, source)
        await _columns(connection, source, "SELECT", [*read, t.vector_column])
        await _columns(connection, source, "UPDATE", written(t))
        return
    side = _Table(t.side.schema, t.side.name, t.side.oid)
    for each in (source, side):
        await _usage(connection, each)
    await _columns(connection, source, "SELECT", read)
    for privilege in ("SELECT", "INSERT", "UPDATE"):
        await _columns(connection, side, privilege, written(t))


def written(t: Target) -> list[str]:
    """The columns that a run fills."""
    if t.side is not None:
        return [*(k.name for k in t.key), t.vector_column, *KEPT]
    return [t.vector_column, *filter(None, [t.updated_at_column])]


@dataclass(frozen=True, slots=True)
class _Table:
    schema: str
    name: str
    oid: int


async def _usage(connection: Connection, table: _Table) -> None:
    user = connection.info.user
    usage = "SELECT has_schema_privilege(%s, 'USAGE')"
    if not (await fetch_one(connection, usage, (table.schema,)))[0]:
        raise DatabaseAuthError(
            f'role "{user}" may not use the schema {table.schema}',
            code="privilege_missing",
            hint=f"GRANT USAGE ON SCHEMA {table.schema} TO {user};",
            details={"privilege": "USAGE"},
        )


async def _columns(connection: Connection, table: _Table, privilege: str, names: list[str]) -> None:
    user = connection.info.user
    for name in names:
        allowed = await fetch_one(
            connection,
            "SELECT has_column_privilege(%s::bigint::oid, %s, %s)",
            (table.oid, name, privilege),
        )
        if not allowed[0]:
            doing = {"SELECT": "read", "UPDATE": "update", "INSERT": "insert into"}[privilege]
            raise DatabaseAuthError(
                f'role "{user}" may not {doing} {table.name}.{name}',
                code="privilege_missing",
                hint=f"GRANT {privilege} ({', '.join(names)}) ON {table.name} TO {user};",
                details={"privilege": privilege},
            )


async def check_expressions(connection: Connection, t: Target) -> None:
    """Let the server plan the reading statement: a fault in --where or --text-sql shows here.

    Raises:
        TargetError: With the server's own words on the expression.
    """
    statement = SQL("EXPLAIN ") + sql.page(t, after=False, force=False)
    try:
        await connection.execute(statement, (1, 1))
    except psycopg.Error as error:
        primary = error.diag.message_primary or type(error).__name__
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise DatabaseAuthError(
                f"the database refused the selection: {primary}",
                code="privilege_missing",
                hint="GRANT SELECT on what --where and --text-sql name, EXECUTE on their functions,"
                f" and USAGE on the schemas of both TO {connection.info.user};",
            ) from None
        raise TargetError(
            f"the database cannot run the selection: {primary}",
            code="selection_invalid",
            hint="check --where, --text-sql and --text-column",
        ) from None


@dataclass(frozen=True, slots=True)
class Index:
    """One over the vector column; `lists` are those of IVFFlat, with pgvector's default."""

    name: str
    method: str
    valid: bool
    lists: int


@dataclass(frozen=True, slots=True)
class Burden:
    """What makes writing slow: live vector indexes and row triggers."""

    indexes: tuple[Index, ...]
    triggers: tuple[str, ...]

    @property
    def named(self) -> tuple[tuple[str, str, bool], ...]:
        """Name, method and validity of each index."""
        return tuple((index.name, index.method, index.valid) for index in self.indexes)


async def read_burden(connection: Connection, t: Target) -> Burden:
    indexes = await fetch_all(
        connection,
        "SELECT c.relname, m.amname, i.indisvalid,"
        " coalesce(substring(c.reloptions::text FROM 'lists=(\\d+)')::int, 100) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = %s::bigint::oid AND a.attname = %s ORDER BY 1",
        (t.vectors_oid, t.vector_column),
    )
    triggers = await fetch_all(
        connection,
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::bigint::oid AND NOT tgisinternal"
        " AND tgenabled <> 'D' AND tgtype & 1 = 1 AND tgtype & %s > 0 ORDER BY 1",
        (t.vectors_oid, _ON_UPDATE if t.side is None else _ON_UPDATE | _ON_INSERT),
    )
    return Burden(tuple(Index(*r) for r in indexes), tuple(r[0] for r in triggers))
