"""Who watches several jobs: a bar or lines or objects for each, and one end for all."""

import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Self

from embedmigrate.app.values import JobEnd, Totals
from embedmigrate.cli import closing, jsonl_jobs
from embedmigrate.cli.audience import SILENT, Watchers, lines, wants_bar, with_log
from embedmigrate.cli.bars import Bars, BarWatcher
from embedmigrate.cli.stream import JsonWatcher
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.config import Loaded
from embedmigrate.errors import Exit


class Several:
    """The watchers of all jobs.

    Args:
        loaded: The settings that hold for the output of all.
        names: The jobs.
        streams: Where to write.
    """

    def __init__(self, loaded: Loaded, names: Iterable[str], streams: Streams) -> None:
        self._loaded = loaded
        self._streams = streams
        self._bars = (
            Bars(streams) if wants_bar(loaded, streams) and not loaded.settings.json else None
        )
        self._jobs = {name: with_log(self._seen(name), loaded, streams, job=name) for name in names}
        s = loaded.settings
        self._log = lines(loaded, streams, quiet=SILENT if self._bars or s.json else s.quiet)
        if s.log_file:
            self._log.log_to(s.log_file)
        self._total: Totals | None = None
        self._entered = ExitStack()

    def _seen(self, name: str) -> Watcher:
        s = self._loaded.settings
        if s.json:
            interval = s.progress_interval
            return JsonWatcher(
                self._streams, quiet=s.quiet, verbose=s.verbose, interval=interval, job=name
            )
        if self._bars:
            return BarWatcher(self._bars, self._streams, job=name, quiet=s.quiet, verbose=s.verbose)
        return lines(self._loaded, self._streams, quiet=s.quiet, job=name)

    def __enter__(self) -> Self:
        for watchers in self._jobs.values():
            self._entered.enter_context(watchers)
        for name in ("SIGUSR1", "SIGINFO"):  # the last one to install would answer alone
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: self._status_lines())
        if self._bars:
            self._entered.callback(self._bars.end)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    def _status_lines(self) -> None:
        for watchers in self._jobs.values():
            watchers.status_line()

    def job(self, name: str) -> Watchers:
        return self._jobs[name]

    def planned(self, total: Totals) -> None:
        self._total = total
        if self._bars:
            self._streams.err.print(f"Together: {closing.total(total)}")
        self._log.line(
            "INFO",
            "together",
            jobs=total.jobs,
            rows_selected=total.rows,
            est_tokens=total.tokens,
            est_requests=total.requests,
            est_cost_usd="unknown" if total.cost_usd is None else f"{total.cost_usd:.4f}",
        )

    def confirm(self, question: str) -> bool:
        return next(iter(self._jobs.values())).confirm(question)

    def ended(self, end: JobEnd) -> None:
        if end.summary:
            self._jobs[end.name].close(end.summary)
        else:
            self._jobs[end.name].show_end(end)

    def close(self, ends: Sequence[JobEnd], code: Exit) -> None:
        s = self._loaded.settings
        if self._bars:
            self._bars.end()
        ok = sum(not end.exit_code for end in ends)
        level = "ERROR" if code else "INFO"
        self._log.line(level, "all_jobs", jobs=len(ends), ok=ok, exit_code=int(code))
        if s.json:
            print(jsonl_jobs.all_jobs(ends, self._total, code), flush=True)  # noqa: T201
        elif not s.quiet:
            closing.summaries(ends, self._streams)
