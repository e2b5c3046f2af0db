"""`python -m tests.benchmarks.web`: the admin API beside a running job, and the job beside it.

One job after the other takes the next rows of one table: alone, under requests, alone, under slow
connections, alone. The speed of a job under load is compared with those before and after it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.benchmarks.measuring import environment, provider
from tests.benchmarks.table import SHORT, WIDTH, Table
from tests.faults.series import machine, today
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "benchmark-0123456789-0123456789-0123456789"
BASE = "/api/admin/embeddings"
LATENCY_MS, BATCH, CONCURRENCY = 200, 64, 4
_HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.web", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="of the table")
    parser.add_argument("--part", type=int, default=20_000, help="rows of one job")
    parser.add_argument("--rate", type=int, default=50, help="requests a second")
    parser.add_argument("--idle", type=int, default=1000, help="connections that say nothing")
    parser.add_argument("--slow", type=int, default=50, help="connections of a byte a second")
    parser.add_argument("--results", type=Path, help="append a line of JSON")
    return parser.parse_args()


class Api:
    """One kept connection to the server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, BASE + path, sent, _HEADERS)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()


@dataclass
class Load:
    """Requests at a steady rate, one in five for `stats`; milliseconds by path."""

    port: int
    rate: int
    milliseconds: dict[str, list[float]] = field(
        default_factory=lambda: {"/status": [], "/stats": []}
    )
    refused: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        stopped = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(n, stopped)) for n in range(_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int, stopped: threading.Event) -> None:
        api, every = Api(self.port), _CALLERS / self.rate
        due = time.perf_counter() + every * number / _CALLERS
        for count in range(sys.maxsize):
            if stopped.wait(max(0.0, due - time.perf_counter())):
                break
            due += every
            path = "/stats" if count % 5 == 0 else "/status"
            began = time.perf_counter()
            status, _ = api.ask("GET", path)
            self.milliseconds[path].append((time.perf_counter() - began) * 1000)
            self.refused += status != http.client.OK
        api.close()


_CALLERS = 10


@contextlib.contextmanager
def slow_connections(port: int, idle: int, slow: int) -> Iterator[list[int]]:
    """Opened again whenever the server drops them; yields how often that was, as a list of one."""
    stopped, dropped = threading.Event(), [0]

    def open_one() -> socket.socket:
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        one.setblocking(False)
        return one

    def keep() -> None:
        held = [(n, open_one()) for n in range(idle + slow)]
        head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 10_000
        sent = 0
        while not stopped.wait(1.0):
            sent += 1
            for place, (number, one) in enumerate(held):
                if not _alive(one, head[sent : sent + 1] if number < slow else b""):
                    one.close()
                    dropped[0] += 1
                    with contextlib.suppress(OSError):
                        held[place] = (number, open_one())
        for _, one in held:
            one.close()

    thread = threading.Thread(target=keep)
    thread.start()
    time.sleep(1)
    try:
        yield dropped
    finally:
        stopped.set()
        thread.join()


def _alive(one: socket.socket, byte: bytes) -> bool:
    try:
        if byte:
            one.send(byte)
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def run_job(api: Api, rows: int) -> float:
    """Rows a second, by the job's own clock, which begins with the first request."""
    status, said = api.ask("POST", "/generate-all", {"limit": rows})
    api.close()  # a connection that waits is the first to give way where there are many
    if status != http.client.OK:
        raise RuntimeError(said)
    while True:
        time.sleep(1)
        try:
            found = api.ask("GET", "/status")[1]["status"]
        except (OSError, http.client.HTTPException):
            continue
        finally:
            api.close()
        if not found["isRunning"] and found["runId"] == said["runId"]:
            break
    if found["rowsEmbedded"] != rows:
        raise RuntimeError(found)
    return float(rows / (found["elapsedTime"] / 1000))


@contextlib.contextmanager
def serving(database: str, provider_url: str, state: Path) -> Iterator[int]:
    """The server's port."""
    variables = environment(state, provider_url) | {
        "DATABASE_URL": database,
        "EMBEDMIGRATE_ADMIN_TOKEN": TOKEN,
        "EMBEDMIGRATE_BATCH_SIZE": str(BATCH),
        "EMBEDMIGRATE_CONCURRENCY": str(CONCURRENCY),
        "EMBEDMIGRATE_TABLE": "resumes",
        "EMBEDMIGRATE_TEXT_COLUMN": "body",
    }
    command = [sys.executable, "-m", "embedmigrate", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield urlsplit(process.stdout.readline().split()[-1]).port or 0
        finally:
            process.terminate()


def measure(given: argparse.Namespace, port: int) -> dict[str, Any]:
    api, load = Api(port), Load(port, given.rate)
    speeds = dict[str, list[float]]()

    def job(name: str, beside: Callable[[], contextlib.AbstractContextManager[Any]]) -> Any:
        with beside() as found:
            speeds.setdefault(name, []).append(run_job(api, given.part))
        print(f"{name}: {speeds[name][-1]:,.0f} rows/s", file=sys.stderr, flush=True)
        return found

    began = time.perf_counter()
    api.ask("GET", "/stats")  # the first one waits for its count
    first_stats = time.perf_counter() - began
    job("alone", contextlib.nullcontext)
    job("requests", load.running)
    job("alone", contextlib.nullcontext)
    dropped = job("slow", lambda: slow_connections(port, given.idle, given.slow))
    job("alone", contextlib.nullcontext)
    first, second, third = speeds["alone"]
    return {
        "rows_per_second": {name: [round(s, 1) for s in found] for name, found in speeds.items()},
        "slower_under_requests": round(1 - speeds["requests"][0] / ((first + second) / 2), 4),
        "slower_under_slow_connections": round(1 - speeds["slow"][0] / ((second + third) / 2), 4),
        "dropped_connections": dropped[0],
        "refused": load.refused,
        "first_stats_ms": round(first_stats * 1000, 1),
        **{f"{path[1:]}_ms": percentiles(found) for path, found in load.milliseconds.items()},
    }


def percentiles(found: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(found, n=100)
    return {
        "requests": len(found),
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(found), 2),
    }


def main() -> int:
    given = arguments()
    server = PostgresServer.start()
    server.create_database("benchmark")
    filling = Table(server.dsn("benchmark"), "vector")
    try:
        filling.fill(given.rows, words=SHORT, seed=1)
        filling.restore()
        options = ("--latency", str(LATENCY_MS), "--width", str(WIDTH), "--server", "base64")
        with (
            provider(*options) as embedding,
            tempfile.TemporaryDirectory() as folder,
            serving(filling.url, embedding.url, Path(folder)) as port,
        ):
            found = measure(given, port)
    finally:
        filling.close()
        server.stop()
    found |= {
        "benchmark": "web",
        "date": today(),
        "machine": machine(),
        "rows": given.rows,
        "rate": given.rate,
        "idle": given.idle,
        "slow": given.slow,
        "command": "python -m tests.benchmarks.web",
    }
    print(json.dumps(found, indent=1))
    if given.results:
        with given.results.open("a", encoding="utf-8") as results:
            results.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
