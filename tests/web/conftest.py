"""A site without a socket, and a server that is a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.jobs import Job, shuffling
from tests.web.sites import ADMIN, VIEWER, Served, Site, behind_the_gate, site_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from tests.conftest import CommandLine
    from tests.provider import Provider
    from tests.servers import Database
    from tests.tables import Session


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """Its database cannot be reached; nothing that is refused at the gate comes so far."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
        patch.setenv("EMBEDMIGRATE_STATE_DIR", str(folder / "state"))
        patch.chdir(folder)
        yield behind_the_gate()


@pytest.fixture
def site(application: FastAPI) -> Site:
    """With no failed login yet."""
    return site_of(application)


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
