"""`generate-all --all-jobs`: several tables at once, under one governor, each with its own end."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from tests import tables
from tests.e2e.jobs import ok
from tests.e2e.test_stopping import ended, until
from tests.provider import FAILURES, Reply
from tests.schemas import validate
from tests.terminal import Terminal

if TYPE_CHECKING:
    from tests.conftest import Completed
    from tests.e2e.jobs import Job
    from tests.tables import Session

NAMES = ("first", "second", "third")
SLOW = ("--batch-size", "10", "--concurrency", "4")


@pytest.fixture
def jobs(job: Job, session: Session) -> Job:
    """Three tables of two hundred rows, and a file that names them."""
    make(session, 200)
    write(job)
    return replace(job, options=("--all-jobs",))


def make(session: Session, rows: int) -> None:
    """Each with texts of its own: none is embedded for another."""
    for number, name in enumerate(NAMES):
        session.execute(
            sql.SQL(
                "CREATE TABLE {} (id bigint PRIMARY KEY, body text, embedding vector(8))"
            ).format(sql.Identifier(name))
        )
        with (
            session.cursor() as cursor,
            cursor.copy(
                sql.SQL("COPY {} (id, body) FROM STDIN").format(sql.Identifier(name))
            ) as copy,
        ):
            for row in range(1, rows + 1):
                copy.write_row((row, tables.text_of(row, number)))


def write(job: Job, *, general: str = "", names: tuple[str, ...] = NAMES, **more: str) -> None:
    """`more`: further lines of a job's table, by its name."""
    tables_of = "\n".join(
        f'[jobs.{name}]\ntable = "{name}"\n{more.get(name, "")}\n' for name in names
    )
    content = f'{general}\ntext_column = ["body"]\n{tables_of}'
    (job.cli.folder / "embedmigrate.toml").write_text(content)


def embedded(session: Session) -> list[int]:
    """Rows with a vector, in each table."""
    counts = []
    for name in NAMES:
        query = sql.SQL("SELECT count(embedding) FROM {}").format(sql.Identifier(name))
        found = session.execute(query).fetchone()
        assert found
        counts.append(int(found[0]))
    return counts


def documents(done: Completed | str) -> list[dict[str, Any]]:
    out = done if isinstance(done, str) else done.stdout
    return [validate(line) for line in out.splitlines()]


def codes(last: dict[str, Any]) -> dict[str, int]:
    return {one["job"]: one["exit_code"] for one in last["jobs"]}


def test_all_of_them_are_done_and_no_text_is_sent_twice(jobs: Job, session: Session) -> None:
    done = ok(jobs.run("--json"))
    assert embedded(session) == [200, 200, 200]
    assert jobs.sent() == 600
    assert jobs.sent_twice() == []
    found = documents(done)
    last = found[-1]
    assert last["message_type"] == "all_jobs"
    assert last["ok"] is True
    assert codes(last) == dict.fromkeys(NAMES, 0)
    assert last["plan"]["rows_selected"] == 600
    summaries = [one for one in found if one["message_type"] == "summary"]
    assert {one["job"]: one["rows_embedded"] for one in summaries} == dict.fromkeys(NAMES, 200)
    assert {one["run_id"] for one in summaries} == {one["run_id"] for one in last["jobs"]}
    assert all(one["job"] in NAMES for one in found[:-1])
    again = ok(jobs.run())
    assert "first: state Done, embedded 0" in again.stdout
    assert jobs.sent() == 600


def test_the_rate_is_that_of_all_jobs_together(jobs: Job, session: Session) -> None:
    """Of several limits the lowest: 300 a minute, five in a second."""
    write(jobs, first="rpm = 300", second="rpm = 900", third="tpm = 10000000")
    began = time.monotonic()
    ok(jobs.run("--batch-size", "20", timeout=60))
    assert embedded(session) == [200, 200, 200]
    assert len(jobs.provider.requests) == 30
    # Ten may be saved up; the others come one every fifth of a second.
    assert time.monotonic() - began >= (30 - 10) / 5
    arrivals = sorted(request.at for request in jobs.provider.requests)
    for first, last in zip(arrivals, arrivals[15:], strict=False):
        assert last - first >= (15 - 10) / 5 - 0.2


def test_a_job_that_cannot_begin_holds_up_no_other(jobs: Job, session: Session) -> None:
    write(jobs, second='vector_column = "missing"')
    done = ok(jobs.run("--json"), 10)
    assert embedded(session) == [200, 0, 200]
    last = documents(done)[-1]
    assert codes(last) == {"first": 0, "second": 10, "third": 0}
    (error,) = documents(done.stderr)
    assert error["job"] == "second"
    assert error["message_type"] == "exit_error"
    shown = ok(jobs.run(), 10)
    assert re.search(r"ERROR +not_begun job=second state=failed exit_code=10 code=", shown.stderr)
    assert "second: state not begun, exit 10" in shown.stdout


def test_a_job_whose_lock_is_held_holds_up_no_other(jobs: Job, session: Session) -> None:
    """Nor one that waits for it, which does its part when the lock is free."""
    jobs.provider.latency = 0.3
    alone = replace(jobs, options=("--job", "second"))
    other = alone.start("--batch-size", "2", "--concurrency", "1")
    jobs.provider.wait_for_arrivals(3)
    refused = documents(ok(jobs.run("--json", "--concurrency", "8"), 11))[-1]
    assert codes(refused) == {"first": 0, "second": 11, "third": 0}
    assert embedded(session)[0] == embedded(session)[2] == 200
    session.execute("UPDATE first SET embedding = NULL")
    waiting = jobs.start("--json", "--lock-timeout", "60s")
    until(lambda: embedded(session)[0] == 200, 30)
    assert embedded(session)[1] < 200
    ok(alone.run(command="stop"))
    assert ended(other)[0] == 6
    code, out, _ = ended(waiting)
    assert code == 0
    assert codes(documents(out)[-1]) == dict.fromkeys(NAMES, 0)
    assert embedded(session) == [200, 200, 200]
    assert all(text.startswith("Article") and " of 0:" in text for text in jobs.sent_twice())


def test_one_job_is_stopped_and_the_others_go_on(jobs: Job, session: Session) -> None:
    jobs.provider.latency = 0.25
    process = jobs.start("--json", *SLOW)
    jobs.provider.wait_for_arrivals(9)
    said = ok(replace(jobs, options=("--job", "second")).run(command="stop")).stdout
    assert "Stopped." in said
    assert "Resume: embedmigrate generate-all --job second" in said
    assert process.poll() is None
    code, out, _ = ended(process, 30)
    assert code == 6
    assert codes(documents(out)[-1]) == {"first": 0, "second": 6, "third": 0}
    first, second, third = embedded(session)
    assert first == third == 200
    assert 0 < second < 200
    jobs.provider.latency = 0.0
    ok(jobs.run())
    assert embedded(session) == [200, 200, 200]
    assert jobs.sent_twice() == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (None, 6)]
)
def test_all_are_ended_at_once(
    jobs: Job, session: Session, number: signal.Signals | None, code: int
) -> None:
    """By one signal, or by `stop` without a job; what was paid for is stored."""
    jobs.provider.latency = 0.25
    process = jobs.start("--json", *SLOW)
    jobs.provider.wait_for_arrivals(9)
    if number is None:
        ok(replace(jobs, options=()).run(command="stop"))
    else:
        process.send_signal(number)
    found, out, _ = ended(process, 5)
    assert found == code
    assert codes(documents(out)[-1]) == dict.fromkeys(NAMES, code)
    assert all(0 < count < 200 for count in embedded(session))
    assert sum(embedded(session)) == jobs.sent()
    jobs.provider.latency = 0.0
    ok(jobs.run())
    assert embedded(session) == [200, 200, 200]
    assert jobs.sent_twice() == []


def test_a_second_signal_aborts_all(jobs: Job, session: Session) -> None:
    jobs.provider.latency = 30
    process = jobs.start(*SLOW)
    jobs.provider.wait_for_arrivals(1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, _, _ = ended(process, 3)
    assert code == 143
    assert embedded(session) == [0, 0, 0]
    jobs.provider.sever()
    jobs.provider.reset()
    ok(jobs.run())


def test_a_signal_while_a_job_waits_for_a_lock(jobs: Job, session: Session) -> None:
    """It has not begun, and does not."""
    jobs.provider.latency = 0.3
    alone = replace(jobs, options=("--job", "second"))
    other = alone.start("--batch-size", "2", "--concurrency", "1")
    jobs.provider.wait_for_arrivals(2)
    process = jobs.start("--json", "--lock-timeout", "60s", *SLOW)
    until(lambda: embedded(session)[0] > 0, 30)
    process.send_signal(signal.SIGTERM)
    code, out, _ = ended(process, 5)
    assert code == 143
    last = documents(out)[-1]
    assert codes(last) == dict.fromkeys(NAMES, 143)
    assert [one["run_id"] for one in last["jobs"]][1] is None
    other.terminate()
    ended(other, 5)


def backends_of(session: Session, run_id: str) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%%' || %s || '%%'"
    return [pid for (pid,) in session.execute(query, [run_id]).fetchall()]


def test_a_job_that_hangs_ends_no_other_and_is_left_behind(jobs: Job, session: Session) -> None:
    jobs.provider.latency = 0.25
    process = jobs.start("--json", *SLOW, "--grace", "1s")
    jobs.provider.wait_for_arrivals(9)
    second = replace(jobs, options=("--job", "second"))
    run_id = json.loads(ok(second.run("--json", command="status")).stdout)["run_id"]
    frozen = backends_of(session, run_id)
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        ok(second.run("--no-wait", command="stop"))
        code, out, err = ended(process, 40)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert code == 6
    assert err == ""
    last = documents(out)[-1]
    assert last["message_type"] == "all_jobs"
    assert codes(last) == {"first": 0, "second": 6, "third": 0}
    first, stored, third = embedded(session)
    assert first == third == 200
    assert stored < 200
    until(lambda: not backends_of(session, run_id))
    assert "interrupted" in ok(second.run(command="status")).stdout
    jobs.provider.latency = 0.0
    ok(jobs.run())
    assert embedded(session) == [200, 200, 200]


def test_one_refusal_of_the_provider_holds_all_jobs(jobs: Job) -> None:
    jobs.provider.script.append(Reply(429, FAILURES[429], {"retry-after": "2"}))
    began = time.monotonic()
    done = ok(jobs.run("--json"))
    assert time.monotonic() - began >= 2
    told = [one["job"] for one in documents(done) if one.get("code") == "throttled"]
    assert sorted(told) == sorted(NAMES)
    refused, *others = sorted(request.at for request in jobs.provider.requests)
    assert min(others) - refused >= 1.9


def test_failed_rows_of_one_job(jobs: Job, session: Session) -> None:
    session.execute("UPDATE third SET body = repeat('copper lantern ', 9000) WHERE id = 7")
    done = ok(jobs.run("--json"), 3)
    found = documents(done)
    assert codes(found[-1]) == {"first": 0, "second": 0, "third": 3}
    (failed,) = [one for one in found if one["message_type"] == "row_error"]
    assert failed["job"] == "third"
    (summary,) = [one for one in found if one.get("exit_code") == 3 and "job" in one]
    assert summary["next_command"].startswith(
        "embedmigrate generate-all --job third --retry-failed"
    )


def test_the_first_fatal_code_wins_over_failed_rows(jobs: Job, session: Session) -> None:
    session.execute("UPDATE first SET body = repeat('copper lantern ', 9000) WHERE id = 7")
    write(jobs, second='vector_column = "missing"', third="max_cost = 0.00000001")
    last = documents(ok(jobs.run("--json"), 10))[-1]
    assert codes(last) == {"first": 3, "second": 10, "third": 8}


def test_two_jobs_over_one_column_run_one_after_the_other(jobs: Job, session: Session) -> None:
    write(jobs, first='where = "id <= 100"', names=("first", "second", "third"))
    path = jobs.cli.folder / "embedmigrate.toml"
    more = '\n[jobs.rest]\ntable = "first"\nwhere = "id > 100"\n'
    path.write_text(path.read_text() + more)
    last = documents(ok(jobs.run("--json")))[-1]
    assert codes(last) == {"first": 0, "second": 0, "third": 0, "rest": 0}
    assert embedded(session) == [200, 200, 200]


def test_a_dry_run_shows_each_plan_and_the_totals(jobs: Job, session: Session) -> None:
    done = ok(jobs.run("--dry-run"))
    for name in NAMES:
        assert f"Job {name}" in done.stdout
    assert re.search(
        r"Together: 3 jobs · 600 rows · \d+\.\d k tokens · \d+ requests · about \$", done.stdout
    )
    assert codes(documents(ok(jobs.run("--dry-run", "--detailed-exitcode", "--json"), 4))[-1]) == (
        dict.fromkeys(NAMES, 4)
    )
    write(jobs, second='vector_column = "missing"')
    found = documents(ok(jobs.run("--dry-run", "--detailed-exitcode", "--json"), 10))
    assert [one["message_type"] for one in found] == ["plan"] * 3 + ["all_jobs"]
    assert [one["job"] for one in found[:3]] == list(NAMES)
    assert codes(found[-1]) == {"first": 4, "second": 10, "third": 4}
    assert found[-1]["plan"]["rows_selected"] == 400
    assert embedded(session) == [0, 0, 0]
    assert jobs.provider.requests == ()


@pytest.mark.parametrize(
    ("arguments", "env", "named"),
    [
        (("--job", "first"), {}, "--job"),
        (("--table", "first"), {}, "--table"),
        (("--text-column", "body"), {}, "--text-column"),
        (("--side-table", "vectors"), {}, "--side-table"),
        (("--resume-from", "100"), {}, "--resume-from"),
        (("--retry-failed", "abc123"), {}, "--retry-failed"),
        ((), {"EMBEDMIGRATE_TABLE": "first"}, "EMBEDMIGRATE_TABLE"),
        ((), {"EMBEDMIGRATE_JOB": "first"}, "EMBEDMIGRATE_JOB"),
    ],
)
def test_what_only_one_job_can_have_is_refused(
    jobs: Job, arguments: tuple[str, ...], env: dict[str, str | None], named: str
) -> None:
    done = ok(jobs.run(*arguments, env=env), 2)
    assert f"error: {named} names what one job has, and --all-jobs runs them all" in done.stderr
    assert "hint: leave it out, or run one job: embedmigrate generate-all --job NAME" in done.stderr
    assert jobs.provider.requests == ()


def test_a_file_without_jobs_is_refused(jobs: Job) -> None:
    write(jobs, names=())
    done = ok(jobs.run(), 2)
    assert "--all-jobs: no job in embedmigrate.toml" in done.stderr
    assert "embedmigrate init" in done.stderr


def test_lines_and_the_log_name_the_job(jobs: Job) -> None:
    log = jobs.cli.folder / "log"
    done = ok(jobs.run("--log-file", log, "--progress-interval", "0.001s", "--batch-size", "50"))
    for text in (done.stderr, log.read_text()):
        first, *lines, last = text.splitlines()
        assert re.search(r" INFO +together jobs=3 rows_selected=600 est_tokens=\d+ ", first)
        assert last.endswith(" INFO    all_jobs jobs=3 ok=3 exit_code=0")
        assert all(re.search(r" INFO +\w+ job=(first|second|third) ", line) for line in lines)
    assert re.search(
        r"^first: state Done, embedded 200, failed 0, missing 0", done.stdout, re.MULTILINE
    )
    quiet = ok(jobs.run("-q", "--force", "--yes"))
    assert quiet.stdout == quiet.stderr == ""


def terminal(jobs: Job, *args: str) -> Terminal:
    command = jobs.cli.command("generate-all", *jobs.options, *args)
    full = jobs.cli.environment(jobs.env | {"TERM": "xterm-256color"})
    return Terminal(command, columns=120, rows=40, env=full, cwd=jobs.cli.folder)


def test_a_bar_for_each_job_in_a_terminal(jobs: Job) -> None:
    jobs.provider.latency = 0.3
    with terminal(jobs, *SLOW) as seen:
        seen.wait_for(r"Together: 3 jobs · 600 rows · ")
        for name in NAMES:
            seen.wait_for(rf"^{name} +.*[1-9]\d* % \d+/200 · running · .* rows/s · ETA ")
        seen.wait_for(r"Other shell: embedmigrate status \| stop -j NAME")
        assert seen.wait(60) == 0
        seen.wait_for(r"job +state +embedded +failed +missing +coverage")
        for name in NAMES:
            seen.wait_for(rf"^{name} +Done +200 +0 +0 +100\.00 %")
        assert "Other shell" not in seen.text()
        assert seen.raw.rfind(b"\x1b[?25h") > seen.raw.rfind(b"\x1b[?25l")


def test_the_operator_is_asked_once_for_all(jobs: Job, session: Session) -> None:
    ok(jobs.run())
    with terminal(jobs, "--force") as seen:
        seen.wait_for(r"Overwrite 600 vectors \(3 jobs\), about \$")
        seen.send("n\r")
        assert seen.wait() == 2
        assert len(re.findall(r"Overwrite", seen.text())) == 1
    assert jobs.sent() == 600
    with terminal(jobs, "--force") as seen:
        seen.wait_for(r"Overwrite 600 vectors \(3 jobs\), about \$")
        seen.send("y\r")
        assert seen.wait(30) == 0
    assert jobs.sent() == 1200


def test_one_line_for_each_job_on_request(jobs: Job) -> None:
    jobs.provider.latency = 0.3
    process = jobs.start("--progress", "none", *SLOW)
    jobs.provider.wait_for_arrivals(6)
    process.send_signal(signal.SIGUSR1)
    _, _, err = ended(process, 30)
    said = re.findall(r"^STATUS +job=(\w+) state=running done=\d+ total=200", err, re.MULTILINE)
    assert sorted(said) == sorted(NAMES)


def test_two_connections_are_enough_for_a_job(jobs: Job, session: Session) -> None:
    """As many jobs as these get no more."""
    path = jobs.cli.folder / "embedmigrate.toml"
    more = [
        f'[jobs.{name}_{n}]\ntable = "{name}"\nwhere = "id % 4 = {n}"\n'
        for name in NAMES
        for n in range(4)
    ]
    path.write_text('text_column = ["body"]\n' + "".join(more))
    last = documents(ok(jobs.run("--json", *SLOW, timeout=120)))[-1]
    assert len(last["jobs"]) == 12
    assert embedded(session) == [200, 200, 200]
    assert jobs.sent_twice() == []


def test_status_lists_them(jobs: Job) -> None:
    ok(jobs.run())
    shown = ok(replace(jobs, options=()).run("--json", command="status")).stdout
    assert [json.loads(line)["state"] for line in shown.splitlines()] == ["completed"] * 3
