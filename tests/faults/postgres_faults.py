"""PostgreSQL goes away, comes back, times out: sessions ended, restarts, crashes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests import tables
from tests.e2e.jobs import Job
from tests.faults.arena import arena
from tests.faults.breakable import Breakable, breakable
from tests.faults.series import Outcome, series
from tests.servers import Database
from tests.targets import create, verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROWS = 1200
SLOW = ("--batch-size", "16", "--concurrency", "4", "-q")
OURS = "application_name LIKE 'embedmigrate%' AND datname = current_database()"


@dataclass
class Found:
    """What the runs of one series came to."""

    faults: int = 0
    runs: int = 0
    texts: int = 0
    twice: int = 0
    unfinished: int = 0
    broken: list[str] = field(default_factory=list)

    def outcome(self, **more: object) -> Outcome:
        figures = {
            "runs": self.runs,
            "texts_sent": self.texts,
            "texts_sent_twice": self.twice,
            "broken_runs": len(self.broken),
            **more,
        }
        return Outcome(self.faults, figures, tuple(self.broken))


def fill(job: Job, rows: int, seed: object) -> None:
    """`articles` anew, with texts that no other run has sent."""
    with psycopg.connect(job.database.url, autocommit=True) as session:
        session.execute("SET synchronous_commit = on")  # a crash shall not lose what it works on
        row = session.execute("SELECT to_regclass('articles') IS NULL").fetchone()
        if row and row[0]:
            create(job, session, 0)
        # The same table, so that its state file still fits.
        session.execute("TRUNCATE articles CASCADE")
        texts = [tables.text_of(n) for n in range(1, rows + 1)]
        session.execute(
            "INSERT INTO articles (id, title, body) SELECT n, 'Title ' || n, body || %s"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS given(body, n)",
            (f" ({seed})", texts),
        )
        session.execute("VACUUM ANALYZE articles")


def judge(job: Job, code: int, words: str, found: Found, where: str) -> None:
    """The verdict on a run that had to end well."""
    with psycopg.connect(job.database.url, autocommit=True) as session:
        table = verifier(job, session)
        if wrong := table.wrong():
            found.broken.append(f"I1: {len(wrong)} wrong vectors, {where}")
        if missing := table.missing():
            found.broken.append(f"I2: {len(missing)} rows without a vector, {where}")
    if code != 0:
        found.broken.append(f"exit {code}, {where}: {words[-600:]}")
    found.runs += 1
    found.texts += job.sent()
    found.twice += sum(n - 1 for n in job.provider.texts_sent.values() if n > 1)


def others_of(job: Job) -> Mapping[str, str]:
    """What no run may touch (I3)."""
    with psycopg.connect(job.database.url, autocommit=True) as session:
        return verifier(job, session).others


def under_faults(
    job: Job,
    fault: Callable[[], int],
    *,
    rounds: int,
    seed: int,
    pause: Callable[[], float],
    from_start: bool = False,
    rows: int = ROWS,
    again: bool = False,
) -> Found:
    """Runs after runs, with `fault` in the middle of each, until there were `rounds` of them.

    Args:
        job: The arena's.
        fault: Brings it about, and says how often.
        rounds: Faults in all.
        seed: For the words of what was broken.
        pause: Seconds between two faults.
        from_start: Whether the first one may come before the first request.
        rows: Of the table.
        again: A run that says with 3 that rows are left may be followed by one without faults.
    """
    found = Found()
    while found.faults < rounds and len(found.broken) < 5:
        fill(job, rows, f"{seed}.{found.runs}")
        before = others_of(job)
        job.provider.forget()
        process = job.start(*SLOW)
        while not from_start and job.provider.arrived < 4 and process.poll() is None:
            time.sleep(0.01)
        while found.faults < rounds and process.poll() is None:
            found.faults += fault()
            time.sleep(pause())
        out, err = process.communicate(timeout=120)
        where = f"run {found.runs}, seed {seed}"
        if again and process.returncode == 3:
            found.unfinished += 1
            done = job.run(*SLOW)
            process.returncode, out, err = done.returncode, done.stdout, done.stderr
        judge(job, process.returncode, out + err, found, where)
        if others_of(job) != before:
            found.broken.append(f"I3: other columns changed, {where}")
    return found


def nothing_twice(found: Found) -> None:
    if found.twice:
        found.broken.append(f"I4: {found.twice} texts sent twice")


@series("backends-terminated", rows=("G1",), short=30, long=500)
def backends_terminated(rounds: int, seed: int) -> Outcome:
    """`pg_terminate_backend` of every session of the run, three times a second."""
    ended = 0
    with arena() as job, psycopg.connect(job.database.url, autocommit=True) as session:
        job.provider.latency = 0.2

        def terminate() -> int:
            nonlocal ended
            query = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OURS}"
            row = session.execute(query.encode()).fetchone()
            ended += row[0] if row else 0
            return int(bool(row and row[0]))

        found = under_faults(
            job,
            terminate,
            rounds=rounds,
            seed=seed,
            pause=lambda: 0.3,
            from_start=True,
            rows=min(ROWS, 20 * rounds),
        )
        nothing_twice(found)
    return found.outcome(sessions_ended=ended)


@series("restarts", rows=("G2",), short=4, long=50)
def restarts(rounds: int, seed: int) -> Outcome:
    """`pg_ctl restart`, in turn fast and immediate."""
    chance = random.Random(seed)
    modes = {"fast": 0, "immediate": 0}
    with breakable() as server, arena(server) as job:
        job.provider.latency = 0.15

        def restart() -> int:
            mode = min(modes, key=lambda mode: modes[mode])
            server.restart(mode)
            modes[mode] += 1
            return 1

        found = under_faults(
            job, restart, rounds=rounds, seed=seed, pause=lambda: chance.uniform(0.3, 1.5)
        )
        nothing_twice(found)
    return found.outcome(**modes)


def crash(server: Breakable, seconds: float) -> int:
    server.kill()
    time.sleep(seconds)
    server.start_again()
    return 1


@series("postmaster-killed", rows=("G3",), short=4, long=50)
def postmaster_killed(rounds: int, seed: int) -> Outcome:
    """SIGKILL of the postmaster and its children; the half of them without synchronous commits."""
    chance = random.Random(seed)
    figures: dict[str, object] = {}
    total = Found()
    for mode in ("on", "off"):
        # Up to three of the writer's delays are lost: as much as this server allows.
        settings = f"synchronous_commit = {mode}\nwal_writer_delay = 1000ms\n"
        with breakable(settings) as server, arena(server) as job:
            job.provider.latency = 0.15
            found = under_faults(
                job,
                lambda server=server: crash(server, chance.uniform(0, 0.5)),  # type: ignore[misc]
                rounds=-(-rounds // 2),
                seed=seed,
                pause=lambda: chance.uniform(0.3, 1.2),
                again=mode == "off",  # there are more crashes in a run than it has sweeps
            )
            if mode == "on":
                nothing_twice(found)
            else:
                figures["runs_that_ended_with_3_and_were_repeated"] = found.unfinished
                figures |= _crash_after_the_end(job, server, total, seed)
        figures[f"lost_and_sent_again_with_{mode}"] = found.twice
        total.faults += found.faults
        total.runs += found.runs
        total.texts += found.texts
        total.twice += found.twice
        total.broken += found.broken
    return total.outcome(**figures)


def _crash_after_the_end(job: Job, server: Breakable, total: Found, seed: int) -> dict[str, object]:
    """What a run with exit code 0 has stored is there after the crash, whatever the server's
    promise for a commit: the first one has 1,200 rows, the second nothing to do."""
    fill(job, ROWS, f"{seed}.end")
    job.provider.forget()
    job.provider.latency = 0.0
    first = job.run(*SLOW)
    crash(server, 0)
    with psycopg.connect(job.database.url, autocommit=True) as session:
        lost = len(verifier(job, session).missing())
    second = job.run(*SLOW)
    judge(job, max(first.returncode, second.returncode), second.stderr, total, f"end, seed {seed}")
    if lost:
        total.broken.append(f"I2: {lost} rows lost by a crash after exit code 0, seed {seed}")
    total.faults += 1
    return {"lost_after_exit_0": lost}


LIMITS = {
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "transaction_timeout": "250ms",
    "idle_in_transaction_session_timeout": "20ms",
}


@series("timeouts", rows=("G6",), short=4, long=40)
def timeouts(rounds: int, seed: int) -> Outcome:
    """Each limit that a role can have, on a table where a batch takes longer than that."""
    found = Found()
    used: dict[str, int] = dict.fromkeys(LIMITS, 0)
    with arena() as job, psycopg.connect(job.database.url, autocommit=True) as admin:
        role = job.database.create_role("only-for-tests")
        user = sql.Identifier(role)
        login = Database(
            job.database.name, job.database.tcp_url(role, "only-for-tests"), job.database.server
        )
        mine = Job(job.cli, login, job.provider)
        for number in range(rounds):
            name = list(LIMITS)[number % len(LIMITS)]
            fill(job, 200, f"{seed}.{number}")
            before = others_of(job)
            _slow_updates(admin, "0.006")
            grant = sql.SQL("GRANT SELECT, UPDATE ON articles TO {}").format(user)
            admin.execute(grant)
            admin.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(user))
            admin.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(
                    user, sql.Identifier(name), sql.Literal(LIMITS[name])
                )
            )
            job.provider.forget()
            done = mine.run("--batch-size", "64", "--db-wait", "20", "-q")
            where = f"{name}, round {number}, seed {seed}"
            judge(job, done.returncode, done.stdout + done.stderr, found, where)
            if others_of(job) != before:
                found.broken.append(f"I3: other columns changed, {where}")
            used[name] += 1
            found.faults += 1
        admin.execute(sql.SQL("DROP OWNED BY {}").format(user))
    nothing_twice(found)
    return found.outcome(**used)


def _slow_updates(session: tables.Session, seconds: str) -> None:
    """So that a batch of 64 rows takes longer than the limits allow, and a few rows do not."""
    statement = (
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END$$"
    )
    session.execute(statement.encode())
    session.execute(
        "CREATE OR REPLACE TRIGGER slow"
        " BEFORE UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION slow()"
    )
