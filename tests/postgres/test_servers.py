"""The databases that all other tests lean on are real, separate and guarded."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.conftest import CommandLine
from tests.servers import DSN_VARIABLE, Address, Database, PostgresServer, describe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def guarded(database: Database) -> Database:
    """Whether somebody else's server asks for passwords is not known."""
    if not database.server.asks_for_passwords:
        pytest.skip(f"the server of {DSN_VARIABLE} decides on its own about passwords")
    return database


def value(database: Database, query: str) -> object:
    """Of the only row's only column."""
    row = database.connect().execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_vectors_work(database: Database) -> None:
    assert value(database, "SELECT '[1,2,3]'::vector <-> '[1,2,5]'::vector") == 2.0
    assert value(database, "SELECT current_database()") == database.name


def test_header_names_the_running_version(postgres: PostgresServer) -> None:
    assert f"PostgreSQL {postgres.version}, pgvector 0." in describe()


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_has_its_own_copy(database: Database, turn: str) -> None:
    connection = database.connect()
    assert connection.execute("SELECT to_regclass('notes')").fetchone() == (None,)
    connection.execute("CREATE TABLE notes (id int)")


def test_copies_live_side_by_side(
    database: Database, postgres: PostgresServer, template: str
) -> None:
    other = f"{database.name}_other"
    postgres.create_database(other, template)
    try:
        database.connect().execute("CREATE TABLE notes (id int)")
        with psycopg.connect(postgres.dsn(other)) as connection:
            assert connection.execute("SELECT to_regclass('notes')").fetchone() == (None,)
            assert connection.execute("SELECT '[1]'::vector").fetchone() == ("[1]",)
            postgres.drop_database(other)  # Even though somebody is connected.
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    finally:
        postgres.drop_database(other)


def test_roles_go_with_the_database(postgres: PostgresServer, template: str) -> None:
    name = f"{template}_copy"
    postgres.create_database(name, template)
    short_lived = Database(name, postgres.dsn(name), postgres)
    roles = [short_lived.create_role("a"), short_lived.create_role("b")]
    own = sql.SQL("CREATE SCHEMA AUTHORIZATION {}").format(sql.Identifier(roles[0]))
    short_lived.connect().execute(own)
    short_lived.drop()
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        query = "SELECT FROM pg_roles WHERE rolname = ANY(%s)"
        assert connection.execute(query, [roles]).fetchall() == []


def test_tcp_demands_the_password(guarded: Database) -> None:
    role = guarded.create_role("s3cret:/@?")
    with psycopg.connect(guarded.tcp_url(role, "s3cret:/@?")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)
        assert connection.pgconn.used_password
    for wrong in ("guess", None):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(guarded.tcp_url(role, wrong))


def test_superuser_over_tcp(guarded: Database) -> None:
    with psycopg.connect(guarded.tcp_url()) as connection:
        assert connection.info.host == "127.0.0.1"
        assert connection.execute("SHOW password_encryption").fetchone() == ("scram-sha-256",)


def test_socket_trusts(guarded: Database) -> None:
    assert value(guarded, "SELECT inet_server_addr()") is None
    assert value(guarded, "SHOW fsync") == "off"


def test_existing_server(guarded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DSN_VARIABLE, guarded.tcp_url() + "?connect_timeout=7")
    server = PostgresServer.from_environment()
    assert "connect_timeout=7" in server.dsn(guarded.name)
    assert not server.asks_for_passwords
    with psycopg.connect(server.tcp_dsn(guarded.name)) as connection:
        assert connection.info.dbname == guarded.name
    server.stop()
    server.stop()
    assert value(guarded, "SELECT 1") == 1
    assert describe().endswith(DSN_VARIABLE)


def test_urls_quote() -> None:
    local = Address("me@here", "", "/run/a b", "5433", {"sslmode": "disable"})
    parsed = psycopg.conninfo.conninfo_to_dict(local.url("my/db"))
    assert parsed == {
        "user": "me@here",
        "host": "/run/a b",
        "port": "5433",
        "dbname": "my/db",
        "sslmode": "disable",
    }


def test_environment_is_clean(tmp_path: Path) -> None:
    assert not [name for name in os.environ if name.startswith(("PG", "OPENAI_", "GITHUB_"))]
    assert os.environ["HOME"] == str(tmp_path / "home")


def test_command_line_environment(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DEVELOPER", "1")
    environment = cli.environment({"LANG": None, "NO_COLOR": "1"})
    assert environment.keys().isdisjoint({"LANG", "SECRET_OF_THE_DEVELOPER"})
    assert environment["NO_COLOR"] == "1"
    assert environment["EMBEDMIGRATE_STATE_DIR"] == str(cli.state_dir)


class PythonLine(CommandLine):
    """Runs Python code instead of the tool."""

    def command(self, *args: str | os.PathLike[str]) -> list[str]:
        return [sys.executable, "-c", *(os.fspath(arg) for arg in args)]


def test_command_line(tmp_path: Path) -> None:
    line = PythonLine(tmp_path)
    program = "import os, sys; print(sys.stdin.read() + os.getcwd()); sys.exit('no')"
    done = line(program, input="ü ")
    assert (done.returncode, done.stdout) == (1, f"ü {tmp_path}\n")
    assert done.stderr == "no\n"
    with pytest.raises(TimeoutError, match="started"):
        line("import time; print('started', flush=True); time.sleep(60)", timeout=1)


def test_started_commands_are_killed(tmp_path: Path) -> None:
    line = PythonLine(tmp_path)
    process = line.start("import time; print('up', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    ended = line.start("")
    ended.wait()
    line.kill_all()
    assert (process.returncode, ended.returncode) == (-9, 0)
