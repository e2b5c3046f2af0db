"""A run that holds back for the database's sake, says why, and goes on."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests import tables
from tests.e2e.jobs import ok
from tests.faults.signals import wait_until
from tests.provider import Reply, openai_error
from tests.verifier import Verifier

if TYPE_CHECKING:
    from tests.e2e.jobs import Job
    from tests.tables import Session

SIZES = ("--batch-size", "10", "--concurrency", "2")


def test_the_operators_query_holds_the_run_and_lets_it_go(job: Job, session: Session) -> None:
    tables.articles(session, 200, gaps=False)
    session.execute("CREATE TABLE busy (yes boolean)")
    session.execute("INSERT INTO busy VALUES (false)")
    table = Verifier(session)
    job.provider.latency = 0.2
    process = job.start(*SIZES, "-v", "--throttle-query", "SELECT yes FROM busy")
    job.provider.wait_for_arrivals(3)
    session.execute("UPDATE busy SET yes = true")
    time.sleep(2.5)  # it looks once a second
    held = job.provider.arrived
    time.sleep(1.5)
    assert job.provider.arrived == held < 20
    assert "asked by --throttle-query" in job.run(command="status").stdout
    session.execute("UPDATE busy SET yes = false")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "reason=throttle_query" in said
    table.check()
    assert job.sent_twice() == []


def test_a_limit_that_takes_over_from_another_is_named(job: Job, session: Session) -> None:
    tables.articles(session, 200, gaps=False)
    session.execute("CREATE TABLE busy (yes boolean)")
    session.execute("INSERT INTO busy VALUES (false)")
    job.provider.latency = 0.1
    job.provider.script.append(Reply(429, openai_error("slow down"), {"retry-after": "6"}))
    process = job.start(*SIZES, "--throttle-query", "SELECT yes FROM busy")

    def shown(words: str) -> bool:
        return words in job.run(command="status").stdout

    assert wait_until(lambda: shown("provider rate limit"), 10)
    session.execute("UPDATE busy SET yes = true")
    assert wait_until(lambda: shown("asked by --throttle-query"), 5)
    session.execute("UPDATE busy SET yes = false")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    reasons = re.findall(r"reason=(\w+)", said)
    assert reasons == ["provider_rate_limit", "throttle_query"]


def test_a_burst_of_wal_is_followed_by_a_rest(job: Job, session: Session) -> None:
    tables.articles(session, 400, gaps=False, width=1024)
    table = Verifier(session)
    job.provider.latency = 0.1  # so that there is something left to hold back after a second
    wide = replace(job, dimensions=1024)
    done = ok(wide.run("--max-wal-rate", "0.3", *SIZES))
    table.check()
    assert "reason=wal_rate" in done.stderr
    times = sorted(request.at for request in job.provider.requests)
    # A second's burst is about 0.8 MB, which is more than two seconds' worth.
    assert max(after - before for before, after in pairwise(times)) > 1


@pytest.mark.parametrize(
    "query",
    ["SELECT", "SELECT 'yes'", "SELECT 1, 2", "SELECT x FROM nothing", "DELETE FROM articles"],
)
def test_a_query_that_gives_no_answer_is_refused_before_anything_is_sent(
    job: Job, session: Session, query: str
) -> None:
    tables.articles(session, 10, gaps=False)
    done = ok(job.run("--throttle-query", query), 10)
    assert "--throttle-query cannot be used" in done.stderr
    assert job.provider.arrived == 0
    row = session.execute("SELECT count(*) FROM articles").fetchone()
    assert row == (10,)
