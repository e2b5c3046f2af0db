"""A run as log lines: for cron's mail and systemd's journal."""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from embedmigrate.app.records import key_text
from embedmigrate.app.values import JobEnd, Started, Summary
from embedmigrate.cli import results
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.engine.model import Failure, Progress
from embedmigrate.errors import ConfigError
from embedmigrate.secrets import redact


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
        job: str | None = None,
    ) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose, job=job)
        self._interval = interval
        self._times = times
        self._progress = progress
        self._began = self._shown = time.monotonic()
        self._logged: IO[str] | None = None

    def log_to(self, path: Path) -> None:
        """Write every line to this file as well, whatever is quiet.

        Raises:
            ConfigError: It cannot be written.
        """
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"--log-file {path} cannot be written: {error.strerror}",
                code="log_file_unwritable",
                hint="name another with --log-file, or leave it out",
            ) from None
        self._logged = os.fdopen(fd, "a", encoding="utf-8")

    def line(self, level: str, name: str, **words: object) -> None:
        words = self._named(words)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ ")
        said = redact(
            f"{level:<7} {name} " + " ".join(f"{k}={_quoted(v)}" for k, v in words.items())
        )
        said = said.encode("ascii", "backslashreplace").decode().rstrip()
        if self._logged:
            with suppress(OSError):  # a full disk loses lines of the log, not the run
                self._logged.write(f"{stamp}{said}\n")
                self._logged.flush()
        if self.quiet < {"INFO": 1, "WARNING": 2}.get(level, 99):
            self.streams.err.print(f"{stamp if self._times else ''}{said}")

    def _named(self, words: dict[str, object]) -> dict[str, object]:
        return {"job": self.job, **words} if self.job else words

    def show_start(self, start: Started) -> None:
        p, c, e = start.place, start.counts, start.estimate
        self.line(
            "INFO",
            "start",
            run_id=start.run_id,
            version=start.version,
            table=p.table,
            column=p.filled if p.side_table else p.vector_column,
            model=p.model,
            dims=p.dimensions,
            pid=start.pid,
            host=start.host,
            state_file=start.state_file,
            **({"executor": start.executor, "actors": start.actors} if start.actors else {}),
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
        words = self._named(_progress_words(self.progress))
        self.streams.err.print("STATUS  " + " ".join(f"{k}={_quoted(v)}" for k, v in words.items()))

    def close(self, summary: Summary) -> None:
        p, after = summary.progress, summary.after
        self.line(
            "INFO" if not summary.exit_code else "ERROR",
            "summary",
            state=summary.state,
            embedded=p.rows_stored,
            failed=p.rows_failed,
            skipped=p.rows_skipped,
            missing_after=after.missing + after.stale,
            coverage=f"{after.coverage:.5f}",
            tokens=p.tokens,
            cost_usd="unknown" if p.cost_usd is None else f"{p.cost_usd:.4f}",
            duration_s=round(p.elapsed_seconds),
            exit_code=int(summary.exit_code),
            error_report=summary.error_report or "none",
        )
        if self.job and (error := summary.error):
            self.line("ERROR", "failed", code=error.code, message=error.message)
        if summary.next_command and summary.exit_code and self.quiet < 2:  # noqa: PLR2004
            self.line("ERROR", "hint", retry=summary.next_command)
        if self.quiet or self.job:  # of several jobs one table is made, at the end
            return
        if not p.rows_processed and not summary.exit_code:
            self.streams.out.print(results.nothing_to_do(after))
        else:
            results.summary(summary, self.streams)

    def show_end(self, end: JobEnd) -> None:
        said = {"code": end.error.code, "message": end.error.message} if end.error else {}
        self.line("ERROR", "not_begun", state=end.state, exit_code=int(end.exit_code), **said)
        if end.error and end.error.hint:
            self.line("ERROR", "hint", retry=end.error.hint)


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
