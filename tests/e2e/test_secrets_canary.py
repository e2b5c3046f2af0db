"""Canaries: no password, no key and no row's text in any output or file, whatever goes wrong."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.provider import Reply, openai_error, tokens_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import CommandLine, Completed
    from tests.provider import Provider
    from tests.servers import Database

PASSWORD = "S3cr3t"
KEY = "sk-canary-0a1b2c3d4e5f60718293a4b5c6d7e8f9"
TEXT = "Rosalind hides periwinkle ledgers behind wainscot"
CANARIES = (PASSWORD, KEY, "canary-0a1b2c", "periwinkle", "wainscot")
GENERATE = ("generate-all", "--table", "notes", "--text-column", "body")
IMPATIENT = ("--max-wait", "1s", "--retries", "2")

TABLE = """
CREATE TABLE notes (id text PRIMARY KEY, body text, embedding vector(1536));
INSERT INTO notes SELECT 'note-' || n, %s || ' ' || n FROM generate_series(1, 4) n;
"""
TELLTALE = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'will not store %', NEW.body USING DETAIL = NEW.body, ERRCODE = '{}'; END $$;
CREATE TRIGGER tell BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION tell();
"""


class Watched:
    """Runs the tool with canaries everywhere, and looks for them in all that comes out."""

    def __init__(self, cli: CommandLine, database: Database, provider: Provider) -> None:
        self.cli = cli
        self.database = database
        self.provider = provider
        self.role = database.create_role(PASSWORD)
        self.connection = database.connect()
        for statement in TABLE.strip().split("\n"):
            self.connection.execute(statement.encode(), (TEXT,) if "%s" in statement else None)
        self.connection.execute(f"GRANT SELECT, UPDATE ON notes TO {self.role}".encode())
        self.log = cli.folder / "run.log"

    def __call__(self, *args: str, env: dict[str, str | None] | None = None) -> Completed:
        """The most talkative of runs: -vv, and a log file as well where there can be one."""
        logged = ("--log-file", str(self.log)) if args[0] == "generate-all" else ()
        complete: dict[str, str | None] = {
            "DATABASE_URL": self.database.tcp_url(self.role, PASSWORD),
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.provider.url,
            "EMBEDMIGRATE_DB_WAIT": "2s",
        }
        done = self.cli(*args, "-vv", *logged, env=complete | (env or {}), timeout=40)
        self._look(done)
        return done

    def _look(self, done: Completed) -> None:
        found = {"stdout": done.stdout, "stderr": done.stderr}
        for path in self.files():
            found[path.name] = path.read_bytes().decode("utf-8", "replace")
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"others may read {path}"
        for place, text in found.items():
            assert "Traceback" not in text, text
            for canary in CANARIES:
                assert canary not in place + text, f"{canary} in {place}: {text}"

    def files(self) -> list[Path]:
        """Without those that a test has put there itself."""
        found = self.cli.folder.rglob("*")
        return [path for path in found if path.is_file() and "site" not in path.parts]


@pytest.fixture
def watched(cli: CommandLine, database: Database, provider: Provider) -> Watched:
    return Watched(cli, database, provider)


def _summary(done: Completed) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def test_a_run_that_goes_well_leaves_no_trace(watched: Watched) -> None:
    assert watched(*GENERATE).returncode == 0
    assert watched(*GENERATE, "--force", "--json").returncode == 0
    for command in ("status", "stats"):
        args = (command, "--table", "notes")
        more = ("--text-column", "body") if command == "stats" else ()
        assert watched(*args, *more, "--json").returncode == 0
    assert len(watched.provider.requests) == 2
    assert {path.suffix for path in watched.files()} >= {".json", ".lock", ".log"}


ECHO = Reply(
    400, openai_error(f"'$.input' is invalid: {TEXT} 1, Authorization: Bearer {KEY}", KEY, TEXT)
)


def test_a_provider_that_quotes_what_it_was_sent(watched: Watched) -> None:
    watched.provider.script.extend([ECHO] * 20)
    done = watched(*GENERATE, *IMPATIENT, "--json")
    assert done.returncode == 3
    assert _summary(done)["errors_by_code"] == {"input_rejected": 4}
    assert any(path.name.endswith(".errors.jsonl") for path in watched.files())
    watched.provider.script.extend([ECHO] * 20)
    assert watched(*GENERATE, *IMPATIENT, "--retry-failed", "last").returncode == 3
    watched.provider.script.extend([ECHO] * 20)
    one = watched("generate-one", "note-1", *GENERATE[1:], "--retries", "1")
    assert one.returncode == 3


def test_a_database_that_quotes_the_row(watched: Watched) -> None:
    """As the DETAIL of a constraint does, and any trigger may."""
    for state, code in (("P0001", 3), ("XX000", 1), ("42501", 12)):
        watched.connection.execute("DROP FUNCTION IF EXISTS tell CASCADE")
        watched.connection.execute(TELLTALE.replace("{}", state).encode())
        done = watched(*GENERATE, "--json")
        assert done.returncode == code, done
        assert _summary(done)["rows_embedded"] == 0


def test_a_text_expression_that_fails_on_a_row(watched: Watched) -> None:
    done = watched("generate-all", "--table", "notes", "--text-sql", "(body::int)::text")
    assert done.returncode == 10
    assert "InvalidTextRepresentation 22P02" in done.stderr
    assert watched.provider.arrived == 0


def test_passwords_in_every_spelling(watched: Watched) -> None:
    """Refused logins, whose messages come from libpq and from the server."""
    url = watched.database.tcp_url(watched.role, "x")
    host = url.partition("@")[2]
    user = watched.role
    port = host.partition(":")[2].partition("/")[0]
    wrong = f"{PASSWORD}-wrong"
    for given in (
        f"postgresql+psycopg://{user}:{wrong}@{host}",
        f"postgres://{user}:%53{wrong}%40x@{host}",
        f"postgresql://{user}@{host}?password={wrong}",
        f"host=127.0.0.1 port={port} user={user} password='{wrong}' dbname=postgres",
    ):
        done = watched(*GENERATE, env={"DATABASE_URL": given})
        assert done.returncode == 12, done
        assert "login refused by" in done.stderr
    plain = f"postgresql://{user}@{host}"
    done = watched(*GENERATE, env={"DATABASE_URL": plain, "PGPASSWORD": wrong})
    assert done.returncode == 12


def test_the_key_of_a_command(watched: Watched) -> None:
    done = watched(
        *GENERATE,
        "--api-key-command",
        "printf 'sk-cana'; echo ry-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        env={"OPENAI_API_KEY": None},
    )
    assert done.returncode == 0
    sent = watched.provider.requests[0].headers["authorization"]
    assert sent == f"Bearer {KEY}"


def test_an_internal_error_says_where_and_not_what(watched: Watched, tmp_path: Path) -> None:
    """A module that breaks in the middle of a run, with a secret in its complaint."""
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import embedmigrate.engine.batching as b\n"
        "def admit(self, row, limit):\n"
        "    raise ZeroDivisionError(row.text)\n"
        "b.Intake.admit = admit\n"
    )
    python_path = str(broken) + ":" + watched.cli.environment()["PYTHONPATH"]
    for more in ((), ("--json",)):
        done = watched(*GENERATE, *more, env={"PYTHONPATH": python_path})
        assert done.returncode == 1
        assert "unexpected ZeroDivisionError" in done.stderr
        assert "sitecustomize.py:3 admit" in done.stderr


def test_json_survives_what_the_redactor_masks(watched: Watched) -> None:
    """A mask over finished JSON could swallow a quotation mark."""
    where = ("--where", "body <> 'password=x' AND id <> 'bearer y'")
    done = watched(*GENERATE, *where, "--resume-from", "bearer zz", "--json")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert json.loads(line)["schema"] == "embedmigrate/1"
    assert sum(tokens_of(r.texts) for r in watched.provider.requests) > 0


def test_config_show_masks_secrets(watched: Watched) -> None:
    for more in ((), ("--json",)):
        done = watched("config", "show", *more)
        assert done.returncode == 0
        assert "OPENAI_API_KEY" in done.stdout
        assert f"sk-...{KEY[-4:]}" in done.stdout or "***" in done.stdout
        assert watched.role in done.stdout
