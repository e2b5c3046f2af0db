"""Runs one after the other, runs that nobody listens to, and runs over a million rows."""

from __future__ import annotations

import subprocess
import time

from tests import tables
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import SIZES, Supply, sessions, wait_until
from tests.faults.zygote import Zygote


@series("cron", rows=("O7",), short=10, long=100)
def cron(rounds: int, seed: int) -> Outcome:
    """One run after the other, as cron starts them; every other one has something to do."""
    broken = list[str]()
    with arena() as job, Zygote(job.cli) as zygote:
        supply = Supply(job, 100)
        command = ("generate-all", *job.options, *SIZES)
        for number in range(1, rounds + 1):
            if number % 2:
                supply.refill(100)
            done = zygote.run(*command, env=job.env)
            if done.returncode or supply.table.missing():
                broken.append(f"run {number}, seed {seed}: {done.returncode}: {done.stderr}")
        if not wait_until(lambda: not sessions(job), 5):
            broken.append("a session was left in the database")
        status = job.run(command="status").stdout
        if "pid" in status and "running" in status:
            broken.append(f"a lock was left: {status}")
        left = [p.name for p in job.cli.state_dir.iterdir() if "tmp" in p.name]
        children = _children(zygote.pid)
        if left or children:
            broken.append(f"left behind: {left}, processes {children}")
        figures = {"texts_sent_again": len(job.sent_twice()), "left_behind": len(left)}
    return Outcome(rounds, figures, tuple(broken))


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:  # noqa: PTH123
        return [int(word) for word in file.read().split()]


PIPES = {
    "the reader goes": "{} 2>&1 | head -1",
    "stdout is closed": "{} >&-",
    "both are closed": "{} >&- 2>&-",
    "the disk of the log is full": "{} >/dev/full 2>&1",
    "the disk of the objects is full": "{} --json >/dev/full",
    "the terminal is gone": "nohup {} </dev/null >/dev/null 2>&1",
}


@series("pipes", rows=("O3",), short=6, long=60)
def pipes(rounds: int, seed: int) -> Outcome:
    """Nobody listens any more: the run goes on to its end."""
    broken = list[str]()
    with arena() as job:
        supply = Supply(job, 200)
        for number in range(1, rounds + 1):
            supply.refill(200)
            name, line = list(PIPES.items())[number % len(PIPES)]
            words = " ".join(job.cli.command("generate-all", *job.options, *SIZES))
            done = subprocess.run(
                ["bash", "-c", line.format(words) + "; exit ${PIPESTATUS[0]}"],
                env=job.cli.environment(job.env),
                cwd=job.cli.folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            job.cli.heard += (done.stdout, done.stderr)
            missing = len(supply.table.missing())
            if done.returncode or missing or "Traceback" in done.stderr:
                words = f"exit {done.returncode}, {missing} missing: {done.stderr[-300:]}"
                broken.append(f"{name}, round {number}, seed {seed}: {words}")
        figures = {"texts_sent": job.sent(), "texts_sent_again": len(job.sent_twice())}
    return Outcome(rounds, figures, tuple(broken))


@series("memory", rows=("O5",), short=50_000, long=1_000_000)
def memory(rounds: int, seed: int) -> Outcome:
    """So many short rows, and the memory that the run has after the first ten thousand."""
    peaks = list[int]()
    with arena() as job:
        session = job.database.connect()
        tables.articles(session, 0)
        session.execute(
            "INSERT INTO articles (id, title, body) SELECT n, '', 'short ' || n"
            " FROM generate_series(1, %s) n",
            (rounds,),
        )
        process = job.start("--provider", "hash", "-q", env={"EMBEDMIGRATE_VERBOSE": "0"})
        base = 0
        while process.poll() is None:
            time.sleep(0.1)
            row = session.execute("SELECT count(embedding) FROM articles").fetchone()
            rss = _rss(process.pid)
            if row and row[0] >= min(10_000, rounds // 5) and rss:
                base = base or rss
                peaks.append(rss)
        out, err = process.communicate()
        row = session.execute("SELECT count(*) - count(embedding) FROM articles").fetchone()
    figures = {"rows": rounds, "rss_after_10000_mb": base >> 10, "peak_mb": max(peaks) >> 10}
    broken = []
    if process.returncode or row != (0,):
        broken.append(f"exit {process.returncode}, {row} missing: {err[-300:]}{out[-300:]}")
    if max(peaks) > base * 1.25 + 20_000:
        broken.append(f"memory grows: {figures}")
    return Outcome(rounds, figures, tuple(broken))


def _rss(pid: int) -> int:
    """In kB; 0 when the process has just ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:  # noqa: PTH123
            return next((int(line.split()[1]) for line in file if line.startswith("VmRSS")), 0)
    except OSError:
        return 0
