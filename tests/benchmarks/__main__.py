"""`python -m tests.benchmarks`: whole processes that fill a table, side by side.

`compare` measures contestants on long texts, `growth` embedmigrate on tables of several sizes,
`ray` what several actors bring (`--only latency,local,limits`).
"""

from __future__ import annotations

import argparse
import compileall
import json
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import embedmigrate
from tests.benchmarks import actors
from tests.benchmarks.contestants import (
    CONTESTANTS,
    Contestant,
    Environments,
    NotInstalled,
    Work,
    environments,
)
from tests.benchmarks.measuring import Failed, Provider, environment, measure, provider
from tests.benchmarks.results import Setting, table
from tests.benchmarks.table import LONG, SHORT, WIDTH, Table
from tests.faults.series import machine, today
from tests.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {"compare": [10_000], "growth": [10_000, 100_000, 1_000_000]}


def numbers(given: str) -> list[int]:
    """`0,50,200`."""
    return [int(part) for part in given.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("benchmark", nargs="?", choices=[*SIZES, "ray"], default="compare")
    parser.add_argument("--rows", type=numbers, help="sizes of the table, such as 10000,100000")
    parser.add_argument("--rounds", type=int, help="default: 3, for growth 1")
    parser.add_argument("--latency", type=numbers, default=[0], help="ms, such as 0,50,200")
    parser.add_argument("--kind", choices=["vector", "halfvec"], default="vector")
    parser.add_argument("--server", choices=["base64", "float"], default="base64")
    parser.add_argument("--only", help="contestants, separated by commas; see --list")
    parser.add_argument("--peers", action="store_true", help="also those of the package index")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rpm", type=float, default=0, help="the provider's requests a minute")
    parser.add_argument("--tpm", type=float, default=0, help="the provider's tokens a minute")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, help="append a line of JSON for each contestant")
    parser.add_argument("--list", action="store_true", help="name the contestants")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.list:
        for one in CONTESTANTS.values():
            print(f"{one.name:<14} {one.words}{' (--peers)' if one.peer else ''}")
        return 0
    chosen = [] if given.benchmark == "ray" else _chosen(given)
    # As pip does for the others when it installs them.
    compileall.compile_dir(Path(embedmigrate.__file__).parent, quiet=1)
    # The server and the provider end with this process, however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    server = PostgresServer.start(durable=True)
    try:
        server.create_database("benchmark")
        filling = Table(server.dsn("benchmark"), given.kind)
        if given.benchmark == "ray":
            _actors(given, filling)
            return 0
        with environments() as installed:
            for setting in _settings(given, chosen, filling, installed):
                _publish(setting, given, filling)
        filling.close()
    finally:
        server.stop()
    return 0


def _actors(given: argparse.Namespace, filling: Table) -> None:
    for name in given.only.split(",") if given.only else [*actors.CASES, "limits"]:
        for figures in _measured_actors(name, given, filling):
            found = {"benchmark": "ray", "name": name, **figures, **_about(given, filling)}
            line = json.dumps(found)
            print(line, flush=True)
            if given.results:
                with given.results.open("a", encoding="utf-8") as results:
                    results.write(line + "\n")


def _measured_actors(
    name: str, given: argparse.Namespace, filling: Table
) -> Iterator[dict[str, Any]]:
    if name != "limits":
        rounds = given.rounds or 3
        yield actors.compare(actors.CASES[name], filling, rounds=rounds, seed=given.seed)
        return
    for rpm, tpm in [(given.rpm, given.tpm)] if given.rpm or given.tpm else actors.LIMITS:
        yield actors.under_a_limit(filling, actors=4, rpm=rpm, tpm=tpm, seed=given.seed)


def _chosen(given: argparse.Namespace) -> list[Contestant]:
    if given.only:
        return [CONTESTANTS[name] for name in given.only.split(",")]
    if given.benchmark == "growth":
        return [CONTESTANTS["embedmigrate"]]
    able = [one for one in CONTESTANTS.values() if given.server in one.servers]
    return [one for one in able if given.peers or not one.peer]


def _settings(
    given: argparse.Namespace, chosen: list[Contestant], filling: Table, installed: Environments
) -> Iterator[Setting]:
    rounds = given.rounds or (1 if given.benchmark == "growth" else 3)
    words = SHORT if given.benchmark == "growth" else LONG
    # All of them beforehand: minutes between two processes would make them incomparable.
    absent = _install(chosen, installed)
    for rows in given.rows or SIZES[given.benchmark]:
        filling.fill(rows, words=words, seed=given.seed)
        for latency in given.latency:
            setting = Setting(
                given.benchmark,
                rows,
                latency,
                given.kind,
                given.server,
                given.batch_size,
                given.concurrency,
                absent=dict(absent),
            )
            with provider(
                *("--latency", str(latency), "--width", str(WIDTH), "--server", given.server),
                *("--rpm", str(given.rpm), "--tpm", str(given.tpm)),
            ) as serving:
                for _ in range(rounds):
                    setting.rounds.append({})
                    # In alternation: what else the machine does hits all alike.
                    for one in chosen:
                        if one.name not in setting.absent:
                            _measure(one, setting, filling, installed, serving)
            yield setting


def _install(chosen: list[Contestant], installed: Environments) -> dict[str, str]:
    """Those that cannot be installed, and why."""
    absent = dict[str, str]()
    for one in chosen:
        try:
            installed.python_of(one)
        except NotInstalled as reason:
            absent[one.name] = str(reason)
    return absent


def _measure(
    one: Contestant,
    setting: Setting,
    filling: Table,
    installed: Environments,
    serving: Provider,
) -> None:
    filling.restore(and_drop=one.leaves, side=one.side)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        sizes = (setting.batch_size, setting.concurrency)
        work = Work(filling.url, serving.url, state, *sizes, setting.server)
        try:
            measured = measure(
                one.command(installed.python_of(one), work),
                environment(state, work.provider),
                filling,
                serving,
                counted=one.counted,
            )
        except Failed as reason:
            print(f"{one.name}: {reason}", file=sys.stderr, flush=True)
            setting.absent[one.name] = str(reason)
            return
    setting.rounds[-1][one.name] = measured
    print(
        f"{setting.rows} rows, {setting.latency} ms, round {len(setting.rounds)}: {one.name} "
        f"{measured.rows_per_second:,.0f} rows/s, {measured.cpu_us:,.0f} µs/row, "
        f"server {measured.server_cpu_us:,.0f} µs/row, {measured.memory_mb:,.0f} MB",
        file=sys.stderr,
        flush=True,
    )


def _about(given: argparse.Namespace, filling: Table) -> dict[str, str]:
    """When, where and how."""
    said = [word for word in sys.argv[1:] if not word.startswith("--results")]
    if given.results and str(given.results) in said:
        said.remove(str(given.results))
    return {
        "date": today(),
        "machine": machine(),
        "database": filling.version(),
        "command": shlex.join(["python", "-m", "tests.benchmarks", *said]),
    }


def _publish(setting: Setting, given: argparse.Namespace, filling: Table) -> None:
    lines = setting.lines(_about(given, filling))
    print(f"\n{setting.rows:,} rows of {setting.kind}, {setting.latency} ms\n\n{table(lines)}")
    if given.results:
        with given.results.open("a", encoding="utf-8") as results:
            results.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
