"""`python -m tests.faults NAME --rounds N --seed S`: run one series by hand; `--list` names all."""

import argparse
import importlib
import json
import pkgutil
import sys
import time
from pathlib import Path
from unittest import SkipTest

import tests.faults
from tests.faults.series import REGISTRY, clean_environment, machine, today


def main() -> int:
    for module in pkgutil.iter_modules(tests.faults.__path__):
        if not module.name.startswith(("_", "test_", "conftest")):
            importlib.import_module(f"tests.faults.{module.name}")
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*REGISTRY, []], help="series; all when none")
    parser.add_argument(
        "--rounds", type=int, help="faults to inject; default: the published number"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the number of rounds that CI runs")
    parser.add_argument("--results", type=Path, help="append a line of JSON for each series")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        for one in REGISTRY.values():
            print(f"{one.name:<28} {', '.join(one.rows):<24} short {one.short}, long {one.long}")
        return 0
    failed = False
    with clean_environment():
        for name in given.names or REGISTRY:
            failed |= not _run(name, given)
    return 1 if failed else 0


def _run(name: str, given: argparse.Namespace) -> bool:
    one = REGISTRY[name]
    rounds = given.rounds or (one.short if given.short else one.long)
    began = time.monotonic()
    try:
        outcome = one.run(rounds, given.seed)
    except SkipTest as reason:
        print(json.dumps({"series": name, "skipped": str(reason)}), flush=True)
        return True
    line = {
        "series": name,
        "matrix": list(one.rows),
        "rounds": outcome.rounds,
        "seed": given.seed,
        "figures": outcome.figures,
        "broken": list(outcome.broken),
        "seconds": round(time.monotonic() - began, 1),
        "date": today(),
        "machine": machine(),
        "command": f"python -m tests.faults {name} --rounds {rounds} --seed {given.seed}",
    }
    print(json.dumps(line), flush=True)
    if given.results:
        with given.results.open("a", encoding="utf-8") as results:
            results.write(json.dumps(line) + "\n")
    return not outcome.broken


if __name__ == "__main__":
    sys.exit(main())
