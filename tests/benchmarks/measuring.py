"""One process from start to end: time, CPU, memory, write-ahead log, requests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import orjson
import psycopg

from tests.benchmarks.provider import STEP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.table import Table

_SHOWN = 2000
_KIB = 1024


@dataclass(frozen=True)
class Measured:
    """One process that has filled the table.

    Attributes:
        seconds: Wall clock, from before the start of the process to after its end.
        cpu_us: User and system time of the process and its children, microseconds a row.
        server_cpu_us: Of PostgreSQL with all its processes, microseconds a row.
        memory_mb: Largest resident set of one process, 10^6 bytes.
        wal_bytes: Growth of the write-ahead log, a row.
        requests: As the provider has counted them, refused ones included.
        refused: Answered with 429.
        curve: Vectors that the provider has served in each `provider.STEP`, from the start on.
    """

    rows: int
    seconds: float
    rows_per_second: float
    cpu_us: float
    server_cpu_us: float
    memory_mb: float
    wal_bytes: float
    requests: int
    refused: int
    curve: tuple[int, ...] = ()


class Failed(Exception):  # noqa: N818  it is the peer that failed
    """The process ended with an error, or left rows without a vector."""


class Provider:
    """The fast provider in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def counts(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/count", timeout=10) as reply:  # noqa: S310
            found: dict[str, Any] = orjson.loads(reply.read())
        return found


@contextlib.contextmanager
def provider(*options: str) -> Iterator[Provider]:
    """Options as `python -m tests.benchmarks.provider` has them."""
    command = [sys.executable, "-m", "tests.benchmarks.provider", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(process.stdout.readline().strip())
        finally:
            process.terminate()


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    table: Table,
    provider: Provider,
    *,
    counted: LiteralString,
) -> Measured:
    """Run the command on the table as it is; `counted` is the query for the rows it has done.

    Raises:
        Failed: It ended with an error, or a row has no vector.
    """
    before, log, server = provider.counts(), table.written(), table.server_cpu()
    with tempfile.TemporaryFile() as output:
        began, first = time.perf_counter(), int(time.monotonic() / STEP)
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    log, server = table.written() - log, table.server_cpu() - server
    rows, after = _done(table, counted), provider.counts()
    if process.returncode or rows != table.rows:
        done = f"{rows} of {table.rows} rows"
        raise Failed(f"exit code {process.returncode}, {done}\n{said[-_SHOWN:]}")
    return Measured(
        rows=rows,
        seconds=seconds,
        rows_per_second=rows / seconds,
        cpu_us=(used.ru_utime + used.ru_stime) * 1e6 / rows,
        server_cpu_us=server * 1e6 / rows,
        memory_mb=used.ru_maxrss * _KIB / 1e6,
        wal_bytes=log / rows,
        requests=after["requests"] - before["requests"],
        refused=after["refused"] - before["refused"],
        curve=_curve(after["served"], first, round(seconds / STEP)),
    )


def _curve(served: Mapping[str, int], first: int, steps: int) -> tuple[int, ...]:
    return tuple(served.get(str(first + n), 0) for n in range(steps + 1))


def _done(table: Table, counted: LiteralString) -> int:
    """None where a peer has not even made its table."""
    try:
        return table.count(counted)
    except psycopg.errors.UndefinedTable:
        return 0


def environment(state: Path, provider: str) -> dict[str, str]:
    """Nothing of the operator's settings; `state` is the folder for whatever a peer keeps."""
    # PYTHON*: without bytecode on the disk a clone would be compiled anew in every run.
    theirs = ("DATABASE_URL", "PG", "OPENAI_", "AZURE_", "EMBEDMIGRATE_", "PYTHON")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
    root = str(Path(__file__).parent.parent.parent)
    return kept | {
        "OPENAI_API_KEY": "sk-test-0123456789",
        "OPENAI_BASE_URL": f"{provider}/v1",
        "PYTHONPATH": root,
        "XDG_STATE_HOME": str(state),
        "XDG_CONFIG_HOME": str(state),
        "XDG_CACHE_HOME": str(state),
    }
