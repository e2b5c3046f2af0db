"""A run as JSON objects: for a program."""

import time
from collections.abc import Callable

from embedmigrate.app.values import JobEnd, Started, Summary
from embedmigrate.cli import jsonl, jsonl_jobs, wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.engine.model import Failure, Progress


class JsonWatcher(Watcher):
    """Every event as one object on stdout."""

    most_row_lines = float("inf")

    def __init__(
        self,
        streams: Streams,
        *,
        quiet: int = 0,
        verbose: int = 0,
        interval: float | None = None,
        job: str | None = None,
    ) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose, job=job)
        self._interval = 1.0 if interval is None else interval
        self._shown = float("-inf")
        self._write: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: T201

    def show_start(self, start: Started) -> None:
        self._write(jsonl.started(start, self.job))

    def show_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self._write(jsonl.progress(progress, self.run_id or "", self.job))

    def show_failure(self, failure: Failure) -> None:
        self._write(jsonl.row_error(failure, self.run_id or "", self.job))

    def show_wait(self, reason: str, seconds: float | None, attempt: int, *, asked: bool) -> None:
        words = wording.wait_words(reason, seconds, attempt, asked=asked)
        self._write(jsonl.notice("throttled", words, self.job, wait_seconds=seconds))

    def show_notice(self, code: str, message: str) -> None:
        self._write(jsonl.notice(code, message, self.job))

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        words = wording.stop_words(aborting=aborting, in_flight=in_flight, grace=grace)
        self._write(jsonl.notice("stopping", words, self.job))

    def status_line(self) -> None:
        self._write(jsonl.progress(self.progress, self.run_id or "", self.job))

    def show_end(self, end: JobEnd) -> None:
        self._write(jsonl_jobs.unbegun(end))
        if end.error:
            self.streams.err.print(jsonl.exit_error(end.error, end.run_id, self.job))

    def close(self, summary: Summary) -> None:
        self._write(jsonl.summary(summary, self.job))
        if summary.error:
            self.streams.err.print(jsonl.exit_error(summary.error, summary.run_id, self.job))
