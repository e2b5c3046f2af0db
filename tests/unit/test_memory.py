"""The same text is asked for once, and its vector is the right one wherever it stands."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedmigrate.engine.memory import ENTRY_BYTES, Memory, Question
from tests.fakes import row
from tests.provider import vector_of

if TYPE_CHECKING:
    from embedmigrate.engine.model import Row

WIDTH = 8
EACH = WIDTH * 4 + ENTRY_BYTES
TEXTS = st.lists(st.text(max_size=3), min_size=1, max_size=30)


def _vectors(texts: list[str]) -> np.typing.NDArray[np.float32]:
    return np.stack([vector_of(text, WIDTH) for text in texts]).astype(np.float32)


def _rows(texts: list[str]) -> list[Row]:
    return [row(n, text) for n, text in enumerate(texts)]


@given(st.lists(TEXTS, min_size=1, max_size=6), st.integers(0, 20))
def test_every_text_gets_its_own_vector_and_none_is_sent_twice_in_a_request(
    requests: list[list[str]], room: int
) -> None:
    memory = Memory(most_bytes=room * EACH)
    for texts in requests:
        question = Question(memory, _rows(texts))
        assert len(set(question.texts)) == len(question.texts)
        assert set(question.texts) <= set(texts)
        assert question.saved == len(texts) - len(question.texts)
        found = question.answer(_vectors(question.texts) if question.texts else None)
        assert np.array_equal(found, _vectors(texts))
        memory.keep(_rows(texts), found)
        assert memory._bytes <= room * EACH
        assert memory._bytes == len(memory._kept) * EACH


def test_a_text_that_was_embedded_is_not_sent_again() -> None:
    memory = Memory()
    memory.keep(_rows(["a", "b"]), _vectors(["a", "b"]))
    question = Question(memory, _rows(["b", "c", "a", "c"]))
    assert question.texts == ["c"]
    assert question.saved == 3


def test_what_was_used_last_stays() -> None:
    memory = Memory(most_bytes=2 * EACH)
    memory.keep(_rows(["a", "b"]), _vectors(["a", "b"]))
    question = Question(memory, _rows(["a", "c"]))
    memory.keep(_rows(["a", "c"]), question.answer(_vectors(["c"])))
    assert Question(memory, _rows(["a", "b", "c"])).texts == ["b"]


def test_short_vectors_take_no_more_memory_than_long_ones() -> None:
    memory = Memory()
    vector = np.ones((1, WIDTH), np.float32)
    tracemalloc.start()
    try:
        for n in range(60_000):
            memory.keep([row(n)], vector)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 17 * 1024 * 1024
