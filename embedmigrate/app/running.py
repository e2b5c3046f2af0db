"""The engine, put together from what was opened, and watched over until it ends."""

import asyncio
import contextlib
from typing import Protocol

from embedmigrate.app.company import Company
from embedmigrate.app.keeper import Keeper
from embedmigrate.app.kindness import keep_within
from embedmigrate.app.opening import Opening
from embedmigrate.app.stopping import Stopper
from embedmigrate.app.values import Started
from embedmigrate.embedders import open_embedder
from embedmigrate.embedders.tokens import TokenCounter
from embedmigrate.engine.batching import Intake, OnTooLong
from embedmigrate.engine.job import Job, Selection
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import (
    Advanced,
    Ending,
    Event,
    Key,
    Noticed,
    Resumed,
    RowFailed,
    Waiting,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.parts import Rows, cut_off
from embedmigrate.engine.ports import Embedder, Source
from embedmigrate.engine.states import State
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import Exit, TargetError
from embedmigrate.postgres.sinks import open_sink
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


class EngineRun:
    """One job, from the first request to its ending."""

    def __init__(
        self,
        opening: Opening,
        files: JobFiles,
        keeper: Keeper,
        ledger: Ledger,
        audience: Audience,
        exact: TokenCounter,
        counter: TokenCounter,
        company: Company,
    ) -> None:
        self._company = company
        self._opening = opening
        self._files = files
        self._keeper = keeper
        self._ledger = ledger
        self._audience = audience
        self._noticed: set[str] = set()
        self._counter = exact
        policy = OnTooLong(opening.settings.on_too_long)
        self._intake = Intake(counter, counter.truncate, counter.exact, policy)

    async def perform(self, source: Source, after: Key | None) -> Ending:
        opening, s = self._opening, self._opening.settings
        embedder = open_embedder(
            opening.choice, opening.access, width=opening.target.dimensions, notice=self._once
        )
        try:
            check_width(embedder, opening)
            account = self._company.account(opening)
            governor = Governor(account, report=self._hear, delay=s.delay / 1000)
            worker = self._worker(embedder, governor)
            job = Job(
                source,
                worker,
                selection=self._selection(after),
                limits=lambda: worker.limits,
                intake=self._intake,
                ledger=self._ledger,
                governor=governor,
                report=self._hear,
            )
            try:
                return await self._watched(job, governor)
            finally:
                governor.retire()
        finally:
            await embedder.aclose()

    def _worker(self, embedder: Embedder, governor: Governor) -> Worker:
        opening, s = self._opening, self._opening.settings
        text_tokens = opening.choice.limits.text_tokens
        return Worker(
            embedder,
            open_sink(opening.database, opening.target),
            governor,
            limits=opening.choice.limits,
            admit=lambda row: self._intake.admit(row, text_tokens),
            patience=Patience(s.retries, s.max_wait),
            answered=self._answered if self._counter.exact else None,
        )

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

    def _answered(self, rows: Rows, charged: int, saved: int) -> None:
        if "silent_truncation" in self._noticed:
            return
        if words := cut_off(rows, charged, saved, self._counter):
            self._once("silent_truncation", words)

    def _once(self, code: str, message: str) -> None:
        if code not in self._noticed:
            self._noticed.add(code)
            self._audience.event(Noticed(code, message))


def check_width(embedder: Embedder, opening: Opening) -> None:
    """A model that only shows its width when it is loaded.

    Raises:
        TargetError: It is not the column's.
    """
    t = opening.target
    if embedder.dimensions != t.dimensions:
        raise TargetError(
            "vector dimensions do not match",
            code="dimension_mismatch",
            facts=(
                f"{t.place} is {t.vector_type}({t.dimensions}); "
                f"{opening.choice.name} gives {embedder.dimensions}. Nothing was sent or written.",
            ),
            hint=opening.wider(embedder.dimensions),
        )
