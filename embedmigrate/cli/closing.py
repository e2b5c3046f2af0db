"""Several jobs for a person: what they will take together, and the table of how they ended."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from embedmigrate.app.values import DryRun, JobEnd, Totals
from embedmigrate.cli import results, wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.secrets import redact

_COLUMNS = ("job", "state", "embedded", "failed", "missing", "coverage", "tokens", "cost", "exit")


def total(t: Totals) -> str:
    cost = "a price is not known" if t.cost_usd is None else f"about {wording.money(t.cost_usd)}"
    return (
        f"{wording.plural(t.jobs, 'job')} · {wording.plural(t.rows, 'row')} · "
        f"{wording.tokens(t.tokens)} tokens · {wording.plural(t.requests, 'request')} · {cost}"
    )


def summaries(ends: Sequence[JobEnd], streams: Streams) -> None:
    """One line for each job, and below what to do next."""
    if streams.interactive and streams.out.is_terminal:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for number, name in enumerate(_COLUMNS):
            table.add_column(name, justify="left" if number < 2 else "right")  # noqa: PLR2004
        for end in ends:
            table.add_row(*_cells(end), style="" if end.exit_code == 0 else "yellow")
        streams.out.print(table)
    else:
        for end in ends:
            name, *cells = _cells(end)
            said = (f"{k} {v}" for k, v in zip(_COLUMNS[1:], cells, strict=True) if v)
            streams.out.print(f"{name}: {', '.join(said)}")
    for end in ends:
        for words in _next(end):
            streams.out.print(redact(words))


def _cells(end: JobEnd) -> tuple[str, ...]:
    code = str(int(end.exit_code))
    if (s := end.summary) is None:
        state = "not begun" if end.run_id is None else results.title(end.state)
        return (end.name, state, *[""] * 6, code)
    p = s.progress
    return (
        end.name,
        results.title(s.state),
        wording.number(p.rows_stored),
        wording.number(p.rows_failed),
        wording.number(s.after.missing + s.after.stale),
        wording.percent(s.after.coverage),
        wording.tokens(p.tokens),
        wording.money(p.cost_usd) if p.cost_usd is not None else "",
        code,
    )


def _next(end: JobEnd) -> list[str]:
    s = end.summary
    if s is None or not end.exit_code:
        return []
    found = [f"  {end.name}  Report  {s.error_report}"] if s.error_report else []
    return [*found, f"  {end.name}  Next  {s.next_command}"] if s.next_command else found


def plans(found: Mapping[str, DryRun], together: Totals, streams: Streams) -> None:
    for name, one in found.items():
        streams.out.print(Text(f"Job {name}", style="bold" if streams.interactive else ""))
        results.dry_run(one, streams)
        streams.out.print()
    streams.out.print(f"Together: {total(together)}")
