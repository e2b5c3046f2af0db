"""The engine, put together from what was opened, and watched over until it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from embedmigrate.app.company import Company
from embedmigrate.app.keeper import Keeper
from embedmigrate.app.kindness import keep_within
from embedmigrate.app.opening import Opening
from embedmigrate.app.stopping import Stopper
from embedmigrate.app.values import Started
from embedmigrate.app.workplace import intake_of, open_worker
from embedmigrate.embedders.tokens import TokenCounter
from embedmigrate.engine.job import Job, Selection
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import (
    Advanced,
    Ending,
    Event,
    Key,
    Limits,
    Noticed,
    Resumed,
    RowFailed,
    Waiting,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.ports import Source, Submit
from embedmigrate.engine.states import State
from embedmigrate.errors import Exit
from embedmigrate.executors.team import Team
from embedmigrate.state import JobFiles

_AT_WORK = {State.RUNNING, State.THROTTLED}


class Audience(Protocol):
    """Who watches a run: a display, a log, a test."""

    def started(self, start: Started) -> None: ...
    def event(self, event: Event) -> None: ...
    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None: ...
    def confirm(self, question: str) -> bool:
        """The operator's answer; raises ConfigError where nobody can be asked."""
        ...


Executing: TypeAlias = tuple[Submit, Callable[[], Limits]]
"""What takes the batches, and the limits of a request as they are by now."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is put together from.

    Attributes:
        exact: Counts a text's tokens as the model does, where that is known.
        counter: Counts those of most texts by their bytes.
        team: Who does the batches, if not this process.
    """

    opening: Opening
    files: JobFiles
    keeper: Keeper
    audience: Audience
    exact: TokenCounter
    counter: TokenCounter
    company: Company
    team: Team | None


class EngineRun:
    """One job, from the first request to its ending."""

    def __init__(self, parts: Parts, ledger: Ledger) -> None:
        self._opening = parts.opening
        self._files = parts.files
        self._keeper = parts.keeper
        self._audience = parts.audience
        self._exact = parts.exact
        self._company = parts.company
        self._team = parts.team
        self._ledger = ledger
        self._noticed: set[str] = set()
        self._intake = intake_of(parts.opening, parts.counter)

    async def perform(self, source: Source, after: Key | None) -> Ending:
        opening, s = self._opening, self._opening.settings
        account = self._company.account(opening)
        governor = Governor(account, report=self._hear, delay=s.delay / 1000)
        executing = self._with_team if self._team else self._here
        async with executing(governor) as (submit, limits):
            job = Job(
                source,
                submit,
                selection=self._selection(after),
                limits=limits,
                intake=self._intake,
                ledger=self._ledger,
                governor=governor,
                report=self._hear,
            )
            try:
                return await self._watched(job, governor)
            finally:
                governor.retire()

    @contextlib.asynccontextmanager
    async def _here(self, governor: Governor) -> AsyncIterator[Executing]:
        """The worker in this process."""
        async with open_worker(
            self._opening, governor, self._exact, self._intake, self._once
        ) as worker:
            yield worker, lambda: worker.limits

    @contextlib.asynccontextmanager
    async def _with_team(self, governor: Governor) -> AsyncIterator[Executing]:
        """Workers in other processes."""
        team, given = self._team, self._opening.choice.limits
        if team is None:
            raise AssertionError("there is no team")
        async with team.working(governor, self._once):
            yield team.submit, lambda: team.limits(given)

    def _selection(self, after: Key | None) -> Selection:
        s, price = self._opening.settings, self._opening.choice.price
        tokens = s.max_cost / price * 1_000_000 if s.max_cost and price else None
        return Selection(after, s.force, s.limit, tokens, s.max_sweeps)

    async def _watched(self, job: Job, governor: Governor) -> Ending:
        s = self._opening.settings

        def stopping(abort: bool) -> None:
            self._audience.stopping(aborting=abort, in_flight=governor.in_flight, grace=s.grace)

        def last_words(code: Exit) -> None:
            self._ledger.show(State.INTERRUPTED, reason="hard deadline")
            self._keeper.end(self._ledger.progress, code)

        stopper = Stopper(
            job,
            self._files,
            run_id=self._keeper.state.run_id,
            grace=s.grace,
            last_words=last_words,
            on_stopping=stopping,
            company=self._company,
        )
        beside = [asyncio.create_task(self._keeper.keep(self._ledger))]
        if (load := self._opening.load).limited:
            beside.append(asyncio.create_task(keep_within(load, governor, self._held)))
        try:
            with stopper.listening(s.max_duration):
                return await job.run()
        finally:
            for task in beside:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _hear(self, event: Event) -> None:
        """The engine's events, on their way to the state file and to the audience."""
        match event:
            case RowFailed(failure):
                self._keeper.fail(failure)
            case Waiting(reason, seconds) if self._ledger.progress.state in _AT_WORK:
                self._ledger.show(State.THROTTLED, reason=reason, wait_seconds=seconds)
            case Resumed() if self._ledger.progress.state is State.THROTTLED:
                self._ledger.show(State.RUNNING)
            case _:
                pass
        self._audience.event(event)
        if isinstance(event, Waiting | Resumed):
            self._audience.event(Advanced(self._ledger.progress))

    def _held(self, reason: str) -> None:
        """Another limit than the one that the run is waiting for: the display names the last."""
        shown = self._ledger.progress
        if shown.state is State.THROTTLED and shown.reason != reason:
            self._hear(Waiting(reason, None, 0, asked=True))

    def _once(self, code: str, message: str) -> None:
        if code not in self._noticed:
            self._noticed.add(code)
            self._audience.event(Noticed(code, message))
