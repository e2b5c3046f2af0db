"""Which watcher a run gets, and what each shows when the run has ended."""

from embedmigrate.app.values import Summary
from embedmigrate.cli import jsonl, results
from embedmigrate.cli.terminal import Streams
from embedmigrate.cli.watching import JsonWatcher, LineWatcher, LiveWatcher
from embedmigrate.config import Loaded
from embedmigrate.config.layers import under_systemd


class LiveRun(LiveWatcher):
    def close(self, summary: Summary) -> None:
        if self.quiet and not summary.exit_code:
            return
        if not summary.progress.rows_processed and not summary.exit_code:
            self.streams.out.print(results.nothing_to_do(summary.after))
            return
        results.summary(summary, self.streams)


class LineRun(LineWatcher):
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
        if summary.next_command and summary.exit_code and self.quiet < 2:  # noqa: PLR2004
            self.line("ERROR", "hint", retry=summary.next_command)
        if self.quiet:
            return
        if not p.rows_processed and not summary.exit_code:
            self.streams.out.print(results.nothing_to_do(after))
        else:
            results.summary(summary, self.streams)


class JsonRun(JsonWatcher):
    def close(self, summary: Summary) -> None:
        self._write(jsonl.summary(summary))
        if summary.error:
            self.streams.err.print(jsonl.exit_error(summary.error, summary.run_id))


def watcher_for(loaded: Loaded, streams: Streams) -> LiveRun | LineRun | JsonRun:
    """A bar where a person looks on, objects where a program does, lines for everything else."""
    s = loaded.settings
    if s.json_lines:
        return JsonRun(streams, quiet=s.quiet, verbose=s.verbose, interval=s.progress_interval)
    bar = s.progress == "bar" or (s.progress == "auto" and streams.interactive)
    if bar and not s.quiet and not s.log_file:
        return LiveRun(streams, quiet=s.quiet, verbose=s.verbose)
    run = LineRun(
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
