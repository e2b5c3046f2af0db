"""Actors and nodes of a Ray cluster that die in the middle of a run."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.e2e.jobs import shuffling
from tests.faults.arena import arena
from tests.faults.canary import CANARIES, SEARCH
from tests.faults.deaths import Death, charge, connections, hold
from tests.faults.series import Outcome, series
from tests.faults.signals import Supply, wait_until
from tests.ray_nodes import RayNodes

if TYPE_CHECKING:
    import subprocess

    from tests.e2e.jobs import Job

BATCH, EACH = 8, 2
BOUND = BATCH * EACH
EDITED = " edited"
_STEADY = ("--max-wait", "120")


class _Run:
    """The run that is being tormented; a new one begins when it ends with exit code 0."""

    def __init__(self, job: Job, supply: Supply, nodes: RayNodes, seed: int) -> None:
        self.job, self.supply, self.nodes = job, supply, nodes
        self.chance = random.Random(seed)
        self.broken: list[str] = []
        self.kills = Counter[str]()
        self.deaths: list[Death] = []
        self.wrong = self.edits = 0
        self.begun = 0
        self.process: subprocess.Popen[str]
        self.supply.refill(400)
        self.begin()

    def begin(self) -> None:
        self.begun += 1
        self.process = self.job.start(
            *("--executor", "ray", "--ray-address", self.nodes.address, "--actors", "2"),
            *("--batch-size", str(BATCH), "--concurrency", str(EACH), "-qq", *_STEADY),
            env=dict(self.nodes.token),
        )

    def at_work(self) -> bool:
        """Two actors that have sent something, and requests in flight."""
        actors, port = self.nodes.actors(), self.job.provider.port
        busy = [pid for pid in actors if connections(pid, port)]
        return len(busy) > 1 and self.job.provider.in_flight > 0

    def keep_going(self) -> None:
        """A fresh run where the last one has ended, and rows enough for the next kill."""
        if self.process.poll() is not None:
            self.ended()
            self.supply.refill(400)
            self.begin()
        self.supply.refill(400)

    def ended(self, *, allowed: tuple[int, ...] = (0, 3)) -> None:
        """3 where new rows came after the last sweep: none has failed."""
        _, said = self.process.communicate(timeout=120)
        if self.process.returncode not in allowed or "Traceback" in said or "row_failed" in said:
            self.broken.append(f"a run ended with {self.process.returncode}: {said[-600:]}")
        self.verify()

    def verify(self) -> None:
        """Every vector there is, also in the middle of a run."""
        if wrong := self.supply.table.wrong():
            self.wrong += len(wrong)
            self.broken.append(f"I1: {len(wrong)} wrong vectors")

    def kill(self) -> None:
        """One actor, or a node with its actors."""
        node = self.chance.random() < 0.3
        actors = self.nodes.actors(second=node)
        if node:
            self.kills["nodes"] += 1
            self._hold(actors)
            self.nodes.kill_node()
            self.nodes.add_node()
        elif actors:  # none where the run has just ended
            self.kills["actors"] += 1
            victim = self.chance.choice(actors)
            self._hold([victim])
            os.kill(victim, signal.SIGKILL)

    def _hold(self, actors: list[int]) -> None:
        self.deaths += [hold(pid, self.job.provider.port) for pid in actors]

    def edit(self) -> None:
        """An application changes texts that may be on their way."""
        pending = sorted(self.supply.table.missing())
        for key in self.chance.sample(pending, min(5, len(pending))):
            done = self.supply.session.execute(
                "UPDATE articles SET body = body || %s WHERE id = %s AND embedding IS NULL",
                (EDITED, int(key)),
            )
            self.edits += done.rowcount


@series("ray-kills", rows=("S1", "C1"), short=3, long=50)
def ray_kills(rounds: int, seed: int) -> Outcome:
    """SIGKILL of actors, and of a node with everything on it, while texts are edited: a death
    costs the batches in flight at that actor, and the run goes on to its end."""
    if importlib.util.find_spec("ray") is None:
        raise SkipTest("the extra `ray` is not installed")
    with arena() as job:
        supply = Supply(job, 400)
        job.provider.mangle = shuffling(seed)
        job.provider.latency = 0.12
        secret = {name: value for name, value in job.env.items() if value is not None}
        with RayNodes(secret) as nodes:
            run = _Run(job, supply, nodes, seed)
            _torment(run, rounds)
            job.provider.latency = 0.0
            run.ended()
            if run.process.returncode:
                run.begin()
                run.ended(allowed=(0,))
            missing = supply.table.missing()
            most = _judge(run)
            SEARCH.leaks += [
                f"leak: {canary!r} in {name} of Ray's session"
                for name, content in nodes.logs()
                for canary in CANARIES
                if canary.encode() in content
            ]
    broken = [f"{words}, seed {seed}" for words in run.broken]
    if missing and not run.process.returncode:
        broken.append(f"I2: {len(missing)} rows missing after exit 0, seed {seed}")
    figures = {
        "actors_killed": run.kills["actors"],
        "nodes_killed": run.kills["nodes"],
        "runs": run.begun,
        "edits": run.edits,
        "texts_sent": job.sent(),
        "wrong_vectors": run.wrong,
        "missing_at_exit_0": len(missing),
        "rows_sent_again": sum(map(_rows, run.deaths)),
        "rows_sent_again_by_one_actor_at_most": most,
        "seconds_until_sent_again_at_most": round(
            max((d.after for d in run.deaths), default=0.0), 1
        ),
        "bound": BOUND,
    }
    return Outcome(run.kills.total(), figures, tuple(broken))


def _torment(run: _Run, rounds: int) -> None:
    """Until so many have been killed: a run that has just ended has no actors."""
    while run.kills.total() < rounds:
        if not _back_at_work(run):
            run.broken.append(f"the run did not come back to work after {run.kills.total()} kills")
            return
        run.verify()
        run.edit()
        time.sleep(run.chance.uniform(0.0, 0.6))
        run.kill()


def _judge(run: _Run) -> int:
    """Returns the most rows that the death of one actor has had sent again."""
    for text in charge(run.job.provider.requests, run.deaths):
        run.broken.append(f"I4: sent again, and its actor was not killed: {text[:40]!r}")
    for death in run.deaths:
        if (rows := _rows(death)) > BOUND:
            run.broken.append(f"I4: {rows} rows sent again by the death of one actor")
    return max(map(_rows, run.deaths), default=0)


def _rows(death: Death) -> int:
    """Both texts of a row are sent again where the application had changed it under way."""
    return len({text.replace(EDITED, "") for text in death.again})


def _back_at_work(run: _Run) -> bool:
    """With as many actors as before."""
    for _ in range(20):
        run.keep_going()
        wait_until(lambda: run.at_work() or run.process.poll() is not None, 60, every=0.1)
        if run.at_work():
            return True
    return False
