"""The live display at a terminal: three lines below whatever scrolls."""

import time

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedmigrate.app.records import key_text
from embedmigrate.app.values import Started, Summary
from embedmigrate.cli import results, wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.engine.model import Failure, Progress
from embedmigrate.secrets import redact

_FRAMES_PER_SECOND = 5


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
            self._live.start(refresh=True)  # else its first frame may race with a first warning
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
        lines.add_row(Text(self._state_line(p), no_wrap=True, overflow="ellipsis"))
        lines.add_row(
            Text(
                "Ctrl-C finishes this and saves. Other shell: embedmigrate status | stop",
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
            self._print(
                f"warning: {wording.wait_words(reason, seconds, attempt, asked=asked)}", "yellow"
            )

    def show_notice(self, code: str, message: str) -> None:  # noqa: ARG002
        if self.quiet < 2:  # noqa: PLR2004
            self._print(f"note: {message}", "yellow")

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        self._print(wording.stop_words(aborting=aborting, in_flight=in_flight, grace=grace), "bold")

    def row_lines_suppressed(self, count: int) -> None:
        self._print(f"{wording.number(count)} more failed rows are in the report", "yellow")

    def _print(self, words: str, style: str) -> None:
        self.streams.err.print(Text(redact(words), style=style))

    def close(self, summary: Summary) -> None:
        if self.quiet and not summary.exit_code:
            return
        if not summary.progress.rows_processed and not summary.exit_code:
            self.streams.out.print(results.nothing_to_do(summary.after))
            return
        results.summary(summary, self.streams)
