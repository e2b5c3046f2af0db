"""float32 arrays → the binary form of vectors, in arrays and in COPY, without a Python float."""

from typing import TYPE_CHECKING

import numpy as np
from psycopg import adapt, pq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from embedmigrate.engine.vectors import Vectors

_COMPONENT = {"vector": ">f4", "halfvec": ">f2"}


class VectorArray:
    """The bytes of an SQL array of vectors, ready to send."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class VectorArrayDumper(adapt.Dumper):
    """Sends the bytes as they are; the statement's cast names the type."""

    format = pq.Format.BINARY
    oid = 0

    def dump(self, obj: VectorArray) -> bytes:
        return obj.data


def vector_array(vectors: "Vectors", *, element: str, oid: int) -> VectorArray:
    """Encode shape (rows, dimensions) in one numpy operation.

    The layout is `array_recv` of PostgreSQL (dimensions, no NULLs, element type, length, lower
    bound) around the fields.
    """
    header = np.array([1, 0, oid, len(vectors), 1], dtype=">u4")
    return VectorArray(header.tobytes() + _fields(vectors, element).tobytes())


def vector_fields(vectors: "Vectors", *, element: str) -> "list[memoryview]":
    """Each vector as a field of binary COPY; shape (rows, dimensions)."""
    fields = _fields(vectors, element)
    data, size = memoryview(fields.tobytes()), fields.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]


def _fields(vectors: "Vectors", element: str) -> "NDArray[np.void]":
    """Length in bytes and value: an array has its elements so, and COPY its fields.

    The value is that of `vector_recv` of pgvector: int16 dimensions, int16 zero, big-endian
    components.
    """
    rows, dimensions = vectors.shape
    component = np.dtype(_COMPONENT[element])
    layout = np.dtype(
        [
            ("size", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("components", component, (dimensions,)),
        ]
    )
    fields = np.zeros(rows, dtype=layout)
    fields["size"] = 4 + component.itemsize * dimensions
    fields["dimensions"] = dimensions
    with np.errstate(over="ignore"):  # what does not fit halfvec is refused by the server, by row
        fields["components"] = vectors
    return fields


def vector_text(components: "Sequence[float]") -> str:
    """One vector in pgvector's text form, for a query written by hand."""
    return "[" + ",".join(repr(float(c)) for c in components) + "]"
