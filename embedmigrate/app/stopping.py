"""Everything that may end a run early: signals, `embedmigrate stop`, a clock, a hung connection."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from embedmigrate.app.company import Company
from embedmigrate.engine.job import Job
from embedmigrate.engine.states import State, StopReason
from embedmigrate.errors import Exit
from embedmigrate.state import JobFiles

_POLL_SECONDS = 0.25
BEYOND_GRACE = 1.5
AFTER_ABORT = 1.5

EXITS = {
    StopReason.ASKED: Exit.STOPPED,
    StopReason.SIGINT: Exit.INTERRUPTED,
    StopReason.SIGTERM: Exit.TERMINATED,
}


class Stopper:
    """First request: drain and save. Second: abort what is in flight. In any case: an end.

    A connection that hangs can hold its coroutine for longer than anybody waits: cancelling a
    query means asking the very server that does not answer. So a thread ends the process when
    the time is up, after `last_words` has saved what is known, unless others still run in it.
    """

    def __init__(
        self,
        job: Job,
        files: JobFiles,
        *,
        run_id: str,
        grace: float,
        last_words: Callable[[Exit], None],
        on_stopping: Callable[[bool], None],
        company: Company,
    ) -> None:
        self._job = job
        self._files = files
        self._run_id = run_id
        self._grace = grace
        self._last_words = last_words
        self._on_stopping = on_stopping
        self._company = company
        self._watchdog: threading.Timer | None = None
        self._asked = 0

    @contextlib.contextmanager
    def listening(self, max_duration: float | None) -> Iterator[None]:
        """For as long as the job runs."""
        loop = asyncio.get_running_loop()
        clock = (
            loop.call_later(max_duration, self._job.tap.close, StopReason.DURATION)
            if max_duration
            else None
        )
        poll = loop.create_task(self._poll())
        try:
            with self._company.signals.told(self.request):
                yield
        finally:
            poll.cancel()
            if clock:
                clock.cancel()
            if self._watchdog:
                self._watchdog.cancel()

    def request(self, reason: StopReason, *, now: bool = False) -> None:
        self._asked += 1
        if self._asked > 2:  # noqa: PLR2004  a third request changes nothing
            return
        self._job.tap.close(reason)
        abort = now or self._asked > 1
        self._job.ledger.show(State.STOPPING, reason=str(reason))
        self._on_stopping(abort)
        if abort:
            self._job.abort()
            self._watch(AFTER_ABORT, reason)
        else:
            asyncio.get_running_loop().call_later(self._grace, self._job.abort)
            self._watch(self._grace + BEYOND_GRACE, reason)

    def _watch(self, seconds: float, reason: StopReason) -> None:
        if self._watchdog:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(seconds, self._end, (EXITS.get(reason, Exit.STOPPED),))
        self._watchdog.daemon = True
        self._watchdog.start()

    def _end(self, code: Exit) -> None:
        with contextlib.suppress(Exception):
            self._last_words(code)
        self._company.watchdog.overdue(self._run_id, code)

    async def _poll(self) -> None:
        """Look for a request of `embedmigrate stop`, also while everything else waits."""
        seen: dict[str, object] | None = None
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            request = self._files.asked(self._run_id)
            if request and request != seen:
                seen = request
                self.request(StopReason.ASKED, now=bool(request.get("now")))
