"""The engine alone, on a clock that nobody waits for, against a provider that lives by a seed."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING

from embedmigrate.engine.account import Account
from embedmigrate.engine.batching import Intake
from embedmigrate.engine.job import Job, Selection
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import Limits, RowFailed, Waiting
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.states import StopReason
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import (
    BadReply,
    EmbedMigrateError,
    Exit,
    RateLimited,
    RejectedInput,
    RequestTooLarge,
    TransientError,
)
from tests.fakes import MemoryTable, ScriptedEmbedder, loop_time, virtually
from tests.faults.series import Outcome, series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedmigrate.engine.model import Embedded, Ending, Event, Row

SIZES = (1, 3, 10, 32)


class World:
    """A table, a provider and an operator, all of them drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.rows = chance.choice((0, 1, 7, 40, 150))
        self.table = MemoryTable.numbered(self.rows)
        self.table.page = chance.choice((1, 5, 16, 64))
        self.bad = {f"text {n}" for n in range(1, self.rows + 1) if chance.random() < 0.04}
        self.events: list[Event] = []
        self.wrong: list[str] = []
        self.cooled_until = 0.0
        self.fail_rate = chance.choice((0.0, 0.0, 0.1, 0.3))
        self.most_texts = chance.choice((None, None, None, 2, 5))
        self.embedder = Provider(self)
        self.size, self.concurrency = chance.choice(SIZES), chance.choice((1, 2, 4, 8))
        self.auto = chance.random() < 0.5
        self.sent_behind = 0
        self.aborted = False
        if chance.random() < 0.3:
            self.table.before_page = self._insert
        if chance.random() < 0.3:
            self.table.before_write = self._interfere
        self.job, self.ledger = self._job()

    def _job(self) -> tuple[Job, Ledger]:
        governor = Governor(
            Account(self.concurrency, auto=self.auto, clock=loop_time), report=self._hear
        )
        intake = Intake(len, lambda text, tokens: text[:tokens], exact=True)
        limits = Limits(self.size, 1_000_000, 1_000_000)
        worker = Worker(
            self.embedder,
            self.table,
            governor,
            limits=limits,
            admit=lambda row: intake.admit(row, None),
            patience=Patience(8, 300),
            jitter=self.chance.random,
        )
        ledger = Ledger(selected=self.rows, clock=loop_time)
        job = Job(
            self.table,
            worker,
            selection=Selection(),
            limits=lambda: worker.limits,
            intake=intake,
            ledger=ledger,
            governor=governor,
            report=self._hear,
        )
        return job, ledger

    async def run(self) -> Ending:
        how = self.chance.random()
        if how < 0.3:
            asyncio.get_running_loop().call_later(
                self.chance.uniform(0, 20), self.job.tap.close, StopReason.SIGTERM
            )
        if how < 0.1:
            asyncio.get_running_loop().call_later(self.chance.uniform(0, 25), self._abort)
        return await self.job.run()

    def _abort(self) -> None:
        self.aborted = True
        self.job.abort()

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Waiting) and event.seconds:
            self.cooled_until = max(self.cooled_until, loop_time() + event.seconds)
        if self.ledger.cursor:
            self._check_cursor(int(self.ledger.cursor[0]))

    def _check_cursor(self, cursor: int) -> None:
        settled = self.table.stored | {int(key[0]) for key in self.ledger.excluded}
        open_rows = [n for n in range(1, cursor + 1) if n not in settled and self._is_there(n)]
        if open_rows:
            self.wrong.append(f"the cursor is at {cursor}, {open_rows[:5]} are not finished")

    def _is_there(self, number: int) -> bool:
        return (str(number),) in self.table.texts

    def _insert(self) -> None:
        """Behind whatever has been read by now."""
        if self.sent_behind < 5:
            self.sent_behind += 1
            self.table.add(0 if self.sent_behind == 1 else 1000 + self.sent_behind)

    def _interfere(self, rows: Sequence[Row]) -> None:
        """Somebody edits or deletes a row whose text has been sent."""
        key = self.chance.choice(rows).key
        if self.chance.random() < 0.2 and key in self.table.texts and key not in self.table.vectors:
            if self.chance.random() < 0.5:
                del self.table.texts[key]
            else:
                self.table.texts[key] = f"edited {self.chance.randrange(10**9)}"

    def check(self, ending: Ending) -> None:
        """What must be true at the end, whatever has happened."""
        self.table.check()
        failed = Counter(e.failure.key for e in self.events_failed())
        stored = Counter(key for key in self.table.vectors)
        if any(times > 1 for times in failed.values()):
            self.wrong.append("a row has failed twice")
        if both := failed.keys() & stored.keys():
            self.wrong.append(f"stored and failed: {sorted(both)[:5]}")
        left = self.table.texts.keys() - stored.keys() - failed.keys()
        if ending.exit_code in {Exit.OK, Exit.PARTIAL} and not ending.new_rows_left and left:
            self.wrong.append(f"{ending.exit_code}, though {sorted(left)[:5]} are neither")
        if ending.exit_code is Exit.OK and failed:
            self.wrong.append("exit 0 with failed rows")
        counted = ending.progress.rows_stored
        # An aborted batch may have stored a part of its rows, and is not there to say so.
        if counted > len(stored) or (counted < len(stored) and not self.aborted):
            self.wrong.append(f"{counted} counted, {len(stored)} stored")

    def events_failed(self) -> list[RowFailed]:
        return [event for event in self.events if isinstance(event, RowFailed)]


class Provider(ScriptedEmbedder):
    """Fails, limits, refuses, and takes its time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.limited_until = 0.0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        world, chance = self.world, self.world.chance
        if loop_time() < world.cooled_until - 1e-6:
            world.wrong.append(f"a request {world.cooled_until - loop_time():.3f} s too early")
        self.seconds = chance.uniform(0.05, 3)
        self.rules = [self._answer]
        return await super().embed(texts)

    def _answer(self, texts: Sequence[str]) -> EmbedMigrateError | None:
        world, chance = self.world, self.world.chance
        if world.most_texts and len(texts) > world.most_texts:
            return RequestTooLarge("too many", code="request_too_large", status=413)
        if chance.random() < world.fail_rate:
            asked = chance.choice((None, 0.5, 7.0, 40.0))
            limited = RateLimited("429", retry_after=asked, code="rate_limited", status=429)
            failing = TransientError("500", code="provider_error", status=500)
            return chance.choice((limited, failing, BadReply("nonsense", code="bad_reply")))
        if world.bad.intersection(texts):
            return RejectedInput("refused", code="input_rejected", status=400)
        return None


@series("simulation", rows=("P1", "P5", "P9", "P10", "C1", "C2", "C3"), short=300, long=10_000)
def simulation(rounds: int, seed: int) -> Outcome:
    """So many worlds; a broken one is named by its seed: `python -m tests.faults.simulation N`."""
    broken, ends, requests, limited = list[str](), Counter[str](), 0, 0
    for one in range(seed * 1_000_000, seed * 1_000_000 + rounds):
        world, ending = lived(one)
        ends[ending.exit_code.name] += 1
        requests += len(world.embedder.requests)
        limited += sum(isinstance(event, Waiting) for event in world.events)
        broken += [f"seed {one}: {wrong}" for wrong in world.wrong[:3]]
    figures = {"requests": requests, "cooldowns": limited, "ends": dict(ends.most_common())}
    return Outcome(rounds, figures, tuple(broken[:20]))


def lived(seed: int) -> tuple[World, Ending]:
    """One world to its end."""

    async def main() -> tuple[World, Ending]:
        world = World(seed)
        ending = await world.run()
        world.check(ending)
        return world, ending

    return virtually(main())


if __name__ == "__main__":
    found, end = lived(int(sys.argv[1]))
    print(end, *found.wrong, sep="\n")
