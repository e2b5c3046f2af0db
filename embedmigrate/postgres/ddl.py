"""The DDL that a table still needs, as text for a person or psql: nothing here executes it.

What is not to be run now stands in comments, in which every line of a statement is one.
"""

import re
from collections.abc import Iterable

from psycopg.sql import SQL, Composable, Identifier

from embedmigrate.postgres.survey import Column, Survey, Table

VECTOR_INDEX = 2000
HALFVEC_INDEX = 4000
"""Dimensions that an HNSW index takes of either type (pgvector's README)."""

_HALF = "halfvec"


def comment(text: str) -> str:
    return "\n".join(f"-- {line}".rstrip() for line in re.split(r"\r\n?|\n", text))


def extension(found: Survey) -> str:
    if found.pgvector is not None:
        return comment(f"pgvector {found.pgvector} is installed.")
    lines = ["CREATE EXTENSION IF NOT EXISTS vector;"]
    if found.offered is None:
        why = "This server has no pgvector to install: its package comes first, such as"
        lines.insert(0, comment(f"{why} postgresql-17-pgvector."))
    return "\n".join(lines)


def additions(found: Survey, table: Table, vector: str, dimensions: int) -> str:
    """The columns that are missing, in one statement: one short lock.

    Args:
        found: Where the extension's types are.
        table: As surveyed.
        vector: The vector column; new where the table has none of this name.
        dimensions: Width of a new column.
    """
    columns = []
    if table.column(vector) is None:
        kind = new_type(dimensions)
        columns.append(SQL("{} {}").format(Identifier(vector), typed(found, kind, dimensions)))
    if table.stamp(vector) is None:
        stamp = table.new_stamp(vector)
        if table.column(stamp) is None:
            columns.append(SQL("{} timestamptz").format(Identifier(stamp)))
    if not columns:
        return comment("It has its vector and its timestamp column.")
    added = SQL(",\n").join(SQL("  ADD COLUMN IF NOT EXISTS {}").format(c) for c in columns)
    return _text(SQL("ALTER TABLE {}\n{};").format(_name(table), added))


def new_type(dimensions: int) -> str:
    """Halfvec where only that can be indexed as it is."""
    return _HALF if VECTOR_INDEX < dimensions <= HALFVEC_INDEX else "vector"


def width(found: Survey, table: Table, column: Column, dimensions: int) -> str:
    """For a column that takes any width and so can be neither checked nor indexed."""
    statement = SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {};").format(
        _name(table), Identifier(column.name), typed(found, column.base, dimensions)
    )
    why = "The column has no width yet. This rewrites the table under an exclusive lock:"
    return comment(f"{why}\n{_text(statement)}")


def queue_index(table: Table, vector: str) -> str:
    """An index of the rows that still wait; it empties itself as they are embedded."""
    if not table.key:
        return comment("It has no key yet: ALTER TABLE ... ADD PRIMARY KEY (...);")
    keys = SQL(", ").join(Identifier(name) for name in table.key)
    body = SQL("({}) WHERE {} IS NULL").format(keys, Identifier(vector))
    why = "Optional, for few missing rows in a large table (not with --row-updated-at-column):"
    return comment("\n".join([why, *_create(table, body)]))


def vector_index(found: Survey, table: Table, vector: str, dimensions: int) -> str:
    """To be built when the column is filled: a live index slows each write down."""
    column = table.column(vector)
    if column and column.indexes:
        method = ", ".join(column.indexes)
        return comment(f"It has a vector index ({method}): drop it for a large backfill.")
    kind = column.base if column else new_type(dimensions)
    size = column.dimensions if column else dimensions
    if size < 1:
        return comment("A column without a width cannot be indexed.")
    if size > HALFVEC_INDEX:
        most = f"{HALFVEC_INDEX:,} dimensions"
        return comment(f"No HNSW index takes more than {most}: see binary_quantize in pgvector.")
    indexed: Composable = Identifier(vector)
    notes = ["After the backfill, with maintenance_work_mem as large as the index if possible:"]
    if kind == _HALF or size > VECTOR_INDEX:
        notes.append("(halfvec needs pgvector 0.7 or newer)")
    if kind != _HALF and size > VECTOR_INDEX:
        half = typed(found, _HALF, size)
        indexed = SQL("({}::{})").format(indexed, half)
        notes.append(f"A vector index ends at {VECTOR_INDEX:,} dimensions; queries cast alike,")
        notes.append(_text(SQL("ORDER BY {} <=> $1::{}.").format(indexed, half)))
        kind = _HALF
    operators = _qualified(found, f"{kind}_cosine_ops")
    body = SQL("USING hnsw ({} {})").format(indexed, operators)
    return comment("\n".join([*notes, *_create(table, body)]))


def _create(table: Table, body: Composable) -> Iterable[str]:
    """CONCURRENTLY is refused on a partitioned table; the parent's index adopts its partitions'."""
    for schema, name in table.leaves:
        one = SQL("CREATE INDEX CONCURRENTLY ON {} {};").format(Identifier(schema, name), body)
        yield _text(one)
    word = SQL("") if table.partitioned else SQL(" CONCURRENTLY")
    yield _text(SQL("CREATE INDEX{} ON {} {};").format(word, _name(table), body))


def _name(table: Table) -> Composable:
    return Identifier(table.schema, table.table)


def typed(found: Survey, kind: str, dimensions: int) -> Composable:
    return SQL("{}({})").format(_qualified(found, kind), SQL(str(dimensions)))


def _qualified(found: Survey, name: str) -> Composable:
    """A type or operator class of pgvector's, unquoted where the search path finds it."""
    plain = SQL(name)
    return SQL("{}.{}").format(Identifier(found.prefix), plain) if found.prefix else plain


def _text(statement: Composable) -> str:
    return statement.as_string()
