"""SIGKILL at random moments, with PgBouncer in transaction mode before the database."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from tests.e2e.jobs import Job, shuffling
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import BATCH, SIZES, WORKERS, Supply, wait_until
from tests.pooler import pooled

if TYPE_CHECKING:
    from tests.tables import Session


@series("pooled-kills", rows=("G10",), short=8, long=200)
def pooled_kills(rounds: int, seed: int) -> Outcome:
    """The pool has fewer connections than the run: they are shared, and die with it or do not."""
    chance, broken, most, before = random.Random(seed), list[str](), 0, 0
    with arena() as one, pooled(one.database, size=3) as through:
        supply = Supply(one, 1000)
        job = Job(one.cli, through, one.provider)
        job.provider.mangle = shuffling(seed)
        job.provider.latency = 0.06
        for number in range(1, rounds + 1):
            supply.refill(600)
            arrived = job.provider.arrived
            process = job.start(*SIZES, "--pooler")
            wait_until(lambda: job.provider.arrived > arrived or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.5))
            process.kill()
            process.communicate()
            wait_until(lambda: not job.provider.in_flight and not _at_work(supply.session))
            lost = job.sent() - len(supply.table.embedded())
            most, before = max(most, lost - before), lost
            if supply.table.wrong():
                broken.append(f"I1, round {number}, seed {seed}")
        job.provider.latency = 0.0
        done = job.run("--pooler", timeout=120)
        if done.returncode or supply.table.wrong() or supply.table.missing():
            broken.append(f"the last run ended with {done.returncode}, seed {seed}: {done.stderr}")
        if most > BATCH * WORKERS:
            broken.append(f"I4: {most} texts lost by one kill, seed {seed}")
        figures = {
            "texts_sent": job.sent(),
            "wrong_vectors": len(supply.table.wrong()),
            "missing_at_exit_0": len(supply.table.missing()),
            "sent_again_by_one_kill_at_most": most,
            "bound": BATCH * WORKERS,
        }
    return Outcome(rounds, figures, tuple(broken))


def _at_work(session: Session) -> bool:
    """Whether the pool still does something for a client that is gone."""
    row = session.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle'"
        " AND datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()
    return bool(row and row[0])
