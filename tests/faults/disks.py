"""The state directory on a disk that is full, or that nobody may write to."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import SIZES, Supply, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.jobs import Job


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """64 kB, as root."""
    folder.mkdir(mode=0o700, exist_ok=True)
    options = "size=64k,mode=0700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False
    )
    if made.returncode:
        raise SkipTest("nothing may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(b"x" * 512)


@series("full-disk-state", rows=("S8",), short=4, long=40)
def full_disk_state(rounds: int, seed: int) -> Outcome:
    """Full or read-only from the start: nothing is spent. In the middle: the rows come first."""
    broken, refused, warned = list[str](), 0, 0
    with arena() as job:
        supply = Supply(job, 200)
        for number in range(1, rounds + 1):
            supply.refill(200)
            kind = ("full", "full later", "read-only", "read-only later")[number % 4]
            with _small_disk(job.cli.state_dir):
                code, said, spent = _on_a_bad_disk(job, kind)
            missing = len(supply.table.missing())
            later = kind.endswith("later")
            if later and (code or missing or "cannot be written" not in said):
                broken.append(f"{kind}, round {number}, seed {seed}: {code}, {missing}: {said}")
            if not later and (code != 13 or spent):
                broken.append(f"{kind}, round {number}, seed {seed}: {code}, {spent} sent: {said}")
            refused, warned = refused + (not later), warned + later
    figures = {"refused_before_any_request": refused, "went_on_with_a_warning": warned}
    return Outcome(rounds, figures, tuple(broken))


def _on_a_bad_disk(job: Job, kind: str) -> tuple[int, str, int]:
    folder, arrived = job.cli.state_dir, job.provider.arrived
    if kind == "full":
        _fill(folder)
    if kind == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    job.provider.latency = 0.15
    process = job.start(*SIZES)
    with contextlib.ExitStack() as stack:
        if kind.endswith("later"):
            wait_until(lambda: job.provider.arrived > arrived + 1 or process.poll() is not None)
            _fill(folder)
            if kind.startswith("read-only"):  # the lock is open for writing: another disk on top
                stack.enter_context(_small_disk(folder))
                subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        _, said = process.communicate(timeout=60)
    return process.returncode, said, job.provider.arrived - arrived
