"""What a live vector index or a row trigger makes of a run: how many rows a second are left.

The constants are of `python -m tests.benchmarks.burden`, microseconds of the server for a vector of
1,536 dimensions; docs/how-to/spare-the-database.md has the figures. The work is that of comparing
vectors, so it grows with their width.
"""

from collections.abc import Iterator

from embedmigrate.app.durations import about
from embedmigrate.app.values import Estimate
from embedmigrate.engine.model import Noticed
from embedmigrate.postgres.privileges import Burden, Index

_WIDTH = 1536
_HNSW = (2_560.0, 8_620.0)
"""At best, from a series of 390 rows/s before the tool was written; at worst, random vectors."""
_IVFFLAT_LIST = 0.56
"""For each list, all of which a new vector is compared with."""
_TRIGGER = 1.0
"""A BEFORE UPDATE trigger in PL/pgSQL that sets a column and asks no table, of any width."""
_MANY_ROWS = 1000
"""From so many rows on, a live index is worth dropping; below, it earns its keep every night."""
_NOTEWORTHY = 1.1


def _seconds(index: Index, dimensions: int, rows: int) -> tuple[float, float]:
    """The server's for so many rows, at best and at worst; one not known is taken for HNSW."""
    best, worst = _HNSW
    if index.method == "ivfflat":
        best = worst = index.lists * _IVFFLAT_LIST
    scale = rows * dimensions / _WIDTH / 1e6
    return best * scale, worst * scale


def writing_seconds(burden: Burden, dimensions: int, rows: int) -> float:
    """What the live indexes ask for at worst, one after the other; 0 without any."""
    return sum(_seconds(index, dimensions, rows)[1] for index in burden.indexes)


def warnings(
    burden: Burden, dimensions: int, selected: int, planned: Estimate | None
) -> Iterator[Noticed]:
    """What will make a run over so many rows slow, and how slow."""
    few = selected < _MANY_ROWS
    usual = planned.seconds_without_index if planned else 0.0
    for index in burden.indexes:
        best, worst = (max(usual, s) for s in _seconds(index, dimensions, selected))
        slow = worst > usual * _NOTEWORTHY
        words = _slow(index, best, worst, usual, selected) if slow else _harmless(index)
        yield Noticed("live_index", words, minor=few or not slow)
    if burden.triggers:
        names = ", ".join(burden.triggers)
        message = (
            f"row trigger {names} fires for every vector written: "
            f"{about(selected * _TRIGGER / 1e6)} more for {selected:,} rows if it only sets a "
            "column, longer if it asks other tables"
        )
        yield Noticed("row_trigger", message, minor=few)


def _slow(index: Index, best: float, worst: float, usual: float, rows: int) -> str:
    span = about(worst) if about(best) == about(worst) else f"{about(best)} to {about(worst)}"
    return (
        f"{index.method} index {index.name} is live: {rows:,} rows take {span} with it instead of "
        f"{about(usual)}; drop it and build it again afterwards"
    )


def _harmless(index: Index) -> str:
    return f"{index.method} index {index.name} is live, which does not make this run slower"
