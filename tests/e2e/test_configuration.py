"""`config show` says where each value is from and gives no secret away; `init` spares files."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmigrate.app.values import Proposal, Setup
from embedmigrate.cli import toml
from embedmigrate.config import load, options
from embedmigrate.postgres.texts import rank
from tests.schemas import validate
from tests.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import CommandLine
    from tests.servers import Database

KEY = "sk-canary-0123456789abcdefghij9xQ2"
FILE = """
batch_size = 20
[jobs.articles]
table = "public.articles"
text_column = ["title", "body"]
"""


def shown(cli: CommandLine, *args: str, **env: str | None) -> dict[str, Any]:
    done = cli("config", "show", "--json", *args, env=env)
    assert done.returncode == 0, done
    document = validate(done.stdout)
    assert document["message_type"] == "config"
    return document


def test_every_setting_has_its_value_and_origin(cli: CommandLine) -> None:
    (cli.folder / "embedmigrate.toml").write_text(FILE)
    (cli.folder / ".env").write_text("EMBEDMIGRATE_WHERE=id > 7\n")
    document = shown(
        cli, "--job", "articles", "--limit", "9", EMBEDMIGRATE_DELAY="25", OPENAI_API_KEY=KEY
    )
    settings = document["settings"]
    assert list(settings) == list(options())
    expected = {
        "limit": (9, "--limit"),
        "delay": (25.0, "environment EMBEDMIGRATE_DELAY"),
        "where": ("id > 7", ".env EMBEDMIGRATE_WHERE"),
        "table": ("public.articles", "embedmigrate.toml [jobs.articles]"),
        "text_column": (["title", "body"], "embedmigrate.toml [jobs.articles]"),
        "batch_size": (20, "embedmigrate.toml"),
        "api_key": ("sk-...9xQ2", "environment OPENAI_API_KEY"),
        "retries": (8, "default"),
        "model": ("text-embedding-3-small", "default for openai"),
        "concurrency": ("auto", "default"),
        "json": (True, "--json"),
    }
    assert {k: (settings[k]["value"], settings[k]["origin"]) for k in expected} == expected
    assert document["files"] == ["embedmigrate.toml", ".env"]
    assert document["jobs"] == ["articles"]


def test_a_person_sees_the_same(cli: CommandLine) -> None:
    (cli.folder / "embedmigrate.toml").write_text(FILE)
    done = cli("config", "show", "--job", "articles", env={"OPENAI_API_KEY": KEY})
    assert done.returncode == 0
    assert "text_column: title, body  (embedmigrate.toml [jobs.articles])\n" in done.stdout
    assert "api_key: sk-...9xQ2  (environment OPENAI_API_KEY)\n" in done.stdout
    assert "files read: embedmigrate.toml\n" in done.stdout
    assert done.stdout.isascii()


def test_at_a_terminal_it_is_a_table(cli: CommandLine) -> None:
    command = cli.command("config", "show")
    with Terminal(command, env=cli.environment({"TERM": "xterm-256color"})) as terminal:
        terminal.wait()
        assert "files read: none" in "\n".join(terminal.screen())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://app:S3cr3t@db:5432/prod", "postgresql://app:***@db:5432/prod"),
        ("host=db user=app password=S3cr3t", "host=db user=app password=***"),
        ("host=db password='S3 cr3t'", "host=db password=***"),
        (
            "postgresql://db/prod?user=app&password=S3cr3t",
            "postgresql://db/prod?user=app&password=***",
        ),
        ("postgresql://db/prod?sslpassword=S3cr3t", "postgresql://db/prod?sslpassword=***"),
        ("embedded:data", "embedded:data"),
        ("mysql://app:S3cr3t@db/prod", "*** (not a PostgreSQL URL)"),
        ("app:S3cr3t@db/prod", "*** (not a PostgreSQL URL)"),
        ("postgresql://app:x@db/prod", "postgresql://app:***@db/prod"),
    ],
)
def test_no_password_is_shown(cli: CommandLine, url: str, expected: str) -> None:
    env = {"DATABASE_URL": url, "EMBEDMIGRATE_LOCK_DATABASE_URL": url}
    done = cli("config", "show", "--json", env=env)
    assert done.returncode == 0, done
    assert "S3" not in done.stdout + done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert {settings[k]["value"] for k in ("database_url", "lock_database_url")} == {expected}


def test_a_short_key_is_masked_whole(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2\n")
    document = shown(cli, "--api-key-file", "key")
    assert document["settings"]["api_key"] == {"value": "***", "origin": "key"}


def test_init_spares_a_file_that_is_there(cli: CommandLine, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE a (id int PRIMARY KEY, t text, e vector(1536))")
    file = cli.folder / "embedmigrate.toml"
    file.write_text(FILE)
    env = {"DATABASE_URL": database.url}
    refused = cli("init", "-v", env=env)
    assert refused.returncode == 2
    assert "[config_exists] exit 2" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert file.read_text() == FILE

    done = cli("init", "-q", "--output", "other.toml", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = cli("init", "--output", "third.toml", "--database-url", database.url)
    assert "export DATABASE_URL first" in done.stdout
    assert "--job a --dry-run --config third.toml" in done.stdout
    assert "not read beside" not in done.stdout

    done = cli("init", "--overwrite", env=env)
    assert done.returncode == 0
    assert list(tomllib.loads(file.read_text())["jobs"]) == ["a"]
    assert database.name not in file.read_text()
    assert not list(cli.folder.glob(".embed*"))

    done = cli("init", "--output", "no/such/folder.toml", "-v", env=env)
    assert done.returncode == 2
    assert "[config_unwritable]" in done.stderr


def test_init_says_which_file_it_replaces(cli: CommandLine, database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE a (id int PRIMARY KEY, t text, e vector(1536))")
    (cli.folder / "pyproject.toml").write_text("[tool.embedmigrate]\ndelay = 5\n")
    done = cli("init", env={"DATABASE_URL": database.url})
    assert "takes the place of pyproject.toml" in done.stdout


def test_init_without_a_database(cli: CommandLine) -> None:
    done = cli("init", "--json")
    assert done.returncode == 2
    assert json.loads(done.stderr)["code"] == "database_url_missing"


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(name=names, table=names, columns=st.lists(names), note=names)
def test_any_name_survives_the_file(name: str, table: str, columns: list[str], note: str) -> None:
    settings = {"table": table, "text_column": columns, "dimensions": 7}
    job = Proposal(name, settings, {note: note}, (note,), (note,))
    assert tomllib.loads(toml.document(Setup("", "", (job,)))) == {"jobs": {name: settings}}


def test_the_file_loads_as_settings(tmp_path: Path) -> None:
    job = Proposal("täglich", {"table": 'a."b.c"', "text_column": ["x\ty"], "dimensions": 7})
    path = tmp_path / "some.toml"
    path.write_text(toml.document(Setup("", "", (job,))), "utf-8")
    loaded = load({"config": str(path), "job": "täglich"}, environ={})
    assert (loaded.settings.table, loaded.settings.text_column) == ('a."b.c"', ("x\ty",))


class Text:
    def __init__(self, name: str, base: str = "text", width: int = 0) -> None:
        self.name, self.base, self.width = name, base, width


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ((Text("title"), Text("body")), ["body", "title"]),
        ((Text("remark", width=20), Text("essay", width=900)), ["essay", "remark"]),
        ((Text("content_type"), Text("pageContent")), ["pageContent"]),
        ((Text("email"), Text("password"), Text("apiToken")), ["email"]),
        ((Text("data", "jsonb"), Text("n", "int4"), Text("data_hash")), ["data"]),
    ],
)
def test_texts_are_ranked(columns: tuple[Text, ...], expected: list[str]) -> None:
    assert [c.name for c in rank(columns)] == expected
