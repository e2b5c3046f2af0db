"""The governor never lets through more than was allowed, and keeps nobody waiting after a stop."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.engine.account import Account
from embedmigrate.engine.model import Resumed, Waiting
from embedmigrate.engine.pacing import Abandoned, Governor
from embedmigrate.engine.rates import Bucket
from tests.fakes import loop_time, virtually

if TYPE_CHECKING:
    from embedmigrate.engine.model import Event


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A governor on the loop's clock, with what it reported and whom it let through when."""

    def __init__(
        self,
        concurrency: int,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        delay: float = 0.0,
    ) -> None:
        self.events: list[Event] = []
        self.governor = Governor(
            Account(concurrency, rpm=rpm, tpm=tpm, clock=loop_time),
            report=self.events.append,
            delay=delay,
        )
        self.sent: list[float] = []
        self.flying = 0
        self.most_flying = 0

    async def request(self, seconds: float = 0.0, tokens: int = 0) -> None:
        async with self.governor.request(tokens):
            self.sent.append(loop_time())
            self.flying += 1
            self.most_flying = max(self.most_flying, self.flying)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.flying -= 1

    async def opened(self) -> None:
        """The first request is over: now many may fly."""
        await self.request()
        self.governor.succeeded()
        self.sent.clear()
        self.most_flying = 0


steps = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 500)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=200)
@given(st.floats(1, 10_000), steps)
def test_a_bucket_never_lets_through_more_than_its_rate(
    per_minute: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    released: list[tuple[float, int]] = []
    for idle, units in steps:
        clock.now += idle
        released.append((clock.now + bucket.take(units), units))
    rate = per_minute / 60
    allowance = max(1.0, 2 * rate)
    for first, last in itertools.combinations_with_replacement(range(len(released)), 2):
        seconds = released[last][0] - released[first][0]
        through = sum(units for _, units in released[first : last + 1])
        # A request above the bucket's size passes all the same, after it has paid for itself.
        assert through <= max(allowance, released[first][1]) + rate * seconds + 1e-6


@settings(deadline=None, max_examples=100)
@given(st.floats(1, 10_000), steps)
def test_a_bucket_serves_in_order_and_wastes_no_time(
    per_minute: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(per_minute, clock)
    released = [clock.now]
    total = 0
    for idle, units in steps:
        clock.now += idle
        released.append(clock.now + bucket.take(units))
        total += units
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(released))
    assert released[-1] <= clock.now + total / (per_minute / 60) + 1e-6


def test_an_unused_bucket_saves_no_more_than_two_seconds() -> None:
    clock = Clock()
    bucket = Bucket(600, clock)
    clock.now += 3600
    assert [bucket.take(1) for _ in range(20)] == [0] * 20
    assert bucket.take(1) == pytest.approx(0.1)


def test_the_first_request_goes_alone() -> None:
    async def main() -> None:
        watched = Watched(8)
        first = [asyncio.create_task(watched.request(1)) for _ in range(20)]
        await asyncio.sleep(3.5)
        assert watched.most_flying == 1
        watched.governor.succeeded()
        await asyncio.gather(*first)
        assert watched.most_flying == 8

    virtually(main())


def test_requests_a_minute_are_kept_whatever_the_concurrency() -> None:
    async def main() -> None:
        watched = Watched(50, rpm=120)
        await watched.opened()
        await asyncio.sleep(10)
        began = loop_time()
        await asyncio.gather(*(watched.request() for _ in range(124)))
        assert loop_time() - began == pytest.approx(60, abs=0.1)
        for first, last in zip(watched.sent, watched.sent[10:], strict=False):
            assert last - first >= (10 - 4) / 2 - 0.01

    virtually(main())


def test_tokens_a_minute_are_kept_even_by_requests_above_the_allowance() -> None:
    async def main() -> None:
        watched = Watched(50, tpm=6_000)
        await watched.opened()
        began = loop_time()
        await asyncio.gather(*(watched.request(tokens=1_000) for _ in range(6)))
        assert loop_time() - began == pytest.approx(58, abs=0.1)
        gaps = [b - a for a, b in itertools.pairwise(watched.sent)]
        assert gaps == pytest.approx([10] * 5, abs=0.1)

    virtually(main())


def test_a_delay_keeps_the_place_but_not_the_caller() -> None:
    async def main() -> None:
        watched = Watched(1, delay=2)
        began = loop_time()
        await watched.request(1)
        assert loop_time() - began == 1
        await watched.request(1)
        await watched.request(1)
        assert [t - began for t in watched.sent] == [0, 3, 6]

    virtually(main())


def test_the_width_halves_once_in_a_cooldown_however_many_requests_met_it() -> None:
    async def main() -> None:
        watched = Watched(16)
        await watched.opened()
        governor = watched.governor
        for attempt in range(10):
            governor.limited(5, attempt=attempt, asked=True)
        assert governor.allowed == 8
        await asyncio.sleep(5)
        governor.limited(5, attempt=1, asked=True)
        governor.limited(5, attempt=1, asked=True)
        assert governor.allowed == 4
        for _ in range(5):
            await asyncio.sleep(5)
            governor.limited(5, attempt=1, asked=True)
        assert governor.allowed == 1
        await asyncio.gather(*(watched.request(1) for _ in range(5)))
        assert watched.most_flying == 1

    virtually(main())


def test_the_width_recovers_by_one_after_clean_rounds_up_to_what_was_asked_for() -> None:
    async def main() -> None:
        watched = Watched(4)
        await watched.opened()
        governor = watched.governor
        governor.limited(1, attempt=1, asked=True)
        await asyncio.sleep(1)
        assert governor.allowed == 2
        for _ in range(15):
            governor.succeeded()
        assert governor.allowed == 2
        governor.succeeded()
        assert governor.allowed == 3
        for _ in range(1000):
            governor.succeeded()
        assert governor.allowed == 4
        await asyncio.gather(*(watched.request(1) for _ in range(9)))
        assert watched.most_flying == 4

    virtually(main())


def test_another_429_starts_the_count_of_clean_requests_again() -> None:
    async def main() -> None:
        watched = Watched(4)
        await watched.opened()
        governor = watched.governor
        governor.limited(1, attempt=1, asked=True)
        for _ in range(15):
            governor.succeeded()
        governor.limited(1, attempt=1, asked=True)
        governor.succeeded()
        assert governor.allowed == 2

    virtually(main())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 9)), min_size=1, max_size=5),
)
def test_nobody_sends_before_the_cooldown_is_over(
    concurrency: int, limits: list[tuple[float, float]]
) -> None:
    async def main() -> None:
        watched = Watched(concurrency)
        await watched.opened()
        forbidden: list[tuple[float, float]] = []

        async def provider() -> None:
            for pause, seconds in limits:
                await asyncio.sleep(pause)
                watched.governor.limited(seconds, attempt=1, asked=True)
                forbidden.append((loop_time(), loop_time() + seconds))

        async def worker() -> None:
            for _ in range(6):
                await watched.request(0.7)

        await asyncio.gather(provider(), *(worker() for _ in range(2 * concurrency)))
        for begin, end in forbidden:
            assert not [sent for sent in watched.sent if begin < sent < end - 1e-6]

    virtually(main())


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    async def main() -> None:
        watched = Watched(4)
        await watched.opened()
        began = loop_time()
        watched.governor.limited(30, attempt=1, asked=True)
        watched.governor.limited(1, attempt=1, asked=True)
        await watched.request()
        assert watched.sent[-1] - began >= 30

    virtually(main())


def test_a_wait_is_reported_once_and_its_end_once() -> None:
    async def main() -> None:
        watched = Watched(8)
        await watched.opened()
        watched.governor.limited(12, attempt=2, asked=True)
        watched.governor.limited(12, attempt=2, asked=True)
        watched.governor.limited(3, attempt=3, asked=False)
        await asyncio.gather(*(watched.request(1) for _ in range(8)))
        waiting = Waiting("provider_rate_limit", 12, 2, asked=True)
        assert watched.events == [waiting, Resumed()]

    virtually(main())


def test_sleep_is_abandoned_at_once_when_the_run_stops() -> None:
    async def main() -> None:
        watched = Watched(4)
        began = loop_time()
        sleeping = asyncio.create_task(watched.governor.sleep(3600))
        await asyncio.sleep(1)
        watched.governor.close()
        with pytest.raises(Abandoned):
            await sleeping
        assert loop_time() - began == pytest.approx(1)
        with pytest.raises(Abandoned):
            await watched.governor.sleep(1)
        await watched.governor.sleep(0)

    virtually(main())


@pytest.mark.parametrize("limited", [True, False])
def test_after_a_stop_whoever_waits_is_told_and_whoever_flies_lands(limited: bool) -> None:
    async def main() -> None:
        watched = Watched(2, rpm=60)
        await watched.opened()
        flying = [asyncio.create_task(watched.request(5)) for _ in range(2)]
        await asyncio.sleep(3)
        if limited:
            watched.governor.limited(3600, attempt=1, asked=True)
        waiting = [asyncio.create_task(watched.request()) for _ in range(20)]
        await asyncio.sleep(0.1)
        sent = len(watched.sent)
        watched.governor.close()
        stopped = loop_time()
        assert all(
            isinstance(end, Abandoned)
            for end in await asyncio.gather(*waiting, return_exceptions=True)
        )
        assert loop_time() - stopped < 0.1
        await asyncio.gather(*flying)
        assert len(watched.sent) == sent == 2
        with pytest.raises(Abandoned):
            await watched.request()
        assert watched.governor.in_flight == 0

    virtually(main())


def test_a_success_after_the_stop_lets_nobody_in() -> None:
    async def main() -> None:
        watched = Watched(4)
        flying = asyncio.create_task(watched.request(5))
        await asyncio.sleep(1)
        watched.governor.close()
        await flying
        watched.governor.succeeded()
        with pytest.raises(Abandoned):
            await watched.request()

    virtually(main())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 3), st.none() | st.floats(0, 3)), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.5]),
)
def test_cancelled_requests_leak_no_place(
    concurrency: int, requests: list[tuple[float, float | None]], delay: float
) -> None:
    async def main() -> None:
        watched = Watched(concurrency, delay=delay)
        await watched.opened()
        tasks = []
        for seconds, cancel_after in requests:
            task = asyncio.create_task(watched.request(seconds))
            if cancel_after is not None:
                asyncio.get_running_loop().call_later(cancel_after, task.cancel)
            tasks.append(task)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(e is None or isinstance(e, asyncio.CancelledError) for e in ended)
        assert watched.most_flying <= concurrency
        await asyncio.sleep(delay + 1)
        assert watched.governor.in_flight == 0
        watched.most_flying = 0
        await asyncio.gather(*(watched.request(1) for _ in range(3 * concurrency)))
        assert watched.most_flying == concurrency

    virtually(main())


def test_a_waiter_cancelled_in_the_instant_of_its_turn_passes_the_turn_on() -> None:
    async def main() -> None:
        watched = Watched(1)
        await watched.opened()
        async with watched.governor.request(0):
            second = asyncio.create_task(watched.request(1))
            third = asyncio.create_task(watched.request(1))
            await asyncio.sleep(0.5)
        second.cancel()  # it has been given its turn, and has not run yet
        with suppress(asyncio.CancelledError):
            await second
        await third
        assert second.cancelled()
        assert watched.governor.in_flight == 0

    virtually(main())


def test_the_governor_knows_whether_the_provider_lives() -> None:
    async def main() -> None:
        watched = Watched(1)
        governor = watched.governor
        assert not governor.alive_since(float("-inf"))
        moment = governor.now()
        await asyncio.sleep(1)
        governor.succeeded()
        assert governor.alive_since(moment)
        assert not governor.alive_since(governor.now())

    virtually(main())
