"""The fixtures that every test can use."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.provider import Provider
from tests.servers import DSN_VARIABLE, Database, PostgresServer, describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent

# A test run that was started in the background, or with nohup, has inherited "ignore", and so would
# every command that it starts; one with a handler of Python's passes the default on.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SCRUBBED_PREFIXES = ("PG", "OPENAI_", "AZURE_", "EMBEDMIGRATE_", "GITHUB_")
SCRUBBED_NAMES = {
    "DATABASE_URL",
    "NO_COLOR",
    "FORCE_COLOR",
    "CI",
    "GITLAB_CI",
    "BUILD_ID",
    "JOURNAL_STREAM",
}


def pytest_report_header() -> str:
    """Under pytest-xdist every worker starts its own server of this version."""
    return f"postgres: {describe()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for each pytest process."""
    server = PostgresServer.from_environment()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with the vector extension that nobody is connected to."""
    name = f"embedmigrate_template_{secrets.token_hex(4)}"
    postgres.create_database(name)
    with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database(postgres: PostgresServer, template: str) -> Iterator[Database]:
    """A copy of the template for one test."""
    name = f"embedmigrate_test_{secrets.token_hex(4)}"
    postgres.create_database(name, template)
    own = Database(name, postgres.dsn(name), postgres)
    yield own
    own.drop()


@pytest.fixture(scope="session")
def provider_server() -> Iterator[Provider]:
    """Tests take `provider`, which is this one without anything left over from other tests."""
    with Provider() as running:
        yield running


@pytest.fixture
def provider(provider_server: Provider) -> Iterator[Provider]:
    """Fails the test if a callback that it has given to the provider raises."""
    provider_server.sever()
    provider_server.reset()
    yield provider_server
    errors = provider_server.errors
    provider_server.sever()
    provider_server.reset()
    if errors:
        raise ExceptionGroup("in the provider's threads", errors)


@dataclass(frozen=True)
class Folders:
    """What the tool under test takes for the user's own folders."""

    home: Path
    state_home: Path
    config_home: Path

    @classmethod
    def under(cls, parent: Path) -> Folders:
        """Creates them."""
        folders = cls(parent / "home", parent / "xdg-state", parent / "xdg-config")
        for folder in (folders.home, folders.state_home, folders.config_home):
            folder.mkdir(exist_ok=True)
        return folders

    def variables(self) -> dict[str, str]:
        """For an environment."""
        return {
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.state_home),
            "XDG_CONFIG_HOME": str(self.config_home),
        }


def _is_scrubbed(name: str) -> bool:
    if name == DSN_VARIABLE:
        return False
    return name in SCRUBBED_NAMES or name.startswith(SCRUBBED_PREFIXES)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's or the CI's own settings reaches the code under test."""
    for name in list(os.environ):
        if _is_scrubbed(name):
            monkeypatch.delenv(name)
    for name, value in Folders.under(tmp_path).variables().items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Completed:
    """A run of the tool that has ended by itself."""

    returncode: int
    stdout: str
    stderr: str


class Overheard(subprocess.Popen[str]):
    """Keeps what `communicate` returns in a list as well."""

    def __init__(self, heard: list[str], args: list[str], **more: Any) -> None:
        self._heard = heard
        super().__init__(args, **more)

    def communicate(
        self,
        input: str | None = None,  # noqa: A002 - as in subprocess.Popen
        timeout: float | None = None,
    ) -> tuple[str, str]:
        said = super().communicate(input, timeout)
        self._heard += (text or "" for text in said)
        return said


class CommandLine:
    """Runs the tool as a process of its own in an environment with nothing but the basics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.heard: list[str] = []
        """All that was printed and read."""
        self._started: list[subprocess.Popen[str]] = []

    def __call__(
        self,
        *args: str | os.PathLike[str],
        env: Mapping[str, str | None] | None = None,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float = 60,
        cwd: Path | None = None,
    ) -> Completed:
        """Standard input is empty, and not a terminal, unless it is given."""
        try:
            done = subprocess.run(
                self.command(*args),
                env=self.environment(env),
                cwd=cwd or self.folder,
                input=input or "",
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            # The exception's own message leaves out what the command printed.
            output = f"stdout: {late.stdout!r}\nstderr: {late.stderr!r}"
            raise TimeoutError(f"{args} ran for more than {timeout} s\n{output}") from None
        self.heard += (done.stdout, done.stderr)
        return Completed(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        *args: str | os.PathLike[str],
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        """In a session of its own, which is killed when the test ends."""
        process = Overheard(
            self.heard,
            self.command(*args),
            env=self.environment(env),
            cwd=cwd or self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def command(self, *args: str | os.PathLike[str]) -> list[str]:
        """What to run, for example in a `Terminal`."""
        return [sys.executable, "-m", "embedmigrate", *(os.fspath(arg) for arg in args)]

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """A change to None takes the variable away."""
        merged: dict[str, str | None] = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "EMBEDMIGRATE_STATE_DIR": str(self.state_dir),
            **Folders.under(self.folder).variables(),
            **(changes or {}),
        }
        return {name: value for name, value in merged.items() if value is not None}

    def kill_all(self) -> None:
        """Also closes the pipes."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CommandLine]:
    """Works in the test's tmp_path."""
    command_line = CommandLine(tmp_path)
    yield command_line
    command_line.kill_all()
