"""Nothing in a provider's reply is taken on trust."""

from __future__ import annotations

import base64
import random
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.embedders.reply import parse
from embedmigrate.engine.vectors import sound
from embedmigrate.errors import BadReply

if TYPE_CHECKING:
    from embedmigrate.engine.vectors import Vectors

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
widths = st.shared(st.integers(1, 5))
matrices = widths.flatmap(
    lambda width: st.lists(
        st.lists(floats32, min_size=width, max_size=width), min_size=1, max_size=8
    )
)


def encoded(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def reply(embeddings: list[Any], indexes: list[Any] | None = None, **more: Any) -> bytes:
    numbers = range(len(embeddings)) if indexes is None else indexes
    items = [
        {"object": "embedding", "index": number, "embedding": embedding}
        for number, embedding in zip(numbers, embeddings, strict=True)
    ]
    return orjson.dumps({"object": "list", "data": items, **more})


def vectors(content: bytes, texts: int) -> Vectors:
    return parse(content, texts)[0].vectors


def good(content: bytes, texts: int) -> list[bool]:
    """Which rows may be stored."""
    found = vectors(content, texts)
    assert found.dtype == np.float32
    assert found.shape[0] == texts
    return list(map(bool, sound(found)))


@settings(deadline=None, max_examples=150)
@given(matrices, st.randoms(use_true_random=False), st.booleans())
def test_a_shuffled_reply_is_put_in_the_order_of_the_texts(
    matrix: list[list[float]], order: random.Random, as_base64: bool
) -> None:
    shuffled = list(enumerate(matrix))
    order.shuffle(shuffled)
    content = reply(
        [encoded(vector) if as_base64 else vector for _, vector in shuffled],
        [number for number, _ in shuffled],
    )
    embedded, numbered = parse(content, len(matrix))
    assert numbered
    assert np.array_equal(embedded.vectors, np.array(matrix, np.float32))


@settings(deadline=None, max_examples=150)
@given(matrices)
def test_base64_and_decimal_text_are_equal_bit_for_bit(matrix: list[list[float]]) -> None:
    from_text = vectors(reply(matrix), len(matrix))
    from_base64 = vectors(reply([encoded(v) for v in matrix]), len(matrix))
    assert from_text.tobytes() == from_base64.tobytes()
    assert from_text.dtype == from_base64.dtype == np.float32


def test_vectors_may_be_base64_and_decimal_text_in_one_reply() -> None:
    content = reply([encoded([1.0, 2.0]), [3.0, 4.0]])
    assert vectors(content, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "indexes",
    [
        [0, 0, 1],
        [0, 1, 1],
        [0, 1, 3],
        [1, 2, 3],
        [-1, 0, 1],
        [0, 1, None],
        [None, 1, 2],
        [0, True, 2],
        [False, True, 2],
        ["0", "1", "2"],
        [0, 1, "2"],
        [0, 1.0, 2],
        [2, 1.0, 0],
        [0, 1, [2]],
        [0, 1, 10**18],
    ],
)
def test_indexes_that_are_not_those_of_the_texts_are_refused(indexes: list[Any]) -> None:
    content = reply([[1.0], [2.0], [3.0]], indexes)
    with pytest.raises(BadReply) as caught:
        parse(content, 3)
    assert caught.value.code == "bad_reply"


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.none() | st.booleans() | st.integers(-2, 5) | st.floats(-2, 5) | st.text(max_size=2),
        min_size=1,
        max_size=5,
    )
)
def test_only_a_permutation_or_no_index_at_all_is_taken(indexes: list[Any]) -> None:
    content = reply([[float(n + 1)] for n in range(len(indexes))], indexes)
    plain = all(type(i) is int for i in indexes)
    if plain and sorted(indexes) == list(range(len(indexes))):
        assert vectors(content, len(indexes))[:, 0].tolist() == [
            indexes.index(n) + 1 for n in range(len(indexes))
        ]
    elif all(i is None for i in indexes):
        assert parse(content, len(indexes))[1] is False
    else:
        with pytest.raises(BadReply):
            parse(content, len(indexes))


def test_without_any_index_vectors_are_taken_in_order_and_it_is_said_so() -> None:
    content = orjson.dumps({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]})
    embedded, numbered = parse(content, 2)
    assert embedded.vectors.tolist() == [[1], [2]]
    assert numbered is False


@pytest.mark.parametrize("answered", [0, 1, 2, 4, 5])
def test_more_or_fewer_vectors_than_texts_are_refused(answered: int) -> None:
    with pytest.raises(BadReply, match=f"^{answered} embeddings for 3 texts$"):
        parse(reply([[1.0]] * answered), 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"x"',
        b"3",
        b"{}",
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": "x"}',
        b'{"data": [null]}',
        b'{"data": [[1.0]]}',
        b'{"data": [1.0]}',
        b'{"error": {"message": "overloaded"}}',
        b'{"error": "overloaded", "data": [{"index": 0, "embedding": [1.0]}]}',
        b"<!doctype html><title>Sign in</title>",
        b'{"data": [{"index": 0, "embedding": [1.0, NaN]}]}',
        b'{"data": [{"index": 0, "embedding": [1.0, Infinity]}]}',
        b'{"data": [{"index": 0, "embedding": [1.0, 2.0',
        b'{"data": [{"index": 0, "embedding": [1.0]}]} trailing',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_set_of_embeddings_is_a_bad_reply(content: bytes) -> None:
    with pytest.raises(BadReply) as caught:
        parse(content, 1)
    assert caught.value.code == "bad_reply"


def test_an_empty_error_beside_the_data_is_no_error() -> None:
    content = reply([[1.0]], error=None)
    assert vectors(content, 1).tolist() == [[1]]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        5,
        True,
        "",
        "not base64!",
        "AAA",
        "AAAAAAA=",
        "é",
        [None, 1.0],
        [1.0, None],
        ["1.0", "2.0"],
        ["1.0", 2.0],
        [1.0, "nan"],
        [[1.0, 2.0]],
        [[1.0], [2.0]],
        [1.0, [2.0]],
        [[1.0, 2.0], [3.0]],
        [{}, {}],
        [True, False],
    ],
)
def test_a_vector_that_is_no_list_of_numbers_spoils_its_own_row_only(broken: Any) -> None:
    assert good(reply([[1.0, 2.0], broken, [3.0, 4.0]]), 3) == [True, False, True]
    as_base64 = reply([encoded([1.0, 2.0]), broken, encoded([3.0, 4.0])])
    assert good(as_base64, 3) == [True, False, True]


@pytest.mark.parametrize("component", [1e39, -1e39, 1e308, 10**38 * 10, 2**63])
def test_a_component_that_float32_cannot_hold_is_never_stored_as_another(component: float) -> None:
    content = reply([[1.0, 2.0]])
    content = content.replace(b"2.0", str(component).encode())
    assert good(content, 1) == [abs(component) < 3.4e38]


@pytest.mark.parametrize("component", [b"1e400", b"-1e400", b"1e99999"])
def test_a_number_beyond_every_float_is_not_stored(component: bytes) -> None:
    content = reply([[1.0, 2.0]]).replace(b"2.0", component)
    with suppress(BadReply):
        assert good(content, 1) == [False]


def test_zero_vectors_and_those_that_are_not_finite_are_not_sound() -> None:
    nan, infinite = float("nan"), float("inf")
    content = reply([encoded(v) for v in ([0.0, 0.0], [nan, 1.0], [1.0, infinite], [1e-30, 0.0])])
    assert good(content, 4) == [False, False, False, True]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_sound_is_finite_everywhere_and_not_zero(matrix: list[list[float]]) -> None:
    given = np.array(matrix, np.float32)
    # Squares of the smallest subnormal numbers are still above zero in double precision.
    expected = [bool(np.isfinite(row).all() and (row != 0).any()) for row in given]
    assert list(map(bool, sound(given))) == expected


def test_integers_are_numbers_too() -> None:
    assert vectors(reply([[1, 2, 3], [0, -1, 0]]), 2).tolist() == [[1, 2, 3], [0, -1, 0]]


@pytest.mark.parametrize("as_base64", [True, False])
def test_vectors_of_different_widths_are_refused_as_a_whole(as_base64: bool) -> None:
    ragged = [[1.0, 2.0], [1.0, 2.0, 3.0]]
    content = reply([encoded(v) if as_base64 else v for v in ragged])
    with pytest.raises(BadReply, match="differ in width"):
        parse(content, 2)


@pytest.mark.parametrize("empty", [[], "", None])
def test_embeddings_that_are_all_empty_are_refused(empty: Any) -> None:
    with pytest.raises(BadReply, match="empty"):
        parse(reply([empty, empty]), 2)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({}, 0),
        (None, 0),
        ("x", 0),
        ([7], 0),
        ({"prompt_tokens": -7}, 0),
        ({"prompt_tokens": "7"}, 0),
        ({"prompt_tokens": 7.5}, 0),
        ({"prompt_tokens": None}, 0),
    ],
)
def test_tokens_are_those_that_the_provider_charged(usage: Any, tokens: int) -> None:
    embedded, _ = parse(reply([[1.0]], usage=usage), 1)
    assert embedded.tokens == tokens


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "index", "embedding", "error", "usage", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(json_values, st.integers(1, 3))
def test_whatever_json_comes_it_is_vectors_or_a_bad_reply(value: Any, texts: int) -> None:
    try:
        found = vectors(orjson.dumps(value), texts)
    except BadReply:
        return
    assert found.shape[0] == texts


@settings(deadline=None, max_examples=200)
@given(st.lists(json_values, min_size=1, max_size=3))
def test_whatever_the_embeddings_are_they_are_vectors_or_a_bad_reply(values: list[Any]) -> None:
    try:
        found = vectors(reply(values), len(values))
    except BadReply:
        return
    assert found.dtype == np.float32
    assert found.ndim == 2


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_whatever_bytes_come_nothing_else_is_raised(content: bytes) -> None:
    with pytest.raises(BadReply):
        parse(content, 1)
