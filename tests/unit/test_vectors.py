"""The bytes that are sent are those that PostgreSQL and pgvector define."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgvector import HalfVector, Vector
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from embedmigrate.engine.vectors import Vectors
from embedmigrate.postgres.vectors import VectorArrayDumper, vector_array, vector_text

OID = 16_999
PARTS: dict[str, Any] = {"vector": Vector, "halfvec": HalfVector}

shapes = st.tuples(st.integers(1, 5), st.integers(1, 9))


@st.composite
def arrays(draw: st.DrawFn, most: float = 65_504) -> Vectors:
    rows, dimensions = draw(shapes)
    component = st.floats(-most, most, width=32)
    drawn = draw(st.lists(component, min_size=rows * dimensions, max_size=rows * dimensions))
    return np.array(drawn, np.float32).reshape(rows, dimensions)


def elements(data: bytes) -> list[bytes]:
    """Of a one-dimensional array, as array_recv reads it."""
    dimensions, nulls, oid, length, lower = struct.unpack_from(">iiIii", data)
    assert (dimensions, nulls, oid, lower) == (1, 0, OID, 1)
    found = []
    at = 20
    for _ in range(length):
        (size,) = struct.unpack_from(">i", data, at)
        found.append(data[at + 4 : at + 4 + size])
        assert len(found[-1]) == size
        at += 4 + size
    assert at == len(data)
    return found


@settings(deadline=None, max_examples=100)
@given(arrays(), st.sampled_from(["vector", "halfvec"]))
def test_each_element_is_what_pgvector_sends_for_it(vectors: Vectors, element: str) -> None:
    found = elements(bytes(vector_array(vectors, element=element, oid=OID).data))
    kind = PARTS[element]
    assert found == [kind(vector).to_binary() for vector in vectors]


@settings(deadline=None, max_examples=50)
@given(arrays(most=2.0**127))
def test_pgvector_reads_back_the_very_components(vectors: Vectors) -> None:
    found = elements(bytes(vector_array(vectors, element="vector", oid=OID).data))
    back = np.stack([Vector.from_binary(content).to_numpy() for content in found])
    assert back.astype(np.float32).tobytes() == vectors.tobytes()


def test_the_frame_is_that_of_psycopgs_own_arrays() -> None:
    ours = vector_array(np.ones((3, 2), np.float32), element="vector", oid=OID).data
    theirs = bytes(Transformer().get_dumper(["a"], PyFormat.BINARY).dump(["a", "b", "c"]) or b"")
    ours_frame, theirs_frame = (struct.unpack_from(">iiIii", b) for b in (ours, theirs))
    assert [v for n, v in enumerate(ours_frame) if n != 2] == [
        v for n, v in enumerate(theirs_frame) if n != 2
    ]


def test_a_view_that_is_not_contiguous_is_encoded_by_its_values() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(6, 4)
    view = whole[::2, ::-1]
    copied = np.ascontiguousarray(view)
    for element in PARTS:
        ours = vector_array(view, element=element, oid=OID).data
        assert ours == vector_array(copied, element=element, oid=OID).data


@pytest.mark.parametrize("component", [65_505, 70_000, -70_000, 3e38])
def test_what_half_precision_cannot_hold_becomes_infinite_for_the_server_to_refuse(
    component: float,
) -> None:
    given = np.array([[component, 1.0]], np.float32)
    (found,) = elements(bytes(vector_array(given, element="halfvec", oid=OID).data))
    back = HalfVector.from_binary(found).to_numpy()
    expected = given.astype(np.float16) if abs(component) < 65_520 else [[np.inf, 1]]
    assert np.array_equal(np.abs(back), np.abs(np.array(expected)[0]))


def test_the_bytes_travel_as_they_are_in_binary() -> None:
    dumper = VectorArrayDumper(object, Transformer())
    made = vector_array(np.ones((2, 3), np.float32), element="vector", oid=OID)
    assert dumper.format is pq.Format.BINARY
    assert dumper.dump(made) == made.data


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=5))
def test_the_text_form_keeps_every_bit(components: list[float]) -> None:
    text = vector_text(np.array(components, np.float32).tolist())
    back = np.array([float(c) for c in text.strip("[]").split(",")], np.float32)
    assert back.tobytes() == np.array(components, np.float32).tobytes()
