"""How far a run was at which moment: from a few places in its events file, however long that is."""

import os
from typing import Any

from embedmigrate.web.events_file import EventsFile, parsed
from embedmigrate.web.replies import History

POINTS = 240
_CHUNK = 4_096
"""Holds a whole status line wherever it is cut."""
_DEALT_WITH = ("rows_embedded", "rows_failed", "rows_skipped")


def history(file: EventsFile, run_id: str | None) -> History:
    """At most `POINTS` moments of the run; none where no server has started it."""
    launch = file.launch()
    if launch is None or launch.run_id != run_id:
        return History(run_id=run_id, points=[])
    points: list[tuple[float, int]] = []
    for said in _sampled(file):
        elapsed = float(said.get("elapsed_seconds") or 0.0)
        if said.get("run_id") == run_id and (not points or elapsed > points[-1][0]):
            done = sum(int(said.get(name) or 0) for name in _DEALT_WITH)
            points.append((round(elapsed, 2), done))
    return History(run_id=run_id, points=points)


def _sampled(file: EventsFile) -> list[dict[str, Any]]:
    """The first status line at or after each of so many places."""
    found: list[dict[str, Any]] = []
    try:
        with file.path.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            for place in range(0, size, max(_CHUNK, size // POINTS)):
                opened.seek(place)
                lines = parsed(opened.read(_CHUNK))
                found += [said for said in lines if said["message_type"] == "status"][:1]
    except OSError:
        return []
    return found
