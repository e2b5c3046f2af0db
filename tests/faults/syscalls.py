"""The n-th system call of a kind fails, or is the last one that the process makes, for every n."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from unittest import SkipTest

from embedmigrate.errors import CheckpointError
from embedmigrate.state import JobFiles
from tests.conftest import ROOT
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import SIZES, Supply
from tests.faults.states import state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.jobs import Job

Fault: TypeAlias = tuple[str, str, int]
"""System call, what happens to it, and to which one of them."""

CALLS = ("openat", "write", "fsync", "rename", "close", "unlink", "flock", "mkdir")
WHAT = ("signal=KILL", "error=ENOSPC", "error=EIO", "error=EROFS", "error=EACCES")


@series("nth-syscall", rows=("S3",), short=40, long=1000)
def nth_syscall(rounds: int, seed: int) -> Outcome:
    """Every system call of a save; then a few of a whole run's. At most as many as there are."""
    if not shutil.which("strace") or _strace(["true"], "fsync", "signal=KILL", 99).returncode:
        raise SkipTest("strace may not trace here")
    chance, broken = random.Random(seed), list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = list(_plan(folder))
        chance.shuffle(plan)
        plan = plan[:rounds]
        outcomes = [_save_with(folder, fault, broken) for fault in plan]
    of_runs = list(_plan_of_runs())
    chance.shuffle(of_runs)
    of_runs = of_runs[: max(1, rounds // 20)]
    ends = _run_with(of_runs, broken)
    figures = {
        "faults_in_saves": len(plan),
        "old_state_after": outcomes.count("old"),
        "new_state_after": outcomes.count("new"),
        "half_a_state_after": outcomes.count("half"),
        "faults_in_runs": len(of_runs),
        "runs_that_went_on": ends.count(0),
        "runs_refused_with_13": ends.count(13),
        "runs_killed": ends.count(-9),
    }
    return Outcome(len(plan) + len(of_runs), figures, tuple(broken[:20]))


def _traced(command: list[str], rules: list[str]) -> list[str]:
    # Without --seccomp-bpf, which injects no signals.
    return ["strace", "-f", "-qq", *rules, *command]


def _strace(
    command: list[str], call: str, what: str, when: int | str, log: str = "/dev/null"
) -> subprocess.CompletedProcess[str]:
    """With no `what`, the calls are only written down."""
    rules = ["-o", log, "-e", f"trace={call}"]
    if what:
        rules += ["-e", f"inject={call}:{what}:when={when}"]
    return subprocess.run(
        _traced(command, rules),
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _saving(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.faults.mutants", "none", "--", "save-state", str(folder)]


def _prepared(folder: Path) -> JobFiles:
    directory = folder / "state"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    files = JobFiles(directory, "job")
    files.save(state("old"))
    return files


def _plan(folder: Path) -> Iterator[Fault]:
    """What a save does without any fault, after the mark that it sets when it begins."""
    log = folder / "calls"
    files = _prepared(folder)
    done = _strace(_saving(files.directory), ",".join([*CALLS, "chdir"]), "", 0, str(log))
    assert done.returncode == 0, done.stderr
    lines = [re.match(r"(?:\d+ +)?(\w+)\(", line) for line in log.read_text().splitlines()]
    names = [found[1] for found in lines if found]
    mark = names.index("chdir")
    for call in CALLS:
        before, all_of_them = names[:mark].count(call), names.count(call)
        for number in range(before + 1, all_of_them + 1):
            yield from ((call, what, number) for what in WHAT)


def _save_with(folder: Path, fault: Fault, broken: list[str]) -> str:
    """Which state is there afterwards: the old one, the new one, or half of one."""
    files = _prepared(folder)
    done = _strace(_saving(files.directory), *fault)
    try:
        left = files.load()
        found = left.command if left else "half"
    except CheckpointError:
        found = "half"
    try:
        files._load(files.previous)
    except CheckpointError:
        broken.append(f"{fault}: the previous state is damaged")
    if found == "half" or (done.returncode == 0 and found != "new"):
        broken.append(f"{fault}: exit {done.returncode} and {found}")
    if done.returncode not in {0, 13, -9} or (done.returncode == -9) != ("KILL" in fault[1]):
        broken.append(f"{fault}: exit {done.returncode}: {done.stderr[-400:]}")
    return found


def _plan_of_runs() -> Iterator[tuple[str, str, str]]:
    for call in ("fsync", "rename"):
        for number in (1, 2, 3, 4, 5, 6):
            yield from ((call, what, str(number)) for what in WHAT)
        for number in (2, 3, 4):  # and every one after it
            yield from ((call, what, f"{number}+") for what in WHAT[1:])


def _run_with(plan: list[tuple[str, str, str]], broken: list[str]) -> list[int]:
    ends = []
    with arena() as job:
        supply = Supply(job, 100)
        job.run()
        for fault in plan:
            supply.refill(100)
            arrived = job.provider.arrived
            done = _run(job, fault)
            ends.append(done.returncode)
            spent, missing = job.provider.arrived - arrived, len(supply.table.missing())
            where = f"a run with {fault}: exit {done.returncode}, {missing} missing, {spent} sent"
            fine = {0: not missing, 13: not spent, -9: "KILL" in fault[1]}
            if not fine.get(done.returncode, False) or supply.table.wrong():
                broken.append(f"{where}: {done.stderr[-400:]}")
            after = job.run()
            if after.returncode or supply.table.missing():
                broken.append(f"after {where}: exit {after.returncode}: {after.stderr[-300:]}")
    return ends


def _run(job: Job, fault: tuple[str, str, str]) -> subprocess.CompletedProcess[str]:
    call, what, when = fault
    command = job.cli.command("generate-all", *job.options, *SIZES)
    rules = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]
    job.provider.latency = 0.15
    return subprocess.run(
        _traced(command, rules),
        env=job.cli.environment(job.env),
        cwd=job.cli.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
