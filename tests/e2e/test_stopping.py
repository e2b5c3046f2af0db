"""Runs that are told to end, and runs that are ended: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests import tables
from tests.e2e.jobs import ok
from tests.provider import FAILURES, Reply
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.jobs import Job
    from tests.servers import Database
    from tests.tables import Session

SLOW = ("--batch-size", "10", "--concurrency", "4")


@pytest.fixture
def table(job: Job, session: Session) -> Verifier:
    """Six hundred rows, at some forty a second and worker."""
    tables.articles(session, 600, gaps=False)
    job.provider.latency = 0.25
    return Verifier(session)


def ended(process: subprocess.Popen[str], timeout: float = 20) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def until(true: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() >= deadline:
            raise TimeoutError
        time.sleep(0.02)


def finish(job: Job, table: Verifier, *more: str) -> None:
    """The same command again does the rest, and sends no text a second time."""
    assert table.wrong() == []
    assert 0 < len(table.embedded()) < 600
    assert len(table.embedded()) == job.sent(), "what was answered was not stored"
    job.provider.latency = 0.0
    ok(job.run(*more))
    table.check()
    assert job.sent_twice() == []
    assert job.sent() == 600


def test_stop_from_another_shell(job: Job, table: Verifier) -> None:
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(6)
    said = ok(job.run(command="stop")).stdout
    assert "Stopped." in said
    assert "Resume: embedmigrate generate-all --table articles --text-column body" in said
    code, out, _ = ended(process, 2)
    assert code == 6
    assert "--table articles" in out
    finish(job, table)
    assert "Nothing is running." in ok(job.run(command="stop")).stdout


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_signals(job: Job, table: Verifier, number: signal.Signals, code: int) -> None:
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(6)
    process.send_signal(number)
    found, _, err = ended(process, 5)
    assert found == code
    assert "stopping" in err
    finish(job, table)


def test_a_second_signal_does_not_wait(job: Job, table: Verifier) -> None:
    """And the rows in flight stay pending."""
    job.provider.latency = 30
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    code, _, _ = ended(process, 2)
    assert time.monotonic() - began < 2
    assert code == 143
    assert table.embedded() == []
    assert "interrupted" in ok(job.run(command="status")).stdout
    job.provider.sever()
    job.provider.reset()
    ok(job.run())
    table.check()


def test_stop_during_a_long_retry_after(job: Job, table: Verifier) -> None:
    job.provider.latency = 0.0
    job.provider.script.extend([Reply(429, FAILURES[429], {"retry-after": "60"})] * 4)
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(1)
    until(lambda: "throttled" in job.run(command="status").stdout)
    began = time.monotonic()
    ok(job.run(command="stop"))
    code, _, err = ended(process, 2)
    assert time.monotonic() - began < 4
    assert code == 6
    assert "throttled" in err
    assert job.sent() == 0
    job.provider.reset()
    ok(job.run())
    table.check()


def test_started_with_sigint_ignored(job: Job, table: Verifier) -> None:
    """As `&` in a script does: Ctrl-C in that terminal is not meant for it; `stop` still works."""
    line = " ".join(job.cli.command("generate-all", *job.options, *SLOW))
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' INT; exec {line}"],
        env=job.cli.environment(job.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=job.cli.folder,
    )
    try:
        job.provider.wait_for_arrivals(6)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        ok(job.run(command="stop"))
        code, _, _ = ended(process, 2)
    finally:
        process.kill()
    assert code == 6
    finish(job, table)


def test_status_during_after_and_of_the_dead(job: Job, table: Verifier) -> None:
    assert "No run recorded" in ok(job.run(command="status")).stdout
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(8)
    until(lambda: "running" in job.run(command="status").stdout)
    said = ok(job.run(command="status")).stdout
    assert f"pid {process.pid}" in said
    assert "embedmigrate stop" in said

    process.kill()
    ended(process)
    said = ok(job.run(command="status")).stdout
    assert "dead" in said
    assert "run the same" in said or "resumes" in said

    job.provider.latency = 0.0
    ok(job.run())
    table.check()
    said = ok(job.run(command="status")).stdout
    assert "completed" in said
    assert "(100 %)" in said
    # In flight and being written at the moment of the kill.
    assert len(job.sent_twice()) <= 10 * (4 + 3)


def backend_of(session: Session) -> list[int]:
    """The servers behind the run's connections that are busy."""
    rows = session.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'embedmigrate%'"
        " AND datname = current_database()"
    ).fetchall()
    return [pid for (pid,) in rows]


def test_the_deadline_holds_when_the_database_hangs(
    job: Job, table: Verifier, session: Session
) -> None:
    process = job.start(*SLOW, "--grace", "1s")
    job.provider.wait_for_arrivals(6)
    frozen = backend_of(session)
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, _, _ = ended(process, 15)
        assert time.monotonic() - began < 1 + 5 + 2
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert code == 143
    assert "interrupted" in ok(job.run(command="status")).stdout
    until(lambda: not backend_of(session))
    job.provider.latency = 0.0
    ok(job.run())
    table.check()


def test_the_deadline_holds_when_rows_are_locked(
    job: Job, table: Verifier, database: Database
) -> None:
    other = database.connect()
    with other.transaction():
        other.execute("LOCK TABLE articles IN SHARE MODE")
        process = job.start(*SLOW, "--grace", "1s")
        job.provider.wait_for_arrivals(4)
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, _, _ = ended(process, 10)
        assert time.monotonic() - began < 1 + 5
    assert code == 143
    assert table.embedded() == []
    job.provider.latency = 0.0
    ok(job.run())
    table.check()


def test_force_goes_on_where_it_was_interrupted(job: Job, table: Verifier) -> None:
    table.session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]'")
    process = job.start(*SLOW, "--force")
    job.provider.wait_for_arrivals(10)
    process.send_signal(signal.SIGTERM)
    code, out, _ = ended(process, 5)
    assert code == 143
    assert "--force --resume-from last" in out
    first = job.sent()
    assert 0 < first < 600
    assert len(table.wrong()) == 600 - first
    job.provider.latency = 0.0
    ok(job.run("--force", "--resume-from", "last", "--yes"))
    table.check()
    assert job.sent_twice() == []
    assert job.sent() == 600


def test_the_cursor_waits_for_the_slowest_batch(job: Job, table: Verifier) -> None:
    """A run that is killed while one batch hangs has not passed that batch."""
    table.session.execute("UPDATE articles SET embedding = '[1,2,3,4,5,6,7,8]'")
    gate, slow = threading.Event(), tables.text_of(35)

    def hold(text: str) -> bool:
        if text == slow:
            gate.wait(20)
        return False

    job.provider.reject = hold
    process = job.start(*SLOW, "--force")
    until(lambda: job.sent() >= 200)
    time.sleep(1.5)  # until the state file knows
    process.kill()
    ended(process)
    gate.set()
    said = ok(job.run(command="status")).stdout
    assert "at id 30" in said
    assert "--force --resume-from last" in said
    job.provider.latency = 0.0
    ok(job.run("--force", "--resume-from", "last", "--yes"))
    table.check()


def test_nothing_is_left_of_a_run_that_was_stopped(job: Job, table: Verifier) -> None:
    """No session, no process, no temporary file, no lock."""
    process = job.start(*SLOW)
    job.provider.wait_for_arrivals(4)
    process.send_signal(signal.SIGTERM)
    ended(process, 5)
    until(lambda: not backend_of(table.session))
    left = [p.name for p in job.cli.state_dir.iterdir()]
    assert not [name for name in left if "tmp" in name]
    assert all(path.stat().st_mode & 0o077 == 0 for path in job.cli.state_dir.iterdir())
