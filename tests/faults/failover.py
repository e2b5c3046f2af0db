"""The server that could be written to is gone, or can be written to no longer."""

from __future__ import annotations

import random
import time
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.e2e.jobs import Job
from tests.faults.arena import arena
from tests.faults.breakable import Breakable, replicated, standby_of
from tests.faults.postgres_faults import (
    OURS,
    SLOW,
    Found,
    fill,
    judge,
    nothing_twice,
    under_faults,
)
from tests.faults.series import Outcome, series
from tests.servers import SUPERUSER, SUPERUSER_PASSWORD, Database

ROWS = 800


@series("promotions", rows=("G7",), short=1, long=10)
def promotions(rounds: int, seed: int) -> Outcome:
    """A streaming standby takes over, after a clean stop of the primary or after its SIGKILL."""
    chance, found, behind = random.Random(seed), Found(), 0
    for number in range(rounds):
        with replicated() as primary, arena(primary) as one:
            fill(one, ROWS, f"{seed}.{number}")
            with standby_of(primary) as standby:
                where = f"round {number}, seed {seed}"
                job = Job(one.cli, _either(one, primary, standby), one.provider)
                behind += _promote(job, primary, standby, chance, found, where)
        found.faults += 1
    return found.outcome(texts_that_the_standby_had_not_received=behind)


def _either(job: Job, primary: Breakable, standby: Breakable) -> Database:
    """By a URL with two hosts."""
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    user = f"{SUPERUSER}:{quote(SUPERUSER_PASSWORD)}"
    query = "target_session_attrs=read-write"
    name = job.database.name
    return Database(name, f"postgresql://{user}@{hosts}/{name}?{query}", job.database.server)


def _promote(
    job: Job,
    primary: Breakable,
    standby: Breakable,
    chance: random.Random,
    found: Found,
    where: str,
) -> int:
    job.provider.forget()
    job.provider.latency = 0.15
    process = job.start(*SLOW)
    while job.provider.arrived < 8 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.5))
    if chance.random() < 0.5:
        primary.control("stop", "-m", "fast")
    else:
        primary.kill()
    time.sleep(chance.uniform(0, 1))
    standby.control("promote")
    out, err = process.communicate(timeout=120)
    judge(job, process.returncode, out + err, found, where)
    # A promoted standby may lack what it had not received: that is found and sent again.
    return sum(n - 1 for n in job.provider.texts_sent.values())


@series("read-only", rows=("G7",), short=2, long=30)
def read_only(rounds: int, seed: int) -> Outcome:
    """`default_transaction_read_only` comes and goes, as on a server that is being demoted."""
    chance = random.Random(seed)
    with (
        arena() as job,
        psycopg.connect(job.database.server.dsn("postgres"), autocommit=True) as session,
    ):
        job.provider.latency = 0.2
        name = sql.Identifier(job.database.name)
        end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND "
        end_all += OURS.partition(" AND ")[0].replace("%", "%%")

        def demote() -> int:
            session.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name)
            )
            session.execute(end_all.encode(), (job.database.name,))
            time.sleep(chance.uniform(0.5, 1.5))
            session.execute(
                sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name)
            )
            return 1

        found = under_faults(
            job, demote, rounds=rounds, seed=seed, pause=lambda: chance.uniform(0.5, 1), rows=ROWS
        )
        nothing_twice(found)
    return found.outcome()
