"""The series that a side table has to stand as well: the same code, the vectors go elsewhere."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from tests.faults.arena import beside
from tests.faults.concurrent_change import (
    column_dropped,
    deadlocks,
    endless_writes,
    late_commits,
    locked_rows,
)
from tests.faults.crash_points import crash_points
from tests.faults.kills import random_kills
from tests.faults.postgres_faults import backends_terminated
from tests.faults.series import REGISTRY, Outcome, series
from tests.faults.state_faults import simultaneous_starts
from tests.faults.toxics import commit_cut

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS: dict[str, tuple[Callable[[int, int], Outcome], int, int]] = {
    "random-kills": (random_kills, 10, 200),
    "crash-points": (crash_points, 6, 140),
    "commit-cut": (commit_cut, 15, 200),
    "backends-terminated": (backends_terminated, 10, 200),
    "simultaneous-starts": (simultaneous_starts, 1, 40),
    "locked-rows": (locked_rows, 1, 15),
    "deadlocks": (deadlocks, 30, 1000),
    "late-commits": (late_commits, 1, 50),
    "endless-writes": (endless_writes, 1, 10),
    "column-dropped": (column_dropped, 4, 40),
}
"""Series, rounds of the short form, rounds of the long one."""


def _into_a_side_table(run: Callable[[int, int], Outcome]) -> Callable[[int, int], Outcome]:
    @wraps(run)
    def elsewhere(rounds: int, seed: int) -> Outcome:
        with beside():
            return run(rounds, seed)

    elsewhere.__doc__ = f"{run.__doc__} With `--side-table` as the target."
    return elsewhere


for _name, (_run, _short, _long) in ROUNDS.items():
    _rows = REGISTRY[_name].rows
    series(f"{_name}-side", rows=_rows, short=_short, long=_long)(_into_a_side_table(_run))
