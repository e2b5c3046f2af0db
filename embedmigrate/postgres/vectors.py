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

    def __init__(self, data: memoryview) -> None:
        self.data = data


class VectorArrayDumper(adapt.Dumper):
    """Sends the bytes as they are; the statement's cast names the type."""

    format = pq.Format.BINARY
    oid = 0

    def dump(self, obj: VectorArray) -> memoryview:
        return obj.data


def vector_array(vectors: "Vectors", *, element: str, oid: int) -> VectorArray:
    """Encode shape (rows, dimensions) in one numpy operation, in the one buffer that is sent.

    The layout is `array_recv` of PostgreSQL (dimensions, no NULLs, element type, length, lower
    bound) around the fields.
    """
    header = np.array([1, 0, oid, len(vectors), 1], dtype=">u4")
    layout = _layout(vectors.shape[1], element)
    buffer = np.empty(header.nbytes + len(vectors) * layout.itemsize, dtype=np.uint8)
    buffer[: header.nbytes] = header.view(np.uint8)
    _fill(buffer[header.nbytes :].view(layout), vectors)
    return VectorArray(buffer.data)


def vector_fields(vectors: "Vectors", *, element: str) -> "list[memoryview]":
    """Each vector as a field of binary COPY; shape (rows, dimensions)."""
    fields = np.empty(len(vectors), dtype=_layout(vectors.shape[1], element))
    _fill(fields, vectors)
    data, size = fields.view(np.uint8).data, fields.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]


def _layout(dimensions: int, element: str) -> "np.dtype[np.void]":
    """Length in bytes and value: an array has its elements so, and COPY its fields.

    The value is that of `vector_recv` of pgvector: int16 dimensions, int16 zero, big-endian
    components.
    """
    component = np.dtype(_COMPONENT[element])
    return np.dtype(
        [
            ("size", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("components", component, (dimensions,)),
        ]
    )


def _fill(fields: "NDArray[np.void]", vectors: "Vectors") -> None:
    fields["size"] = fields.itemsize - 4
    fields["dimensions"] = vectors.shape[1]
    fields["unused"] = 0
    with np.errstate(over="ignore"):  # what does not fit halfvec is refused by the server, by row
        fields["components"] = vectors


def vector_text(components: "Sequence[float]") -> str:
    """One vector in pgvector's text form, for a query written by hand."""
    return "[" + ",".join(repr(float(c)) for c in components) + "]"
