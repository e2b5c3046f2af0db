"""`generate-all`: check, lock, plan, ask, run, and say how it ended."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from embedmigrate import __version__
from embedmigrate.app import planning
from embedmigrate.app.keeper import Keeper, check_fingerprint, selection_of
from embedmigrate.app.opening import Opening, database_url
from embedmigrate.app.stopping import Stopper
from embedmigrate.app.values import Counts, Estimate, Started, Summary
from embedmigrate.config import Loaded
from embedmigrate.config.layers import state_directory
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
    State,
    Waiting,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.ports import Embedder, Source
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import CheckpointError, ConfigError, EmbedMigrateError, Exit, TargetError
from embedmigrate.postgres import census, lock
from embedmigrate.postgres.session import Database
from embedmigrate.postgres.sink import ColumnSink
from embedmigrate.postgres.source import KeyedSource, TableSource
from embedmigrate.state import JobFiles, RunState, job_name

_UNFINISHED = {State.STOPPED, State.INTERRUPTED, State.FAILED, State.LIMIT_REACHED}


class Audience(Protocol):
    """Who watches a run: a display, a log, a test."""

    def started(self, start: Started) -> None: ...
    def event(self, event: Event) -> None: ...
    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None: ...
    def confirm(self, question: str) -> bool:
        """The operator's answer; raises ConfigError where nobody can be asked."""
        ...


def job_files(loaded: Loaded) -> JobFiles:
    s = loaded.settings
    url = database_url(s.database_url)
    return JobFiles(state_directory(s), job_name(url, s.table, s.vector_column))


def last_run(files: JobFiles, *, restart: bool) -> tuple[RunState | None, list[Noticed]]:
    """The last run's state; a damaged file gives way to the one kept before it, and says so."""
    notices = []
    if restart:
        aside = files.put_aside("restarted")
        if aside:
            notices.append(Noticed("checkpoint_put_aside", f"the old state is kept in {aside}"))
        return None, notices
    try:
        return files.load(), notices
    except CheckpointError as error:
        previous = files.load_previous() if error.code == "checkpoint_corrupt" else None
        if previous is None:
            raise
        aside = files.put_aside("corrupt")
        message = f"{error.message}; kept as {aside}, going on from the run before it"
        return previous, [Noticed("checkpoint_corrupt", message)]


def starting_key(opening: Opening, last: RunState | None) -> Key | None:
    """Where the first pass begins.

    Raises:
        CheckpointError: `last` is asked for and there is no such cursor.
    """
    given = opening.settings.resume_from
    if given != "last":
        return planning.parse_key(given, len(opening.target.key)) if given else None
    if last is None:
        raise CheckpointError(
            "there is no saved cursor for --resume-from last",
            code="checkpoint_missing",
            hint="run without it: rows without a vector are found anyway",
        )
    mine = selection_of(opening)
    if last.selection.get("where") != mine["where"]:
        raise CheckpointError(
            "the saved cursor was made with another --where",
            code="checkpoint_mismatch",
            facts=(f"where: {last.selection.get('where')!r} -> {mine['where']!r}",),
            hint="run without --resume-from, or restore the old --where",
        )
    return tuple(last.cursor) if last.cursor else None


def already_done(opening: Opening, last: RunState | None, selected: int) -> int:
    """Rows that an interrupted run had done before, so that its bar goes on and does not restart."""
    s = opening.settings
    if last is None or s.force or s.retry_failed or s.limit:
        return 0
    ended = State(last.state)
    if not (ended in _UNFINISHED or ended.live) or last.selection != selection_of(opening):
        return 0
    return int(last.progress.get("rows_done") or 0) if selected else 0


class GenerateAll:
    """One run over one target."""

    def __init__(self, loaded: Loaded, audience: Audience, *, command: str) -> None:
        self._loaded = loaded
        self._audience = audience
        self._command = command
        self.run_id = secrets.token_hex(3)

    async def run(self) -> Summary:
        """Do all of it.

        Raises:
            EmbedMigrateError: The run could not begin; afterwards errors are in the summary.
        """
        async with Opening(self._loaded, run_id=self.run_id) as opening:
            await opening.everything()
            files = job_files(self._loaded)
            files.prepare()
            with files.locked(opening.settings.lock_timeout):
                async with self._locked(opening):
                    return await self._begin(opening, files)

    @contextlib.asynccontextmanager
    async def _locked(self, opening: Opening) -> AsyncIterator[None]:
        """The lock in the database, where a session of our own can hold one."""
        s = opening.settings
        direct = s.lock_database_url
        if (opening.server.pooled or s.pooler) and direct is None:
            self._notice(
                "no_database_lock",
                "behind a pooler only the lock on this machine holds; --lock-database-url adds one",
            )
            yield
            return
        database = (
            Database(direct.get_secret_value(), run_id=self.run_id) if direct else opening.database
        )
        connection = await database.connect()
        try:
            await lock.take(connection, opening.target)
            yield
        finally:
            await connection.close()

    async def _begin(self, opening: Opening, files: JobFiles) -> Summary:
        s = opening.settings
        last, notices = last_run(files, restart=s.restart)
        if last:
            check_fingerprint(last, opening)
        after = starting_key(opening, last)
        if after:
            await census.check_key(opening.database, opening.target, after, "--resume-from")
        source: Source = TableSource(opening.database, opening.target)
        if s.retry_failed:
            keys = failed_keys(files, s.retry_failed, last)
            source = KeyedSource(opening.database, opening.target, keys)
        counter = planning.counter_of(opening)
        counts = await planning.count(opening)
        selected = await planning.select(opening, counts, after)
        if s.retry_failed:
            selected = min(selected, len(keys))
        planned = await planning.estimate(opening, counter, counts, selected)
        planning.check_budget(opening, planned)
        self._confirm(opening, counts, planned)
        keeper = Keeper(files, opening, run_id=self.run_id, command=self._command)
        files.keep_previous()
        start = self._started(opening, files, counts, selected, planned, last, after)
        for notice in notices:
            self._audience.event(notice)
        for code, message in opening.warnings() if selected else []:
            self._notice(code, message)
        self._audience.started(start)
        keeper.begin()
        ledger = Ledger(
            selected=selected,
            already_done=start.already_done,
            cursor=after,
            cost_of=opening.choice.cost,
        )
        run = _Run(opening, files, keeper, ledger, self._audience, counter)
        ending = await run.perform(source, after)
        return await self._conclude(opening, files, keeper, ledger, start, ending)

    def _confirm(self, opening: Opening, counts: Counts, planned: Estimate) -> None:
        s = opening.settings
        if not s.force or s.yes or not counts.embedded:
            return
        cost = f", about ${planned.cost_usd:.2f}" if planned.cost_usd is not None else ""
        if not self._audience.confirm(f"Overwrite {counts.embedded:,} vectors{cost}?"):
            raise ConfigError("nothing was done", code="declined", hint="--yes answers beforehand")

    def _started(
        self,
        opening: Opening,
        files: JobFiles,
        counts: Counts,
        selected: int,
        planned: Estimate,
        last: RunState | None,
        after: Key | None,
    ) -> Started:
        return Started(
            run_id=self.run_id,
            version=__version__,
            pid=os.getpid(),
            host=socket.gethostname(),
            place=opening.place,
            counts=counts,
            selected=selected,
            already_done=already_done(opening, last, selected),
            estimate=planned,
            resume_from=after,
            force=opening.settings.force,
            state_file=str(files.state),
            error_report=str(files.error_report(self.run_id)),
            batch_size=opening.choice.batch_size,
            concurrency=opening.choice.concurrency,
        )

    async def _conclude(
        self,
        opening: Opening,
        files: JobFiles,
        keeper: Keeper,
        ledger: Ledger,
        start: Started,
        ending: Ending,
    ) -> Summary:
        """Count again where the run came to its own end; otherwise add up what is known."""
        progress = ending.progress
        counted = ending.state in {
            State.COMPLETED,
            State.COMPLETED_WITH_ERRORS,
            State.LIMIT_REACHED,
        }
        after = _added_up(start.counts, progress.rows_stored, force=start.force)
        if counted and progress.rows_processed:
            try:
                after = await planning.count(opening)
            except EmbedMigrateError:
                counted = False
        state, code = ending.state, ending.exit_code
        left = after.missing + after.stale
        if state is State.LIMIT_REACHED and code is Exit.OK and counted and not left:
            state = State.COMPLETED
        progress = replace(progress, state=state)
        keeper.end(progress, code, ending.error)
        report = files.error_report(self.run_id)
        return Summary(
            run_id=self.run_id,
            state=state,
            exit_code=code,
            place=start.place,
            progress=progress,
            before=start.counts,
            after=after,
            counted_after=counted,
            errors_by_code=dict(ledger.by_code.most_common()),
            skipped_by_code=dict(ledger.skipped_by_code.most_common()),
            new_rows_left=ending.new_rows_left,
            state_file=str(files.state),
            error_report=str(report) if report.exists() else None,
            next_command=self._next(opening, state, progress.rows_failed),
            error=ending.error,
        )

    def _next(self, opening: Opening, state: State, failed: int) -> str | None:
        if state is State.COMPLETED:
            return None
        if state is State.COMPLETED_WITH_ERRORS and failed:
            return f"{self._command} --retry-failed {self.run_id}"
        force = opening.settings.force and state is not State.COMPLETED_WITH_ERRORS
        return f"{self._command} --force --resume-from last" if force else self._command

    def _notice(self, code: str, message: str) -> None:
        self._audience.event(Noticed(code, message))


def failed_keys(files: JobFiles, given: str, last: RunState | None) -> list[Key]:
    """The keys in a run's error report."""
    if given == "last":
        if last is None:
            raise CheckpointError("there is no last run", code="report_missing")
        given = last.run_id
    if not given.isalnum():
        raise ConfigError(f"--retry-failed {given!r} is not a run id", code="setting_invalid")
    ids = [line["id"] for line in files.errors_of(given)]
    return [tuple(i) if isinstance(i, list) else (str(i),) for i in ids]


def _added_up(before: Counts, stored: int, *, force: bool) -> Counts:
    if force:
        return before
    missing = max(0, before.missing - stored)
    return replace(before, embedded=before.embedded + stored, missing=missing)


class _Run:
    """The engine, put together and watched over until it ends."""

    def __init__(
        self,
        opening: Opening,
        files: JobFiles,
        keeper: Keeper,
        ledger: Ledger,
        audience: Audience,
        counter: TokenCounter,
    ) -> None:
        self._opening = opening
        self._files = files
        self._keeper = keeper
        self._ledger = ledger
        self._audience = audience
        self._noticed: set[str] = set()
        policy = OnTooLong(opening.settings.on_too_long)
        self._intake = Intake(counter, counter.truncate, counter.exact, policy)

    async def perform(self, source: Source, after: Key | None) -> Ending:
        opening, s = self._opening, self._opening.settings
        embedder = open_embedder(
            opening.choice, opening.access, width=opening.target.dimensions, notice=self._once
        )
        try:
            check_width(embedder, opening)
            governor = Governor(
                opening.choice.concurrency,
                report=self._hear,
                rpm=s.rpm,
                tpm=s.tpm,
                delay=s.delay / 1000,
            )
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
            return await self._watched(job, governor)
        finally:
            await embedder.aclose()

    def _worker(self, embedder: Embedder, governor: Governor) -> Worker:
        opening, s = self._opening, self._opening.settings
        text_tokens = opening.choice.limits.text_tokens
        return Worker(
            embedder,
            ColumnSink(opening.database, opening.target),
            governor,
            limits=opening.choice.limits,
            admit=lambda row: self._intake.admit(row, text_tokens),
            patience=Patience(s.retries, s.max_wait),
        )

    def _selection(self, after: Key | None) -> Selection:
        s, price = self._opening.settings, self._opening.choice.price
        tokens = s.max_cost / price * 1_000_000 if s.max_cost and price else None
        return Selection(after, s.force, s.limit, tokens, s.max_sweeps)

    async def _watched(self, job: Job, governor: Governor) -> Ending:
        s = self._opening.settings

        def stopping(abort: bool) -> None:  # noqa: FBT001  a callback's only word
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
        )
        keeping = asyncio.create_task(self._keeper.keep(self._ledger))
        try:
            with stopper.listening(s.max_duration):
                return await job.run()
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    def _hear(self, event: Event) -> None:
        """The engine's events, on their way to the state file and to the audience."""
        match event:
            case RowFailed(failure):
                self._keeper.fail(failure)
            case Waiting(reason, seconds) if self._ledger.progress.state is State.RUNNING:
                self._ledger.show(State.THROTTLED, reason=reason, wait_seconds=seconds)
            case Resumed() if self._ledger.progress.state is State.THROTTLED:
                self._ledger.show(State.RUNNING)
            case _:
                pass
        self._audience.event(event)
        if isinstance(event, Waiting | Resumed):
            self._audience.event(Advanced(self._ledger.progress))

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
                f"{t.name}.{t.vector_column} is {t.vector_type}({t.dimensions}); "
                f"{opening.choice.name} gives {embedder.dimensions}. Nothing was sent or written.",
            ),
            hint=f"add a vector({embedder.dimensions}) column and pass --vector-column",
        )
