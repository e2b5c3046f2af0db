"""Requests made from the OpenAPI document, right and wrong ones: every answer is as described."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from tests import tables
from tests.web.sites import ADMIN, behind_the_gate, site_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.jobs import Job
    from tests.tables import Session

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture
def address(job: Job, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server in this process, whose clock leaps, or its limit of wrong tokens would be met."""
    for name, value in (job.cli.environment(job.env)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EMBEDMIGRATE_TABLE", "articles")
    monkeypatch.setenv("EMBEDMIGRATE_TEXT_COLUMN", "body")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        minutes = itertools.count(step=60)
        site = site_of(behind_the_gate(), port=port, clock=lambda: next(minutes))
        server = uvicorn.Server(uvicorn.Config(site.app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(10)
    assert site.warned == []


def test_schemathesis_finds_nothing(address: str, session: Session, tmp_path: Path) -> None:
    """`/events` is left out: it has no end."""
    tables.articles(session, 20, gaps=False)
    done = subprocess.run(
        [
            SCHEMATHESIS,
            "run",
            f"{address}/openapi.json",
            *("--header", f"Authorization: Bearer {ADMIN}"),
            *("--exclude-path", "/events"),
            *("--max-examples", "12"),
            *("--seed", "5"),
            *("--phases", "examples,coverage,fuzzing"),
            "--no-color",
        ],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("EMBEDMIGRATE_")},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
