"""What every series against a provider or a network asks of a run that has ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.conftest import Completed
    from tests.e2e.jobs import Job
    from tests.targets import Table


@dataclass
class Judge:
    """Collects what did not hold, in words with the seed."""

    seed: int
    broken: list[str] = field(default_factory=list)

    def holds(self, condition: object, otherwise: str) -> None:
        if not condition:
            self.broken.append(f"{otherwise}, seed {self.seed}")

    def run(self, done: Completed, code: int) -> None:
        """It ended as it should, and in no other way."""
        last = " | ".join(done.stderr.strip().splitlines()[-4:])
        self.holds(done.returncode == code, f"exit {done.returncode} instead of {code}: {last}")
        self.holds("Traceback" not in done.stderr, f"a traceback: {last}")

    def table(self, table: Table, *, without: Collection[str] = ()) -> None:
        """I1, I2 and I3: `without` are the keys that may, and shall, have no vector."""
        wrong, missing, touched = table.wrong(), table.missing(), table.touched()
        self.holds(not wrong, f"I1: {len(wrong)} wrong vectors, the first in row {[*wrong][:1]}")
        odd = set(missing) ^ set(without)
        some = sorted(odd)[:9]
        self.holds(not odd, f"I2: {len(odd)} rows missing or stored against expectation: {some}")
        self.holds(not touched, f"I3: {len(touched)} rows touched")

    def paid_once(self, job: Job) -> None:
        """No text that had an answer was sent again."""
        twice = job.sent_twice()
        self.holds(not twice, f"{len(twice)} answered texts were sent again")


def failures(job: Job) -> dict[str, dict[str, Any]]:
    """The rows that the last run reported as failed, by key."""
    reports = sorted(job.cli.state_dir.rglob("*errors*.jsonl"), key=lambda p: p.stat().st_mtime)
    lines = reports[-1].read_text("utf-8").splitlines() if reports else []
    return {str(line["id"]): line for line in map(json.loads, lines)}
