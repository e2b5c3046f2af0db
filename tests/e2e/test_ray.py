"""The command line with actors: as in one process, and no secret reaches Ray."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import tables
from tests.conftest import CommandLine
from tests.e2e.jobs import KEY, Job, ok, shuffling
from tests.ray_nodes import RayNodes
from tests.servers import SUPERUSER_PASSWORD
from tests.verifier import Verifier

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.provider import Provider
    from tests.servers import Database
    from tests.tables import Session

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is missing")

RAY = ("--executor", "ray", "--actors", "2", "--batch-size", "10", "--concurrency", "2")
ROWS = 400
PATIENT = 120
CANARIES = (KEY, SUPERUSER_PASSWORD, "lantern", "orchard", "thistle")
"""The key, the password, and words of the rows' texts."""


@pytest.fixture
def job(database: Database, provider: Provider) -> Iterator[Job]:
    """With a short folder for temporary files: Ray's sockets do not take long names."""
    provider.mangle = shuffling()
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    cli = CommandLine(folder)
    yield Job(cli, database, provider)
    cli.kill_all()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def table(session: Session) -> Verifier:
    tables.articles(session, ROWS, gaps=False)
    return Verifier(session)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=PATIENT)
    assert "Traceback" not in said, said
    return process.returncode, said


def test_a_signal_a_stop_and_the_rest(job: Job, table: Verifier) -> None:
    """Each ends the run as it ends one without actors, and the next goes on behind it."""
    job.provider.latency = 0.4
    process = job.start(*RAY)
    job.provider.wait_for_arrivals(8, PATIENT)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 143
    assert "stopping" in said
    assert table.wrong() == []
    assert 0 < len(table.embedded()) < ROWS
    assert len(table.embedded()) == job.sent(), "what was answered was not stored"

    before = job.provider.arrived
    process = job.start(*RAY)
    job.provider.wait_for_arrivals(before + 6, PATIENT)
    assert "Stopped." in ok(job.run(command="stop")).stdout
    assert ended(process)[0] == 6

    job.provider.latency = 0.0
    done = ok(job.run(*RAY, timeout=PATIENT))
    table.check()
    assert job.sent_twice() == []
    assert job.sent() == ROWS
    noise = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert noise == [], "Ray, or somebody else, has something to say"


def test_a_second_signal_does_not_wait(job: Job, table: Verifier) -> None:
    job.provider.latency = 60
    process = job.start(*RAY)
    job.provider.wait_for_arrivals(1, PATIENT)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # two that come together are one to the kernel
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=15)
    assert process.returncode == 143
    assert table.embedded() == []


def test_json_names_the_executor_and_nothing_secret_is_left(job: Job, table: Verifier) -> None:
    """Neither in what is printed nor in the folder of a run whose processes are killed."""
    temporary = job.cli.folder / "t"
    temporary.mkdir()
    job.provider.latency = 0.3
    process = job.start(*RAY, "--json", "-vv", env={"TMPDIR": str(temporary)})
    job.provider.wait_for_arrivals(8, PATIENT)
    process.kill()
    out, err = process.communicate(timeout=PATIENT)
    start = next(
        line
        for line in map(json.loads, (out + err).splitlines())
        if line["message_type"] == "start"
    )
    assert start["limits"]["executor"] == "ray"
    assert start["limits"]["actors"] == 2
    assert start["limits"]["concurrency"] == 4
    said = json.loads(job.run("--json", command="status").stdout)
    assert (said["executor"], said["actors"]) == ("ray", 2)
    assert "ray, 2 actors\n" in job.run(command="status").stdout
    found = {path: path.read_bytes() for path in job.cli.folder.rglob("*") if path.is_file()}
    assert sum("worker" in path.name and path.suffix == ".log" for path in found) >= 2
    everything = [(str(path), content) for path, content in found.items()]
    for place, content in [*everything, ("what was printed", (out + err).encode())]:
        for canary in CANARIES:
            assert canary.encode() not in content, f"{canary} in {place}"
    assert table.wrong() == []


def test_a_node_without_the_key_is_named_before_anything_is_sent(
    job: Job, table: Verifier, database: Database
) -> None:
    """And with it, an existing cluster works, whose logs hold nothing either."""
    with RayNodes({"DATABASE_URL": database.url}, cpus=2, others=0) as nodes:
        cluster = (*RAY, "--ray-address", nodes.address)
        done = job.run(*cluster, env=dict(nodes.token), timeout=PATIENT)
        assert done.returncode == 2
        assert "OPENAI_API_KEY is not set for the actors on " in done.stderr
        assert job.provider.arrived == 0
    given = {"DATABASE_URL": database.url, "OPENAI_API_KEY": KEY}
    with RayNodes(given, cpus=2, others=0) as nodes:
        cluster = (*RAY, "--ray-address", nodes.address)
        ok(job.run(*cluster, "-vv", env=dict(nodes.token), timeout=PATIENT))
        for name, content in nodes.logs():
            for canary in CANARIES:
                assert canary.encode() not in content, f"{canary} in {name}"
    table.check()


def test_settings_that_cannot_be_meant(job: Job, table: Verifier) -> None:
    refused = {
        ("--actors", "2"): "--actors (from --actors) needs --executor ray",
        ("--executor", "ray", "--ray-address", "ray://head:10001"): "client protocol",
        ("--executor", "ray", "--gpus-per-actor", "1.5"): "Ray shares one GPU",
        ("--executor", "ray", "--database-url", "postgresql://a:b@h/d"): "records the command line",
    }
    for arguments, words in refused.items():
        done = job.run(*arguments)
        assert done.returncode == 2
        assert words in done.stderr
    plan = ok(job.run(*RAY, "--dry-run")).stdout
    assert "2 actors with 1 CPU each, on this machine, ray " in plan
    assert "a crash costs at most 40 rows sent again" in plan
    assert table.embedded() == []


def test_no_cluster_at_the_address(job: Job, table: Verifier) -> None:
    done = job.run(*RAY, "--ray-address", "127.0.0.1:1", timeout=PATIENT)
    assert done.returncode == 5
    assert "no Ray cluster at 127.0.0.1:1" in done.stderr
    assert table.embedded() == []
