"""`generate-all`: check, lock, plan, ask, run, and say how it ended."""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from embedmigrate import __version__
from embedmigrate.app import executing, planning
from embedmigrate.app.company import Company, Watchdog, Wish
from embedmigrate.app.continuing import (
    already_done,
    check_place,
    failed_keys,
    job_files,
    last_run,
    starting_key,
)
from embedmigrate.app.keeper import Keeper, check_fingerprint
from embedmigrate.app.opening import Opening
from embedmigrate.app.running import Audience, EngineRun, Parts
from embedmigrate.app.signals import Signals
from embedmigrate.app.slowdown import warnings
from embedmigrate.app.values import Counts, Estimate, Started, Summary
from embedmigrate.config import Loaded
from embedmigrate.embedders.tokens import begin_loading
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import Ending, Key, Noticed
from embedmigrate.engine.ports import Source
from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError, ConfigError, EmbedMigrateError, Exit, LockedError
from embedmigrate.postgres import census, lock
from embedmigrate.postgres.durability import settle
from embedmigrate.postgres.session import Database
from embedmigrate.postgres.source import KeyedSource, TableSource
from embedmigrate.state import JobFiles, RunState

_LOCK_POLL_SECONDS = 0.5


class GenerateAll:
    """One run over one target."""

    def __init__(
        self, loaded: Loaded, audience: Audience, *, command: str, company: Company | None = None
    ) -> None:
        self._loaded = loaded
        self._audience = audience
        self._command = command
        self._company = company or Company(Signals(), Watchdog())
        self.run_id = _name(loaded.settings.run_id)

    async def run(self) -> Summary:
        """Do all of it.

        Raises:
            EmbedMigrateError: The run could not begin; afterwards errors are in the summary.
        """
        company = self._company
        with company.watchdog.alive(self.run_id):
            async with Opening(
                self._loaded, run_id=self.run_id, connections=company.connections
            ) as opening:
                executing.check(opening)
                begin_loading(opening.choice.name)
                await opening.everything()
                files = job_files(self._loaded)
                files.prepare()
                async with self._locked(opening, files):
                    return await self._begin(opening, files)

    @contextlib.asynccontextmanager
    async def _locked(self, opening: Opening, files: JobFiles) -> AsyncIterator[None]:
        """Both locks, on this machine and in the database; waits for as long as it may."""
        deadline = time.monotonic() + opening.settings.lock_timeout
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    async with contextlib.AsyncExitStack() as attempt:
                        attempt.enter_context(files.locked())
                        await attempt.enter_async_context(self._database_locked(opening))
                        stack.push_async_exit(attempt.pop_all())
                        break
                except LockedError:
                    if time.monotonic() >= deadline:
                        raise
                self._company.late()
                await asyncio.sleep(_LOCK_POLL_SECONDS)
                # To try blocks for a moment; and a file's lock tells nobody that it is free.
                while files.live() and time.monotonic() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
            yield

    @contextlib.asynccontextmanager
    async def _database_locked(self, opening: Opening) -> AsyncIterator[None]:
        """The lock in the database, where a session of our own can hold one."""
        s = opening.settings
        direct = s.lock_database_url
        if (opening.server.pooled or s.pooler) and direct is None:
            message = (
                "behind a pooler only the lock on this machine holds: --lock-database-url adds "
                "one, --pooler says that this is known"
            )
            self._audience.event(Noticed("no_database_lock", message, minor=s.pooler))
            yield
            return
        database = Database(direct.reveal(), run_id=self.run_id) if direct else opening.database
        connection = await lock.hold(database, opening.target)
        try:
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
        exact = planning.counter_of(opening)
        counter = planning.sampler(opening, exact)
        counts = await planning.count(opening)
        selected = await planning.select(opening, counts, after)
        if s.retry_failed:
            selected = min(selected, len(keys))
        planned = await planning.estimate(opening, counter, counts, selected)
        planning.check_budget(opening, planned)
        asked = counts.embedded if s.force and not s.yes else 0
        await self._company.agree(Wish(planned, asked), self._audience.confirm)
        start = self._started(opening, files, counts, selected, planned, last, after)
        slow = warnings(opening.burden, opening.target.dimensions, selected, planned)
        keeper = Keeper(
            files,
            opening,
            run_id=self.run_id,
            command=self._again(opening),
            last_success_at=last.last_success_at if last else None,
        )
        async with executing.open_team(opening, self.run_id) as team:
            for notice in (*notices, *check_place(files), *slow):
                self._audience.event(notice)
            parts = Parts(
                opening, files, keeper, self._audience, exact, counter, self._company, team
            )
            return await self._perform(parts, start, source)

    async def _perform(self, parts: Parts, start: Started, source: Source) -> Summary:
        opening, files, keeper = parts.opening, parts.files, parts.keeper
        files.keep_previous()
        self._audience.started(start)
        keeper.begin()
        ledger = Ledger(
            selected=start.selected,
            already_done=start.already_done,
            cursor=start.resume_from,
            cost_of=opening.choice.cost,
        )
        ending = await EngineRun(parts, ledger).perform(source, start.resume_from)
        return await self._conclude(opening, files, keeper, ledger, start, ending)

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
            concurrency=opening.concurrency,
            executor=opening.settings.executor,
            actors=opening.actors,
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
        # Before the count, which takes its time: whoever is killed in it has an end on record.
        self._save_end(keeper, ending)
        if counted and progress.rows_processed:
            try:
                await settle(opening.database)
                after = await planning.count(opening)
            except EmbedMigrateError:
                counted = False
        left = after.missing + after.stale
        if counted and not left and not start.force and _only_unsure(ending):
            ending = _completed(ending)
            self._save_end(keeper, ending)
        report = files.error_report(self.run_id)
        return Summary(
            run_id=self.run_id,
            state=ending.state,
            exit_code=ending.exit_code,
            place=start.place,
            progress=ending.progress,
            before=start.counts,
            after=after,
            counted_after=counted,
            errors_by_code=dict(ledger.by_code.most_common()),
            skipped_by_code=dict(ledger.skipped_by_code.most_common()),
            new_rows_left=ending.new_rows_left,
            state_file=str(files.state),
            error_report=str(report) if report.exists() else None,
            next_command=self._next(opening, ending.state, progress.rows_failed),
            error=ending.error,
        )

    def _save_end(self, keeper: Keeper, ending: Ending) -> None:
        """Rows that are stored stay done when the disk is full; the operator hears of it."""
        try:
            keeper.end(ending.progress, ending.exit_code, ending.error)
        except CheckpointError as error:
            self._notice(error.code, error.message)

    def _next(self, opening: Opening, state: State, failed: int) -> str | None:
        if state is State.COMPLETED:
            return None
        if state is State.COMPLETED_WITH_ERRORS and failed:
            force = " --force" if opening.settings.force else ""
            return f"{self._command}{force} --retry-failed {self.run_id}"
        return self._command if state is State.COMPLETED_WITH_ERRORS else self._again(opening)

    def _again(self, opening: Opening) -> str:
        """What continues this run: forced, the rows not yet reached have vectors, old ones."""
        return self._command + (" --force --resume-from last" if opening.settings.force else "")

    def _notice(self, code: str, message: str) -> None:
        self._audience.event(Noticed(code, message))


def _name(given: str | None) -> str:
    """A run's name; it becomes part of a file's name, so nothing else is taken for one."""
    if given and not re.fullmatch(r"[0-9a-f]{6}", given):
        raise ConfigError(
            "run_id is not made of six hexadecimal digits",
            code="setting_invalid",
            hint="unset EMBEDMIGRATE_RUN_ID: a run finds a name by itself",
        )
    return given or secrets.token_hex(3)


def _only_unsure(ending: Ending) -> bool:
    """A limit was reached, or the last sweep still found rows: either may have been the last."""
    if ending.progress.rows_failed:
        return False
    reached = ending.state is State.LIMIT_REACHED and ending.exit_code is Exit.OK
    return reached or ending.new_rows_left


def _completed(ending: Ending) -> Ending:
    progress = replace(ending.progress, state=State.COMPLETED)
    return Ending(State.COMPLETED, Exit.OK, progress, ending.error)


def _added_up(before: Counts, stored: int, *, force: bool) -> Counts:
    if force:
        return before
    missing = max(0, before.missing - stored)
    return replace(before, embedded=before.embedded + stored, missing=missing)
