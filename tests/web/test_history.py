"""How the past of a run is told from its events."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from embedmigrate.web.events_file import EventsFile, Launch
from embedmigrate.web.history import POINTS, history

if TYPE_CHECKING:
    from pathlib import Path

LAUNCH = Launch("0a1b2c", "emb-job-1", "2026-01-01T00:00:00.000Z")


def told(folder: Path, lines: int) -> EventsFile:
    """Twenty rows a second, four lines a second, and one failed row for each of them."""
    file = EventsFile(folder, "articles")
    with file.reserved(LAUNCH) as fd:
        for n in range(1, lines + 1):
            status: dict[str, Any] = {"message_type": "status", "time": "", "run_id": LAUNCH.run_id}
            status |= {"elapsed_seconds": n / 4, "rows_embedded": 4 * n, "rows_failed": n}
            failed = {"message_type": "row_error", "id": n, "message": "x" * 300}
            os.write(fd, f"{json.dumps(status)}\n{json.dumps(failed)}\n".encode())
    return file


def test_a_long_run_is_told_in_few_points(tmp_path: Path) -> None:
    """They cover the run from end to end, in order, and are exact."""
    points = history(told(tmp_path, 20_000), LAUNCH.run_id).points
    assert POINTS / 2 < len(points) <= POINTS + 1
    assert points[0][0] < 25
    assert points[-1][0] > 4975
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points))
    assert all(done == 20 * at for at, done in points)


def test_a_short_run_is_told(tmp_path: Path) -> None:
    assert history(told(tmp_path, 3), LAUNCH.run_id).points == [(0.25, 5)]


def test_another_run_is_not_told(tmp_path: Path) -> None:
    """The file is that of the last run which a server has started; the command line had others."""
    file = told(tmp_path, 10)
    assert history(file, "ffffff").points == []
    assert history(file, None).points == []
    assert history(EventsFile(tmp_path, "other"), LAUNCH.run_id).points == []
