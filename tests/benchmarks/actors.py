"""What actors bring: the same run with one of them and with several, by its own clock.

A run's duration begins when its actors are ready and ends with its last outcome: how long Ray
takes to start does not depend on the table.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.measuring import environment, provider
from tests.benchmarks.table import LONG, SHORT, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.measuring import Provider

LIMITS = ((1200.0, 0.0), (0.0, 300_000.0))
"""Requests and tokens a minute; 0 is any number."""
_COLD = 60.0
"""Seconds from the first request for which a limit is looked at."""


@dataclass(frozen=True)
class Case:
    """Actors that are compared on one table.

    Attributes:
        actors: Numbers of them; the first is what the others are compared with.
        options: Of the command.
        served: Options of the provider.
        width: Of the vectors.
    """

    rows: int
    words: int
    actors: tuple[int, ...]
    options: tuple[str, ...]
    served: tuple[str, ...] = ()
    width: int = 1536


CASES = {
    "latency": Case(
        6_000,
        SHORT,
        (1, 4),
        ("--batch-size", "10", "--concurrency", "4"),
        ("--latency", "200"),
    ),
    "local": Case(16_000, LONG, (1, 2), ("--provider", "local"), width=256),
}


def compare(case: Case, table: Table, *, rounds: int, seed: int) -> dict[str, Any]:
    """Rows a second by number of actors, in alternation, and their ratio round by round."""
    table.fill(case.rows, words=case.words, seed=seed)
    rates: dict[int, list[float]] = {number: [] for number in case.actors}
    with provider("--width", str(case.width), *case.served) as serving:
        for _ in range(rounds):
            for number in case.actors:
                _restore(table, case.width)
                seconds = _finished(table, serving, number, case.options)
                rates[number].append(case.rows / seconds)
    first = rates[case.actors[0]]
    return {
        "rows": case.rows,
        "options": list(case.options),
        "provider": list(case.served),
        "rows_per_second": {str(n): [round(r, 1) for r in found] for n, found in rates.items()},
        "ratio": [
            round(many / one, 2) for one, many in zip(first, rates[case.actors[-1]], strict=True)
        ],
    }


def under_a_limit(
    table: Table, *, actors: int, rpm: float, tpm: float, seed: int
) -> dict[str, Any]:
    """`auto` from a cold start against a token bucket that holds ten seconds' worth.

    The bucket is full at the start: what all of it adds up to may be a sixth above the rate, so
    that the second half, in which little of it is left, is looked at by itself.
    """
    table.fill(60_000, words=SHORT, seed=seed)
    _restore(table, 1536)
    bucket = ("--rpm", str(rpm), "--tpm", str(tpm), "--burst", "10", "--latency", "100")
    with provider(*bucket) as serving, _running(table, serving, actors, ("-b", "20")) as process:
        while not serving.counts()["requests"]:
            time.sleep(0.05)
        time.sleep(_COLD / 2)
        half = serving.counts()
        time.sleep(_COLD / 2)
        counts = serving.counts()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    later = {name: counts[name] - half[name] for name in ("requests", "refused", "tokens")}
    return {
        "actors": actors,
        "rpm": rpm,
        "tpm": tpm,
        "of_allowed": _used(counts, rpm, tpm, _COLD),
        "of_allowed_in_second_half": _used(later, rpm, tpm, _COLD / 2),
        "requests": counts["requests"],
        "refused": round(counts["refused"] / counts["requests"], 4),
    }


def _used(counts: Mapping[str, int], rpm: float, tpm: float, seconds: float) -> float:
    """The share of what has flowed into the bucket that binds."""
    granted = counts["requests"] - counts["refused"]
    shares = ((granted, rpm), (counts["tokens"], tpm))
    return round(max(got / (rate * seconds / 60) for got, rate in shares if rate), 3)


def _restore(table: Table, width: int) -> None:
    table.restore()
    table.resize(width)


def _finished(table: Table, serving: Provider, actors: int, options: Sequence[str]) -> float:
    with _running(table, serving, actors, options) as process:
        out, err = process.communicate(timeout=600)
    summary = _summary(out)
    if process.returncode or summary["rows_embedded"] != table.rows:
        raise RuntimeError(err[-2000:])
    print(f"{actors} actors: {summary['duration_seconds']:.2f} s", file=sys.stderr, flush=True)
    return float(summary["duration_seconds"])


@contextlib.contextmanager
def _running(
    table: Table, serving: Provider, actors: int, options: Sequence[str]
) -> Iterator[subprocess.Popen[str]]:
    command = [
        *(sys.executable, "-m", "embedmigrate", "generate-all", "--json", "--progress", "none"),
        *("--database-url", table.url, "--table", "resumes", "--text-column", "body"),
        *("--encoding-format", "base64", "--executor", "ray", "--actors", str(actors), *options),
    ]
    with tempfile.TemporaryDirectory(prefix="em-") as folder:
        process = subprocess.Popen(
            command,
            env=environment(Path(folder), serving.url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def _summary(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found
