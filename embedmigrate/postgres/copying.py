"""Rows of a side table → the bytes of a binary COPY.

The format is that of https://www.postgresql.org/docs/current/sql-copy.html: a header, for each row
the number of its fields and each field with its length in front, and a trailer.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from embedmigrate.engine.model import Row
from embedmigrate.engine.vectors import Vectors
from embedmigrate.postgres.vectors import vector_fields

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)

KEYS: dict[str, Callable[[str], bytes]] = {
    "smallint": lambda key: struct.pack(">h", int(key)),
    "integer": lambda key: struct.pack(">i", int(key)),
    "bigint": lambda key: struct.pack(">q", int(key)),
    "uuid": lambda key: UUID(key).bytes,
    "text": str.encode,
    "character varying": str.encode,
    "bpchar": str.encode,
}
"""Types whose binary form is plain; the server makes any other from its text, in an INSERT."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What all rows of one COPY have in common; `time` is in microseconds since the year 2000."""

    model: str
    time: int


def copied(
    rows: Sequence[Row], vectors: Vectors, origin: Origin, *, key_types: Sequence[str], element: str
) -> bytes:
    """Key, vector, model, dimensions, hash of the text, time: the columns in this order.

    Args:
        rows: As they were embedded.
        vectors: Shape (rows, dimensions).
        origin: The same for each row.
        key_types: As in `KEYS`, for each column of the key.
        element: `vector` or `halfvec`.
    """
    encoders = [KEYS[name] for name in key_types]
    begin = struct.pack(">h", len(encoders) + 5)
    middle = _field(origin.model.encode()) + _field(struct.pack(">i", vectors.shape[1]))
    end = _field(struct.pack(">q", origin.time))
    parts: list[bytes | memoryview] = [_HEADER]
    for row, vector in zip(rows, vector_fields(vectors, element=element), strict=True):
        key = [_field(encode(value)) for encode, value in zip(encoders, row.key, strict=True)]
        parts += (begin, *key, vector, middle, _field(row.digest), end)
    parts.append(_TRAILER)
    return b"".join(parts)


def _field(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value
