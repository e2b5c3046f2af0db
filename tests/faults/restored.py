"""The database is put back to what it was before, and the tool's own files are not."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.faults.arena import arena
from tests.faults.breakable import breakable
from tests.faults.postgres_faults import SLOW, Found, fill, judge
from tests.faults.series import Outcome, series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.jobs import Job
    from tests.faults.breakable import Breakable

ROWS = 400


@series("restored", rows=("S7",), short=2, long=20)
def restored(rounds: int, seed: int) -> Outcome:
    """A copy from before the run, or from its middle, takes the database's place afterwards."""
    chance, found, lost = random.Random(seed), Found(), 0
    with breakable() as server, arena(server) as job:
        for number in range(rounds):
            fill(job, ROWS, f"{seed}.{number}")
            if number % 2:
                job.run(*SLOW, "--limit", str(chance.randint(50, 300)))
            backup = server.cluster.folder / "backup"
            _while_down(server, lambda: _copy(server, backup))  # noqa: B023
            _run_or_kill(job, chance)
            sent = job.sent()
            _while_down(server, lambda: _put_back(server, backup))  # noqa: B023
            more = chance.choice(((), ("--resume-from", "last")))
            done = job.run(*SLOW, *more)
            lost += job.sent() - sent
            where = f"round {number}, {more}, seed {seed}"
            judge(job, done.returncode, done.stdout + done.stderr, found, where)
            found.faults += 1
    return found.outcome(texts_taken_back_and_sent_again=lost)


def _while_down(server: Breakable, do: Callable[[], object]) -> None:
    server.control("stop", "-m", "fast")
    do()
    server.start_again()


def _copy(server: Breakable, backup: Path) -> None:
    # With the owners, which shutil does not keep.
    subprocess.run(["cp", "-a", str(server.cluster.data), str(backup)], check=True)


def _put_back(server: Breakable, backup: Path) -> None:
    shutil.rmtree(server.cluster.data)
    backup.rename(server.cluster.data)


def _run_or_kill(job: Job, chance: random.Random) -> None:
    """To its end, or somewhere on its way."""
    job.provider.latency = chance.choice((0.0, 0.1))
    process = job.start(*SLOW)
    if job.provider.latency:
        time.sleep(chance.uniform(0.5, 1.2))
        process.kill()
    process.communicate(timeout=60)
    job.provider.latency = 0.0
