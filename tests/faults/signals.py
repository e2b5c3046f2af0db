"""Runs that are told to end, once and twice, and runs that are held still."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests import tables
from tests.e2e.jobs import shuffling
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.targets import create, edit, verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.jobs import Job

BATCH, WORKERS = 10, 4
SIZES = ("--batch-size", str(BATCH), "--concurrency", str(WORKERS))
GRACE = 3
EDITED = 20


class Supply:
    """New rows with new texts, so that there is always something to do and nothing to repeat."""

    def __init__(self, job: Job, rows: int) -> None:
        self.job = job
        self.session = job.database.connect()
        create(job, self.session, rows)
        self.rows = rows
        self.table = verifier(job, self.session)

    def refill(self, least: int) -> None:
        if len(self.table.missing()) >= least:
            return
        row = self.session.execute("SELECT max(id) FROM articles").fetchone()
        self.rows = max(self.rows, row[0] if row and row[0] else 0)
        with self.session.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO articles (id, title, body) VALUES (%s, '', %s)",
                [(n, tables.text_of(n)) for n in range(self.rows + 1, self.rows + least + 1)],
            )
        if self.job.beside:  # so that there is something to merge as well as to copy
            for number in range(self.rows, self.rows - EDITED, -1):
                edit(self.job, self.session, number, f"{tables.text_of(number)} Again.")
        self.rows += least


def wait_until(true: Callable[[], bool], seconds: float = 30, every: float = 0.01) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def sessions(job: Job) -> int:
    with job.database.connect() as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'embedmigrate%'"
            " AND datname = current_database()"
        ).fetchone()
    return int(row[0]) if row else 0


def _stop_once(job: Job, process: subprocess.Popen[str], how: str) -> tuple[int, float, str]:
    """What it is due to end with, the seconds that it took, and what it said."""
    began = time.monotonic()
    if how == "stop":
        asked = job.run(command="stop")
        due = 6 if "Stopped." in asked.stdout else 0
    else:
        process.send_signal(getattr(signal, how))
        due = {"SIGTERM": 143, "SIGINT": 130}[how]
    try:
        _, said = process.communicate(timeout=GRACE + 10)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        said += "\nit did not end"
    return due, time.monotonic() - began, said


@series("graceful-stops", rows=("O1",), short=6, long=200)
def graceful_stops(rounds: int, seed: int) -> Outcome:
    """A stop of any kind, at any moment after the first request."""
    chance, broken, slowest, stops, rest = random.Random(seed), list[str](), 0.0, 0, -1
    with arena() as job:
        supply = Supply(job, 1500)
        job.provider.mangle = shuffling(seed)
        number = 0
        while stops < rounds and number < 2 * rounds + 10 and len(broken) < 5:
            number += 1
            supply.refill(1500)
            job.provider.latency = chance.uniform(0.05, 0.6)
            arrived = job.provider.arrived
            process = job.start(*SIZES, "--grace", f"{GRACE}s")
            wait_until(lambda: job.provider.arrived > arrived or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0.0, 1.0))
            how = chance.choice(("SIGTERM", "SIGTERM", "SIGINT", "stop"))
            due, seconds, said = _stop_once(job, process, how)
            where = f"round {number}, {how}, seed {seed}"
            if process.returncode == 0:
                continue  # it was done before it could be asked
            stops, slowest = stops + 1, max(slowest, seconds)
            if process.returncode != due or "Traceback" in said:
                broken.append(f"{where}: exit {process.returncode} and not {due}: {said[-300:]}")
            if seconds > GRACE + 2:
                broken.append(f"{where}: it took {seconds:.1f} s")
            if len(supply.table.embedded()) != job.sent():
                broken.append(f"{where}: an answer was not stored")
        job.provider.latency = 0.0
        rest = job.run(timeout=120).returncode
        again = len(job.sent_twice())
        if rest or again or supply.table.wrong() or supply.table.missing():
            broken.append(f"the last run ended with {rest}; {again} texts sent again, seed {seed}")
        figures = {
            "texts_sent": job.sent(),
            "texts_sent_again": again,
            "wrong_vectors": len(supply.table.wrong()),
            "slowest_end_seconds": round(slowest, 2),
            "allowed_seconds": GRACE + 2,
        }
    return Outcome(stops, figures, tuple(broken))


@series("second-signals", rows=("O2",), short=6, long=100)
def second_signals(rounds: int, seed: int) -> Outcome:
    """A second signal while the first one still waits for a provider that hangs."""
    chance, broken, slowest, lost = random.Random(seed), list[str](), 0.0, 0
    with arena() as job:
        supply = Supply(job, 1500)
        job.provider.mangle = shuffling(seed)
        for number in range(1, rounds + 1):
            supply.refill(1000)
            job.provider.forget()
            before = len(supply.table.embedded())
            job.provider.latency, wanted = 0.05, chance.randint(1, 12)
            process = job.start(*SIZES, "--grace", "20s")
            wait_until(lambda: job.provider.arrived >= wanted or process.poll() is not None)  # noqa: B023
            job.provider.latency = 30
            time.sleep(chance.uniform(0.2, 0.5))
            process.send_signal(signal.SIGTERM)
            time.sleep(chance.uniform(0.01, 0.6))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
            seconds = time.monotonic() - began
            slowest = max(slowest, seconds)
            where = f"round {number}, seed {seed}"
            if process.returncode != 143 or "Traceback" in said:
                broken.append(f"{where}: exit {process.returncode}: {said[-300:]}")
            if seconds > 2:
                broken.append(f"{where}: it took {seconds:.1f} s")
            wait_until(lambda: not sessions(job))
            stored = len(supply.table.embedded()) - before
            lost = max(lost, job.sent() - stored)
            if lost > BATCH * WORKERS or supply.table.wrong():
                broken.append(f"{where}: {lost} answers were not stored")
        job.provider.forget()
        job.provider.latency = 0.0
        rest = job.run(timeout=120).returncode
        if rest or supply.table.wrong() or supply.table.missing():
            broken.append(f"the last run ended with {rest}, seed {seed}")
        figures = {
            "slowest_end_seconds": round(slowest, 2),
            "answers_lost_by_one_at_most": lost,
            "bound": BATCH * WORKERS,
            "wrong_vectors": len(supply.table.wrong()),
            "missing_at_exit_0": len(supply.table.missing()),
        }
    return Outcome(rounds, figures, tuple(broken))


@series("suspended", rows=("O4",), short=2, long=9)
def suspended(rounds: int, seed: int) -> Outcome:
    """A machine that sleeps in the middle of a run: two seconds in CI, a minute by hand."""
    chance, broken = random.Random(seed), list[str]()
    with arena() as job:
        supply = Supply(job, 400)
        for number in range(1, rounds + 1):
            supply.refill(400)
            job.provider.latency = 0.1
            arrived = job.provider.arrived
            process = job.start(*SIZES)
            wait_until(lambda: job.provider.arrived > arrived or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.5))
            process.send_signal(signal.SIGSTOP)
            time.sleep(60 if rounds > 2 else 2)
            process.send_signal(signal.SIGCONT)
            began = time.monotonic()
            _, said = process.communicate(timeout=60)
            if process.returncode or supply.table.missing() or supply.table.wrong():
                broken.append(f"round {number}, seed {seed}: exit {process.returncode}: {said}")
            if time.monotonic() - began > 30:
                broken.append(f"round {number}, seed {seed}: it was stuck after it woke up")
        figures = {"texts_sent": job.sent(), "texts_sent_again": len(job.sent_twice())}
    return Outcome(rounds, figures, tuple(broken))
