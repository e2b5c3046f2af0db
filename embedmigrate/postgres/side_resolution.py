"""The side table that the operator names → what the catalog says of it, or what it lacks."""

from dataclasses import dataclass
from typing import TypeAlias

from embedmigrate.errors import TargetError
from embedmigrate.postgres.catalog import Column, columns_of, find_table, key_of, split_name
from embedmigrate.postgres.copying import KEYS
from embedmigrate.postgres.query import fetch_one
from embedmigrate.postgres.session import Connection
from embedmigrate.postgres.side_sql import KEPT
from embedmigrate.postgres.target import KeyColumn, SideTable

_TYPES = {
    "model": ("text", "varchar"),
    "dimensions": ("int4",),
    "text_sha256": ("bytea",),
    "embedded_at": ("timestamptz",),
}
"""By the names of the catalog; binary COPY takes no other."""

Source: TypeAlias = tuple[str, int, tuple[KeyColumn, ...], dict[str, Column]]
"""Schema, oid, key and columns of the table that is embedded."""


@dataclass(frozen=True, slots=True)
class SideWish:
    """`ddl` is the command that prints what to create."""

    table: str
    vector_column: str
    model: str
    ddl: str


async def read_side(
    connection: Connection, wish: SideWish, source: Source
) -> tuple[SideTable, dict[str, Column]]:
    """Look the side table up; without a schema it is in that of the source.

    Raises:
        TargetError: It is missing, or not of the shape that `init --sql` prints.
    """
    schema, table = in_schema_of(source[0], wish.table)
    oid = await _find(connection, schema, table, wish)
    columns = {c.name: c for c in await columns_of(connection, oid)}
    name = f"{schema}.{table}"
    problems = _problems(columns, source, wish.vector_column)
    if oid == source[1]:
        problems = ["It is the table that is embedded."]
    problems += await _without_key(connection, oid, name, columns, source[2])
    if problems:
        raise TargetError(
            f'"{name}" is no side table for this job',
            code="side_table_unfit",
            facts=tuple(problems),
            hint=f"{wish.ddl}   prints the one that fits, for another name",
        )
    secured = (await fetch_one(connection, "SELECT row_security_active(%s::bigint::oid)", (oid,)))[
        0
    ]
    copies = not secured and all(k.type in KEYS for k in source[2])
    return SideTable(schema, table, oid, wish.model, copies), columns


def in_schema_of(schema: str, name: str) -> tuple[str, str]:
    given, table = split_name(name)
    return given or schema, table


async def _find(connection: Connection, schema: str, table: str, wish: SideWish) -> int:
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
    try:
        return (await find_table(connection, quoted))[2]
    except TargetError as error:
        if error.code != "table_not_found":
            raise
        raise TargetError(
            f'side table "{schema}.{table}" does not exist',
            code="side_table_missing",
            facts=(*error.facts, "A run creates nothing by itself."),
            hint=f"{wish.ddl}   prints what to create",
        ) from None


def _problems(columns: dict[str, Column], source: Source, vector_column: str) -> list[str]:
    _, _, key, source_columns = source
    found, own = list[str](), {*KEPT, vector_column}
    for k in key:
        theirs, mine = source_columns[k.name], columns.get(k.name)
        if k.name in own:
            found.append(f"The key column {k.name} has the name of a column of the side table.")
        elif mine is None:
            found.append(f"It has no column {k.name}, which is the table's key.")
        elif (mine.type, mine.collation) != (theirs.type, theirs.collation):
            found.append(f"{k.name} is {mine.type}; in the table it is {theirs.type}.")
    for name, kinds in _TYPES.items():
        if name not in columns:
            found.append(f"It has no column {name}.")
        elif columns[name].base not in kinds or columns[name].generated:
            found.append(f"{name} is {columns[name].type}; it takes {kinds[0]}.")
    found += (
        f"{c.name} is NOT NULL without a default, and no run fills it."
        for c in columns.values()
        if c.notnull and not c.has_default and c.name not in own | {k.name for k in key}
    )
    return found


async def _without_key(
    connection: Connection,
    oid: int,
    name: str,
    columns: dict[str, Column],
    key: tuple[KeyColumn, ...],
) -> list[str]:
    wanted = tuple(k.name for k in key)
    if not columns.keys() >= set(wanted):
        return []
    try:
        await key_of(connection, oid, name, columns, wanted)
    except TargetError:
        return [f"({', '.join(wanted)}) is not its primary key."]
    return []
