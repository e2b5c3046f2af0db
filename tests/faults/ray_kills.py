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
from tests.faults.series import Outcome, series
from tests.faults.signals import Supply, wait_until
from tests.ray_nodes import RayNodes

if TYPE_CHECKING:
    import subprocess

    from tests.e2e.jobs import Job

BATCH, EACH = 8, 2
BOUND = BATCH * EACH
_STEADY = ("--max-wait", "120")


class _Run:
    """The run that is being tormented; a new one begins when it ends with exit code 0."""

    def __init__(self, job: Job, supply: Supply, nodes: RayNodes, seed: int) -> None:
        self.job, self.supply, self.nodes = job, supply, nodes
        self.chance = random.Random(seed)
        self.broken: list[str] = []
        self.kills = Counter[str]()
        self.edits = 0
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
        """Two actors, and requests in flight."""
        return len(self.nodes.actors()) > 1 and self.job.provider.in_flight > 0

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
        if wrong := self.supply.table.wrong():
            self.broken.append(f"I1: {len(wrong)} wrong vectors")

    def kill(self) -> int:
        """One actor, or a node with its actors; returns how many actors died."""
        if self.chance.random() < 0.3:
            self.kills["nodes"] += 1
            dead = self.nodes.kill_node()
            self.nodes.add_node()
            return dead
        if not (actors := self.nodes.actors()):  # the run has just ended
            return 0
        self.kills["actors"] += 1
        os.kill(self.chance.choice(actors), signal.SIGKILL)
        return 1

    def edit(self) -> None:
        """An application changes texts that may be on their way."""
        pending = sorted(self.supply.table.missing())
        for key in self.chance.sample(pending, min(5, len(pending))):
            done = self.supply.session.execute(
                "UPDATE articles SET body = body || ' edited' WHERE id = %s AND embedding IS NULL",
                (int(key),),
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
            most = _torment(run, rounds)
            job.provider.latency = 0.0
            run.ended()
            if run.process.returncode:
                run.begin()
                run.ended(allowed=(0,))
            missing = supply.table.missing()
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
        "wrong_vectors": 0,
        "missing_at_exit_0": len(missing),
        "sent_again_by_one_actor_at_most": most,
        "bound": BOUND,
    }
    return Outcome(rounds, figures, tuple(broken))


def _torment(run: _Run, rounds: int) -> int:
    """Kill so many times; returns the most texts that one death has had sent again."""
    most = before = dead = 0
    for number in range(1, rounds + 1):
        if not _back_at_work(run):
            run.broken.append(f"the run did not come back to work before round {number}")
            return most
        lost, before = _again(run) - before, _again(run)
        most = max(most, -(-lost // max(1, dead)))
        if lost > dead * BOUND:
            run.broken.append(f"I4: {lost} texts sent again by round {number - 1}, {dead} dead")
        run.edit()
        time.sleep(run.chance.uniform(0.0, 0.6))
        dead = run.kill()
    return most


def _back_at_work(run: _Run) -> bool:
    """With as many actors as before, so that what the dead had has been given to others."""
    for _ in range(20):
        run.keep_going()
        if wait_until(lambda: run.at_work() or run.process.poll() is not None, 60):
            time.sleep(1.0)  # until it has been sent and answered
            if run.at_work():
                return True
    return False


def _again(run: _Run) -> int:
    return sum(times - 1 for times in run.job.provider.texts_sent.values())
