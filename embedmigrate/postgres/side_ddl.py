"""The DDL of a side table, as text for a person or psql: nothing here executes it."""

from psycopg.sql import SQL, Composable, Identifier

from embedmigrate.postgres.ddl import comment, new_type, typed
from embedmigrate.postgres.survey import Column, Survey, Table

_CASCADE = """The foreign key takes the vectors of deleted rows away. It needs the owner of both
tables, and locks the source for the moment of its creation; everything works without it, and
stats counts what is left behind."""


def side_table(source: Table, schema: str, name: str) -> Table:
    """The table to be, as the other DDL takes it: the key of the source, and no vector yet."""
    return Table(schema, name, False, None, (), source.key, True, ())


def creation(found: Survey, source: Table, side: Table, vector: str, dimensions: int) -> str:
    """CREATE TABLE, with the key in the types and collations of the source."""
    if not source.key:
        return comment("The table has no key yet: ALTER TABLE ... ADD PRIMARY KEY (...);")
    columns = [_key_column(c) for c in source.columns if c.name in source.key]
    columns += [
        SQL("{} {} NOT NULL").format(
            Identifier(vector), typed(found, new_type(dimensions), dimensions)
        ),
        SQL("model text NOT NULL"),
        SQL("dimensions integer NOT NULL"),
        SQL("text_sha256 bytea NOT NULL"),
        SQL("embedded_at timestamptz NOT NULL DEFAULT now()"),
    ]
    key = SQL(", ").join(Identifier(name) for name in source.key)
    columns += [
        SQL("PRIMARY KEY ({})").format(key),
        SQL("FOREIGN KEY ({0}) REFERENCES {1} ({0}) ON DELETE CASCADE ON UPDATE CASCADE").format(
            key, Identifier(source.schema, source.table)
        ),
    ]
    statement = SQL("CREATE TABLE {} (\n  {}\n);").format(
        Identifier(side.schema, side.table), SQL(",\n  ").join(columns)
    )
    return f"{comment(_CASCADE)}\nSET lock_timeout = '5s';\n{statement.as_string()}"


def _key_column(column: Column) -> Composable:
    words = SQL("{} {}").format(Identifier(column.name), SQL(column.type))
    if column.collation:
        words = SQL("{} COLLATE {}").format(words, SQL(column.collation))
    return words
