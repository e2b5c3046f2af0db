"""The ledger counts every outcome once and never lets the cursor pass an unfinished batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import Failure, Key, Outcome
from embedmigrate.engine.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

counts = st.integers(0, 50)
failures = st.builds(
    Failure,
    key=st.integers(0, 99_999).map(lambda n: (f"bad {n}",)),
    code=st.sampled_from(["input_rejected", "input_too_long", "bad_vector"]),
    message=st.just("refused"),
    skipped=st.booleans(),
)
outcomes = st.builds(
    Outcome,
    seq=st.just(0),
    last=st.just(("",)),
    finished=st.integers(0, 9).map(bool),
    stored=counts,
    unchanged=counts,
    vanished=counts,
    failed=st.lists(failures, max_size=3).map(tuple),
    tokens=counts,
    requests=counts,
    retries=counts,
)


@st.composite
def in_any_order(draw: st.DrawFn) -> list[Outcome]:
    """The outcomes of consecutive batches as they come in."""
    drawn = draw(st.lists(outcomes, min_size=1, max_size=12))
    numbered = [replace(o, seq=n, last=(f"key {n}",)) for n, o in enumerate(drawn)]
    return draw(st.permutations(numbered))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def prefix_end(recorded: Sequence[Outcome]) -> Key | None:
    """The definition, as slow as it is plain."""
    finished = {o.seq: o.last for o in recorded if o.finished}
    last = None
    for seq in range(len(recorded)):
        if seq not in finished:
            break
        last = finished[seq]
    return last


@settings(deadline=None, max_examples=200)
@given(in_any_order())
def test_the_cursor_is_the_end_of_the_gap_free_finished_prefix(arriving: list[Outcome]) -> None:
    ledger = Ledger(selected=1)
    for n, outcome in enumerate(arriving, 1):
        ledger.record(outcome)
        assert ledger.cursor == prefix_end(arriving[:n])
        assert ledger.progress.cursor == ledger.cursor


@settings(deadline=None, max_examples=100)
@given(in_any_order())
def test_the_counters_are_the_sums_in_whatever_order(arriving: list[Outcome]) -> None:
    ledger = Ledger(selected=1)
    for outcome in arriving:
        ledger.record(outcome)
    p = ledger.progress
    assert p.rows_stored == sum(o.stored for o in arriving)
    assert p.rows_unchanged == sum(o.unchanged for o in arriving)
    assert p.rows_vanished == sum(o.vanished for o in arriving)
    assert (p.tokens, p.requests, p.retries) == (
        sum(o.tokens for o in arriving),
        sum(o.requests for o in arriving),
        sum(o.retries for o in arriving),
    )
    failed = [f for o in arriving for f in o.failed]
    assert p.rows_failed == sum(not f.skipped for f in failed)
    assert p.rows_skipped == sum(f.skipped for f in failed)
    assert ledger.excluded == {f.key for f in failed}
    assert sum(ledger.by_code.values()) == p.rows_failed
    assert sum(ledger.skipped_by_code.values()) == p.rows_skipped
    assert p.rows_processed == (
        p.rows_stored + p.rows_unchanged + p.rows_vanished + p.rows_failed + p.rows_skipped
    )


@settings(deadline=None, max_examples=100)
@given(in_any_order(), st.data())
def test_a_sweep_never_moves_the_cursor(arriving: list[Outcome], data: st.DataObject) -> None:
    frozen_at = data.draw(st.integers(0, len(arriving)))
    ledger = Ledger(selected=1)
    for outcome in arriving[:frozen_at]:
        ledger.record(outcome)
    cursor = ledger.cursor
    ledger.freeze_cursor()
    for outcome in arriving[frozen_at:]:
        ledger.record(outcome)
    assert ledger.cursor == cursor
    assert ledger.progress.rows_stored == sum(o.stored for o in arriving)


def test_an_unfinished_batch_blocks_the_cursor_for_ever() -> None:
    ledger = Ledger(selected=40, cursor=("before",))
    ledger.record(Outcome(1, ("b",), finished=True, stored=10))
    ledger.record(Outcome(0, ("a",), finished=False, stored=3))
    ledger.record(Outcome(2, ("c",), finished=True, stored=10))
    assert ledger.cursor == ("before",)
    assert ledger.progress.rows_stored == 23


def test_the_cursor_waits_for_the_oldest_batch_and_then_passes_all_that_are_done() -> None:
    ledger = Ledger(selected=3)
    for seq in (3, 1, 2):
        ledger.record(Outcome(seq, (str(seq),), finished=True))
        assert ledger.cursor is None
    ledger.record(Outcome(0, ("0",), finished=True))
    assert ledger.cursor == ("3",)


def test_at_most_a_hundred_failed_keys_are_kept_but_all_are_excluded() -> None:
    ledger = Ledger(selected=1000)
    for seq in range(4):
        failed = tuple(Failure((f"{seq} {n}",), "input_rejected", "no") for n in range(40))
        ledger.record(Outcome(seq, (str(seq),), finished=True, failed=failed))
    assert len(ledger.failures) == 100
    assert ledger.failures[-1] == ("2 19",)
    assert len(ledger.excluded) == ledger.progress.rows_failed == 160


def test_the_rate_is_that_of_the_last_minute_and_ignores_rows_of_earlier_runs() -> None:
    clock = Clock()
    ledger = Ledger(selected=10_000, already_done=5_000, clock=clock)
    for seq in range(120):
        clock.now += 1
        rows = 100 if seq < 60 else 10
        ledger.record(Outcome(seq, (str(seq),), finished=True, stored=rows))
    assert ledger.progress.rows_per_second == pytest.approx(10, rel=0.2)
    assert ledger.progress.elapsed_seconds == 120
    assert ledger.progress.rows_done == 5_000 + 60 * 110


def test_a_stalled_run_shows_a_falling_rate() -> None:
    clock = Clock()
    ledger = Ledger(selected=1_000, clock=clock)
    clock.now = 10
    ledger.record(Outcome(0, ("0",), finished=True, stored=100))
    assert ledger.progress.rows_per_second == pytest.approx(10)
    clock.now = 100
    assert ledger.progress.rows_per_second == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "stored", "eta"),
    [(29, 500, None), (30, 5, None), (30, 0, None), (30, 500, 30), (30, 1000, 0), (30, 2000, 0)],
)
def test_the_time_left_is_told_only_when_it_can_be_known(
    seconds: float, stored: int, eta: float | None
) -> None:
    clock = Clock()
    ledger = Ledger(selected=1000, clock=clock)
    clock.now = seconds
    ledger.record(Outcome(0, ("0",), finished=True, stored=stored))
    assert ledger.progress.eta_seconds == (None if eta is None else pytest.approx(eta))


def test_the_cost_is_that_of_the_tokens_charged() -> None:
    ledger = Ledger(selected=1, cost_of=lambda tokens: tokens / 4)
    ledger.record(Outcome(0, ("0",), finished=False, tokens=10))
    assert ledger.progress.cost_usd == 2.5


def test_the_snapshot_shows_what_the_run_is_waiting_for() -> None:
    ledger = Ledger(selected=1)
    ledger.show(State.THROTTLED, reason="provider_rate_limit", wait_seconds=12)
    ledger.flight(3, 8)
    waiting = ledger.progress
    ledger.show(State.RUNNING)
    assert (waiting.state, waiting.reason) == (State.THROTTLED, "provider_rate_limit")
    assert (waiting.wait_seconds, waiting.in_flight, waiting.concurrency) == (12, 3, 8)
    assert (ledger.progress.reason, ledger.progress.wait_seconds) == (None, None)
