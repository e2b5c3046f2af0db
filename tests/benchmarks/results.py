"""Measured rounds → lines of JSON, and the same as a Markdown table."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.benchmarks.contestants import MARK
from tests.benchmarks.provider import STEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.benchmarks.measuring import Measured

_MOST_POINTS = 80
FIGURES = {
    "rows_per_second": "rows/s",
    "seconds": "s",
    "cpu_us": "client CPU µs/row",
    "server_cpu_us": "server CPU µs/row",
    "memory_mb": "MB",
    "wal_bytes": "WAL bytes/row",
    "requests": "requests",
    "refused": "refused",
}


@dataclass
class Setting:
    """What all contestants had in common: one table of results.

    Attributes:
        rounds: One entry for each round, by contestant.
        absent: Contestants that did not run or did not do the work, and why.
    """

    benchmark: str
    rows: int
    latency: float
    kind: str
    server: str
    batch_size: int
    concurrency: int
    rounds: list[dict[str, Measured]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def lines(self, about: Mapping[str, str]) -> list[dict[str, Any]]:
        """One line for each contestant: median, minimum and maximum of each figure."""
        given = {k: v for k, v in asdict(self).items() if k not in {"rounds", "absent"}}
        names = dict.fromkeys(name for one in self.rounds for name in one)
        found = [
            {**given, "name": name, "rounds": len(self._of(name)), **self._figures(name), **about}
            for name in names
            if name not in self.absent
        ]
        lost = (
            {**given, "name": name, "absent": why, **about} for name, why in self.absent.items()
        )
        return [*found, *lost]

    def _of(self, name: str) -> list[Measured]:
        return [one[name] for one in self.rounds if name in one]

    def _figures(self, name: str) -> dict[str, Any]:
        mine = self._of(name)
        figures = {key: _spread([getattr(m, key) for m in mine]) for key in FIGURES}
        # Round by round: drift hits both alike.
        ratios = [
            one[name].rows_per_second / one[MARK].rows_per_second
            for one in self.rounds
            if name in one and MARK in one
        ]
        usual = sorted(mine, key=lambda m: m.rows_per_second)[len(mine) // 2]
        of_mark = _spread(ratios) if ratios else None
        return {"figures": figures, "of_mark": of_mark, "curve": curve(usual.curve, STEP)}


def curve(served: Sequence[int], step: float) -> dict[str, Any]:
    """Vectors a second over time, in no more points than a chart can show."""
    merged = -(-len(served) // _MOST_POINTS) or 1
    groups = [served[at : at + merged] for at in range(0, len(served), merged)]
    return {"step": step * merged, "rates": [round(sum(g) / len(g) / step) for g in groups]}


def _spread(values: list[float]) -> list[float]:
    return [round(v, 3) for v in (statistics.median(values), min(values), max(values))]


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Medians with minimum and maximum, for lines of one setting."""
    rows = [
        "| | rows/s | of the mark | client CPU | server CPU | memory | WAL | requests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [_row(line) for line in lines]
    return "\n".join(rows) + "\n"


def _row(line: dict[str, Any]) -> str:
    if "absent" in line:
        return f"| {line['name']} | not measured: {_one_line(line['absent'])} | | | | | | |"
    f = line["figures"]
    requests = f"{f['requests'][0]:,.0f}"
    if f["refused"][0]:
        requests += f", {f['refused'][0]:,.0f} refused"
    ratio = _range(line["of_mark"], 100, " %") if line["of_mark"] else ""
    cells = (
        _range(f["rows_per_second"]),
        ratio,
        f"{f['cpu_us'][0]:,.0f} µs",
        f"{f['server_cpu_us'][0]:,.0f} µs",
        f"{f['memory_mb'][0]:,.0f} MB",
        f"{f['wal_bytes'][0]:,.0f} B",
        requests,
    )
    return f"| {line['name']} | {' | '.join(cells)} |"


def _range(spread: list[float], factor: float = 1, unit: str = "") -> str:
    middle, low, high = (f"{value * factor:,.0f}" for value in spread)
    return f"**{middle}{unit}** ({low} to {high})" if low != high else f"**{middle}{unit}**"


def _one_line(why: str) -> str:
    return why.strip().splitlines()[-1].replace("|", "/")[:120] if why.strip() else "no reason"
