"""A server, a provider, a folder and the command line: what one series of faults needs."""

import contextlib
import dataclasses
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from tests.conftest import CommandLine
from tests.e2e.jobs import Job
from tests.faults.canary import SEARCH, TALKATIVE
from tests.provider import Provider
from tests.servers import Database, PostgresServer
from tests.targets import INTO_SIDE_TABLE


class Talkative(CommandLine):
    """Says as much as it can, so that there is something to search."""

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        return super().environment(TALKATIVE | dict(changes or {}))


_BESIDE = ContextVar("_BESIDE", default=False)


@contextlib.contextmanager
def beside() -> Iterator[None]:
    """Every arena in here fills a side table."""
    before = _BESIDE.set(True)
    try:
        yield
    finally:
        _BESIDE.reset(before)


@contextlib.contextmanager
def arena(server: PostgresServer | None = None) -> Iterator[Job]:
    """A job over `articles` in a database of its own; everything is gone afterwards.

    Args:
        server: One that the series shares or is going to break; else one is started.
    """
    mine = PostgresServer.from_environment() if server is None else server
    name = f"faults_{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder, Provider() as provider:
        mine.create_database(name)
        database = Database(name, mine.dsn(name), mine)
        with database.connect() as session:
            session.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cli = Talkative(Path(folder))
        try:
            job = Job(cli, database, provider)
            if _BESIDE.get():
                job = dataclasses.replace(job, options=(*job.options, *INTO_SIDE_TABLE))
            yield job
        finally:
            cli.kill_all()
            SEARCH.look(cli)
            provider.sever()
            with contextlib.suppress(Exception):  # a series may have broken the server for good
                database.drop()
            if server is None:
                mine.stop()
