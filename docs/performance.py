"""Writes the tables and the chart of performance.md from what the benchmarks have measured.

`python docs/performance.py RESULTS...` takes in what `python -m tests.benchmarks --results` has
written, a line of JSON for each contestant in each setting; the newest takes the place of the one
kept in `performance.jsonl`. Without arguments only the page and its chart are written again.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from tests.benchmarks.chart import over_time, svg  # noqa: E402
from tests.benchmarks.contestants import CONTESTANTS  # noqa: E402
from tests.benchmarks.results import table  # noqa: E402

PAGE, KEPT, CHART = (DOCS / f"performance.{end}" for end in ("md", "jsonl", "svg"))
PLOT = DOCS / "performance-time.svg"
_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SETTING = ("benchmark", "kind", "server", "rows", "latency", "batch_size", "concurrency")


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a line take another's place; also the order of the page."""
    return (*(line[name] for name in _SETTING), list(CONTESTANTS).index(line["name"]))


def measured() -> list[dict[str, Any]]:
    """The kept lines, in the order of the page."""
    lines = KEPT.read_text("utf-8").splitlines() if KEPT.exists() else ()
    return sorted(map(json.loads, lines), key=key)


def tables(benchmark: str) -> str:
    parts = list[str]()
    lines = (line for line in measured() if line["benchmark"] == benchmark)
    for _, group in groupby(lines, key=lambda line: key(line)[:-1]):
        some = list(group)
        parts += [f"### {_title(some[0])}", "", *_about(some), "", table(some)]
    return "\n".join(parts) or "Not measured yet.\n"


def _title(line: dict[str, Any]) -> str:
    size = f"{line['rows']:,} rows of {line['kind']}(1536), {line['server']}"
    return f"{size}, {line['latency']} ms"


def _about(lines: list[dict[str, Any]]) -> list[str]:
    """Where and how; once for each command that has given lines of this setting."""
    where = ("date", "machine", "database", "command")
    said = dict.fromkeys(tuple(line[name] for name in where) for line in lines)
    return [
        f"{date}, {machine}, {database}:\n\n```sh\n{command}\n```"
        for date, machine, database, command in said
    ]


def contestants() -> str:
    lines = (f"- **{one.name}**: {one.words}." for one in CONTESTANTS.values())
    return "\n".join(lines) + "\n"


BLOCKS = {
    "contestants": contestants,
    "compare": lambda: tables("compare"),
    "growth": lambda: tables("growth"),
}


def render(page: str) -> str:
    """The page with its tables as the kept results have them."""
    return _BLOCK.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]]()}\n{m[3]}", page)


def chart() -> str:
    """Bars for each setting of `compare`."""
    lines = [n for n in measured() if n["benchmark"] == "compare" and "figures" in n]
    groups = groupby(lines, key=lambda line: key(line)[:-1])
    found = [(title, list(some)) for title, some in ((t, list(g)) for t, g in groups)]
    return svg([(_title(some[0]), some) for _, some in found], ours="embedmigrate")


def plot() -> str:
    """Over time: the contestants on the largest table of `compare` without latency."""
    lines = [n for n in measured() if n["benchmark"] == "compare" and "curve" in n]
    still = [n for n in lines if not n["latency"] and n["kind"] == "vector"]
    largest = max(still, key=lambda n: n["rows"])
    return over_time([n for n in still if key(n)[:-1] == key(largest)[:-1]])


def main() -> None:
    if given := [Path(name) for name in sys.argv[1:]]:
        kept = {key(line): line for line in measured()}
        for path in given:
            kept |= {key(n): n for n in map(json.loads, path.read_text("utf-8").splitlines())}
        KEPT.write_text("".join(json.dumps(kept[k]) + "\n" for k in sorted(kept)), "utf-8")
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
    CHART.write_text(chart(), "utf-8")
    PLOT.write_text(plot(), "utf-8")


if __name__ == "__main__":
    main()
