"""Who gets which batch, with actors that are not real."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from embedmigrate.engine.account import Account
from embedmigrate.engine.model import Batch, Limits, Outcome
from embedmigrate.engine.pacing import Governor
from embedmigrate.executors.member import Died
from embedmigrate.executors.messages import Done, Introduction
from embedmigrate.executors.team import Plan, Team

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedmigrate.executors.messages import Down, Up

EACH = 2
VERSION = "0"


class Fake:
    """Does a batch in no time, or dies with the first ones; nobody comes after it."""

    def __init__(self, done: list[int], *, mortal: bool) -> None:
        self._done = done
        self._death = asyncio.Event() if mortal else None
        self._had = 0

    async def open(self) -> Introduction:
        return Introduction("here", VERSION)

    async def work(self, batch: Batch) -> Done:
        if self._death:
            self._had += 1
            if self._had == EACH:
                self._death.set()
            await self._death.wait()
            raise Died("for the test")
        await asyncio.sleep(0.01)
        self._done.append(batch.seq)
        return Done(Outcome(batch.seq, batch.last, finished=True), Limits(10, 1000, 1000))

    async def poll(self) -> list[Up]:
        await (self._death or asyncio.Event()).wait()
        raise Died("for the test")

    async def tell(self, messages: Sequence[Down]) -> None:
        pass

    async def close(self) -> list[Up]:
        return []

    def kill(self) -> None:
        pass


class Absent(Fake):
    """For which the cluster has no room."""

    async def open(self) -> Introduction:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_batch_that_lost_its_actor_goes_before_newer_ones() -> None:
    """Though nobody takes the dead one's place and new batches come all the time."""
    done = list[int]()

    async def main() -> None:
        hired = iter((Fake(done, mortal=True), Fake(done, mortal=False)))
        plan = Plan(2, EACH, 60.0, Introduction("", VERSION))
        team = Team(plan, lambda: next(hired, None) or Absent(done, mortal=False))
        await team.muster()
        governor = Governor(Account(2 * EACH), report=lambda _: None)
        room = asyncio.Semaphore(2 * EACH)  # as a job submits: never more than all actors hold

        async def submit(number: int) -> None:
            batch = Batch(number, (), (str(number),))
            try:
                assert (await team.submit(batch)).finished
            finally:
                room.release()

        async with team.working(governor, lambda *_: None), asyncio.TaskGroup() as group:
            for number in range(20):
                await room.acquire()
                group.create_task(submit(number))
        await team.dismiss()

    asyncio.run(main())
    assert sorted(done) == list(range(20))
    assert all(place - number < 2 * EACH for place, number in enumerate(done)), done
