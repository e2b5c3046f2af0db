"""What the tests of whole runs have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.jobs import Job, shuffling

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.provider import Provider
    from tests.servers import Database
    from tests.tables import Session


@pytest.fixture
def session(database: Database) -> Session:
    """A superuser's."""
    return database.connect()


@pytest.fixture
def job(cli: CommandLine, database: Database, provider: Provider) -> Job:
    """Over `articles`, with a provider that never answers in order."""
    provider.mangle = shuffling()
    return Job(cli, database, provider)
