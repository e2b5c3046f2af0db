"""What the database says about a target before anything is spent: does it fit, and may we?"""

import difflib
from dataclasses import dataclass

from embedmigrate.errors import TargetError
from embedmigrate.postgres.query import fetch_all, fetch_one
from embedmigrate.postgres.session import Connection
from embedmigrate.postgres.target import KeyColumn

_TABLE_KINDS = {"r": "table", "p": "partitioned table"}


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
class Column:
    name: str
    type: str
    base: str
    typmod: int
    oid: int
    notnull: bool
    generated: bool
    collation: int
    has_default: bool


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
    row = await fetch_one(
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
            await fetch_one(connection, "SELECT system_identifier::text FROM pg_control_system()")
        )[0]
    # A pooler hands out its own process number at login; the server behind knows another.
    pooled = connection.info.backend_pid != pid
    return Server(version.split()[0], database, user, pgvector or "", pooled, f"{system}/{oid}")


async def find_table(connection: Connection, wanted: str) -> tuple[str, str, int]:
    schema, table = split_name(wanted)
    rows = await fetch_all(
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
    rows = await fetch_all(
        connection,
        "SELECT n.nspname || '.' || c.relname, c.relname"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'",
    )
    near = set(difflib.get_close_matches(table, {r[1] for r in rows}, n=3, cutoff=0.6))
    return sorted(r[0] for r in rows if r[1] in near)


async def columns_of(connection: Connection, oid: int) -> list[Column]:
    rows = await fetch_all(
        connection,
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, a.atttypmod,"
        " a.atttypid::bigint, a.attnotnull, a.attgenerated <> '',"
        " a.attcollation::bigint, a.atthasdef OR a.attidentity <> ''"
        " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " WHERE a.attrelid = %s::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY a.attnum",
        (oid,),
    )
    return [Column(*row) for row in rows]


def named(columns: dict[str, Column], name: str, table: str, option: str) -> Column:
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


async def key_of(
    connection: Connection,
    oid: int,
    table: str,
    columns: dict[str, Column],
    wanted: tuple[str, ...],
) -> tuple[KeyColumn, ...]:
    """The primary key; or the named columns, where a unique index makes them a key."""
    unique = await fetch_all(
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
        named(columns, name, table, "--key-column")
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
