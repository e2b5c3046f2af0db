"""The table, key, text and vector column of one job, as the catalog describes them."""

from dataclasses import dataclass
from enum import StrEnum


class TextKind(StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """`type` is the catalog's spelling, without a length, so that a cast never cuts a key."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class TextSource:
    """One or more columns (joined by a newline), or an SQL expression over the row.

    Attributes:
        columns: Names, when there is no expression.
        expression: Raw SQL of the operator's; trusted like the rest of the command line.
        kind: JSON documents are rendered on the client.
    """

    columns: tuple[str, ...] = ()
    expression: str | None = None
    kind: TextKind = TextKind.TEXT

    def __str__(self) -> str:
        return self.expression or " + ".join(self.columns)


@dataclass(frozen=True, slots=True)
class Target:
    schema: str
    table: str
    key: tuple[KeyColumn, ...]
    text: TextSource
    vector_column: str
    vector_type: str
    """`vector` or `halfvec`."""
    vector_type_sql: str
    """The same as the catalog spells it: qualified where the extension's schema is not searched."""
    vector_oid: int
    dimensions: int
    updated_at_column: str | None = None
    updated_at_type: str = "timestamp with time zone"
    """With its precision; one without a zone takes UTC, as Prisma, Rails and Django do."""
    row_updated_at_column: str | None = None
    row_updated_at_type: str = "timestamp with time zone"
    where: str | None = None
    table_oid: int = 0
    undoable: bool = False
    """A trigger that fires after an update may take the vector away again."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"
