"""Who watches several jobs: a bar or lines or objects for each, and one end for all."""

import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Self

from embedmigrate.app.values import JobEnd, Totals
from embedmigrate.cli import closing, jsonl
from embedmigrate.cli.audience import Watchers, lines, wants_bar, with_log
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
        s = self._loaded.settings
        if not s.json and not s.quiet:
            self._streams.err.print(f"Together: {closing.total(total)}")

    def confirm(self, question: str) -> bool:
        return next(iter(self._jobs.values())).confirm(question)

    def ended(self, end: JobEnd) -> None:
        if end.summary:
            self._jobs[end.name].close(end.summary)
        else:
            self._jobs[end.name].show_end(end)

    def close(self, ends: Sequence[JobEnd], code: Exit) -> None:
        s = self._loaded.settings
        if s.json:
            print(jsonl.all_jobs(ends, self._total, code), flush=True)  # noqa: T201
        elif not s.quiet:
            closing.summaries(ends, self._streams)
