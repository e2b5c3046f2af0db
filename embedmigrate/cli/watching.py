"""Who watches a run: a live display at a terminal, lines in a log, or objects for a program."""

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedmigrate.app.records import key_text
from embedmigrate.app.values import Started, Summary
from embedmigrate.cli import jsonl, results, wording
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
from embedmigrate.secrets import redact

_FRAMES_PER_SECOND = 5
_MOST_ROW_LINES = 20


class Watcher:
    """What all kinds share: the latest snapshot, the limit on row lines, and the question.

    Args:
        streams: Where to write.
        quiet: 1 leaves warnings and errors, 2 only errors.
        verbose: 1 adds every batch.
    """

    most_row_lines: float = _MOST_ROW_LINES

    def __init__(self, streams: Streams, *, quiet: int = 0, verbose: int = 0) -> None:
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
            case Noticed(code, message):
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
        p = self.progress
        self.streams.err.print(
            f"{p.state} {wording.number(p.rows_done)}/{wording.number(p.rows_total)} rows "
            f"{p.rows_per_second:.1f} rows/s ETA {wording.duration(p.eta_seconds)} "
            f"id {key_text(p.cursor)}"
        )


class LiveWatcher(Watcher):
    """Three lines below whatever scrolls: the bar, the state, and what the operator may do."""

    def __init__(self, streams: Streams, *, quiet: int = 0, verbose: int = 0) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose)
        self._began = time.monotonic()
        self._live = Live(
            console=streams.err,
            refresh_per_second=_FRAMES_PER_SECOND,
            get_renderable=self.frame,
            transient=True,
        )
        self._on = False

    def __exit__(self, *_: object) -> None:
        if self._on:
            self._live.stop()
        super().__exit__()

    def show_start(self, start: Started) -> None:
        self._began = time.monotonic()
        self.streams.err.print(results.opening(start))
        if start.selected:
            self._live.start()
            self._on = True

    def frame(self) -> Table:
        """The display of this moment; a separate function, so that a picture can be taken of it."""
        p = self.progress
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, p.rows_total), completed=p.rows_done, width=34)
        figures = (
            f"{wording.percent(p.done_ratio, 0)} "
            f"{wording.number(p.rows_done)}/{wording.number(p.rows_total)} · "
            f"{p.rows_per_second:,.1f} rows/s"
        )
        grid.add_row(Text("Embedding", style="bold"), bar, Text(figures))
        lines = Table.grid()
        lines.add_row(grid)
        lines.add_row(Text(self._state_line(p)))
        lines.add_row(
            Text(
                "Ctrl-C finishes what is in flight and saves. Other shell: embedmigrate status | stop",
                style="dim",
            )
        )
        return lines

    def _state_line(self, p: Progress) -> str:
        elapsed = time.monotonic() - self._began
        parts = [
            f"{wording.state(p):<9}",
            f"elapsed {wording.duration(elapsed)}",
            f"ETA {wording.duration(p.eta_seconds)}",
        ]
        if p.cost_usd:
            parts.append(wording.money(p.cost_usd))
        parts += [f"{p.retries} retries", f"{p.rows_failed} failed"]
        if p.cursor:
            parts.append(f"id {key_text(p.cursor)}")
        return " · ".join(parts)

    def show_failure(self, failure: Failure) -> None:
        self._print(
            f"{'skipped' if failure.skipped else 'failed'}  id {key_text(failure.key)}  "
            f"{failure.code}: {failure.message}",
            "yellow",
        )

    def show_wait(self, reason: str, seconds: float | None, attempt: int, *, asked: bool) -> None:
        if self.quiet < 2:  # noqa: PLR2004
            self._print(f"warning: {_wait_words(reason, seconds, attempt, asked=asked)}", "yellow")

    def show_notice(self, code: str, message: str) -> None:  # noqa: ARG002
        if self.quiet < 2:  # noqa: PLR2004
            self._print(f"note: {message}", "yellow")

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        self._print(_stop_words(aborting=aborting, in_flight=in_flight, grace=grace), "bold")

    def row_lines_suppressed(self, count: int) -> None:
        self._print(f"{wording.number(count)} more failed rows are in the report", "yellow")

    def _print(self, words: str, style: str) -> None:
        self.streams.err.print(Text(redact(words), style=style))


class LineWatcher(Watcher):
    """logfmt lines, UTC, ASCII: for cron's mail and systemd's journal."""

    def __init__(
        self,
        streams: Streams,
        *,
        quiet: int = 0,
        verbose: int = 0,
        interval: float | None = None,
        times: bool = True,
        progress: bool = True,
    ) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose)
        self._interval = interval
        self._times = times
        self._progress = progress
        self._began = self._shown = time.monotonic()
        self._logged: IO[str] | None = None

    def log_to(self, path: Path) -> None:
        import os  # noqa: PLC0415

        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._logged = os.fdopen(fd, "a", encoding="utf-8")

    def line(self, level: str, name: str, **words: object) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ ")
        said = redact(
            f"{level:<7} {name} " + " ".join(f"{k}={_quoted(v)}" for k, v in words.items())
        )
        said = said.encode("ascii", "backslashreplace").decode().rstrip()
        if self._logged:
            self._logged.write(f"{stamp}{said}\n")
            self._logged.flush()
        if self.quiet < {"INFO": 1, "WARNING": 2}.get(level, 99):
            self.streams.err.print(f"{stamp if self._times else ''}{said}")

    def show_start(self, start: Started) -> None:
        p, c, e = start.place, start.counts, start.estimate
        self.line(
            "INFO",
            "start",
            run_id=start.run_id,
            version=start.version,
            table=p.table,
            column=p.vector_column,
            model=p.model,
            dims=p.dimensions,
            pid=start.pid,
            host=start.host,
            state_file=start.state_file,
        )
        self.line(
            "INFO",
            "plan",
            rows_total=c.total,
            rows_eligible=c.eligible,
            rows_missing=c.missing,
            rows_stale=c.stale,
            rows_selected=start.selected,
            est_tokens=e.tokens,
            token_counter=e.counter,
            est_cost_usd="unknown" if e.cost_usd is None else f"{e.cost_usd:.4f}",
            est_seconds=round(e.seconds),
            resume_from=key_text(start.resume_from) or "none",
        )

    def show_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if self.verbose or (self._progress and now - self._shown >= self._pause(now - self._began)):
            self._shown = now
            self.line("INFO", "progress", **_progress_words(progress))

    def _pause(self, elapsed: float) -> float:
        """Every 5 s in the first minute, every 30 s up to ten, then every minute."""
        if self._interval is not None:
            return self._interval
        return 5.0 if elapsed < 60 else 30.0 if elapsed < 600 else 60.0  # noqa: PLR2004

    def show_failure(self, failure: Failure) -> None:
        name = "row_skipped" if failure.skipped else "row_failed"
        level = "WARNING" if failure.skipped else "ERROR"
        self.line(level, name, id=key_text(failure.key), code=failure.code, message=failure.message)

    def row_lines_suppressed(self, count: int) -> None:
        self.line("ERROR", "row_failed_suppressed", n=count)

    def show_wait(self, reason: str, seconds: float | None, attempt: int, *, asked: bool) -> None:
        source = "retry-after" if asked else "backoff"
        wait = "unknown" if seconds is None else f"{seconds:.1f}"
        self.line(
            "WARNING", "throttled", reason=reason, wait_s=wait, source=source, attempt=attempt
        )

    def show_resumed(self) -> None:
        self.line("INFO", "resumed")

    def show_notice(self, code: str, message: str) -> None:
        self.line("WARNING", "notice", code=code, message=message)

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        self.line("WARNING", "stopping", aborting=aborting, in_flight=in_flight, grace_s=grace)

    def status_line(self) -> None:
        words = _progress_words(self.progress)
        self.streams.err.print("STATUS  " + " ".join(f"{k}={_quoted(v)}" for k, v in words.items()))


class JsonWatcher(Watcher):
    """Every event as one object on stdout."""

    most_row_lines = float("inf")

    def __init__(
        self, streams: Streams, *, quiet: int = 0, verbose: int = 0, interval: float | None = None
    ) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose)
        self._interval = 1.0 if interval is None else interval
        self._shown = float("-inf")
        self._write: Callable[[str], None] = lambda line: print(line, flush=True)  # noqa: T201

    def show_start(self, start: Started) -> None:
        self._write(jsonl.started(start))

    def show_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            self._write(jsonl.progress(progress, self.run_id or ""))

    def show_failure(self, failure: Failure) -> None:
        self._write(jsonl.row_error(failure, self.run_id or ""))

    def show_wait(self, reason: str, seconds: float | None, attempt: int, *, asked: bool) -> None:
        words = _wait_words(reason, seconds, attempt, asked=asked)
        self._write(jsonl.notice("throttled", words, wait_seconds=seconds))

    def show_notice(self, code: str, message: str) -> None:
        self._write(jsonl.notice(code, message))

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        words = _stop_words(aborting=aborting, in_flight=in_flight, grace=grace)
        self._write(jsonl.notice("stopping", words))

    def status_line(self) -> None:
        self._write(jsonl.progress(self.progress, self.run_id or ""))


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


def _progress_words(p: Progress) -> dict[str, object]:
    return {
        "state": p.state,
        "done": p.rows_done,
        "total": p.rows_total,
        "pct": f"{int(p.done_ratio * 1000) / 10:.1f}",
        "rows_per_s": f"{p.rows_per_second:.1f}",
        "eta_s": "--" if p.eta_seconds is None else round(p.eta_seconds),
        "cost_usd": "unknown" if p.cost_usd is None else f"{p.cost_usd:.4f}",
        "failed": p.rows_failed,
        "retries": p.retries,
        "last_id": key_text(p.cursor) or "none",
    }


def _wait_words(reason: str, seconds: float | None, attempt: int, *, asked: bool) -> str:
    how = " as asked by Retry-After" if asked else ""
    wait = f"waiting {seconds:.0f} s" if seconds is not None else "waiting"
    return f"{wording.reason(reason)} (429): {wait}{how}, attempt {attempt}"


def _stop_words(*, aborting: bool, in_flight: int, grace: float) -> str:
    flight = wording.plural(in_flight, "batch", "batches")
    if aborting:
        return f"Aborting {flight} in flight; its rows stay pending."
    return (
        f"Stopping: finishing {flight} in flight (up to {grace:.0f} s). Ctrl-C again to abort it."
    )
