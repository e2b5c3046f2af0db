"""What a live vector index or a row trigger makes of a run: how many rows a second are left."""

from collections.abc import Iterator

from embedmigrate.app.durations import about
from embedmigrate.app.values import Estimate
from embedmigrate.engine.model import Noticed
from embedmigrate.postgres.privileges import Burden

_WIDTH = 1536
_PACES = {"hnsw": (132.0, 390.0), "ivfflat": (0.0, 0.0)}
"""Rows a second that one server writes at this width, the slowest and the fastest measured.

`python -m tests.benchmarks.burden` measures them again; docs/how-to/spare-the-database.md has the
figures. The work is that of comparing vectors, so it grows with their width.
"""
_TRIGGER_SECONDS = 0.0
"""For each row, of a BEFORE UPDATE trigger in PL/pgSQL that sets a column and asks no table."""
_MANY_ROWS = 1000
"""From so many rows on, a live index is worth dropping; below, it earns its keep every night."""


def pace(method: str, dimensions: int) -> tuple[float, float]:
    """Rows a second with such an index, at worst and at best; one not known is taken for HNSW."""
    slow, fast = _PACES.get(method, _PACES["hnsw"])
    return slow * _WIDTH / dimensions, fast * _WIDTH / dimensions


def writing_seconds(burden: Burden, dimensions: int, rows: int) -> float:
    """What the live indexes ask for at worst, one after the other; 0 without any."""
    return sum(rows / pace(method, dimensions)[0] for _, method, _ in burden.indexes)


def warnings(
    burden: Burden, dimensions: int, selected: int, planned: Estimate | None
) -> Iterator[Noticed]:
    """What will make a run over so many rows slow, and how slow."""
    minor = selected < _MANY_ROWS
    usual = about(planned.seconds_without_index) if planned else "what it takes without"
    for name, method, _ in burden.indexes:
        slow, fast = pace(method, dimensions)
        message = (
            f"{method} index {name} is live: with it the server writes {slow:,.0f} to {fast:,.0f} "
            f"rows a second, so that {selected:,} rows take {about(selected / fast)} to "
            f"{about(selected / slow)} instead of {usual}; drop it and build it again afterwards"
        )
        yield Noticed("live_index", message, minor=minor)
    if burden.triggers:
        names = ", ".join(burden.triggers)
        more = about(selected * _TRIGGER_SECONDS)
        message = (
            f"row trigger {names} fires for every vector written: {more} more for {selected:,} "
            "rows if it only sets a column, longer if it asks other tables"
        )
        yield Noticed("row_trigger", message, minor=minor)
