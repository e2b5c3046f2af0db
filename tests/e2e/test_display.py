"""What a person, a pipe and a program see of a run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import tables
from tests.e2e.jobs import ok
from tests.provider import FAILURES, Reply
from tests.schemas import validate
from tests.terminal import Terminal

if TYPE_CHECKING:
    from tests.e2e.jobs import Job
    from tests.tables import Session

SLOW = ("--batch-size", "10", "--concurrency", "2")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-LN-Za-ln-z]|\r(?!\n)|\x1b[^\[]")
"""Escape sequences other than colours, and the bare carriage return."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COMMANDS = (
    *("generate-all", "generate-one", "stats", "status", "stop", "init", "demo", "config show"),
)


@pytest.fixture(autouse=True)
def articles(job: Job, session: Session) -> None:
    tables.articles(session, 200)


def terminal(job: Job, *args: str, env: dict[str, str | None] | None = None) -> Terminal:
    command = job.cli.command("generate-all", *job.options, *args)
    full = job.cli.environment(job.env | {"TERM": "xterm-256color"} | (env or {}))
    return Terminal(command, columns=110, rows=40, env=full, cwd=job.cli.folder)


def test_a_run_in_a_terminal(job: Job) -> None:
    job.provider.latency = 0.2
    with terminal(job, *SLOW) as seen:
        seen.wait_for(r"Coverage +0 embedded \(0\.00 %\) · 180 to do")
        seen.wait_for(r"Rows +200 total · 20 without text · 180 eligible")
        seen.wait_for(r"Embedding .*[1-9]\d* % +\d+/180")
        seen.wait_for(r"running +· elapsed 0:0\d · ETA -- · ")
        seen.wait_for(r"Ctrl-C finishes this and saves\. Other shell: embedmigrate status \| stop")
        assert seen.wait() == 0
        seen.wait_for(r"^Done in 0:0\d · run [0-9a-f]{6}")
        seen.wait_for(r"before +after +change")
        seen.wait_for(r"embedded +0 +180 +\+180")
        seen.wait_for(r"missing +180 +0 +-180")
        seen.wait_for(r"coverage +0\.00 % +100\.00 %")
        # The bar is gone, and the cursor is back.
        assert "Ctrl-C finishes" not in seen.text()
        assert seen.raw.rfind(b"\x1b[?25h") > seen.raw.rfind(b"\x1b[?25l")


def test_ctrl_c_in_a_terminal(job: Job) -> None:
    job.provider.latency = 0.3
    with terminal(job, *SLOW) as seen:
        seen.wait_for(r"Embedding .*[1-9]\d* % +\d+/180")
        seen.interrupt()
        seen.wait_for(r"Stopping: finishing \d batch(es)? in flight \(up to 30 s\)\.", 3)
        assert seen.wait() == 130
        seen.wait_for(r"^Interrupted in")
        seen.wait_for(r"Resume +embedmigrate generate-all --table articles --text-column body")
        assert "Traceback" not in seen.text()
    assert job.sent_twice() == []


def test_throttled_in_a_terminal(job: Job) -> None:
    job.provider.script.append(Reply(429, FAILURES[429], {"retry-after": "3"}))
    with terminal(job) as seen:
        seen.wait_for(r"throttled \(provider rate limit, 3 s\)")
        seen.wait_for(r"waiting 3 s as asked by Retry-After, attempt 1")
        assert seen.wait() == 0
        seen.wait_for(r"1 retried")


def test_no_colour_in_a_terminal(job: Job) -> None:
    with terminal(job, env={"NO_COLOR": "1"}) as seen:
        assert seen.wait() == 0
        assert re.search(rb"\x1b\[[0-9;]*3[0-9]m", seen.raw) is None


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"CI": "true"}])
def test_lines_in_a_terminal_that_is_none(job: Job, env: dict[str, str | None]) -> None:
    with terminal(job, env=env) as seen:
        assert seen.wait() == 0
        seen.wait_for("INFO +summary")
        assert CONTROL.search(seen.raw.decode().replace("\r\n", "\n")) is None


@pytest.mark.parametrize(
    "env",
    [{"FORCE_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}],
    ids=lambda env: next(iter(env)),
)
def test_a_pipe_is_never_animated(job: Job, env: dict[str, str | None]) -> None:
    done = ok(job.run(env=env))
    assert CONTROL.search(done.stdout + done.stderr) is None
    if "FORCE_COLOR" not in env:
        assert COLOUR.search(done.stdout + done.stderr) is None
    assert done.stderr.isascii() or "FORCE_COLOR" in env
    assert "embedded: 0 -> 180" in done.stdout


def test_log_lines(job: Job) -> None:
    done = ok(job.run("--progress-interval", "0.001s", "--batch-size", "20"))
    line = re.compile(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) +\w+( \w+=\S+| \w+=\".*\")*"
    )
    for said in done.stderr.splitlines():
        assert line.fullmatch(said), said
    names = [said.split()[2] for said in done.stderr.splitlines()]
    assert names[:2] == ["start", "plan"]
    assert names[-1] == "summary"
    assert "progress" in names
    assert "eta_s=--" in done.stderr


def test_quiet_success_prints_nothing(job: Job) -> None:
    done = ok(job.run("-q"))
    assert (done.stdout, done.stderr) == ("", "")
    done = ok(job.run("-q"))
    assert (done.stdout, done.stderr) == ("", "")


def test_quiet_failure_says_what_and_what_next(job: Job) -> None:
    bad = tables.text_of(42)
    job.provider.reject = lambda text: text == bad
    done = ok(job.run("-q"), 3)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(" ERROR " in line for line in lines)
    assert "row_failed id=42" in lines[0]
    assert re.search(r'hint retry="embedmigrate generate-all .* --retry-failed \w+"', lines[-1])


def test_json_lines(job: Job) -> None:
    """For success, failed rows, a stop, and a run that could not begin."""
    bad = tables.text_of(42)
    job.provider.reject = lambda text: text == bad
    done = ok(job.run("--json"), 3)
    found = [validate(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert found[0]["message_type"] == "start"
    assert found[-1]["message_type"] == "summary"
    assert (found[-1]["rows_failed"], found[-1]["ok"]) == (1, False)
    assert {"status", "row_error"} <= {line["message_type"] for line in found}

    job.provider.reject = None
    done = ok(job.run("--json"))
    assert validate(done.stdout.splitlines()[-1])["after"]["coverage_ratio"] == 1

    done = ok(job.run("--json", env={"DATABASE_URL": None}), 2)
    assert validate(done.stdout.splitlines()[-1])["message_type"] == "summary"
    assert validate(done.stderr)["message_type"] == "exit_error"

    for command in ("status", "stats", "stop"):
        validate(ok(job.run("--json", command=command)).stdout)
    validate(ok(job.run("--json", "--dry-run")).stdout)
    validate(ok(job.run("--json", "7", command="generate-one")).stdout)


def test_json_of_a_run_that_is_interrupted(job: Job) -> None:
    job.provider.latency = 0.3
    process = job.start("--json", *SLOW)
    job.provider.wait_for_arrivals(4)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    found = [validate(line) for line in out.splitlines()]
    assert process.returncode == 143
    assert err == ""
    assert (found[-1]["state"], found[-1]["exit_code"]) == ("interrupted", 143)
    assert found[-1]["next_command"]


BARE: dict[str, str | None] = dict.fromkeys(
    ("PATH", "LANG", "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
)


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii", "LANG": None},
        {"LC_ALL": "C", "LANG": None},
        BARE,
    ],
    ids=["PYTHONIOENCODING=ascii", "LC_ALL=C", "env -i"],
)
def test_poor_surroundings(job: Job, session: Session, env: dict[str, str | None]) -> None:
    """No traceback, no question; a key that the encoding cannot show is shown somehow."""
    session.execute("CREATE TABLE ключи (id text PRIMARY KEY, body text, embedding vector(8))")
    session.execute("INSERT INTO ключи VALUES ('schlüssel-日本', 'Text'), ('ok', 'Other')")
    job.provider.reject = lambda text: text == "Text"
    job = replace(job, options=("--table", "ключи", "--text-column", "body"))
    done = ok(job.run(env=env), 3)
    assert "row_failed" in done.stderr
    said = (
        ok(job.run(command="status", env=env)).stdout + ok(job.run(command="stats", env=env)).stdout
    )
    assert "completed_with_errors" in said
    assert ok(job.run("--help", env=env)).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help(job: Job, command: str) -> None:
    done = ok(job.cli(*command.split(), "-h", env={"COLUMNS": "100"}))
    assert "Usage: " in done.stdout
    assert f"embedmigrate {command}" in done.stdout.replace("python -m ", "")
    assert "─ Help ─" in done.stdout or "─ Options ─" in done.stdout
    if command != "demo":
        assert "─ Target ─" in done.stdout
    if command == "generate-all":
        panels = ("Model", "Selection", "Safety", "Rate and retries", "Checkpoint", "Output")
        places = [done.stdout.find(f"─ {panel} ─") for panel in panels]
        assert -1 not in places
        assert places == sorted(places)
    if command not in {"demo", "config show", "init"}:
        assert "Exit status" in done.stdout


def test_stats_in_a_pipe_show_every_digit(job: Job, session: Session) -> None:
    session.execute(
        "INSERT INTO articles (id, title, body) SELECT n, '', 'x' FROM"
        " generate_series(1000, 13344) n"
    )
    said = ok(job.run(command="stats")).stdout
    assert "rows total: 12,545" in said
    assert "missing: 12,525" in said
    assert "…" not in said
    assert "..." not in said
    plain = ok(job.run("--plain", command="stats")).stdout
    assert dict(line.split("\t") for line in plain.splitlines())["rows_total"] == "12545"
    ok(job.run("--fail-under", "99.5", command="stats"), 4)


def test_sigusr1_prints_one_line(job: Job) -> None:
    """Even with -q."""
    job.provider.latency = 0.3
    process = job.start("-q", *SLOW)
    job.provider.wait_for_arrivals(4)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == ""
    (line,) = err.splitlines()
    assert re.match(r"STATUS +state=running done=\d+ total=180 ", line)


def test_a_reader_that_goes_away(job: Job) -> None:
    """`| head -1`: the run goes on."""
    line = " ".join(job.cli.command("generate-all", *job.options, *SLOW, "--json"))
    job.provider.latency = 0.05
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=job.cli.environment(job.env),
        cwd=job.cli.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout)["message_type"] == "start"
    assert (done.returncode, done.stderr) == (0, "")
    assert job.sent() == 180


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full 2>&1"])
def test_nowhere_to_write(job: Job, closed: str) -> None:
    line = " ".join(job.cli.command("generate-all", *job.options))
    done = subprocess.run(
        ["sh", "-c", f"{line} {closed}"],
        env=job.cli.environment(job.env),
        cwd=job.cli.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert job.sent() == 180


def test_a_log_file_beside_any_display(job: Job) -> None:
    log = job.cli.folder / "run.log"
    with terminal(job, "--log-file", str(log)) as seen:
        seen.wait_for("Done in", 20)
        assert seen.wait() == 0
    assert "Embedding" in seen.raw.decode()
    logged = log.read_text("utf-8")
    assert " start run_id=" in logged
    assert " summary state=completed" in logged

    ok(job.run("--force", "-q", "--log-file", str(log)))
    assert log.read_text("utf-8").count(" summary state=completed") == 2
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["/nowhere/run.log", "/dev/full"])
def test_a_log_file_that_cannot_be_written(job: Job, path: str) -> None:
    done = job.run("--log-file", path)
    if path == "/dev/full":  # it can be opened: its lines are lost, the run is not
        ok(done)
        return
    ok(done, 2)
    assert "error: --log-file /nowhere/run.log cannot be written" in done.stderr
    assert job.sent() == 0
