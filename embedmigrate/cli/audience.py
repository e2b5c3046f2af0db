"""Which watchers a run gets."""

from contextlib import ExitStack
from typing import Self

from embedmigrate.app.values import JobEnd, Started, Summary
from embedmigrate.cli.lines import LineWatcher
from embedmigrate.cli.live import LiveWatcher
from embedmigrate.cli.stream import JsonWatcher
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.config import Loaded
from embedmigrate.config.surroundings import under_systemd
from embedmigrate.engine.model import Event

SILENT = 99


class Watchers:
    """Several at once: what a person or a program sees, and the log file."""

    def __init__(self, first: Watcher, *others: Watcher) -> None:
        self._first = first
        self._all = (first, *others)
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        for watcher in reversed(self._all):  # the first answers SIGUSR1: the last to install wins
            self._entered.enter_context(watcher)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    def started(self, start: Started) -> None:
        for watcher in self._all:
            watcher.started(start)

    def event(self, event: Event) -> None:
        for watcher in self._all:
            watcher.event(event)

    def stopping(self, *, aborting: bool, in_flight: int, grace: float) -> None:
        for watcher in self._all:
            watcher.stopping(aborting=aborting, in_flight=in_flight, grace=grace)

    def confirm(self, question: str) -> bool:
        return self._first.confirm(question)

    def close(self, summary: Summary) -> None:
        for watcher in self._all:
            watcher.close(summary)

    def show_end(self, end: JobEnd) -> None:
        for watcher in self._all:
            watcher.show_end(end)

    def status_line(self) -> None:
        self._first.status_line()


def watchers_for(loaded: Loaded, streams: Streams) -> Watchers:
    """A bar where a person looks on, objects where a program does, lines for everything else."""
    s = loaded.settings
    seen: Watcher
    if s.json:
        seen = JsonWatcher(streams, quiet=s.quiet, verbose=s.verbose, interval=s.progress_interval)
    elif wants_bar(loaded, streams):
        seen = LiveWatcher(streams, quiet=s.quiet, verbose=s.verbose)
    else:
        seen = lines(loaded, streams, quiet=s.quiet)
    return with_log(seen, loaded, streams)


def wants_bar(loaded: Loaded, streams: Streams) -> bool:
    s = loaded.settings
    asked = s.progress == "bar" or (s.progress == "auto" and streams.interactive)
    return asked and not s.quiet and not s.json


def with_log(
    seen: Watcher, loaded: Loaded, streams: Streams, *, job: str | None = None
) -> Watchers:
    """And the log file, where there is one."""
    if not loaded.settings.log_file:
        return Watchers(seen)
    logged = lines(loaded, streams, quiet=SILENT, job=job)
    logged.log_to(loaded.settings.log_file)
    return Watchers(seen, logged)


def lines(loaded: Loaded, streams: Streams, *, quiet: int, job: str | None = None) -> LineWatcher:
    s = loaded.settings
    return LineWatcher(
        streams,
        quiet=quiet,
        verbose=s.verbose,
        interval=s.progress_interval,
        times=not under_systemd(),
        progress=s.progress != "none",
        job=job,
    )
