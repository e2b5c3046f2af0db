"""Rows a second as bars and over time: SVG written by hand, for light and for dark pages."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_BAR, _GAP, _LEFT, _WIDTH, _RIGHT, _TITLE = 16, 6, 150, 420, 80, 34
_STYLE = (
    "text{font:13px sans-serif;fill:#1f2328}.t{font-weight:600}.v{fill:#59636e}"
    ".b{fill:#8c959f}.o{fill:#0969da}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.v{fill:#9198a1}.b{fill:#656c76}"
    ".o{fill:#4493f8}}"
)
_PLOT_WIDTH, _PLOT_HEIGHT, _AXIS = 520, 180, 46
_LINES = ("#0969da", "#8c959f", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#bc4c00")
_PLOT_STYLE = (
    "text{font:12px sans-serif;fill:#59636e}polyline{fill:none;stroke-width:1.6}"
    "line{stroke:#8c959f;stroke-width:.6}@media(prefers-color-scheme:dark){text{fill:#9198a1}}"
)


def svg(groups: Sequence[tuple[str, Sequence[dict[str, Any]]]], *, ours: str) -> str:
    """One group of bars for each title; lines as `results` writes them, those with figures only."""
    speeds = [line["figures"]["rows_per_second"][0] for _, lines in groups for line in lines]
    scale = _WIDTH / max(speeds, default=1)
    parts, y = list[str](), 0
    for title, lines in groups:
        parts.append(f'<text class="t" x="0" y="{y + 22}">{escape(title)}</text>')
        y += _TITLE
        for line in lines:
            speed = line["figures"]["rows_per_second"][0]
            long, middle = max(1.0, speed * scale), y + _BAR - 3
            kind, name = ("o" if line["name"].startswith(ours) else "b"), escape(line["name"])
            parts += (
                f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{name}</text>',
                f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{long:.1f}" height="{_BAR}"/>',
                f'<text class="v" x="{_LEFT + long + 6:.1f}" y="{middle}">{speed:,.0f}</text>',
            )
            y += _BAR + _GAP
    size = f'viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {y + _GAP}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Rows a second, whole process, median</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", *parts, "</svg>\n"])


def over_time(lines: Sequence[dict[str, Any]]) -> str:
    """Vectors a second from the start of each process on; lines with a `curve`, ours first."""
    seconds = max(len(n["curve"]["rates"]) * n["curve"]["step"] for n in lines)
    most = max(rate for n in lines for rate in n["curve"]["rates"]) or 1
    parts = list[str]()
    for share in (0.0, 0.5, 1.0):
        y, x = _PLOT_HEIGHT * (1 - share) + 8, _AXIS + _PLOT_WIDTH * share
        parts += (
            f'<line x1="{_AXIS}" y1="{y:.0f}" x2="{_AXIS + _PLOT_WIDTH}" y2="{y:.0f}"/>',
            f'<text x="{_AXIS - 6}" y="{y + 4:.0f}" text-anchor="end">{most * share:,.0f}</text>',
            f'<text x="{x:.0f}" y="{_PLOT_HEIGHT + 24}" text-anchor="middle">'
            f"{seconds * share:.0f} s</text>",
        )
    for number, line in enumerate(lines):
        colour, points = _LINES[number % len(_LINES)], _points(line["curve"], seconds, most)
        parts += (
            f'<polyline points="{points}" stroke="{colour}"/>',
            f'<text x="{_AXIS + _PLOT_WIDTH + 10}" y="{18 + 18 * number}" style="fill:{colour}">'
            f"{escape(line['name'])}</text>",
        )
    size = f'viewBox="0 0 {_AXIS + _PLOT_WIDTH + 110} {_PLOT_HEIGHT + 32}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Vectors a second over time, by contestant</title>"
    return "\n".join([head, title, f"<style>{_PLOT_STYLE}</style>", *parts, "</svg>\n"])


def _points(curve: dict[str, Any], seconds: float, most: float) -> str:
    return " ".join(
        f"{_AXIS + (n + 0.5) * curve['step'] / seconds * _PLOT_WIDTH:.1f},"
        f"{8 + _PLOT_HEIGHT * (1 - rate / most):.1f}"
        for n, rate in enumerate(curve["rates"])
    )
