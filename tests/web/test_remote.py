"""`status`, `stats` and `stop` of a server show what they show of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import tables
from tests.e2e.jobs import ok
from tests.schemas import validate
from tests.web.sites import ADMIN, VIEWER
from tests.web.test_jobs import SLOWLY, over, under_way

if TYPE_CHECKING:
    from tests.conftest import CommandLine, Completed
    from tests.e2e.jobs import Job
    from tests.tables import Session
    from tests.web.sites import Served


def asked(cli: CommandLine, url: str, *words: str, token: str | None = ADMIN) -> Completed:
    """From a machine that knows neither the database nor the state directory."""
    env = {"EMBEDMIGRATE_TOKEN": token, "EMBEDMIGRATE_STATE_DIR": "/nowhere"}
    return cli(*words, "--url", url, env=env, timeout=40)


def test_a_run_is_seen_and_stopped_from_elsewhere(
    cli: CommandLine, served: Served, job: Job, session: Session
) -> None:
    tables.articles(session, 400, gaps=False)
    job.provider.latency = 3.0
    assert "No run recorded" in ok(asked(cli, served.address, "status")).stdout
    assert "Nothing is running." in ok(asked(cli, served.address, "stop")).stdout
    served.post("generate-all", SLOWLY)
    served.until(under_way)
    shown = ok(asked(cli, served.address, "status", token=VIEWER)).stdout
    for words in ("State", "running", "Progress", "embedmigrate stop --url"):
        assert words in shown
    said = validate(ok(asked(cli, served.address, "status", "--json")).stdout)
    assert said["live"] is True
    assert asked(cli, served.address, "stop", token=VIEWER).returncode == 2
    ended = validate(ok(asked(cli, served.address, "stop", "--json")).stdout)
    assert ended["result"] == "stopped"
    assert served.until(over)["state"] == "stopped"
    shown = ok(asked(cli, served.address, "stats")).stdout
    local = ok(job.run(command="stats")).stdout
    assert "rows total: 400" in shown
    assert "rows total: 400" in local
    validate(ok(asked(cli, served.address, "stats", "--json")).stdout)
    assert asked(cli, served.address, "stats", "--fail-under", "100").returncode == 4


@pytest.mark.parametrize(
    ("url", "token", "code"),
    [
        ("http://db1.internal:5001", ADMIN, "url_insecure"),
        ("ftp://db1.internal", ADMIN, "url_invalid"),
        ("db1.internal:5001", ADMIN, "url_invalid"),
        ("https://user:pw@db1.internal", ADMIN, "url_invalid"),
        ("https://db1.internal:port", ADMIN, "url_invalid"),
        ("http://127.0.0.1:1", None, "token_missing"),
    ],
)
def test_a_token_is_sent_nowhere_where_it_is_not_safe(
    cli: CommandLine, url: str, token: str | None, code: str
) -> None:
    done = asked(cli, url, "status", "-v", token=token)
    assert done.returncode == 2
    assert f"[{code}]" in done.stderr


def test_a_server_that_is_not_there_is_an_outage(cli: CommandLine) -> None:
    done = asked(cli, "http://127.0.0.1:1", "status", "-v")
    assert done.returncode == 5
    assert "[remote_unavailable]" in done.stderr


def test_a_wrong_token_is_refused(cli: CommandLine, served: Served) -> None:
    done = asked(cli, served.address, "status", "-v", token="x" * 40)
    assert done.returncode == 2
    assert "[remote_refused]" in done.stderr
    assert "x" * 40 not in done.stderr


def test_the_table_is_the_servers_to_know(cli: CommandLine) -> None:
    done = asked(cli, "http://127.0.0.1:1", "stats", "--table", "other")
    assert done.returncode == 2
    assert "--job" in done.stderr
