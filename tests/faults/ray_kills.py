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
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[str]:
        self.supply.refill(400)
        self.begun += 1
        return self.job.start(
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
            self.process = self._begin()
        self.supply.refill(400)

    def ended(self, seconds: float = 120) -> None:
        _, said = self.process.communicate(timeout=seconds)
        if self.process.returncode or "Traceback" in said:
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
        self.kills["actors"] += 1
        os.kill(self.chance.choice(self.nodes.actors()), signal.SIGKILL)
        return 1

    def edit(self) -> None:
        """An application changes texts that may be on their way."""
        pending = self.supply.table.missing()
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
            most = _torment(run, rounds, seed)
            job.provider.latency = 0.0
            run.ended()
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


def _torment(run: _Run, rounds: int, seed: int) -> int:
    """Kill so many times; returns the most texts that one death has had sent again."""
    most, before = 0, 0
    for number in range(1, rounds + 1):
        run.keep_going()
        while not wait_until(run.at_work, 60):
            if run.process.poll() is None:
                run.broken.append(f"round {number}: the run did not come back to work")
                return most
            run.keep_going()
        run.edit()
        time.sleep(run.chance.uniform(0.0, 0.6))
        if not run.nodes.actors():
            continue
        dead = run.kill()
        time.sleep(1.5)  # until others have sent again what it had
        again = sum(times - 1 for times in run.job.provider.texts_sent.values())
        lost, before = again - before, again
        most = max(most, round(lost / max(1, dead)))
        if lost > dead * BOUND:
            run.broken.append(f"I4: {lost} texts sent again after round {number}")
    return most
