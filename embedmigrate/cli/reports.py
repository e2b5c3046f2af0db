"""What `stats`, `status` and `generate-one` show a person; plain text off a terminal."""

from rich.table import Table
from rich.text import Text

from embedmigrate.app.records import key_text
from embedmigrate.app.values import Counts, OneRow, Stats
from embedmigrate.cli import wording
from embedmigrate.cli.results import estimate
from embedmigrate.cli.terminal import Streams
from embedmigrate.secrets import redact


def stats(s: Stats, streams: Streams, *, tsv: bool) -> None:
    listed = _figures(s)
    if tsv:
        for label, value, _ in listed:
            plain = value.replace(",", "").removeprefix("~") if label != "to finish" else value
            print(f"{label.replace(' ', '_')}\t{plain}")  # noqa: T201  Rich expands tabs
        return
    p = s.place
    indexes = " · ".join(
        f"{method} index {name} ({'valid' if valid else 'INVALID'})"
        for name, method, valid in s.indexes
    )
    beside = f" for {p.table}" if p.side_table else ""
    head = f"{p.filled}{beside} · {p.vector_type}({p.dimensions}) · {indexes or 'no index'}"
    if not (streams.interactive and streams.out.is_terminal):
        streams.out.print(f"target: {redact(head)}")
        for label, value, note in listed:
            streams.out.print(f"{label}: {value}{'  ' + note if note else ''}")
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for label, value, note in listed:
        table.add_row(f"  {label}", value, note)
    streams.out.print(Text(redact(head)))
    streams.out.print()
    streams.out.print(table)


def _figures(s: Stats) -> list[tuple[str, str, str]]:
    c = s.counts
    sign = "" if c.exact else "~"
    listed = [("rows total", f"{sign}{wording.number(c.total)}", "")]
    if c.exact:
        listed.append(("without text", wording.number(c.without_text), ""))
    listed += [
        (
            "eligible",
            f"{sign}{wording.number(c.eligible)}",
            "" if c.exact else "blank texts included",
        ),
        ("embedded", f"{sign}{wording.number(c.embedded)}", wording.percent(c.coverage)),
        ("missing", f"{sign}{wording.number(c.missing)}", wording.percent(_share(c.missing, c))),
    ]
    if not c.exact:
        listed.append(("stale", "not counted", "with --estimate"))
    elif s.tracks_staleness:
        listed.append(("stale", wording.number(c.stale), "changed since it was embedded"))
    else:
        listed.append(("stale", "not tracked", "no --row-updated-at-column"))
    if s.orphaned is not None:
        listed.append(("orphaned", wording.number(s.orphaned), "vectors whose row is gone"))
    listed.append(("model of last run", s.model_of_last_run or "not tracked", ""))
    if s.estimate and (c.missing or c.stale):
        size, cost = estimate(s.estimate)
        listed.append(("to finish", size, cost))
    return listed


def _share(part: int, counts: Counts) -> float:
    return part / counts.eligible if counts.eligible else 0.0


def one_row(r: OneRow, streams: Streams) -> None:
    words = {
        "embedded": "embedded",
        "unchanged": "unchanged: it has a current embedding; --force embeds it again",
        "skipped": "skipped: it has no text, --where leaves it out, or --on-too-long skips it",
        "failed": f"failed: {r.error['code'] if r.error else ''}",
    }
    cost = f" · {wording.tokens(r.tokens)} tokens" if r.tokens else ""
    streams.out.print(f"{key_text(r.key)}: {words[r.result]}{cost} · {r.seconds * 1000:.0f} ms")
