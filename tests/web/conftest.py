"""A site without a socket, and a server that is a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.jobs import Job, shuffling
from tests.web.sites import ADMIN, VIEWER, Served, Site, site_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.provider import Provider
    from tests.servers import Database
    from tests.tables import Session


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Its database cannot be reached; nothing that is refused at the gate comes so far."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    monkeypatch.setenv("EMBEDMIGRATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return site_of({})


@pytest.fixture
def session(database: Database) -> Session:
    """A superuser's."""
    return database.connect()


@pytest.fixture
def job(cli: CommandLine, database: Database, provider: Provider) -> Job:
    """Over `articles`."""
    provider.mangle = shuffling()
    return Job(cli, database, provider)


@pytest.fixture
def served(job: Job) -> Iterator[Served]:
    """A server of that job, on any free port."""
    server = Served.start(
        job, {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN, "EMBEDMIGRATE_VIEWER_TOKEN": VIEWER}
    )
    yield server
    server.end()
