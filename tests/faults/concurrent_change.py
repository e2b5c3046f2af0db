"""The application changes rows, locks and the table itself while a run works on it."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from typing import TYPE_CHECKING, LiteralString

import psycopg

from tests.e2e.jobs import Job
from tests.faults.arena import arena
from tests.faults.postgres_faults import Found, fill, judge, nothing_twice, others_of
from tests.faults.series import Outcome, series
from tests.targets import drop, pending
from tests.verifier import Rows, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tables import Session

QUIET = ("--batch-size", "16", "--concurrency", "4", "-q")
MOST_DELAY = 2.0


def session_of(job: Job) -> Session:
    return psycopg.connect(job.database.url, autocommit=True)


@series("locked-rows", rows=("C7",), short=2, long=15)
def locked_rows(rounds: int, seed: int) -> Outcome:
    """An application holds a row of a batch: how long do the other rows wait for it?"""
    chance, found, delays = random.Random(seed), Found(), list[float]()
    with arena() as job, session_of(job) as session:
        job.provider.latency = 0.05
        for number in range(rounds):
            fill(job, 300, f"{seed}.{number}")
            before = others_of(job)
            job.provider.forget()
            row, hold = chance.randint(1, 300), chance.uniform(4, 4 if rounds < 5 else 20)
            with psycopg.connect(job.database.url) as holder:
                holder.execute("SELECT FROM articles WHERE id = %s FOR UPDATE", (row,))
                began = time.monotonic()
                process = job.start(*QUIET)
                delays.append(_delay_of_the_others(job, session, process.poll))
                time.sleep(max(0.0, hold - (time.monotonic() - began)))
            out, err = process.communicate(timeout=60)
            where = f"row {row} held for {hold:.1f} s, round {number}, seed {seed}"
            judge(job, process.returncode, out + err, found, where)
            if delays[-1] > MOST_DELAY:
                found.broken.append(f"the other rows waited {delays[-1]:.1f} s, {where}")
            if others_of(job) != before:
                found.broken.append(f"I3: other columns changed, {where}")
            found.faults += 1
    nothing_twice(found)
    return found.outcome(longest_delay_of_other_rows=round(max(delays), 2))


def _delay_of_the_others(job: Job, session: Session, ended: object) -> float:
    """Seconds from the provider's last answer until all rows but the held one are stored."""
    deadline = time.monotonic() + 30
    answered = 0.0
    while time.monotonic() < deadline:
        if not answered and job.sent() >= 300:
            answered = time.monotonic()
        if answered and pending(job, session) <= 1:
            return time.monotonic() - answered
        time.sleep(0.02)
    return 30.0


@series("deadlocks", rows=("C8",), short=60, long=1000)
def deadlocks(rounds: int, seed: int) -> Outcome:
    """A writer takes the rows of a batch in the opposite order; `rounds` are batches."""
    found, written = Found(), [0, 0]
    with arena() as job:
        with session_of(job) as session:
            name = psycopg.sql.Identifier(job.database.name)
            session.execute(
                psycopg.sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '20ms'").format(name)
            )
        job.provider.latency = 0.05
        while found.faults < rounds and len(found.broken) < 5:
            batches = min(100, rounds - found.faults)
            fill(job, batches * 16, f"{seed}.{found.runs}")
            job.provider.forget()
            with _opposite(job, batches * 16, seed, written):
                done = job.run(*QUIET, timeout=200)
            judge(job, done.returncode, done.stdout + done.stderr, found, f"seed {seed}")
            found.faults += batches
        with session_of(job) as session:
            row = session.execute(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
    nothing_twice(found)
    deadlocked = row[0] if row else 0
    return found.outcome(
        deadlocks=deadlocked, writers_transactions=written[0], writer_was_the_victim=written[1]
    )


@contextlib.contextmanager
def _opposite(job: Job, rows: int, seed: int, written: list[int]) -> Iterator[None]:
    """Four connections that update stretches of rows downwards, a row at a time."""
    stop = threading.Event()
    # What a vector in a side table takes of its row is a lock on the key, for its foreign key.
    lock: LiteralString = "UPDATE articles SET views = views + 1 WHERE id = %s"
    if job.beside:
        lock = "SELECT FROM articles WHERE id = %s FOR UPDATE"

    def work(number: int) -> None:
        chance = random.Random(f"{seed}.{number}")
        with session_of(job) as session:
            while not stop.is_set():
                top = chance.randint(1, rows)
                try:
                    with session.transaction():
                        for row in range(top, max(0, top - 16), -1):
                            session.execute(lock, (row,))
                            stop.wait(0.001)
                except psycopg.errors.DeadlockDetected:
                    written[1] += 1
                written[0] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


CHANGES = {
    "vector column dropped": "ALTER TABLE articles DROP COLUMN embedding",
    "text column dropped": "ALTER TABLE articles DROP COLUMN body",
    "vector column renamed": "ALTER TABLE articles RENAME embedding TO other",
    "table renamed": "ALTER TABLE articles RENAME TO others",
    "table dropped": "DROP TABLE articles",
    "other width": "ALTER TABLE articles ALTER embedding TYPE vector(16) USING NULL",
    "other type": "ALTER TABLE articles ALTER embedding TYPE text USING embedding::text",
    "key of another type": "ALTER TABLE articles ALTER id TYPE text",
}
CHANGES_BESIDE = {
    "side table dropped": "DROP TABLE article_vectors",
    "side table renamed": "ALTER TABLE article_vectors RENAME TO other_vectors",
    "table dropped": "DROP TABLE articles CASCADE",
    "text column dropped": "ALTER TABLE articles DROP COLUMN body",
    "vector column renamed": "ALTER TABLE article_vectors RENAME embedding TO other",
    "other width": "ALTER TABLE article_vectors ALTER embedding TYPE vector(16) USING NULL,"
    " ALTER embedding DROP NOT NULL",
    "hash dropped": "ALTER TABLE article_vectors DROP COLUMN text_sha256",
    "model dropped": "ALTER TABLE article_vectors DROP COLUMN model",
}


@series("column-dropped", rows=("C6",), short=8, long=40)
def column_dropped(rounds: int, seed: int) -> Outcome:
    """Another hand changes the table in the middle of the work: exit 10, the state saved."""
    chance, found = random.Random(seed), Found()
    with arena() as job, session_of(job) as session:
        changes = CHANGES_BESIDE if job.beside else CHANGES
        job.provider.latency = 0.1
        for number in range(rounds):
            name = list(changes)[number % len(changes)]
            drop(session)
            fill(job, 600, f"{seed}.{number}")
            job.provider.forget()
            process = job.start(*QUIET, "--restart", "--db-wait", "10")
            while job.provider.arrived < 6 and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
            session.execute(changes[name].encode())
            out, err = process.communicate(timeout=60)
            where = f"{name}, round {number}, seed {seed}"
            if process.returncode != 10 or "unexpected" in err:
                found.broken.append(f"exit {process.returncode}, {where}: {(out + err)[-400:]}")
            _check_what_is_left(job, session, name, where, found)
            found.faults += 1
            found.runs += 1
            found.texts += job.sent()
            found.twice += len(job.sent_twice())
    nothing_twice(found)
    return found.outcome(changes=len(changes))


def _check_what_is_left(job: Job, session: Session, name: str, where: str, found: Found) -> None:
    rows = {
        "vector column renamed": Rows(column="other", ours=("other",)),
        "table renamed": Rows(table=("others",)),
        "key of another type": Rows(),
    }.get(name)
    if rows and not job.beside and (wrong := Verifier(session, rows).wrong()):
        found.broken.append(f"I1: {len(wrong)} wrong vectors, {where}")
    states = [json.loads(p.read_text("utf-8")) for p in job.cli.state_dir.glob("**/*.json")]
    if not any("failed" in str(s.get("status", s)) for s in states):
        found.broken.append(f"the state was not saved, {where}: {states}")


@series("late-commits", rows=("C3",), short=3, long=50)
def late_commits(rounds: int, seed: int) -> Outcome:
    """Numbers of a sequence that are committed late, and rows put in behind the cursor."""
    chance, found, late = random.Random(seed), Found(), 0
    with arena() as job, session_of(job) as session:
        for number in range(rounds):
            fill(job, 400, f"{seed}.{number}")
            job.provider.forget()
            behind = sorted(chance.sample(range(1, 300), 20))
            session.execute("DELETE FROM articles WHERE id = ANY(%s)", (behind,))
            hang = threading.Event()
            job.provider.latency = 0.05
            with psycopg.connect(job.database.url) as holder:
                _insert(holder, behind, f"late {seed}.{number}")
                process = job.start(*QUIET)
                job.provider.wait_for_arrivals(chance.randint(14, 18), timeout=30)
                job.provider.hang = hang  # the run is far beyond them, and not at its end
                _insert(session, [-n for n in behind], f"behind {seed}.{number}")
            hang.set()
            job.provider.hang = None
            out, err = process.communicate(timeout=60)
            late += len(behind)
            judge(job, process.returncode, out + err, found, f"round {number}, seed {seed}")
            found.faults += 1
    nothing_twice(found)
    return found.outcome(rows_committed_late=late, rows_inserted_behind=late)


def _insert(session: Session, ids: list[int], word: str) -> None:
    session.execute(
        "INSERT INTO articles (id, title, body) SELECT n, '', %s || n FROM unnest(%s::int[]) AS n",
        (word, ids),
    )


@series("endless-writes", rows=("C5",), short=1, long=10)
def endless_writes(rounds: int, seed: int) -> Outcome:
    """Two hundred inserts a second that do not stop: the run ends, and says what is left."""
    found, longest, inserted = Found(), 0.0, 0
    with arena() as job:
        job.provider.latency = 0.1
        for number in range(rounds):
            fill(job, 400, f"{seed}.{number}")
            job.provider.forget()
            stop = threading.Event()
            count = [0]
            writer = threading.Thread(
                target=_insert_for_ever, args=(job, stop, f"{seed}.{number}", count)
            )
            began = time.monotonic()
            writer.start()
            try:
                done = job.run(*QUIET, timeout=120)
            finally:
                stop.set()
                writer.join()
            longest = max(longest, time.monotonic() - began)
            inserted += count[0]
            where = f"round {number}, seed {seed}"
            if done.returncode != 3:
                found.broken.append(f"exit {done.returncode}, {where}: {done.stderr[-400:]}")
            done = job.run(*QUIET)
            judge(job, done.returncode, done.stderr, found, where)
            found.faults += 1
    nothing_twice(found)
    return found.outcome(inserted=inserted, longest_run_seconds=round(longest, 1))


def _insert_for_ever(job: Job, stop: threading.Event, word: str, count: list[int]) -> None:
    with session_of(job) as session:
        began = time.monotonic()
        while not stop.is_set():
            count[0] += 1
            _insert(session, [10_000 + count[0]], f"new {word}")
            stop.wait(max(0.0, began + count[0] / 200 - time.monotonic()))
