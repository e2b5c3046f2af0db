"""Draws `docs/concurrency.svg`: runs with `--concurrency auto` against a token bucket.

`python docs/concurrency.py` lives through them on a clock that nobody waits for, and writes the
picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.limited import Terms, lived  # noqa: E402  found by the line above

if TYPE_CHECKING:
    from tests.limited import Run

PICTURE = Path(__file__).with_name("concurrency.svg")
_RPM = 600
_SECONDS = 180
_STEP = 3
_WIDTH, _HEIGHT, _LEFT, _GAP = 700, 150, 50, 62
_TERMS = {
    "The provider says what is left (x-ratelimit headers)": Terms(rpm=_RPM, seconds=0.5),
    "The provider only refuses, with Retry-After": Terms(rpm=_RPM, seconds=0.5, headers=False),
}
_STYLE = """
text { font: 12px sans-serif; fill: #57606a } .title { font-weight: bold }
.axis { stroke: #8c959f; stroke-width: 1 } .limit { stroke: #8c959f; stroke-dasharray: 4 3 }
polyline { fill: none; stroke-width: 2 } .rate { stroke: #0969da } .width { stroke: #bf8700 }
.refused { fill: #cf222e }
"""


def draw() -> str:
    """The picture, the same on every machine."""
    height = len(_TERMS) * (_HEIGHT + _GAP) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + 100} {height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, (title, terms) in enumerate(_TERMS.items()):
        top = 30 + number * (_HEIGHT + _GAP)
        parts += _panel(title, lived(terms, 0, _SECONDS), top)
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, run: Run, top: int) -> list[str]:
    bottom = top + _HEIGHT
    moments = range(_STEP, _SECONDS + 1, _STEP)
    rates = [run.rate(at - _STEP, at) for at in moments]
    most = 1.05 * max(rates)
    share = run.rate(60, _SECONDS) / _RPM
    words = f"{share:.0%} of {_RPM} a minute after the first minute, "
    words += f"{run.refused(0, _SECONDS):.1%} of all requests refused"
    limit = _y(_RPM / most, top)
    end = _LEFT + _WIDTH
    marks = [
        f'<circle class="refused" cx="{_x(at)}" cy="{bottom - 4}" r="3"/>'
        for at in moments
        if run.refused(at - _STEP, at)
    ]
    return [
        f'<text class="title" x="{_LEFT}" y="{top - 14}">{title}</text>',
        f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{end}" y2="{bottom}"/>',
        f'<line class="limit" x1="{_LEFT}" y1="{limit}" x2="{end}" y2="{limit}"/>',
        f'<text x="4" y="{limit + 4}">{_RPM}</text>',
        _line(
            "rate", [(at, _y(rate / most, top)) for at, rate in zip(moments, rates, strict=True)]
        ),
        _line("width", [(at, _y(run.at(at).allowed / 40, top)) for at in moments]),
        *marks,
        f'<text x="{_LEFT}" y="{bottom + 18}">0 s</text>',
        f'<text x="{end - 20}" y="{bottom + 18}">{_SECONDS} s</text>',
        f'<text x="{_LEFT + 120}" y="{bottom + 18}">{words}</text>',
    ]


def _x(at: float) -> float:
    return round(_LEFT + _WIDTH * at / _SECONDS, 1)


def _y(share: float, top: int) -> float:
    return round(top + _HEIGHT * (1 - share), 1)


def _line(name: str, points: list[tuple[int, float]]) -> str:
    listed = " ".join(f"{_x(at)},{y}" for at, y in points)
    return f'<polyline class="{name}" points="{listed}"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
