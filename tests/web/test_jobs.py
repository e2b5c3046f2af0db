"""Jobs over HTTP and over the command line are the same jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from embedmigrate.web.routes import BASE
from tests import tables
from tests.e2e.jobs import ok
from tests.verifier import Verifier
from tests.web.sites import ADMIN, VIEWER, Served, bearer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.jobs import Job
    from tests.tables import Session

SLOWLY = {"batchSize": 10, "concurrency": 2}
TOKENS = {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN, "EMBEDMIGRATE_VIEWER_TOKEN": VIEWER}


@pytest.fixture
def table(job: Job, session: Session) -> Verifier:
    """Four hundred rows; a request takes a while."""
    tables.articles(session, 400, gaps=False)
    job.provider.latency = 0.6
    return Verifier(session)


def under_way(status: dict[str, Any]) -> bool:
    return bool(status["isRunning"] and status["processedResumes"])


def over(status: dict[str, Any]) -> bool:
    return not status["isRunning"] and status["state"] != "idle"


def curl(served: Served, *words: str) -> Any:
    """As the original's operators typed it, with a token beside."""
    said = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {ADMIN}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    return json.loads(said)


def typed(given: Any, shape: dict[str, type | tuple[type, ...]]) -> None:
    """The fields of the original are there, with its types."""
    for name, kinds in shape.items():
        assert name in given, name
        assert isinstance(given[name], kinds), f"{name}: {given[name]!r}"


def test_the_five_calls_of_the_original(served: Served, job: Job, table: Verifier) -> None:
    """Paths, bodies, fields and types are those that its front end knows."""
    base, number = f"{served.address}/api/admin/embeddings", (int, float)
    post = ("-X", "POST", "-H", "Content-Type: application/json")
    stats = curl(served, f"{base}/stats")
    assert stats["success"] is True
    typed(
        stats["stats"],
        {
            "totalResumes": int,
            "resumesWithEmbeddings": int,
            "resumesWithoutEmbeddings": int,
            "coveragePercentage": number,
        },
    )
    assert stats["stats"]["totalResumes"] == stats["stats"]["rowsTotal"] == 400
    one = curl(served, *post, "-d", '{"resumeId": "7"}', f"{base}/generate-one")
    assert one["success"] is True
    typed(one["result"], {"success": bool, "resumeId": str, "duration": int})
    assert one["result"]["resumeId"] == "7"
    body = '{"batchSize": 10, "delayBetweenBatches": 100, "skipExisting": true, "resumeFrom": null}'
    began = time.monotonic()
    started = curl(served, *post, "-d", body, f"{base}/generate-all")
    assert time.monotonic() - began < 5
    assert started["success"] is started["jobStarted"] is True
    assert re.fullmatch(r"emb-job-\d{13}", started["jobId"])
    served.until(under_way)
    status = curl(served, f"{base}/status")
    assert status["success"] is True
    typed(
        status["status"],
        {
            "isRunning": bool,
            "currentJobId": str,
            "startTime": int,
            "totalResumes": int,
            "processedResumes": int,
            "successfulResumes": int,
            "failedResumes": int,
            "progressPercentage": number,
            "elapsedTime": int,
            "estimatedTimeRemaining": (int, type(None)),
            "lastProcessedResumeId": (str, type(None)),
            "errors": list,
        },
    )
    assert status["status"]["currentJobId"] == started["jobId"]
    assert status["status"]["isRunning"] is True
    assert status["status"]["totalResumes"] == 399
    stopped = curl(served, "-X", "POST", f"{base}/stop")
    typed(stopped, {"success": bool, "stopped": bool})
    assert stopped["stopped"] is True
    assert served.until(over)["state"] == "stopped"
    assert curl(served, "-X", "POST", f"{base}/stop")["stopped"] is False
    assert table.wrong() == []


def test_a_second_run_is_refused_with_the_name_of_the_first(
    served: Served, table: Verifier
) -> None:
    """Also in the moment in which the first has not begun yet."""
    started = served.post("generate-all", SLOWLY)
    for wait in (lambda _: True, under_way):
        served.until(wait)
        second = served.ask("POST", "generate-all", SLOWLY)
        assert second.status_code == 409
        assert second.json()["error"]["code"] == "lock_held"
        assert second.json()["jobId"] == second.json()["currentJobId"] == started["jobId"]
    served.post("stop")
    served.until(over)


def test_a_stop_reaches_a_run_that_has_not_begun(served: Served, table: Verifier) -> None:
    served.post("generate-all", SLOWLY)
    assert served.post("stop")["stopped"] is True
    assert served.until(over)["state"] == "stopped"
    assert len(table.embedded()) < 400


def test_the_command_line_stops_what_the_api_has_started(
    served: Served, job: Job, table: Verifier
) -> None:
    served.post("generate-all", SLOWLY)
    served.until(under_way)
    seen = json.loads(ok(job.run("--json", command="status")).stdout)
    assert seen["live"] is True
    assert "Stopped." in ok(job.run(command="stop")).stdout
    found = served.until(over)
    assert (found["state"], found["exitCode"]) == ("stopped", 6)


def test_the_api_sees_and_stops_what_the_command_line_has_started(
    served: Served, job: Job, table: Verifier
) -> None:
    process = job.start("--batch-size", "10", "--concurrency", "2")
    found = served.until(under_way)
    assert re.fullmatch(r"emb-job-\d{13}", found["currentJobId"])
    second = served.ask("POST", "generate-all", {})
    assert second.status_code == 409
    assert second.json()["jobId"] == found["currentJobId"]
    assert served.post("stop")["stopped"] is True
    process.communicate(timeout=20)
    assert process.returncode == 6
    assert served.until(over)["state"] == "stopped"


def test_a_job_outlives_the_server_and_the_next_one_finds_it(
    served: Served, job: Job, table: Verifier
) -> None:
    job.provider.latency = 2.0
    started = served.post("generate-all", SLOWLY)
    served.until(under_way)
    began = time.monotonic()
    assert served.end() == 0
    assert time.monotonic() - began < 5
    again = Served.start(job, TOKENS)
    found = again.until(under_way)
    assert found["currentJobId"] == started["jobId"]
    job.provider.latency = 0.0
    assert again.until(over, 40)["state"] == "completed"
    assert again.end(signal.SIGINT) == 0
    table.check()
    assert job.sent_twice() == []


def test_a_killed_server_takes_no_job_with_it(served: Served, job: Job, table: Verifier) -> None:
    job.provider.latency = 2.0
    served.post("generate-all", SLOWLY)
    served.until(under_way)
    os.killpg(served.process.pid, signal.SIGKILL)
    served.process.wait(5)
    again = Served.start(job, TOKENS)
    assert again.status["isRunning"] is True
    job.provider.latency = 0.0
    assert again.until(over, 40)["state"] == "completed"
    again.end()
    table.check()


def test_why_a_run_did_not_begin_is_in_the_status(job: Job, table: Verifier) -> None:
    """Also after the server was started anew."""
    for _ in range(2):
        served = Served.start(job, TOKENS | {"EMBEDMIGRATE_DIMENSIONS": "16"})
        if not served.status["currentJobId"]:
            served.post("generate-all", {})
        found = served.until(over)
        served.end()
        assert (found["state"], found["exitCode"]) == ("failed", 10)
        assert found["error"]["code"] == "dimension_mismatch"


def test_events_follow_a_run(served: Served, table: Verifier) -> None:
    """The state at once, then as it changes, not more than four times a second and a little."""
    seen: list[tuple[str, Any]] = []
    with httpx2.stream(
        "GET", f"{served.address}/events", headers=bearer(VIEWER), timeout=20
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind, began = "", 0.0
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            if line.startswith("data: "):
                seen.append((kind, json.loads(line[6:])))
                if len(seen) == 1:
                    served.post("generate-all", SLOWLY)
                    began = time.monotonic()
                if kind == "summary":
                    break
        lasted = time.monotonic() - began
    states = [data for kind, data in seen if kind == "status"]
    assert states[0]["state"] == "idle"
    assert any(under_way(state) for state in states)
    assert len(states) <= lasted * 4 + 4
    kinds = {kind for kind, _ in seen}
    assert {"start", "status", "summary"} <= kinds
    assert "database_url" not in str(seen)


def test_streams_end_with_the_server(served: Served, table: Verifier) -> None:
    with httpx2.stream("GET", f"{served.address}/events", headers=bearer(), timeout=20) as answer:
        lines = answer.iter_lines()
        next(lines)
        began = time.monotonic()
        assert served.end() == 0
        assert time.monotonic() - began < 3
        list(lines)


def test_rows_that_failed_are_listed_and_tried_again(
    served: Served, job: Job, table: Verifier
) -> None:
    job.provider.latency = 0.0
    job.provider.reject = lambda text: " 13 of" in text
    served.post("generate-all", {})
    found = served.until(over)
    assert (found["state"], found["failedResumes"]) == ("completed_with_errors", 1)
    assert [error["resumeId"] for error in found["errors"]] == ["13"]
    listed = served.get("errors", token=VIEWER)["errors"]
    assert (listed["total"], listed["runId"]) == (1, found["runId"])
    assert listed["byCode"][0]["count"] == 1
    assert "Article" not in json.dumps(listed)
    job.provider.reject = None
    served.post("retry-failed", {})
    again = served.until(lambda s: over(s) and s["runId"] != found["runId"])
    assert (again["state"], again["processedResumes"]) == ("completed", 1)
    assert served.get("errors")["errors"]["total"] == 0
    table.check()


def test_a_plan_says_what_a_run_would_do(served: Served, job: Job, table: Verifier) -> None:
    plan = served.post("plan", {"limit": 50})["plan"]
    assert plan["possible"] is True
    assert (plan["rowsSelected"], plan["rowsMissing"]) == (50, 400)
    assert plan["tokens"] > 0
    assert plan["costUsd"] > 0
    assert plan["seconds"] > 0
    assert job.sent() == 0


def test_one_row(served: Served, table: Verifier) -> None:
    done = served.post("generate-one", {"resumeId": "5"})["result"]
    assert (done["success"], done["outcome"]) == (True, "embedded")
    assert done["duration"] >= 200
    assert served.post("generate-one", {"resumeId": "5"})["result"]["outcome"] == "unchanged"
    for key in ("999999", "none", "\x00", "7; DROP TABLE articles"):
        answer = served.ask("POST", "generate-one", {"resumeId": key})
        assert answer.status_code in {404, 422}, answer.text
        assert answer.json()["success"] is False
    assert served.ask("POST", "generate-one", {"resumeId": "999999"}).status_code == 404
    assert {str(key) for key in table.embedded()} == {"5"}


def test_metrics_are_prometheus_text(served: Served, job: Job, table: Verifier) -> None:
    job.provider.latency = 0.0
    served.post("generate-all", {"limit": 100})
    served.until(over)
    time.sleep(3.1)  # a count that was made before is good for three seconds
    text = served.ask("GET", "/metrics", token=VIEWER).text
    labels = r'\{table="public.articles",column="embedding",model="text-embedding-3-small"\}'
    for name, value in (("running", "0"), ("last_run_exit_code", "0"), ("coverage_ratio", "0.25")):
        assert re.search(rf"^embedmigrate_{name}{labels} {value}$", text, re.MULTILINE), text
    assert float(re.findall(rf"last_success_timestamp_seconds{labels} (\S+)", text)[0]) > 1e9
    names = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    assert len(names) == len(set(names)) == 12


def test_jobs_of_the_file_are_addressed_by_name(job: Job, table: Verifier, tmp_path: Path) -> None:
    config = tmp_path / "embedmigrate.toml"
    config.write_text(
        '[jobs.titles]\ntable = "articles"\ntext_column = ["title"]\n[jobs.bodies]\n'
        'table = "articles"\ntext_column = ["body"]\n',
        "utf-8",
    )
    bare = type(job)(job.cli, job.database, job.provider, options=())
    served = Served.start(bare, TOKENS, "--config", str(config))
    listed = served.get("/api/admin/whoami")["jobs"]
    assert [one["name"] for one in listed] == [None, "titles", "bodies"]
    started = served.post("generate-all?job=bodies", {"limit": 10})
    assert started["jobStarted"] is True
    deadline = time.monotonic() + 20
    while not over(found := served.get("status?job=bodies")["status"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (found["state"], found["job"]) == ("limit_reached", "bodies")
    assert served.ask("GET", "status?job=other").status_code == 404
    served.end()


def test_what_is_left_on_disk_is_private(served: Served, job: Job, table: Verifier) -> None:
    """And holds neither texts nor tokens nor keys."""
    job.provider.latency = 0.0
    served.post("generate-all", {})
    served.until(over)
    files = list(job.cli.state_dir.iterdir())
    assert any(path.name.endswith(".events.jsonl") for path in files)
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_text("utf-8")
        for secret in (ADMIN, VIEWER, "sk-test", "Article "):
            assert secret not in content


def test_the_log_names_role_address_action_and_job(served: Served, table: Verifier) -> None:
    served.post("stop")
    served.ask("POST", "stop", token=VIEWER)
    deadline = time.monotonic() + 5
    while len(served.log) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    action = f"action=POST:{BASE}/stop job=default"
    assert f"audit role=admin address=127.0.0.1 {action} status=200" in served.log[0]
    assert f"audit role=viewer address=127.0.0.1 {action} status=403" in served.log[1]
    assert ADMIN not in "".join(served.log)
