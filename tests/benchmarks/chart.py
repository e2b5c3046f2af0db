"""Rows a second as horizontal bars: an SVG written by hand, for light and for dark pages."""

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
            kind, name = ("o" if line["name"] == ours else "b"), escape(line["name"])
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
