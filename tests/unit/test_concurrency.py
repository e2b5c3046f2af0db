"""`--concurrency auto` against providers that live by token buckets, slots and slow tables."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.engine.account import Account
from embedmigrate.engine.model import Allowance, Allowances
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.rates import Learned, lasting
from tests.fakes import loop_time, virtually
from tests.limited import Terms, lived

if TYPE_CHECKING:
    from tests.limited import Run

REQUESTS = Terms(rpm=600)
TOKENS = Terms(tpm=60_000)


def used(run: Run, since: float, until: float) -> float:
    """The share of what flows into the provider's buckets; above 1 while a full one drains."""
    shares = []
    if run.terms.rpm:
        shares.append(run.rate(since, until) / run.terms.rpm)
    if run.terms.tpm:
        shares.append(run.token_rate(since, until) / run.terms.tpm)
    return max(shares)


@pytest.mark.parametrize(("seconds", "seed"), [(0.1, 0), (0.5, 1), (2.0, 2)])
@pytest.mark.parametrize(
    "terms",
    [
        Terms(rpm=60),
        Terms(rpm=600),
        Terms(tpm=6_000),
        Terms(tpm=60_000),
        Terms(rpm=500, tpm=60_000),
        Terms(rpm=900, tpm=60_000),
    ],
    ids=str,
)
def test_a_provider_that_says_what_is_left_is_used_and_never_refuses(
    terms: Terms, seconds: float, seed: int
) -> None:
    run = lived(Terms(**{**vars(terms), "seconds": seconds}), seed, 120)
    assert used(run, 0, 60) >= 0.9
    assert used(run, 60, 120) >= 0.9
    assert run.refused(0, 120) == 0


@pytest.mark.parametrize(("seconds", "retry_after"), [(0.1, True), (0.5, True), (0.5, False)])
@pytest.mark.parametrize("burst", [2.0, 60.0])
@pytest.mark.parametrize("kind", ["rpm", "tpm"])
def test_a_rate_that_nobody_tells_is_learned_from_the_refusals(
    kind: str, burst: float, seconds: float, retry_after: bool
) -> None:
    terms = Terms(
        rpm=600 if kind == "rpm" else None,
        tpm=60_000 if kind == "tpm" else None,
        burst=burst,
        seconds=seconds,
        headers=False,
        retry_after=retry_after,
    )
    run = lived(terms, 0, 180)
    assert used(run, 0, 60) >= 0.9
    assert used(run, 60, 120) >= 0.9
    assert used(run, 120, 180) >= 0.9
    assert run.refused(0, 60) < 0.05
    assert run.refused(60, 180) < 0.05


@pytest.mark.parametrize("headers", [True, False])
def test_the_rate_is_kept_for_half_an_hour(headers: bool) -> None:
    run = lived(Terms(rpm=120, headers=headers), 1, 1800)
    assert used(run, 60, 1800) >= 0.9
    assert run.refused(0, 1800) < 0.05


def test_eight_in_flight_without_auto_run_into_the_wall() -> None:
    """What `auto` is for: the same provider, and a number that an operator has guessed."""
    run = lived(Terms(rpm=60, headers=False), 0, 180, concurrency=8, auto=False)
    assert run.refused(0, 180) > 0.05


def test_a_provider_without_limits_gets_all_that_may_fly() -> None:
    run = lived(Terms(seconds=0.5), 0, 60)
    assert run.at(60).allowed >= 30
    assert run.rate(40, 60) >= 0.9 * 32 / 0.55 * 60


def test_a_provider_that_says_what_is_left_is_trusted_at_once() -> None:
    told = lived(Terms(rpm=100_000, seconds=0.5), 0, 6)
    assert told.at(6).allowed >= 30
    assert lived(Terms(seconds=0.5), 0, 6).at(6).allowed < 16


@pytest.mark.parametrize("slots", [1, 4])
def test_requests_do_not_queue_at_a_provider_that_serves_few_at_once(slots: int) -> None:
    run = lived(Terms(slots=slots, seconds=0.5), 0, 300)
    busiest = max(sample.allowed for sample in run.samples if sample.at > 60)
    assert busiest <= 3 * slots + 6
    assert run.rate(60, 300) >= 0.9 * slots / 0.53 * 60


def test_a_writer_that_lags_behind_narrows_the_requests() -> None:
    slow = lived(Terms(writing=0.5), 0, 120)
    assert max(sample.allowed for sample in slow.samples if sample.at > 60) <= 8
    assert slow.rate(60, 120) >= 0.9 * 120
    assert lived(Terms(writing=0.001), 0, 120).at(120).allowed >= 30


def test_no_more_is_between_provider_and_table_than_the_ceiling() -> None:
    run = lived(Terms(writing=0.5), 0, 30, concurrency=6)
    assert max(sample.flying for sample in run.samples) <= 6
    assert max(sample.allowed for sample in run.samples) <= 6


def test_a_limit_that_rises_is_found() -> None:
    learned = Learned()
    now = 0.0
    for _ in range(2):
        for _ in range(50):
            now += 0.1
            learned.granted(10, now)
        learned.refused(now)
    assert learned.requests == pytest.approx(10, rel=0.1)
    assert learned.tokens == pytest.approx(100, rel=0.1)
    for _ in range(500):
        now += 0.1
        learned.granted(10, now)
    assert learned.requests > 20


@settings(deadline=None, max_examples=200)
@given(st.floats(1, 1e7), st.floats(0, 1), st.floats(0.001, 1e5), st.floats(0, 1e5))
def test_what_is_left_always_lets_something_through(
    limit: float, share: float, reset: float, age: float
) -> None:
    assert lasting(Allowance(limit, limit * share, reset), age) > 0 or share == 1


def test_a_window_is_emptied_when_the_next_one_begins() -> None:
    assert lasting(Allowance(600, 600, 60), 0) == 10
    assert lasting(Allowance(600, 300, 30), 0) == 10
    assert lasting(Allowance(600, 300, 30), 31) == float("inf")


def test_an_allowance_for_a_day_is_not_spread_over_the_day() -> None:
    assert lasting(Allowance(14_400, 14_370, 179.56), 0) > 200


def test_operator_and_provider_share_the_buckets() -> None:
    """The slower one decides."""

    async def main(rpm: float) -> float:
        governor = Governor(
            Account(32, auto=True, rpm=rpm, clock=loop_time), report=lambda _event: None
        )
        left = Allowances(requests=Allowance(600, 300, 30))
        began = loop_time()
        for _ in range(21):
            async with governor.request(1) as turn:
                pass
            governor.succeeded(turn, left)
        return loop_time() - began

    assert virtually(main(60)) == pytest.approx(18, abs=1.1)
    assert virtually(main(6000)) == pytest.approx(2, abs=0.3)


def test_refusals_of_one_flight_count_once() -> None:
    """Whoever was sent before the first of them was answered tells nothing new."""
    run = lived(Terms(rpm=600, seconds=1.0, headers=False, burst=10), 0, 60)
    widths = [sample.allowed for sample in run.samples]
    drops = [b / a for a, b in pairwise(widths) if b < a]
    assert drops
    assert min(drops) >= 0.6


def test_waiting_for_a_rate_costs_no_time() -> None:
    """A wait that is too short for the clock must not be looked at again and again."""
    began = time.process_time()
    lived(Terms(rpm=300), 0, 60)
    assert time.process_time() - began < 10
