"""Which watcher a run gets."""

from embedmigrate.cli.lines import LineWatcher
from embedmigrate.cli.live import LiveWatcher
from embedmigrate.cli.stream import JsonWatcher
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import Watcher
from embedmigrate.config import Loaded
from embedmigrate.config.surroundings import under_systemd


def watcher_for(loaded: Loaded, streams: Streams) -> Watcher:
    """A bar where a person looks on, objects where a program does, lines for everything else."""
    s = loaded.settings
    if s.json:
        return JsonWatcher(streams, quiet=s.quiet, verbose=s.verbose, interval=s.progress_interval)
    bar = s.progress == "bar" or (s.progress == "auto" and streams.interactive)
    if bar and not s.quiet and not s.log_file:
        return LiveWatcher(streams, quiet=s.quiet, verbose=s.verbose)
    run = LineWatcher(
        streams,
        quiet=s.quiet,
        verbose=s.verbose,
        interval=s.progress_interval,
        times=not under_systemd(),
        progress=s.progress != "none",
    )
    if s.log_file:
        run.log_to(s.log_file)
    return run
