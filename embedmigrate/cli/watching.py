"""Who watches a run: what a display, a log and a JSON stream have in common."""

import signal
import sys
from typing import Self

from embedmigrate.app.records import key_text
from embedmigrate.app.values import JobEnd, Started, Summary
from embedmigrate.cli import wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.engine.model import (
    Advanced,
    Event,
    Failure,
    Noticed,
    Progress,
    Resumed,
    RowFailed,
    Waiting,
)
from embedmigrate.errors import ConfigError

_FRAMES_PER_SECOND = 5
_MOST_ROW_LINES = 20


class Watcher:
    """What all kinds share: the latest snapshot, the limit on row lines, and the question.

    Args:
        streams: Where to write.
        quiet: 1 leaves warnings and errors, 2 only errors.
        verbose: 1 adds every batch.
        job: The name of the one of several jobs that is watched.
    """

    most_row_lines: float = _MOST_ROW_LINES

    def __init__(
        self, streams: Streams, *, quiet: int = 0, verbose: int = 0, job: str | None = None
    ) -> None:
        self.job = job
        self.streams = streams
        self.quiet = quiet
        self.verbose = verbose
        self.progress = Progress()
        self.run_id: str | None = None
        self._row_lines = 0
        self._suppressed = 0

    def __enter__(self) -> Self:
        """SIGUSR1 (and SIGINFO, where it exists) prints one status line at once."""
        for name in ("SIGUSR1", "SIGINFO"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self.status_line())
        return self

    def __exit__(self, *_: object) -> None:
        if self._suppressed:
            self.row_lines_suppressed(self._suppressed)

    def started(self, start: Started) -> None:
        self.run_id = start.run_id
        self.show_start(start)

    def event(self, event: Event) -> None:
        match event:
            case Advanced(progress):
                self.progress = progress
                self.show_progress(progress)
            case RowFailed(failure):
                self._row_lines += 1
                if self._row_lines <= self.most_row_lines:
                    self.show_failure(failure)
                else:
                    self._suppressed += 1
            case Waiting(reason, seconds, attempt, asked):
                self.show_wait(reason, seconds, attempt, asked=asked)
            case Resumed():
                self.show_resumed()
            case Noticed(code, message, minor):
                if not minor or self.verbose:
                    self.show_notice(code, message)

    def confirm(self, question: str) -> bool:
        """Ask at a terminal; elsewhere the flag that led here is the consent."""
        if not self.streams.can_ask:
            if self.streams.interactive:
                raise ConfigError(
                    "confirmation is needed and --no-input forbids to ask",
                    code="confirmation_required",
                    hint="add --yes",
                )
            return True
        self.streams.err.print(f"{question} [y/N] ", end="")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def close(self, summary: Summary) -> None: ...
    def show_end(self, end: JobEnd) -> None:
        """One of several jobs that did not begin."""

    def show_start(self, start: Started) -> None: ...
    def show_progress(self, progress: Progress) -> None: ...
    def show_failure(self, failure: Failure) -> None: ...
    def show_wait(
        self, reason: str, seconds: float | None, attempt: int, *, asked: bool
    ) -> None: ...
    def show_resumed(self) -> None: ...
    def show_notice(self, code: str, message: str) -> None: ...
    def row_lines_suppressed(self, count: int) -> None: ...
    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None: ...

    def status_line(self) -> None:
        p, job = self.progress, f"{self.job}: " if self.job else ""
        self.streams.err.print(
            f"{job}{p.state} {wording.number(p.rows_done)}/{wording.number(p.rows_total)} rows "
            f"{p.rows_per_second:.1f} rows/s ETA {wording.duration(p.eta_seconds)} "
            f"id {key_text(p.cursor)}"
        )
