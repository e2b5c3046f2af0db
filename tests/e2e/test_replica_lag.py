"""A real standby whose replay is held up: the run holds back, says so, and goes on."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.faults.arena import arena
from tests.faults.breakable import Breakable, replicated, standby_of
from tests.faults.postgres_faults import fill
from tests.faults.signals import wait_until
from tests.schemas import validate
from tests.verifier import Verifier

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.e2e.jobs import Job

LIMITED = ("--batch-size", "10", "--concurrency", "2", "--max-replica-lag", "1s")


@pytest.fixture
def pair() -> Iterator[tuple[Job, Breakable]]:
    """A job on a primary, and its standby."""
    with replicated() as primary, arena(primary) as job, standby_of(primary) as standby:
        yield job, standby


def replay(standby: Breakable, *, paused: bool) -> None:
    word = "pause" if paused else "resume"
    with psycopg.connect(standby.dsn("postgres"), autocommit=True) as session:
        session.execute(f"SELECT pg_wal_replay_{word}()".encode())


def held(job: Job, process: subprocess.Popen[str]) -> bool:
    """Nothing arrives for two seconds; a run that has ended is not held."""
    arrived = -1
    while arrived != job.provider.arrived:
        arrived = job.provider.arrived
        time.sleep(2)
    return process.poll() is None


def test_a_standby_that_falls_behind_holds_the_run_and_lets_it_go(
    pair: tuple[Job, Breakable],
) -> None:
    job, standby = pair
    fill(job, 1000, "replica")
    job.provider.latency = 0.1
    with psycopg.connect(job.database.url, autocommit=True) as session:
        table = Verifier(session)
        process = job.start(*LIMITED, "--json")
        job.provider.wait_for_arrivals(10)
        replay(standby, paused=True)
        assert wait_until(lambda: "a replica is behind" in job.run(command="status").stdout, 20)
        assert held(job, process)
        status = validate(job.run("--json", command="status").stdout)
        assert status["state_reason"] == "replica_lag"
        assert 0 < len(table.missing()) < 1000

        replay(standby, paused=False)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        table.check()
    assert job.sent_twice() == []
    notices = [d for d in map(validate, out.splitlines()) if d.get("code") == "throttled"]
    assert "a replica is behind" in notices[0]["message"]


def test_a_standby_that_does_not_answer_at_all_is_behind(pair: tuple[Job, Breakable]) -> None:
    """The server goes on to show the lag of its last answer."""
    job, standby = pair
    fill(job, 1000, "replica")
    job.provider.latency = 0.1
    with psycopg.connect(standby.dsn("postgres"), autocommit=True) as session:
        row = session.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone()
    assert row
    process = job.start(*LIMITED)
    job.provider.wait_for_arrivals(10)
    os.kill(row[0], signal.SIGSTOP)
    try:
        assert wait_until(lambda: "a replica is behind" in job.run(command="status").stdout, 20)
        assert held(job, process)
    finally:
        os.kill(row[0], signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "reason=replica_lag" in said
