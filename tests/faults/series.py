"""A series of faults, what came of it, and the table that docs/reliability.md is made of."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

from tests.faults.canary import SEARCH


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a series came to.

    Attributes:
        rounds: Faults that were really injected.
        figures: What was counted, by name: wrong vectors, missing rows, texts sent again.
        broken: Every invariant that did not hold, in words with the seed; empty when all did.
    """

    rounds: int
    figures: dict[str, Any] = field(default_factory=dict)
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the table: `rows` are those of the matrix that it exercises, such as P1."""

    name: str
    rows: tuple[str, ...]
    run: Callable[[int, int], Outcome]
    """Takes rounds and seed."""
    short: int
    """Rounds in CI."""
    long: int
    """Rounds that are published."""


REGISTRY: dict[str, Series] = {}


def series(
    name: str, *, rows: tuple[str, ...], short: int, long: int
) -> Callable[[Callable[[int, int], Outcome]], Callable[[int, int], Outcome]]:
    """Put a function `(rounds, seed) -> Outcome` into the table under `name`."""

    def register(run: Callable[[int, int], Outcome]) -> Callable[[int, int], Outcome]:
        REGISTRY[name] = Series(name, rows, _searched(run), short, long)
        return run

    return register


def _searched(run: Callable[[int, int], Outcome]) -> Callable[[int, int], Outcome]:
    """And what it printed and wrote is searched for what must not come out."""

    @wraps(run)
    def searched(rounds: int, seed: int) -> Outcome:
        SEARCH.bytes, SEARCH.leaks = 0, []
        outcome = run(rounds, seed)
        figures = {**outcome.figures, "bytes_searched": SEARCH.bytes}
        return replace(outcome, figures=figures, broken=(*outcome.broken, *SEARCH.leaks))

    return searched


@contextmanager
def clean_environment() -> Iterator[None]:
    """Nothing of the operator's in a series run by hand."""
    kept = dict(os.environ)
    for name in list(os.environ):
        theirs = ("DATABASE_URL", "PG", "OPENAI_", "AZURE_", "EMBEDMIGRATE_")
        if name.startswith(theirs) and name != "EMBEDMIGRATE_TEST_DSN":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def machine() -> str:
    """Enough to judge a figure by; no name of a host."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def today() -> str:
    return datetime.now(UTC).date().isoformat()
