"""Batches lose no row, keep the order, and respect every limit that a row by itself can meet."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.engine.batching import Intake, OnTooLong, batches
from embedmigrate.engine.model import Batch, Failure, Limits, Row
from tests.fakes import row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

texts = st.lists(st.text(alphabet="aé漢😀\ud800", max_size=12), max_size=40)
limits = st.builds(
    Limits,
    rows=st.integers(1, 8),
    bytes=st.integers(1, 60),
    tokens=st.integers(1, 30),
    text_tokens=st.none() | st.integers(0, 12),
)


def intake(policy: OnTooLong = OnTooLong.FAIL, *, exact: bool = True) -> Intake:
    """A character is a token."""
    return Intake(len, lambda text, tokens: text[:tokens], exact, policy)


def cut(
    rows: Iterable[Row],
    limits: Limits | Callable[[], Limits],
    taking: Intake | None = None,
    *,
    force: bool = False,
) -> list[Batch]:
    async def stream() -> AsyncIterator[Row]:
        for one in rows:
            yield one

    async def all_of_them() -> list[Batch]:
        now = limits if callable(limits) else lambda: limits
        numbers = itertools.count()
        cutting = batches(stream(), now, taking or intake(), numbers, force=force)
        return [batch async for batch in cutting]

    return asyncio.run(all_of_them())


def size(rows: Iterable[Row]) -> int:
    return sum(len(one.text.encode("utf-8", "surrogatepass")) for one in rows)


@settings(deadline=None, max_examples=200)
@given(texts, limits, st.sampled_from(OnTooLong), st.booleans())
def test_no_row_is_lost_and_the_order_is_kept(
    texts: list[str], limits: Limits, policy: OnTooLong, exact: bool
) -> None:
    rows = [row(n, text) for n, text in enumerate(texts)]
    made = cut(rows, limits, intake(policy, exact=exact))
    seen = 0
    for number, batch in enumerate(made):
        assert batch.seq == number
        taken = {r.key for r in batch.rows} | {f.key for f in batch.refused}
        through = seen + len(batch.rows) + len(batch.refused)
        assert taken == {r.key for r in rows[seen:through]}
        left = [r.key for r in rows[seen:through]]
        assert [key for key in left if key in {r.key for r in batch.rows}] == [
            r.key for r in batch.rows
        ]
        assert [key for key in left if key in {f.key for f in batch.refused}] == [
            f.key for f in batch.refused
        ]
        assert batch.last == rows[through - 1].key
        seen = through
    assert seen == len(rows)


@settings(deadline=None, max_examples=200)
@given(texts, limits)
def test_limits_are_met_by_every_batch_of_more_than_one_row(
    texts: list[str], limits: Limits
) -> None:
    for batch in cut([row(n, text) for n, text in enumerate(texts)], limits):
        assert len(batch.rows) <= limits.rows
        assert len(batch.refused) <= limits.rows
        if len(batch.rows) > 1:
            assert size(batch.rows) <= limits.bytes
            assert batch.tokens <= limits.tokens


@settings(deadline=None, max_examples=100)
@given(texts, limits)
def test_a_batch_is_closed_only_because_the_next_row_does_not_fit(
    texts: list[str], limits: Limits
) -> None:
    made = cut([row(n, text) for n, text in enumerate(texts)], limits)
    for batch, following in itertools.pairwise(made):
        full = len(batch.rows) == limits.rows or len(batch.refused) == limits.rows
        joined = (*batch.rows, *following.rows[:1])
        too_many = size(joined) > limits.bytes or sum(r.tokens for r in joined) > limits.tokens
        assert full or too_many


def test_a_text_above_the_limits_of_a_request_travels_alone() -> None:
    rows = [row(1, "a"), row(2, "b" * 100), row(3, "c"), row(4, "d")]
    made = cut(rows, Limits(rows=10, bytes=10, tokens=1000))
    assert [[r.key[0] for r in batch.rows] for batch in made] == [["1"], ["2"], ["3", "4"]]
    made = cut(rows, Limits(rows=10, bytes=1000, tokens=10))
    assert [[r.key[0] for r in batch.rows] for batch in made] == [["1"], ["2"], ["3", "4"]]


def test_bytes_and_not_characters_are_counted() -> None:
    made = cut([row(n, "漢" * 2) for n in range(4)], Limits(rows=10, bytes=12, tokens=1000))
    assert [len(batch.rows) for batch in made] == [2, 2]


def test_refused_rows_ride_along_so_that_the_cursor_passes_them() -> None:
    given = [row(1, "ok"), row(2, "too long"), row(3, "ok"), row(4, "too long")]
    made = cut(given, Limits(rows=10, bytes=1000, tokens=1000, text_tokens=4))
    assert len(made) == 1
    assert [r.key for r in made[0].rows] == [("1",), ("3",)]
    assert [f.key for f in made[0].refused] == [("2",), ("4",)]
    assert made[0].last == ("4",)


def test_a_table_of_refused_rows_only_still_moves_the_cursor() -> None:
    given = [row(n, "too long") for n in range(1, 8)]
    made = cut(given, Limits(rows=3, bytes=1000, tokens=1000, text_tokens=4))
    assert [len(batch.refused) for batch in made] == [3, 3, 1]
    assert [batch.last for batch in made] == [("3",), ("6",), ("7",)]
    assert not any(batch.rows for batch in made)


def test_no_rows_make_no_batch() -> None:
    assert cut([], Limits(rows=3, bytes=10, tokens=10)) == []


def test_limits_that_shrink_count_from_the_next_row_on() -> None:
    asked = itertools.count()

    def shrinking() -> Limits:
        return Limits(rows=8 if next(asked) < 10 else 2, bytes=1000, tokens=1000)

    made = cut([row(n) for n in range(20)], shrinking)
    assert [len(batch.rows) for batch in made] == [8, 2, 2, 2, 2, 2, 2]


def test_bytes_that_shrink_count_from_the_next_row_on() -> None:
    asked = itertools.count()

    def shrinking() -> Limits:
        return Limits(rows=100, bytes=80 if next(asked) < 8 else 20, tokens=1000)

    made = cut([row(n, "x" * 10) for n in range(20)], shrinking)
    assert [len(batch.rows) for batch in made] == [8, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("force", [True, False])
def test_every_batch_knows_whether_it_replaces_vectors(force: bool) -> None:
    made = cut([row(n) for n in range(5)], Limits(rows=2, bytes=1000, tokens=1000), force=force)
    assert [batch.force for batch in made] == [force] * 3


LIMIT = 4


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("policy", OnTooLong)
@pytest.mark.parametrize("text", ["", "abc", "abcd"])
def test_a_text_up_to_the_limit_is_taken_as_it_is(
    text: str, policy: OnTooLong, exact: bool
) -> None:
    given = row(1, text)
    admitted = intake(policy, exact=exact).admit(given, LIMIT)
    assert isinstance(admitted, Row)
    assert (admitted.text, admitted.tokens, admitted.digest) == (text, len(text), given.digest)


def test_an_exact_count_above_the_limit_fails_the_row_without_a_request() -> None:
    failure = intake(OnTooLong.FAIL).admit(row(7, "abcde"), LIMIT)
    assert failure == Failure(
        ("7",), "input_too_long", "5 tokens, model limit 4", attempts=0, skipped=False
    )


def test_an_estimate_fails_no_row() -> None:
    admitted = intake(OnTooLong.FAIL, exact=False).admit(row(7, "abcde"), LIMIT)
    assert isinstance(admitted, Row)
    assert (admitted.text, admitted.tokens) == ("abcde", 5)


@pytest.mark.parametrize(("exact", "about"), [(True, ""), (False, "about ")])
def test_skipping_says_how_long_the_text_is(exact: bool, about: str) -> None:
    failure = intake(OnTooLong.SKIP, exact=exact).admit(row(7, "abcde"), LIMIT)
    assert isinstance(failure, Failure)
    assert failure.skipped
    assert failure.attempts == 0
    assert failure.message == f"{about}5 tokens, model limit 4"


@pytest.mark.parametrize("exact", [True, False])
def test_a_truncated_row_is_still_guarded_by_the_digest_of_its_whole_text(exact: bool) -> None:
    given = row(7, "abcdef")
    admitted = intake(OnTooLong.TRUNCATE, exact=exact).admit(given, LIMIT)
    assert isinstance(admitted, Row)
    assert (admitted.text, admitted.tokens) == ("abcd", 4)
    assert admitted.digest == given.digest


@pytest.mark.parametrize("policy", OnTooLong)
def test_a_model_without_a_known_limit_takes_every_text(policy: OnTooLong) -> None:
    admitted = intake(policy).admit(row(7, "x" * 1_000_000), None)
    assert isinstance(admitted, Row)
    assert admitted.tokens == 1_000_000


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=30), st.integers(0, 30), st.sampled_from(OnTooLong), st.booleans())
def test_a_refusal_never_holds_the_text(
    text: str, limit: int, policy: OnTooLong, exact: bool
) -> None:
    canary = "canary" + text
    admitted = intake(policy, exact=exact).admit(row(1, canary), limit)
    if isinstance(admitted, Failure):
        assert "canary" not in repr(admitted)
