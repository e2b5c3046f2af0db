"""`generate-all --all-jobs`: the jobs of the configuration file at once, each with its own end."""

import asyncio
import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from embedmigrate.app.continuing import job_files
from embedmigrate.app.generate import GenerateAll
from embedmigrate.app.preview import dry_run
from embedmigrate.app.running import Audience
from embedmigrate.app.stopping import AFTER_ABORT, BEYOND_GRACE, EXITS
from embedmigrate.app.together import Member, Together, totals
from embedmigrate.app.values import Check, DryRun, JobEnd, Totals
from embedmigrate.config import Loaded
from embedmigrate.engine.states import State, StopReason
from embedmigrate.errors import ConfigError, EmbedMigrateError, Exit

_LOOK_SECONDS = 0.5


class Hall(Protocol):
    """Who watches all the jobs."""

    def job(self, name: str) -> Audience: ...
    def planned(self, total: Totals) -> None: ...
    def ended(self, end: JobEnd) -> None: ...
    def confirm(self, question: str) -> bool: ...


class AllJobs:
    """Every job in a task of its own.

    Args:
        jobs: Settings of each job by its name.
        hall: Who watches.
        command: The command that runs one job, by its name.
        bug: Makes an error of an exception that nobody expects.

    Attributes:
        hangs: A job was left behind. It cannot be cancelled either, so that only the end of the
            process ends it.
    """

    def __init__(
        self,
        jobs: Mapping[str, Loaded],
        hall: Hall,
        *,
        command: Callable[[str], str],
        bug: Callable[[Exception], EmbedMigrateError],
    ) -> None:
        self._jobs = jobs
        self._hall = hall
        self._bug = bug
        self._together = Together(jobs, planned=hall.planned, confirm=hall.confirm)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: dict[str, asyncio.Task[JobEnd]] = {}
        self._runs = {
            name: GenerateAll(
                loaded,
                hall.job(name),
                command=command(name),
                company=Member(name, self._together),
            )
            for name, loaded in jobs.items()
        }
        self._reason: StopReason | None = None
        self._signals = 0
        self.hangs = False
        self._last_resort: threading.Timer | None = None

    async def run(self) -> tuple[JobEnd, ...]:
        """How each job ended, in their order; no job's error ends another."""
        self._tasks = {
            name: asyncio.create_task(self._one(name, loaded), name=name)
            for name, loaded in self._jobs.items()
        }
        with self._together.signals.told(self._stop):
            pending = set(self._tasks.values())
            while pending and not self._only_hung(pending):
                _, pending = await asyncio.wait(
                    pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
        if self._last_resort:
            self._last_resort.cancel()
        ends = tuple(
            self._hung(name) if task in pending else self._end_of(task)
            for name, task in self._tasks.items()
        )
        if pending:
            self.hangs = True
            self._end_in(AFTER_ABORT, exit_code_of(ends))
        return ends

    def _end_of(self, task: asyncio.Task[JobEnd]) -> JobEnd:
        """A task that is cancelled before its first step has not even come to say so."""
        return self._interrupted(task.get_name()) if task.cancelled() else task.result()

    async def _one(self, name: str, loaded: Loaded) -> JobEnd:
        end = await self._ended(name, loaded)
        self._together.not_awaited(name)
        self._hall.ended(end)
        return end

    async def _ended(self, name: str, loaded: Loaded) -> JobEnd:
        try:
            async with self._turn(name, loaded):
                summary = await self._runs[name].run()
        except EmbedMigrateError as error:
            return JobEnd(name, error.exit_code, State.FAILED, error=error)
        except asyncio.CancelledError:
            return self._interrupted(name)
        except Exception as error:  # noqa: BLE001  a fault in one job is no reason to end the others
            return JobEnd(name, Exit.INTERNAL, State.FAILED, error=self._bug(error))
        return JobEnd(name, summary.exit_code, summary.state, summary.run_id, summary)

    @contextlib.asynccontextmanager
    async def _turn(self, name: str, loaded: Loaded) -> AsyncIterator[None]:
        """Jobs that fill one column share its lock and its state: one after the other."""
        try:
            files = job_files(loaded).name
        except ConfigError:  # the run will say so
            files = name
        turn = self._turns[files]
        if turn.locked():
            self._together.not_awaited(name)
        async with turn:
            yield

    def _stop(self, reason: StopReason) -> None:
        """What runs drains by itself; what has not begun does not begin, and a second time ends."""
        self._signals += 1
        if self._signals > 2:  # noqa: PLR2004  a third one changes nothing
            return
        self._reason = self._reason or reason
        for name, task in self._tasks.items():
            if name not in self._together.begun:
                task.cancel()
        grace = max(loaded.settings.grace for loaded in self._jobs.values())
        drained = grace + 2 * BEYOND_GRACE
        self._end_in(drained if self._signals == 1 else 2 * AFTER_ABORT, EXITS[self._reason])

    def _end_in(self, seconds: float, code: Exit) -> None:
        """Whatever hangs: a thread that needs nobody's leave."""
        if self._last_resort:
            self._last_resort.cancel()
        self._last_resort = threading.Timer(seconds, os._exit, (int(code),))
        self._last_resort.daemon = True
        self._last_resort.start()

    def _only_hung(self, pending: set[asyncio.Task[JobEnd]]) -> bool:
        watchdog = self._together.watchdog
        return all(watchdog.hangs(self._runs[task.get_name()].run_id) for task in pending)

    def _hung(self, name: str) -> JobEnd:
        """Its last words are saved."""
        end = self._interrupted(name, self._runs[name].run_id)
        self._hall.ended(end)
        return end

    def _interrupted(self, name: str, run_id: str | None = None) -> JobEnd:
        code = EXITS[self._reason or StopReason.ASKED]
        return JobEnd(name, code, State.INTERRUPTED, run_id)


def exit_code_of(ends: tuple[JobEnd, ...]) -> Exit:
    """That of the first job that could not do its work; else 3 if rows failed; 0 if all is done."""
    codes = [end.exit_code for end in ends]
    fatal = [code for code in codes if code not in {Exit.OK, Exit.PARTIAL}]
    return fatal[0] if fatal else max(codes, default=Exit.OK)


async def preview_all(jobs: Mapping[str, Loaded]) -> dict[str, DryRun]:
    """The dry run of each job."""
    found = await asyncio.gather(*(_preview(loaded) for loaded in jobs.values()))
    return dict(zip(jobs, found, strict=True))


async def _preview(loaded: Loaded) -> DryRun:
    try:
        return await dry_run(loaded)
    except EmbedMigrateError as error:
        return DryRun((Check("settings", "failed", error.message, error),), error.exit_code)


def previewed(found: Mapping[str, DryRun]) -> tuple[Totals, Exit]:
    """What all of them would take, and the exit code: the first failed check's, 4, or 0."""
    total = totals(d.estimate for d in found.values() if d.estimate)
    codes = [d.exit_code for d in found.values()]
    failed = [code for code in codes if code not in {Exit.OK, Exit.GATE}]
    return total, failed[0] if failed else max(codes, default=Exit.OK)
