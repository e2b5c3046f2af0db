"""Several jobs on one account: its limits hold for all together, and none keeps another waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.engine.account import Account
from embedmigrate.engine.gate import Gate
from embedmigrate.engine.model import Resumed, Waiting
from embedmigrate.engine.pacing import Abandoned, Governor
from embedmigrate.engine.widths import Found
from tests.fakes import loop_time, virtually

if TYPE_CHECKING:
    from embedmigrate.engine.model import Event


def now() -> float:
    """Seconds since the loop began."""
    return loop_time() - 1000


class Member:
    """A job that sends requests of one kind, one after the other in each of its lines."""

    def __init__(self, account: Account, seconds: float, tokens: int = 0) -> None:
        self.events: list[Event] = []
        self.governor = Governor(account, report=self.events.append)
        self.sent: list[float] = []
        self._seconds = seconds
        self._tokens = tokens

    async def request(self) -> None:
        async with self.governor.request(self._tokens) as turn:
            self.sent.append(now())
            await asyncio.sleep(self._seconds)
        self.governor.succeeded(turn)

    async def busy(self, lines: int, until: float) -> None:
        """As a job is: `lines` of its batches at once, until that moment."""

        async def line() -> None:
            while now() < until:
                await self.request()

        await asyncio.gather(*(line() for _ in range(lines)))

    def within(self, since: float, until: float) -> int:
        return sum(since <= at < until for at in self.sent)


def test_requests_a_minute_are_those_of_all_jobs_together() -> None:
    async def main() -> None:
        account = Account(8, rpm=120, clock=loop_time)
        jobs = [Member(account, seconds) for seconds in (0.1, 0.3, 0.5)]
        await asyncio.gather(*(job.busy(8, 120) for job in jobs))
        sent = sorted(at for job in jobs for at in job.sent)
        for first, last in zip(sent, sent[120:], strict=False):
            assert last - first >= 60 - 2 - 0.01
        assert [job.within(0, 120) for job in jobs] == pytest.approx([80, 80, 80], abs=4)

    virtually(main())


def test_places_are_those_of_all_jobs_together() -> None:
    async def main() -> None:
        account = Account(5, clock=loop_time)
        jobs = [Member(account, seconds) for seconds in (1, 2)]
        running = [asyncio.create_task(job.busy(5, 60)) for job in jobs]
        seen = []
        while now() < 55:
            await asyncio.sleep(0.25)
            seen.append(sum(job.governor.in_flight for job in jobs))
        await asyncio.gather(*running)
        assert max(seen) == 5

    virtually(main())


def test_a_job_with_slow_requests_leaves_the_other_half_of_the_places() -> None:
    """In turns it would hold nearly all of them: each of its requests lasts a hundred others."""

    async def main() -> None:
        account = Account(4, clock=loop_time)
        slow, quick = Member(account, 10), Member(account, 0.1)
        await asyncio.gather(slow.busy(32, 300), quick.busy(32, 300))
        assert quick.within(60, 300) >= 0.9 * 2 * 240 / 0.1
        assert slow.within(60, 300) >= 0.8 * 2 * 240 / 10

    virtually(main())


def test_one_place_is_taken_in_turns() -> None:
    async def main() -> None:
        account = Account(1, clock=loop_time)
        many, few = Member(account, 1), Member(account, 1)
        await asyncio.gather(many.busy(32, 60), few.busy(1, 60))
        assert few.within(0, 60) == pytest.approx(30, abs=1)

    virtually(main())


def test_a_job_with_big_batches_leaves_the_other_half_of_the_tokens() -> None:
    async def main() -> None:
        account = Account(8, tpm=60_000, clock=loop_time)
        big, small = Member(account, 0.1, 10_000), Member(account, 0.1, 100)
        await asyncio.gather(big.busy(8, 600), small.busy(8, 600))
        assert big.within(60, 600) * 10_000 == pytest.approx(270_000, rel=0.15)
        assert small.within(60, 600) * 100 == pytest.approx(270_000, rel=0.15)

    virtually(main())


def test_what_one_job_does_not_use_the_others_do() -> None:
    async def main() -> None:
        account = Account(4, rpm=600, clock=loop_time)
        idle, busy = Member(account, 0.1), Member(account, 0.1)
        await idle.request()
        await busy.busy(8, 60)
        assert busy.within(10, 60) == pytest.approx(500, abs=5)

    virtually(main())


def test_one_429_holds_all_jobs_of_the_account_and_each_is_told() -> None:
    async def main() -> None:
        account = Account(8, clock=loop_time)
        other = Member(Account(8, clock=loop_time), 0.5)
        jobs = [Member(account, 0.5), Member(account, 0.5)]
        running = [asyncio.create_task(job.busy(4, 60)) for job in (*jobs, other)]
        await asyncio.sleep(20.1)
        jobs[0].governor.limited(10, attempt=1, asked=True)
        await asyncio.gather(*running)
        for job in jobs:
            assert job.within(20.1, 30.09) == 0
            assert job.within(30.09, 31) > 0
            assert job.events == [Waiting("provider_rate_limit", 10, 1, asked=True), Resumed()]
        assert other.within(20.1, 30.09) > 0
        assert other.events == []

    virtually(main())


def test_a_job_that_has_ended_hears_of_no_429() -> None:
    async def main() -> None:
        account = Account(4, clock=loop_time)
        ended, going = Member(account, 0.1), Member(account, 0.1)
        ended.governor.retire()
        going.governor.limited(5, attempt=1, asked=False)
        assert ended.events == []
        assert len(going.events) == 1

    virtually(main())


@pytest.mark.parametrize("limited", [True, False])
def test_the_end_of_one_job_leaves_the_others(limited: bool) -> None:
    """Whoever of it waits is told at once, also while another job waits for the rate."""

    async def main() -> None:
        account = Account(4, rpm=6, clock=loop_time)
        ending, going = Member(account, 1), Member(account, 1)
        await going.request()
        if limited:
            going.governor.limited(20, attempt=1, asked=True)
        line = asyncio.create_task(going.busy(4, 300))
        await asyncio.sleep(1)
        waiting = [asyncio.create_task(ending.request()) for _ in range(8)]
        await asyncio.sleep(1)
        ending.governor.close()
        stopped = now()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, Abandoned) for end in ends)
        assert now() - stopped < 0.1
        assert ending.sent == []
        await line
        # What was abandoned was not sent: it costs the others nothing of their rate.
        assert going.within(25, 300) >= 27

    virtually(main())


def test_a_job_that_spares_its_database_holds_no_place_of_the_others() -> None:
    async def main() -> None:
        account = Account(2, clock=loop_time)
        pausing, going = Member(account, 1), Member(account, 1)
        running = [asyncio.create_task(job.busy(8, 60)) for job in (pausing, going)]
        await asyncio.sleep(10.1)
        pausing.governor.pause(30, "wal_rate")
        await asyncio.sleep(5)
        assert pausing.governor.in_flight == 0
        assert going.governor.in_flight == 2
        await asyncio.gather(*running)
        assert pausing.within(10.1, 40.09) == 0
        assert pausing.within(40.09, 60) > 10
        assert pausing.events == [Waiting("wal_rate", None, 0, asked=True), Resumed()]
        assert going.events == []

    virtually(main())


def test_the_first_request_of_each_job_goes_alone() -> None:
    """Its key, model or width may be wrong though another job's are not."""

    async def main() -> None:
        account = Account(8, clock=loop_time)
        await Member(account, 0.1).request()
        late = Member(account, 3)
        running = asyncio.create_task(late.busy(8, 5))
        await asyncio.sleep(2.9)
        assert late.governor.in_flight == 1
        await asyncio.sleep(0.2)
        assert late.governor.in_flight == 8
        await running

    virtually(main())


def test_a_job_does_not_take_anothers_answer_for_its_own() -> None:
    async def main() -> None:
        account = Account(2, clock=loop_time)
        well, unwell = Member(account, 0.1), Member(account, 0.1)
        moment = unwell.governor.now()
        await well.request()
        assert well.governor.alive_since(moment)
        assert not unwell.governor.alive_since(moment)

    virtually(main())


def test_jobs_with_requests_of_two_sizes_do_not_look_like_a_slow_provider() -> None:
    width = Found(32)
    for n in range(4000):
        job, seconds = ("small", 0.1) if n // 40 % 2 else ("big", 2.0)
        width.answered(seconds, job=job, wanted=True, writing=0, told=True)
    assert width.allowed == 32


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 3), st.none() | st.floats(0, 4)),
        min_size=1,
        max_size=25,
    ),
    st.floats(0, 5),
)
def test_cancelled_requests_and_ended_jobs_leak_no_place(
    concurrency: int, requests: list[tuple[int, float, float | None]], closes_at: float
) -> None:
    async def main() -> None:
        account = Account(concurrency, rpm=300, clock=loop_time)
        jobs = [Member(account, 0.5) for _ in range(3)]
        for job in jobs:
            await job.request()
        loop = asyncio.get_running_loop()
        loop.call_later(closes_at, jobs[0].governor.close)

        async def one(job: Member, begins: float) -> None:
            await asyncio.sleep(begins)
            await job.request()

        tasks = []
        for number, begins, cancelled_after in requests:
            task = asyncio.create_task(one(jobs[number], begins))
            if cancelled_after is not None:
                loop.call_later(cancelled_after, task.cancel)
            tasks.append(task)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(e is None or isinstance(e, asyncio.CancelledError | Abandoned) for e in ends)
        assert not account.queue.taken
        assert account.gate.held == 0
        began = now()
        await asyncio.gather(*(jobs[1].request() for _ in range(concurrency)))
        assert now() - began < 2 + concurrency / 5

    virtually(main())


def test_a_gate_gives_to_whoever_holds_least_and_in_order_within_a_job() -> None:
    async def main() -> None:
        gate = Gate(3)
        first, second = gate.join(), gate.join()
        order: list[str] = []

        async def enter(share: object, name: str) -> None:
            await gate.enter(first if share is first else second)
            order.append(name)

        for _ in range(3):
            await gate.enter(first)
        waiting = [
            asyncio.create_task(enter(share, name))
            for share, name in ((first, "a1"), (first, "a2"), (second, "b1"), (second, "b2"))
        ]
        await asyncio.sleep(0)
        for _ in range(4):
            gate.leave(first if first.held else second)
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert order == ["b1", "a1", "b2", "a2"]

    virtually(main())
