"""What the operator names → a target that the catalog confirms."""

from dataclasses import dataclass

from embedmigrate.errors import TargetError
from embedmigrate.postgres.catalog import Column, columns_of, find_table, key_of, named
from embedmigrate.postgres.query import fetch_one
from embedmigrate.postgres.session import Connection
from embedmigrate.postgres.side_resolution import SideWish, read_side
from embedmigrate.postgres.target import Target, TextKind, TextSource

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
    side: SideWish | None = None


async def read_target(connection: Connection, wish: Wish) -> Target:
    """Resolve a wish against the catalog.

    Raises:
        TargetError: Something that the wish names is missing or does not fit.
    """
    schema, table, oid = await find_table(connection, wish.table)
    columns = {c.name: c for c in await columns_of(connection, oid)}
    name = f"{schema}.{table}"
    key = await key_of(connection, oid, name, columns, wish.key_columns)
    side, holding, holder = None, columns, name
    if wish.side:
        side, holding = await read_side(connection, wish.side, (schema, oid, key, columns))
        holder = side.name
    vector = _vector(named(holding, wish.vector_column, holder, "--vector-column"), holder)
    updated = wish.updated_at_column
    if wish.optional_updated_at and updated not in columns:
        updated = None
    for column in filter(None, (updated, wish.row_updated_at_column)):
        _timestamp(named(columns, column, name, "--updated-at-column"), name)
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
        updated_at_type=_type_of(columns, updated),
        row_updated_at_type=_type_of(columns, wish.row_updated_at_column),
        row_updated_at_column=wish.row_updated_at_column,
        where=wish.where,
        table_oid=oid,
        undoable=side is None and await _undoable(connection, oid),
        side=side,
    )


def _vector(column: Column, table: str) -> Column:
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


def _timestamp(column: Column, table: str) -> None:
    if column.base not in {"timestamp", "timestamptz"}:
        raise TargetError(
            f"{table}.{column.name} is {column.type}, not a timestamp",
            code="not_a_timestamp",
            hint="name another with --updated-at-column or --row-updated-at-column",
        )


def _type_of(columns: dict[str, Column], name: str | None) -> str:
    return columns[name].type if name else "timestamp with time zone"


def _text(columns: dict[str, Column], wish: Wish, table: str) -> TextSource:
    if wish.text_sql:
        return TextSource(expression=wish.text_sql)
    chosen = [named(columns, name, table, "--text-column") for name in wish.text_columns]
    documents = [c for c in chosen if c.base in {"json", "jsonb"}]
    if documents and len(chosen) > 1:
        raise TargetError(
            f"{table}.{documents[0].name} is a document and cannot be joined with other columns",
            code="text_unsupported",
            hint="write the text yourself, such as --text-sql \"title || ' ' || (data->>'body')\"",
        )
    kind = TextKind.JSON if documents else TextKind.TEXT
    ours = {wish.vector_column, wish.updated_at_column}
    stored = not any(c.generated or c.name in ours for c in chosen)
    return TextSource(columns=wish.text_columns, kind=kind, stored=stored)


async def _undoable(connection: Connection, oid: int) -> bool:
    """Is there a trigger after updates, of the table or one of its partitions?"""
    row = await fetch_one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'"
        " AND tgtype & 2 = 0 AND tgtype & 16 = 16 AND (tgrelid = %s::bigint::oid"
        " OR tgrelid IN (SELECT relid FROM pg_partition_tree(%s::bigint::oid::regclass))))",
        (oid, oid),
    )
    return bool(row[0])
