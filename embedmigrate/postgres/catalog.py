"""What the database says about a target before anything is spent: does it fit, and may we?"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL

from embedmigrate.errors import DatabaseAuthError, TargetError
from embedmigrate.postgres import sql
from embedmigrate.postgres.session import Connection
from embedmigrate.postgres.target import KeyColumn, Target, TextKind, TextSource

_TABLE_KINDS = {"r": "table", "p": "partitioned table"}
_INDEX_LIMIT = {"vector": 2000, "halfvec": 4000}
"""Dimensions that an HNSW index takes (pgvector's README)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A target as the operator names it; empty where the catalog shall decide."""

    table: str
    key_columns: tuple[str, ...]
    text_columns: tuple[str, ...]
    text_sql: str | None
    vector_column: str
    updated_at_column: str | None
    row_updated_at_column: str | None
    where: str | None
    optional_updated_at: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """The server and database, as they identify themselves."""

    version: str
    database: str
    user: str
    pgvector: str
    """Its version; empty where it is missing."""
    pooled: bool
    identity: str


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    base: str
    typmod: int
    oid: int
    notnull: bool
    generated: bool


def split_name(name: str) -> tuple[str | None, str]:
    """`schema.table`, `table`, or either part quoted as in SQL; a dot inside quotes stays."""
    parts, current, quoted = list[str](), "", False
    for character in name:
        if character == '"':
            quoted = not quoted
        elif character == "." and not quoted:
            parts.append(current)
            current = ""
            continue
        current += character
    parts.append(current)
    plain = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in parts]
    if quoted or len(plain) > 2 or not all(plain):  # noqa: PLR2004
        raise TargetError(
            f"{name!r} is not a table name",
            code="table_not_found",
            hint="--table SCHEMA.TABLE; a name with a dot is written --table '\"a.b\"'",
        )
    return (plain[0], plain[1]) if len(plain) == 2 else (None, plain[0])  # noqa: PLR2004


async def read_server(connection: Connection, *, needs_pgvector: bool = True) -> Server:
    """Identify the server.

    Raises:
        TargetError: pgvector is missing where it is needed, or the encoding cannot hold any text.
    """
    row = await _one(
        connection,
        "SELECT current_setting('server_version'), current_database(), current_user,"
        " (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
        " pg_backend_pid(), pg_encoding_to_char(encoding), oid::text,"
        " has_function_privilege('pg_control_system()', 'execute')"
        " FROM pg_database WHERE datname = current_database()",
    )
    version, database, user, pgvector, pid, encoding, oid, may_identify = row
    if encoding != "UTF8":
        raise TargetError(
            f'database "{database}" is encoded in {encoding}; embedmigrate needs UTF8',
            code="encoding_unsupported",
            hint="pg_dump it into a database made with: createdb --encoding UTF8",
        )
    if pgvector is None and needs_pgvector:
        raise TargetError(
            f'extension "vector" is not installed in database "{database}"',
            code="pgvector_missing",
            hint="CREATE EXTENSION vector;   (needs a role allowed to create extensions)",
        )
    system = "unknown"
    if may_identify:
        system = (
            await _one(connection, "SELECT system_identifier::text FROM pg_control_system()")
        )[0]
    # A pooler hands out its own process number at login; the server behind knows another.
    pooled = connection.info.backend_pid != pid
    return Server(version.split()[0], database, user, pgvector or "", pooled, f"{system}/{oid}")


async def read_target(connection: Connection, wish: Wish) -> Target:
    """Resolve a wish against the catalog.

    Raises:
        TargetError: Something that the wish names is missing or does not fit.
    """
    schema, table, oid = await find_table(connection, wish.table)
    columns = {c.name: c for c in await _columns(connection, oid)}
    name = f"{schema}.{table}"
    key = await _key(connection, oid, name, columns, wish.key_columns)
    vector = _vector(_column(columns, wish.vector_column, name, "--vector-column"), name)
    updated = wish.updated_at_column
    if wish.optional_updated_at and updated not in columns:
        updated = None
    for column in filter(None, (updated, wish.row_updated_at_column)):
        _timestamp(_column(columns, column, name, "--updated-at-column"), name)
    if wish.row_updated_at_column and not updated:
        raise TargetError(
            "--row-updated-at-column needs --updated-at-column to compare with",
            code="column_missing",
            hint="name a timestamp column with --updated-at-column",
        )
    return Target(
        schema=schema,
        table=table,
        key=key,
        text=_text(columns, wish, name),
        vector_column=wish.vector_column,
        vector_type=vector.base,
        vector_type_sql=vector.type.partition("(")[0],
        vector_oid=vector.oid,
        dimensions=vector.typmod,
        updated_at_column=updated,
        row_updated_at_column=wish.row_updated_at_column,
        where=wish.where,
        table_oid=oid,
        undoable=await _undoable(connection, oid),
    )


async def find_table(connection: Connection, wanted: str) -> tuple[str, str, int]:
    schema, table = split_name(wanted)
    rows = await _all(
        connection,
        "SELECT n.nspname, c.relname, c.oid::bigint, c.relkind, c.relrowsecurity"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = %s AND CASE WHEN %s::text IS NULL THEN pg_table_is_visible(c.oid)"
        " ELSE n.nspname = %s END",
        (table, schema, schema),
    )
    rows = [r for r in rows if r[3] not in {"i", "I", "S", "c", "t"}]
    if not rows:
        similar = await _similar(connection, table)
        facts = (f"Similar: {', '.join(similar)}.",) if similar else ()
        info = connection.info
        where = f'database "{info.dbname}"'
        raise TargetError(
            f'table "{schema or "public"}.{table}" does not exist in {where}',
            code="table_not_found",
            facts=(
                f"Connected to {info.host or 'local socket'}:{info.port} as {info.user}.",
                *facts,
            ),
            hint=r"use --table SCHEMA.TABLE; \d in psql shows what this role can see",
        )
    found_schema, found, oid, kind, _ = rows[0]
    if kind not in _TABLE_KINDS:
        raise TargetError(
            f'"{found_schema}.{found}" is not a table',
            code="not_a_table",
            facts=("Views, materialized views and foreign tables have no key to page by.",),
            hint="name the table underneath with --table, and its text with --text-sql",
        )
    return found_schema, found, oid


async def _similar(connection: Connection, table: str) -> list[str]:
    rows = await _all(
        connection,
        "SELECT n.nspname || '.' || c.relname, c.relname"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'",
    )
    near = set(difflib.get_close_matches(table, {r[1] for r in rows}, n=3, cutoff=0.6))
    return sorted(r[0] for r in rows if r[1] in near)


async def _undoable(connection: Connection, oid: int) -> bool:
    """Is there a trigger after updates, of the table or one of its partitions?"""
    row = await _one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
        " AND tgtype & 2 = 0 AND tgtype & 16 = 16 AND (tgrelid = %s::bigint::oid"
        " OR tgrelid IN (SELECT relid FROM pg_partition_tree(%s::bigint::oid::regclass))))",
        (oid, oid),
    )
    return bool(row[0])


async def _columns(connection: Connection, oid: int) -> list[_Column]:
    rows = await _all(
        connection,
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, a.atttypmod,"
        " a.atttypid::bigint, a.attnotnull, a.attgenerated <> ''"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " WHERE a.attrelid = %s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum",
        (oid,),
    )
    return [_Column(*row) for row in rows]


def _column(columns: dict[str, _Column], name: str, table: str, option: str) -> _Column:
    if name in columns:
        return columns[name]
    near = difflib.get_close_matches(name, columns, n=3, cutoff=0.5)
    raise TargetError(
        f'table "{table}" has no column "{name}"',
        code="column_missing",
        facts=(f"Similar: {', '.join(near)}." if near else f"It has: {', '.join(columns)}.",),
        hint=f"name another with {option}"
        + ("; embedmigrate init --sql prints the DDL" if option == "--vector-column" else ""),
    )


async def _key(
    connection: Connection,
    oid: int,
    table: str,
    columns: dict[str, _Column],
    wanted: tuple[str, ...],
) -> tuple[KeyColumn, ...]:
    """The primary key; or the named columns, where a unique index makes them a key."""
    unique = await _all(
        connection,
        "SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.n),"
        " array_agg(format_type(a.atttypid, -1) ORDER BY k.n), bool_and(a.attnotnull)"
        " FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
        " WHERE i.indrelid = %s::bigint::oid AND i.indisunique AND i.indisvalid"
        " AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts"
        " GROUP BY i.indexrelid, i.indisprimary",
        (oid,),
    )
    for name in wanted:
        _column(columns, name, table, "--key-column")
    for primary, names, types, notnull in unique:
        if (set(names) == set(wanted) if wanted else primary) and notnull:
            return tuple(KeyColumn(n, t) for n, t in zip(names, types, strict=True))
    if wanted:
        raise TargetError(
            f"({', '.join(wanted)}) is not a key of {table}: it may repeat or be NULL",
            code="key_not_unique",
            hint="leave --key-column out to use the primary key, or add a unique index on NOT NULL"
            " columns",
        )
    raise TargetError(
        f'table "{table}" has no primary key',
        code="primary_key_missing",
        facts=("Rows are read and checkpointed by key; without one none could be told apart.",),
        hint="--key-column NAME for a unique NOT NULL column, or ALTER TABLE … ADD PRIMARY KEY",
    )


def _vector(column: _Column, table: str) -> _Column:
    place = f"{table}.{column.name}"
    if column.base not in _INDEX_LIMIT:
        raise TargetError(
            f"{place} is {column.type}, not a vector",
            code="not_a_vector",
            hint="pass the vector(n) or halfvec(n) column with --vector-column",
        )
    if column.generated:
        raise TargetError(
            f"{place} is a generated column",
            code="not_a_vector",
            hint="pass a column that can be written with --vector-column",
        )
    if column.typmod < 1:
        raise TargetError(
            f"{place} is {column.base} without a width",
            code="vector_untyped",
            facts=("Such a column takes vectors of any width and cannot be indexed.",),
            hint=f"ALTER TABLE {table} ALTER COLUMN {column.name} TYPE {column.base}(1536);",
        )
    return column


def _timestamp(column: _Column, table: str) -> None:
    if column.base not in {"timestamp", "timestamptz"}:
        raise TargetError(
            f"{table}.{column.name} is {column.type}, not a timestamp",
            code="not_a_timestamp",
            hint="name another with --updated-at-column or --row-updated-at-column",
        )


def _text(columns: dict[str, _Column], wish: Wish, table: str) -> TextSource:
    if wish.text_sql:
        return TextSource(expression=wish.text_sql)
    chosen = [_column(columns, name, table, "--text-column") for name in wish.text_columns]
    documents = [c for c in chosen if c.base in {"json", "jsonb"}]
    if documents and len(chosen) > 1:
        raise TargetError(
            f"{table}.{documents[0].name} is a document and cannot be joined with other columns",
            code="text_unsupported",
            hint="write the text yourself with --text-sql, such as \"title || E'\\n' || data::text\"",
        )
    kind = TextKind.JSON if documents else TextKind.TEXT
    return TextSource(columns=wish.text_columns, kind=kind)


async def check_privileges(connection: Connection, t: Target) -> None:
    """May this role read what is embedded and write the vector?

    Raises:
        DatabaseAuthError: With the GRANT that is missing; `details` name the privilege.
    """
    user = connection.info.user
    usage = "SELECT has_schema_privilege(%s, 'USAGE')"
    if not (await _one(connection, usage, (t.schema,)))[0]:
        raise DatabaseAuthError(
            f'role "{user}" may not use the schema {t.schema}',
            code="privilege_missing",
            hint=f"GRANT USAGE ON SCHEMA {t.schema} TO {user};",
            details={"privilege": "USAGE"},
        )
    written = [t.vector_column, *filter(None, [t.updated_at_column])]
    read = [*(k.name for k in t.key), *t.text.columns, t.vector_column]
    for privilege, names in (("SELECT", read), ("UPDATE", written)):
        for name in names:
            allowed = await _one(
                connection,
                "SELECT has_column_privilege(%s::bigint::oid, %s, %s)",
                (t.table_oid, name, privilege),
            )
            if not allowed[0]:
                doing = "update" if privilege == "UPDATE" else "read"
                raise DatabaseAuthError(
                    f'role "{user}" may not {doing} {t.name}.{name}',
                    code="privilege_missing",
                    hint=f"GRANT {privilege} ({', '.join(names)}) ON {t.name} TO {user};",
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
class Burden:
    """What makes writing slow: live vector indexes and row triggers."""

    indexes: tuple[tuple[str, str, bool], ...]
    """Name, method, valid."""
    triggers: tuple[str, ...]


async def read_burden(connection: Connection, t: Target) -> Burden:
    indexes = await _all(
        connection,
        "SELECT c.relname, m.amname, i.indisvalid FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
        " WHERE i.indrelid = %s::bigint::oid AND a.attname = %s ORDER BY 1",
        (t.table_oid, t.vector_column),
    )
    triggers = await _all(
        connection,
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::bigint::oid AND NOT tgisinternal"
        " AND tgenabled <> 'D' AND tgtype & 1 = 1 AND tgtype & 16 = 16 ORDER BY 1",
        (t.table_oid,),
    )
    return Burden(tuple((r[0], r[1], r[2]) for r in indexes), tuple(r[0] for r in triggers))


async def _all(
    connection: Connection, query: LiteralString, values: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, values)
    return await cursor.fetchall()


async def _one(
    connection: Connection, query: LiteralString, values: Sequence[Any] = ()
) -> tuple[Any, ...]:
    rows = await _all(connection, query, values)
    return rows[0]
