"""Everything that may end a run early: signals, `embedmigrate stop`, a clock, a hung connection."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from embedmigrate.engine.job import Job
from embedmigrate.engine.states import State, StopReason
from embedmigrate.errors import Exit
from embedmigrate.state import JobFiles

_POLL_SECONDS = 0.25
_BEYOND_GRACE = 1.5
_AFTER_ABORT = 1.5

_EXITS = {
    StopReason.ASKED: Exit.STOPPED,
    StopReason.SIGINT: Exit.INTERRUPTED,
    StopReason.SIGTERM: Exit.TERMINATED,
}


class Stopper:
    """First request: drain and save. Second: abort what is in flight. In any case: an end.

    A connection that hangs can hold its coroutine for longer than anybody waits: cancelling a
    query means asking the very server that does not answer. So a thread ends the process when
    the time is up, after `last_words` has saved what is known.
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
    ) -> None:
        self._job = job
        self._files = files
        self._run_id = run_id
        self._grace = grace
        self._last_words = last_words
        self._on_stopping = on_stopping
        self._watchdog: threading.Timer | None = None
        self._asked = 0

    @contextlib.contextmanager
    def listening(self, max_duration: float | None) -> Iterator[None]:
        """Install handlers for as long as the job runs.

        An inherited "ignore" (nohup, a background job of a script) is respected.
        """
        loop = asyncio.get_running_loop()
        reasons = {
            signal.SIGINT: StopReason.SIGINT,
            signal.SIGTERM: StopReason.SIGTERM,
            signal.SIGHUP: StopReason.SIGTERM,
        }
        taken = [s for s in reasons if signal.getsignal(s) is not signal.SIG_IGN]
        for number in taken:
            loop.add_signal_handler(number, self.request, reasons[number])
        clock = (
            loop.call_later(max_duration, self._job.tap.close, StopReason.DURATION)
            if max_duration
            else None
        )
        poll = loop.create_task(self._poll())
        try:
            yield
        finally:
            poll.cancel()
            if clock:
                clock.cancel()
            if self._watchdog:
                self._watchdog.cancel()
            for number in taken:
                loop.remove_signal_handler(number)

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
            self._watch(_AFTER_ABORT, reason)
        else:
            asyncio.get_running_loop().call_later(self._grace, self._job.abort)
            self._watch(self._grace + _BEYOND_GRACE, reason)

    def _watch(self, seconds: float, reason: StopReason) -> None:
        if self._watchdog:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(seconds, self._end, (_EXITS.get(reason, Exit.STOPPED),))
        self._watchdog.daemon = True
        self._watchdog.start()

    def _end(self, code: Exit) -> None:
        with contextlib.suppress(Exception):
            self._last_words(code)
        os._exit(code)

    async def _poll(self) -> None:
        """Look for a request of `embedmigrate stop`, also while everything else waits."""
        seen: dict[str, object] | None = None
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            request = self._files.asked(self._run_id)
            if request and request != seen:
                seen = request
                self.request(StopReason.ASKED, now=bool(request.get("now")))
