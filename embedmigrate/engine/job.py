"""The tap, the fan-out and the sweeps: every eligible row reaches the worker once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from embedmigrate.engine.batching import Intake, batches
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import (
    Advanced,
    Batch,
    Ending,
    Key,
    Limits,
    Report,
    Row,
    RowFailed,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.ports import Source, Submit
from embedmigrate.engine.states import State, StopReason
from embedmigrate.errors import BudgetError, EmbedMigrateError, Exit

_READ_AHEAD = 4

_ENDINGS = {
    StopReason.ASKED: (State.STOPPED, Exit.STOPPED),
    StopReason.SIGINT: (State.INTERRUPTED, Exit.INTERRUPTED),
    StopReason.SIGTERM: (State.INTERRUPTED, Exit.TERMINATED),
    StopReason.LIMIT: (State.LIMIT_REACHED, Exit.OK),
    StopReason.DURATION: (State.LIMIT_REACHED, Exit.OK),
    StopReason.BUDGET: (State.LIMIT_REACHED, Exit.BUDGET),
}


class Tap:
    """Closed once, by the first reason; what is in flight drains through the same pipe."""

    def __init__(self, governor: Governor) -> None:
        self.reason: StopReason | None = None
        self.error: EmbedMigrateError | None = None
        self.closed = asyncio.Event()
        self._governor = governor

    def close(self, reason: StopReason, error: EmbedMigrateError | None = None) -> None:
        if self.reason is not None:
            return
        self.reason, self.error = reason, error
        self.closed.set()
        if reason not in {StopReason.LIMIT, StopReason.BUDGET}:
            # What waits for its turn is not sent; a planned limit lets it pass: it is within it.
            self._governor.close()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows a run takes, and how much of them.

    Attributes:
        after: Start behind this key; the sweep that follows starts at the beginning.
        force: Take rows that have a current embedding as well.
        rows: Take at most so many rows.
        tokens: Send at most so many tokens.
        sweeps: Look so many times for rows that appeared behind the cursor.
    """

    after: Key | None = None
    force: bool = False
    rows: int | None = None
    tokens: float | None = None
    sweeps: int = 3


class Job:
    """Reads, cuts, submits, records; knows neither database nor provider."""

    def __init__(
        self,
        source: Source,
        submit: Submit,
        *,
        selection: Selection,
        limits: Callable[[], Limits],
        intake: Intake,
        ledger: Ledger,
        governor: Governor,
        report: Report,
    ) -> None:
        self.ledger = ledger
        self.tap = Tap(governor)
        self._source = source
        self._submit = submit
        self._selection = selection
        self._limits = limits
        self._intake = intake
        self._governor = governor
        self._report = report
        self._numbers = itertools.count()
        # Batches at the provider and on their way into the table together: a crash costs at most
        # so many, `concurrency` times the batch size.
        self._room = asyncio.Semaphore(governor.most)
        self._carried: dict[asyncio.Task[None], int] = {}
        self._rows_left = selection.rows

    async def run(self) -> Ending:
        """Pass over the table, then sweep it until nothing new is found."""
        self._show(State.RUNNING)
        found = await self._pass(self._selection.after, force=self._selection.force)
        self.ledger.freeze_cursor()
        partial = self._selection.force or self._selection.after is not None
        sweeps = 0
        while (found or partial) and sweeps < self._selection.sweeps and not self.tap.reason:
            found = await self._pass(None, force=False)
            partial = False
            sweeps += 1
        return self._ending(new_rows_left=found > 0 and self.tap.reason is None)

    def abort(self) -> None:
        """Give up what is in flight; its rows stay pending."""
        for task in self._carried:
            task.cancel()

    async def _pass(self, after: Key | None, *, force: bool) -> int:
        queue: asyncio.Queue[Batch | None] = asyncio.Queue(_READ_AHEAD)
        found = 0
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(after, queue, force=force))
            while (batch := await self._next(queue)) is not None:
                await self._room.acquire()
                if self.tap.closed.is_set() or not self._affordable(batch):
                    self._room.release()
                    break
                found += len(batch.rows) + len(batch.refused)
                task = group.create_task(self._carry(batch))
                self._carried[task] = batch.tokens
                task.add_done_callback(self._dropped)
            reader.cancel()
        if self._rows_left == 0:
            self.tap.close(StopReason.LIMIT)
        return found

    async def _read(
        self, after: Key | None, queue: asyncio.Queue[Batch | None], *, force: bool
    ) -> None:
        rows = self._wanted(self._source.rows(after, force=force))
        cut = batches(rows, self._limits, self._intake, self._numbers, force=force)
        try:
            async for batch in cut:
                await queue.put(batch)
        except EmbedMigrateError as error:
            self.tap.close(StopReason.ERROR, error)
        await queue.put(None)

    async def _wanted(self, rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
        """Without the rows that failed in this run, and no more than the limit."""
        async for row in rows:
            if row.key in self.ledger.excluded:
                continue
            if self._rows_left is not None:
                if self._rows_left == 0:
                    return
                self._rows_left -= 1
            yield row

    async def _next(self, queue: asyncio.Queue[Batch | None]) -> Batch | None:
        """The next batch; None at the end and when the tap is closed."""
        if self.tap.closed.is_set():
            return None
        if not queue.empty():
            return queue.get_nowait()
        get = asyncio.ensure_future(queue.get())
        closed = asyncio.ensure_future(self.tap.closed.wait())
        try:
            await asyncio.wait({get, closed}, return_when=asyncio.FIRST_COMPLETED)
            return get.result() if get.done() and not closed.done() else None
        finally:
            get.cancel()
            closed.cancel()

    def _affordable(self, batch: Batch) -> bool:
        if self._selection.tokens is None:
            return True
        reserved = sum(self._carried.values())
        if self.ledger.progress.tokens + reserved + batch.tokens <= self._selection.tokens:
            return True
        self.tap.close(
            StopReason.BUDGET,
            BudgetError(
                "the next batch would go above --max-cost",
                code="over_budget",
                hint="run the same command again with a higher --max-cost",
            ),
        )
        return False

    async def _carry(self, batch: Batch) -> None:
        try:
            outcome = await self._submit(batch)
        finally:
            self._room.release()
        self.ledger.record(outcome)
        if task := asyncio.current_task():
            self._carried[task] = 0  # what it charged is in the ledger: not to be counted twice
        for failure in outcome.failed:
            self._report(RowFailed(failure))
        if outcome.error:
            self.tap.close(StopReason.ERROR, outcome.error)
        self.ledger.flight(self._governor.in_flight, self._governor.allowed)
        self._report(Advanced(self.ledger.progress))

    def _dropped(self, task: asyncio.Task[None]) -> None:
        self._carried.pop(task, None)

    def _show(self, state: State) -> None:
        self.ledger.show(state)
        self._report(Advanced(self.ledger.progress))

    def _ending(self, *, new_rows_left: bool) -> Ending:
        state, code = self._verdict(new_rows_left=new_rows_left)
        self.ledger.show(state)
        self.ledger.flight(0, self._governor.allowed)
        return Ending(state, code, self.ledger.progress, self.tap.error, new_rows_left)

    def _verdict(self, *, new_rows_left: bool) -> tuple[State, Exit]:
        if self.tap.reason is StopReason.ERROR and self.tap.error:
            return State.FAILED, self.tap.error.exit_code
        failed = self.ledger.progress.rows_failed > 0
        if self.tap.reason is not None:
            state, code = _ENDINGS[self.tap.reason]
            return state, Exit.PARTIAL if failed and code is Exit.OK else code
        if failed or new_rows_left:
            return State.COMPLETED_WITH_ERRORS, Exit.PARTIAL
        return State.COMPLETED, Exit.OK
