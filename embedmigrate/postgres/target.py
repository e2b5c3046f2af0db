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
        stored: It consists of columns that keep their value unless somebody assigns another, and
            we assign to none of them.
    """

    columns: tuple[str, ...] = ()
    expression: str | None = None
    kind: TextKind = TextKind.TEXT
    stored: bool = False

    def __str__(self) -> str:
        return self.expression or " + ".join(self.columns)


@dataclass(frozen=True, slots=True)
class SideTable:
    """A table beside the source: the key, the vector, and what the vector was made from.

    Attributes:
        model: The name that this job's vectors get; one of another name is stale.
        copies: Whether COPY can fill it: by the types of the key, and without row security.
    """

    schema: str
    table: str
    oid: int
    model: str
    copies: bool

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


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
    side: SideTable | None = None
    """Where the vectors are kept, if not in the row itself; `vector_column` is one of its own."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def vectors_oid(self) -> int:
        """The table that holds the vectors."""
        return self.side.oid if self.side else self.table_oid

    @property
    def place(self) -> str:
        """The column that is filled."""
        return f"{self.side.name if self.side else self.name}.{self.vector_column}"

    @property
    def tracks_staleness(self) -> bool:
        stamped = self.row_updated_at_column is not None and self.updated_at_column is not None
        return self.side is not None or stamped
