"""A run for a person: the plan, the preview, the closing table; plain text off a terminal."""

from rich.table import Table
from rich.text import Text

from embedmigrate.app.durations import about
from embedmigrate.app.records import key_text
from embedmigrate.app.values import Counts, DryRun, Estimate, Started, Summary
from embedmigrate.cli import wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.engine.model import Progress
from embedmigrate.engine.states import State
from embedmigrate.secrets import redact

_MARKS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}
_TITLES = {
    State.COMPLETED: "Done",
    State.COMPLETED_WITH_ERRORS: "Done with errors",
    State.LIMIT_REACHED: "Limit reached",
    State.STOPPED: "Stopped",
    State.INTERRUPTED: "Interrupted",
    State.FAILED: "Failed",
}


def title(state: State) -> str:
    return _TITLES.get(state, str(state))


def coverage(counts: Counts) -> str:
    pending = counts.missing + counts.stale
    stale = f" ({wording.number(counts.stale)} of them stale)" if counts.stale else ""
    return (
        f"{wording.number(counts.embedded)} embedded ({wording.percent(counts.coverage)}) · "
        f"{wording.number(pending)} to do{stale}"
    )


def rows(counts: Counts) -> str:
    return (
        f"{wording.number(counts.total)} total · {wording.number(counts.without_text)} without text"
        f" · {wording.number(counts.eligible)} eligible"
    )


def estimate(e: Estimate) -> tuple[str, str]:
    """What it takes, in tokens and requests; and in money and time."""
    how = (
        f"±{e.error * 100:.0f} %, {wording.number(e.sampled)} rows sampled"
        if e.sampled < e.rows
        else "all rows counted"
    )
    size = f"{wording.tokens(e.tokens)} tokens ({how}, {e.counter}) · " + wording.plural(
        e.requests, "request"
    )
    price = ""
    if e.price:
        price = f" at ${e.price:g} per 1M tokens"
    cost = f"about {wording.money(e.cost_usd)}" if e.cost_usd is not None else "price not known"
    if e.price == 0:
        cost = "free"
    bound = f" (bound by {e.bound_by})" if e.bound_by != "latency" else ""
    return size, f"{cost}{price} · {about(e.seconds)}{bound}"


def opening(s: Started) -> Text:
    """The block above the bar."""
    size, cost = estimate(s.estimate)
    p = s.place
    filled = p.filled if p.side_table else p.vector_column
    listed = [
        ("Table", f"{p.table} ({p.text} -> {filled} {p.vector_type}({p.dimensions}))"),
        ("Model", f"{p.provider}/{p.model}, {p.dimensions} dimensions"),
        ("Rows", rows(s.counts)),
        ("Coverage", coverage(s.counts)),
        ("Estimate", size),
        ("", cost),
        ("Checkpoint", s.state_file),
    ]
    if s.actors:
        listed.insert(2, ("Executor", f"{s.executor}, {wording.plural(s.actors, 'actor')}"))
    if s.force:
        listed.insert(4, ("Force", f"{wording.number(s.selected)} rows are embedded again"))
    if s.resume_from:
        listed.insert(
            4, ("Resume", f"after id {key_text(s.resume_from)}, then a sweep of all rows")
        )
    head = f"embedmigrate {s.version} · run {s.run_id} · {p.where}\n\n"
    return Text.assemble(redact(head), wording.pairs(listed), "\n")


def nothing_to_do(counts: Counts) -> str:
    return (
        f"Nothing to do: {wording.number(counts.embedded)} of {wording.number(counts.eligible)} "
        "eligible rows have a current embedding."
    )


def summary(s: Summary, streams: Streams) -> None:
    """The before/after table, what it cost, what failed, and what to do next."""
    p = s.progress
    head = f"{title(s.state)} in {wording.duration(p.elapsed_seconds)} · run {s.run_id}"
    style = "bold green" if s.exit_code == 0 else "bold yellow"
    streams.out.print(Text(head, style=style if streams.interactive else ""))
    streams.out.print()
    if streams.interactive and streams.out.is_terminal:
        streams.out.print(_before_after(s))
    else:
        for label, before, after in _changes(s):
            streams.out.print(f"{label}: {before} -> {after}")
    streams.out.print()
    streams.out.print(f"  {_spent(p)}")
    for line in _failures(s):
        streams.out.print(redact(line))


def _before_after(s: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("  ")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    changes = {
        "embedded": s.after.embedded - s.before.embedded,
        "missing": _pending(s.after) - _pending(s.before),
    }
    for label, before, after in _changes(s):
        change = f"{changes[label]:+,}" if label in changes else ""
        table.add_row(f"  {label}", before, after, change)
    return table


def _changes(s: Summary) -> list[tuple[str, str, str]]:
    b, a = s.before, s.after
    return [
        ("embedded", wording.number(b.embedded), wording.number(a.embedded)),
        ("missing", wording.number(_pending(b)), wording.number(_pending(a))),
        ("coverage", wording.percent(b.coverage), wording.percent(a.coverage)),
    ]


def _pending(counts: Counts) -> int:
    return counts.missing + counts.stale


def _spent(p: Progress) -> str:
    parts = [f"{wording.tokens(p.tokens)} tokens"]
    if p.cost_usd:
        parts.append(wording.money(p.cost_usd))
    parts.append(wording.plural(p.requests, "request"))
    if p.retries:
        parts.append(f"{wording.number(p.retries)} retried")
    if p.texts_reused:
        parts.append(f"{wording.number(p.texts_reused)} repeated texts not sent again")
    if p.rows_processed and p.elapsed_seconds:
        parts.append(f"{p.rows_processed / p.elapsed_seconds:,.1f} rows/s")
    return " · ".join(parts)


def _failures(s: Summary) -> list[str]:
    p, found = s.progress, []
    if p.rows_failed:
        kinds = ", ".join(f"{wording.number(n)} {code}" for code, n in s.errors_by_code.items())
        found.append(f"  {wording.plural(p.rows_failed, 'row')} failed: {kinds}")
    if p.rows_skipped:
        kinds = ", ".join(f"{wording.number(n)} {code}" for code, n in s.skipped_by_code.items())
        found.append(f"  {wording.plural(p.rows_skipped, 'row')} skipped: {kinds}")
    if p.rows_vanished:
        found.append(f"  {wording.plural(p.rows_vanished, 'row')} vanished during the run")
    if s.new_rows_left:
        found.append("  new rows keep appearing: run again for those that came last")
    if s.error_report and p.rows_failed:
        found.append(f"  Report  {s.error_report}")
    if s.next_command:
        retry = s.state is State.COMPLETED_WITH_ERRORS and p.rows_failed
        found.append(f"  {'Retry ' if retry else 'Resume'}  {s.next_command}")
    return found


def dry_run(d: DryRun, streams: Streams) -> None:
    probed = any(c.name == "probe" and c.status != "skipped" for c in d.checks)
    calls = "one short text was sent" if probed else "no API call was made"
    streams.out.print(f"Dry run: nothing was written and {calls}.\n")
    listed = list(d.checks)
    width = max((len(c.name) for c in listed), default=0)
    for c in listed:
        mark = Text(f"  {c.status:<8}", style=_MARKS[c.status])
        streams.out.print(Text.assemble(mark, f"{c.name:<{width}}  ", redact(c.message)))
        if c.error:
            for fact in c.error.facts:
                streams.out.print(f"{'':{width + 12}}{redact(fact)}")
            if c.error.hint:
                streams.out.print(f"{'':{width + 12}}hint: {redact(c.error.hint)}")
    if d.counts and d.estimate:
        size, cost = estimate(d.estimate)
        streams.out.print()
        streams.out.print(f"  rows    {rows(d.counts)}")
        streams.out.print(f"  now     {coverage(d.counts)}")
        streams.out.print(f"  plan    {wording.plural(d.selected or 0, 'row')} · {size}")
        streams.out.print(f"          {cost}")


def markdown_plan(d: DryRun) -> str:
    """The plan for the summary page of a CI job."""
    listed = ["### embedmigrate plan", "", "| check | status | |", "|---|---|---|"]
    listed += [
        f"| {c.name} | {c.status} | {redact(c.message).replace('|', '/')} |" for c in d.checks
    ]
    if d.counts and d.estimate:
        size, cost = estimate(d.estimate)
        listed += ["", f"{wording.plural(d.selected or 0, 'row')} · {size} · {cost}"]
    return "\n".join(listed) + "\n"
