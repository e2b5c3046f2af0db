"""Several jobs at a terminal: a bar for each, below whatever scrolls."""

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedmigrate.app.records import key_text
from embedmigrate.app.values import JobEnd, Started, Summary
from embedmigrate.cli import wording
from embedmigrate.cli.failures import show
from embedmigrate.cli.results import title
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.engine.model import Failure
from embedmigrate.secrets import redact

_FRAMES_PER_SECOND = 5
_BAR = 16


class Bars:
    """The one live display, which all jobs draw on."""

    def __init__(self, streams: Streams) -> None:
        self._watchers: list[BarWatcher] = []
        self._live = Live(
            console=streams.err,
            refresh_per_second=_FRAMES_PER_SECOND,
            get_renderable=self.frame,
            transient=True,
        )
        self._on = False

    def add(self, watcher: "BarWatcher") -> None:
        self._watchers.append(watcher)

    def begin(self) -> None:
        if not self._on:
            self._live.start(refresh=True)
            self._on = True

    def end(self) -> None:
        if self._on:
            self._live.stop()
            self._on = False

    def frame(self) -> Table:
        """The display of this moment."""
        grid = Table.grid(padding=(0, 1))
        for watcher in self._watchers:
            p = watcher.progress
            bar = ProgressBar(total=max(1, p.rows_total), completed=p.rows_done, width=_BAR)
            figures = (
                f"{wording.percent(p.done_ratio, 0)} "
                f"{wording.number(p.rows_done)}/{wording.number(p.rows_total)} · {watcher.state} · "
                f"{p.rows_per_second:,.1f} rows/s · ETA {wording.duration(p.eta_seconds)}"
            )
            grid.add_row(
                Text(watcher.job or "", style="bold", no_wrap=True),
                bar,
                Text(figures, no_wrap=True, overflow="ellipsis"),
            )
        lines = Table.grid()
        lines.add_row(grid)
        hint = "Ctrl-C finishes this and saves. Other shell: embedmigrate status | stop -j NAME"
        lines.add_row(Text(hint, style="dim"))
        return lines


class BarWatcher(Watcher):
    """One job's line in it, and its name before all that it says."""

    def __init__(
        self, bars: Bars, streams: Streams, *, job: str, quiet: int = 0, verbose: int = 0
    ) -> None:
        super().__init__(streams, quiet=quiet, verbose=verbose, job=job)
        self._bars = bars
        self._ended: str | None = None
        bars.add(self)

    @property
    def state(self) -> str:
        if self._ended:
            return self._ended
        return wording.state(self.progress) if self.run_id else "waiting"

    def show_start(self, start: Started) -> None:
        p = start.place
        self._print(
            f"run {start.run_id} · {p.table} ({p.text} -> {p.filled}) · "
            f"{wording.plural(start.selected, 'row')} · "
            f"{wording.tokens(start.estimate.tokens)} tokens · "
            f"{wording.money(start.estimate.cost_usd)}"
        )
        self._bars.begin()

    def show_failure(self, failure: Failure) -> None:
        verb = "skipped" if failure.skipped else "failed"
        self._print(f"{verb}  id {key_text(failure.key)}  {failure.code}: {failure.message}")

    def show_wait(self, reason: str, seconds: float | None, attempt: int, *, asked: bool) -> None:
        self._print(f"warning: {wording.wait_words(reason, seconds, attempt, asked=asked)}")

    def show_notice(self, code: str, message: str) -> None:  # noqa: ARG002
        self._print(f"note: {message}")

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        self._print(wording.stop_words(aborting=aborting, in_flight=in_flight, grace=grace))

    def row_lines_suppressed(self, count: int) -> None:
        self._print(f"{wording.number(count)} more failed rows are in the report")

    def close(self, summary: Summary) -> None:
        self._ended = title(summary.state)
        if summary.error:
            show(summary.error, self.streams, verbose=self.verbose > 0, job=self.job)

    def show_end(self, end: JobEnd) -> None:
        self._ended = "not begun"
        if end.error:
            show(end.error, self.streams, verbose=self.verbose > 0, job=self.job)

    def _print(self, words: str) -> None:
        self.streams.err.print(Text.assemble((f"{self.job}  ", "bold"), redact(words)))
