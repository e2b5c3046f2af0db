"""SIGKILL at a named point of the code: just before it, or just after it, the N-th time."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import random
import signal
from typing import TYPE_CHECKING, Any

from tests.e2e.jobs import shuffling
from tests.faults.arena import arena
from tests.faults.detection import Mutated
from tests.faults.series import Outcome, series
from tests.faults.signals import BATCH, SIZES, WORKERS, Supply, wait_until

if TYPE_CHECKING:
    from tests.e2e.jobs import Job

POINTS = {
    "prepare-directory": ("embedmigrate.state.files:JobFiles.prepare", 1),
    "take-database-lock": ("embedmigrate.postgres.lock:take", 1),
    "keep-previous-state": ("embedmigrate.state.files:JobFiles.keep_previous", 1),
    "save-state": ("embedmigrate.state.files:JobFiles.save", 2),
    "settle-commits": ("embedmigrate.postgres.source:settle", 2),
    "read-page": ("embedmigrate.postgres.source:TableSource._page", 2),
    "ask-provider": ("embedmigrate.embedders.openai:OpenAIEmbedder.embed", 20),
    "write-batch": ("embedmigrate.postgres.sink:ColumnSink.write", 20),
    "write-beside": ("embedmigrate.postgres.side_sink:SideTableSink.write", 20),
    "copy": ("embedmigrate.postgres.side_sink:SideTableSink._copy", 20),
    "merge": ("embedmigrate.postgres.side_sink:SideTableSink._merge", 1),
    "commit": ("psycopg:AsyncConnection.commit", 20),
    "record-batch": ("embedmigrate.engine.ledger:Ledger.record", 20),
    "end-run": ("embedmigrate.app.keeper:Keeper.end", 1),
    "free-locks": ("embedmigrate.postgres.session:Database.close", 1),
}
"""Where, and how often a run over 300 rows comes by at least."""
IN_A_COLUMN = {"write-batch"}
BESIDE = {"write-beside", "copy", "merge"}
"""The points that only one of the two targets has; they come first."""


def arm(point: str, side: str, count: str) -> None:
    """From now on this process dies `before` or `after` the `count`-th call."""
    place, _ = POINTS[point]
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real, left = getattr(owner, name), [int(count)]

    def due() -> bool:
        left[0] -= 1
        return left[0] == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def awaited(*args: Any, **more: Any) -> Any:
        now = due()
        if now and side == "before":
            die()
        result = await real(*args, **more)
        if now:
            die()
        return result

    def called(*args: Any, **more: Any) -> Any:
        now = due()
        if now and side == "before":
            die()
        result = real(*args, **more)
        if now:
            die()
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(real) else called)


@series("crash-points", rows=("S2",), short=24, long=120)
def crash_points(rounds: int, seed: int) -> Outcome:
    """Every point in turn, before and after it, at a random one of its calls."""
    chance, broken, most = random.Random(seed), list[str](), 0
    with arena() as job:
        own, others = (BESIDE, IN_A_COLUMN) if job.beside else (IN_A_COLUMN, BESIDE)
        points = sorted(POINTS.keys() - others, key=lambda point: (point not in own, point))
        supply = Supply(job, 300)
        job.provider.mangle = shuffling(seed)
        for number in range(rounds):
            point = points[number // 2 % len(points)]
            side = ("before", "after")[number % 2]
            count = chance.randint(1, POINTS[point][1])
            where = f"{side} {point} {count}, seed {seed}"
            supply.refill(300)
            before = job.sent() - len(supply.table.embedded())
            code = _die_at(job, f"crash:{point}:{side}:{count}")
            wait_until(lambda: not job.provider.in_flight)
            if code != -signal.SIGKILL:
                broken.append(f"not reached: {where}, exit {code}")
            lost = job.sent() - len(supply.table.embedded()) - before
            most = max(most, lost)
            if lost > BATCH * WORKERS:
                broken.append(f"I4: {lost} texts lost {where}")
            done = job.run(*SIZES)
            missing, wrong = len(supply.table.missing()), len(supply.table.wrong())
            if done.returncode or missing or wrong:
                words = f"exit {done.returncode}, {missing} missing, {wrong} wrong"
                broken.append(f"{words} after {where}: {done.stderr[-300:]}")
        figures = {
            "points": 2 * len(points),
            "texts_sent": job.sent(),
            "sent_again_by_one_crash_at_most": most,
            "bound": BATCH * WORKERS,
            "wrong_vectors": len(supply.table.wrong()),
        }
    return Outcome(rounds, figures, tuple(broken))


def _die_at(job: Job, names: str) -> int:
    cli = Mutated(job.cli.folder, names)
    cli.heard = job.cli.heard
    process = dataclasses.replace(job, cli=cli).start(*SIZES)
    process.communicate(timeout=60)
    return process.returncode
