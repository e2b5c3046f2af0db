"""How each defect of `mutants` is found: by the harness that the matrix names for it.

By hand: `python -m tests.faults.detection` says in which round each one was found.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from embedmigrate.errors import CheckpointError
from embedmigrate.state import JobFiles
from tests import tables
from tests.conftest import CommandLine
from tests.e2e.jobs import shuffling
from tests.e2e.killing import kill_rounds
from tests.faults.arena import arena, beside
from tests.faults.mutants import BESIDE, MUTANTS
from tests.faults.series import clean_environment, machine, today
from tests.faults.states import state
from tests.provider import Reply, openai_error
from tests.targets import create, drop, verifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.jobs import Job
    from tests.servers import PostgresServer
    from tests.targets import Table

MOST_ROUNDS = 50
SIZES = ("--batch-size", "10", "--concurrency", "4")


class Mutated(CommandLine):
    """The command line with a defect."""

    def __init__(self, folder: Path, names: str) -> None:
        super().__init__(folder)
        self.names = names

    def command(self, *args: str | os.PathLike[str]) -> list[str]:
        given = (os.fspath(arg) for arg in args)
        return [sys.executable, "-m", "tests.faults.mutants", self.names, "--", *given]


def by_resuming(job: Job, chance: random.Random) -> str:
    """Kill a forced run while one batch hangs, then go on behind its saved cursor."""
    table = _table(job, 200)
    table.session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]'")
    gate, slow = (
        threading.Event(),
        tables.text_of(chance.randint(11, 60)),
    )  # the first batch goes alone

    def hold(text: str) -> bool:
        if text == slow:
            gate.wait(20)
        return False

    job.provider.reject = hold
    before = job.sent()
    process = job.start(*SIZES, "--force", "--yes")
    while job.sent() < before + 120 and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    gate.set()
    job.provider.reject = None
    done = job.run("--force", "--resume-from", "last", "--yes")
    wrong = table.wrong()
    return f"exit {done.returncode}, {len(wrong)} rows behind the cursor" if wrong else ""


def by_random_kills(job: Job, chance: random.Random) -> str:
    """Two kills, an application that writes, and a look at every vector."""
    _clear(job)
    try:
        found = kill_rounds(job, rounds=2, seed=chance.randrange(10**6), rows=600, check_every=2)
    except AssertionError:
        return f"{len(verifier(job).wrong())} wrong vectors"
    return f"the last run ended with {found.exit_code}" if found.exit_code else ""


def by_killing_the_saver(job: Job, chance: random.Random) -> str:
    """A process that saves its state all the time is read, and killed, in the middle of it."""
    directory = job.cli.folder / "saves"
    directory.mkdir(mode=0o700, exist_ok=True)
    files = JobFiles(directory, "job")
    files.save(state("old"))
    process = subprocess.Popen(
        job.cli.command("save-for-ever", str(directory)),
        env=job.cli.environment(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.readline()
    until = time.monotonic() + chance.uniform(0.0, 0.1)
    try:
        while time.monotonic() < until:  # as `status` does
            files.load()
        process.kill()
        process.wait()
        return "" if files.load() else "no state file is left"
    except CheckpointError as damaged:
        return damaged.message
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def by_an_empty_account(job: Job, chance: random.Random) -> str:
    """The provider says that there is no credit: asking again spends nothing but time."""
    _table(job, chance.randint(100, 200))
    empty = openai_error("You exceeded your current quota", "insufficient_quota")
    job.provider.forget()
    job.provider.script.clear()
    job.provider.script.extend([Reply(429, empty, {"retry-after": "0.05"})] * 200)
    done = job.run(*SIZES, "--max-wait", "2s")
    job.provider.script.clear()
    if done.returncode == 7 and job.provider.arrived <= 4:
        return ""
    return f"exit {done.returncode} after {job.provider.arrived} requests"


def by_rows_behind(job: Job, chance: random.Random) -> str:
    """Rows are inserted before the first one while the run is under way."""
    table = _table(job, 200)
    job.provider.latency = 0.02
    arrived = job.provider.arrived
    process = job.start(*SIZES)
    job.provider.wait_for_arrivals(arrived + 3)
    table.session.execute(
        "INSERT INTO articles (id, title, body) SELECT -n, '', 'behind ' || n"
        " FROM generate_series(1, %s) n",
        (chance.randint(1, 20),),
    )
    process.communicate(timeout=60)
    missing = table.missing()
    if process.returncode == 0 and missing:
        return f"exit 0 with {len(missing)} rows missing"
    return "" if process.returncode == 0 else f"exit {process.returncode}"


def by_a_refused_text(job: Job, chance: random.Random) -> str:
    """One text is refused: the run must not say that all is done."""
    table = _table(job, 100)
    bad = tables.text_of(chance.randint(1, 100))
    job.provider.reject = lambda text: text == bad
    done = job.run(*SIZES)
    job.provider.reject = None
    if done.returncode == 3 and len(table.missing()) == 1:
        return ""
    return f"exit {done.returncode} with {len(table.missing())} rows missing"


def by_a_forged_lock(job: Job, chance: random.Random) -> str:
    """After a kill or a reboot the number in the lock file is some other process's by now."""
    _table(job, chance.randint(10, 20))
    job.run(*SIZES)
    state_file = next(job.cli.state_dir.glob("*.embedding.json"))
    state_file.with_suffix(".lock").write_text(str(os.getpid()))
    done = job.run(*SIZES)
    return f"exit {done.returncode} though nobody runs" if done.returncode else ""


CHECKS: dict[str, tuple[Callable[[Job, random.Random], str], str, int]] = {
    "highest-cursor": (by_resuming, "saves-often", 3),
    "unguarded-write": (by_random_kills, "none", 3),
    "positional-mapping": (by_random_kills, "none", 3),
    "in-place-state": (by_killing_the_saver, "none", 20),
    "retried-quota": (by_an_empty_account, "none", 3),
    "no-final-sweep": (by_rows_behind, "none", 3),
    "failed-counts-as-done": (by_a_refused_text, "none", 3),
    "pid-file-lock": (by_a_forged_lock, "none", 3),
    "blind-copy": (by_random_kills, "none", 3),
    "blind-merge": (by_random_kills, "none", 3),
    "shifted-copy": (by_random_kills, "none", 3),
}
"""For each defect: what finds it, on which ground, and in how many rounds it finds nothing else."""


def look_for(
    name: str, *, mutated: bool, seed: int = 1, server: PostgresServer | None = None
) -> tuple[int, str]:
    """The round in which something was wrong, and what; 0 where nothing ever was.

    Args:
        name: Of a defect.
        mutated: Whether it is switched on; without, the same eyes must see nothing.
        seed: For what is left to chance.
        server: One to share.
    """
    check, ground, clean_rounds = CHECKS[name]
    names = f"{ground},{name}" if mutated else ground
    chance = random.Random(seed)
    with beside() if name in BESIDE else contextlib.nullcontext(), arena(server) as plain:
        plain.provider.mangle = shuffling(seed)
        cli = Mutated(plain.cli.folder, names)
        job = dataclasses.replace(plain, cli=cli)
        try:
            for number in range(1, (MOST_ROUNDS if mutated else clean_rounds) + 1):
                if found := check(job, chance):
                    return number, found
                job.database.disconnect()
        finally:
            cli.kill_all()
    return 0, ""


def _clear(job: Job) -> None:
    """Neither a table nor what the tool remembers of one."""
    drop(job.database.connect())
    shutil.rmtree(job.cli.state_dir, ignore_errors=True)


def _table(job: Job, rows: int) -> Table:
    _clear(job)
    session = job.database.connect()
    create(job, session, rows)
    return verifier(job, session)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.detection", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MUTANTS, []])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    survived = False
    with clean_environment():
        for name in given.names or MUTANTS:
            began = time.monotonic()
            number, what = look_for(name, mutated=True, seed=given.seed)
            clean, wrong = look_for(name, mutated=False, seed=given.seed)
            survived |= not number or bool(clean)
            line = {
                "mutant": name,
                "found_in_round": number or None,
                "by": what,
                "rounds_without_it": CHECKS[name][2],
                "wrong_without_it": wrong,
                "seed": given.seed,
                "seconds": round(time.monotonic() - began, 1),
                "date": today(),
                "machine": machine(),
            }
            print(json.dumps(line), flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
