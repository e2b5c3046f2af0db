"""Every refusal: one message with cause and next command, its code, nothing spent or leaked."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from embedmigrate import errors
from embedmigrate.state import RunState, job_name
from tests.conftest import ROOT, CommandLine, Completed
from tests.e2e.refusals_data import ARTICLES, CANARIES, CASES, KEY, PASSWORD, TEXT, Case
from tests.provider import Provider, Reply, openai_error
from tests.servers import Database, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMANDS = ("generate-all", "generate-one", "stats", "status", "stop", "init", "demo")
ROWS = 6
FOREIGN_FLAGS = {"--encoding", "--head"}  # of createdb, and of ray start
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
COMMAND = re.compile(r"\bembedmigrate ((?:config )?[a-z][a-z-]+)")
IMPATIENT = ("--max-wait", "1s", "--retries", "2")

SCHEMA = """
CREATE TABLE articles (id bigint PRIMARY KEY, body text NOT NULL, embedding vector(1536));
CREATE TABLE keyless (id bigint, body text, embedding vector(1536));
CREATE TABLE untyped (id bigint PRIMARY KEY, body text, embedding vector);
CREATE TABLE narrow (id bigint PRIMARY KEY, body text, embedding vector(3));
CREATE TABLE composite (tenant text, id bigint, body text, embedding vector(1536),
    PRIMARY KEY (tenant, id));
CREATE VIEW shown AS SELECT * FROM articles;
CREATE SCHEMA cms;
CREATE TABLE cms.article (id bigint PRIMARY KEY, body text, embedding vector(1536));
CREATE SCHEMA hidden;
CREATE TABLE hidden.articles (id bigint PRIMARY KEY, body text, embedding vector(1536));
"""
GRANTS = """
GRANT SELECT ON articles, keyless, untyped, narrow, composite, shown, hidden.articles TO {reader};
GRANT UPDATE ON hidden.articles TO {reader};
GRANT SELECT, UPDATE ON articles, keyless, untyped, narrow, composite, shown TO {writer};
"""


@dataclass(frozen=True)
class World:
    """A database with a table for every kind of refusal, and one without pgvector."""

    database: Database
    urls: dict[str, str]


def _fill(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        for table in ("articles", "keyless", "untyped", "narrow", "cms.article"):
            connection.execute(
                sql.SQL("INSERT INTO {} SELECT n, {} || n FROM generate_series(1, {}) n").format(
                    sql.Identifier(*table.split(".")), TEXT + " ", ROWS
                )
            )


def _roles(database: Database) -> dict[str, str]:
    roles = {name: database.create_role(PASSWORD) for name in ("writer", "reader", "nobody")}
    with psycopg.connect(database.url, autocommit=True) as connection:
        named = {name: sql.Identifier(role) for name, role in roles.items()}
        connection.execute(sql.SQL(GRANTS).format(**named))
    return roles


@pytest.fixture(scope="module")
def world(postgres: PostgresServer, template: str) -> Iterator[World]:
    names = {kind: f"embedmigrate_{kind}_{secrets.token_hex(4)}" for kind in ("main", "bare", "no")}
    for kind, name in names.items():
        postgres.create_database(name, template if kind == "main" else "template1")
    databases = {k: Database(name, postgres.dsn(name), postgres) for k, name in names.items()}
    main = databases["main"]
    _fill(main)
    roles = _roles(main)
    postgres.execute(
        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(names["no"]))
    )
    urls = {name: main.tcp_url(role, PASSWORD) for name, role in roles.items()}
    urls["wrong"] = main.tcp_url(roles["writer"], f"{PASSWORD}-but-wrong")
    urls["bare"] = databases["bare"].tcp_url(roles["writer"], PASSWORD)
    urls["forbidden"] = databases["no"].tcp_url(roles["writer"], PASSWORD)
    urls["nowhere"] = postgres.tcp_dsn("nowhere", roles["writer"], PASSWORD)
    yield World(main, urls)
    for database in reversed(databases.values()):
        database.drop()


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """Bound and not listening, so that nobody else can start to."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@dataclass(frozen=True)
class Stage:
    """The command line with everything that a run needs, and the canaries that none may show."""

    cli: CommandLine
    world: World
    provider: Provider
    closed_port: int

    @property
    def files(self) -> Path:
        """What a test writes itself; the tool's own files are everywhere else."""
        folder = self.cli.folder / "given"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def values(self) -> dict[str, str]:
        own = {
            "files": str(self.files),
            "state": str(self.cli.state_dir),
            "closed": str(self.closed_port),
            "open": str(self.files / "open"),
        }
        return self.world.urls | own

    def environment(self, changes: dict[str, str | None] | None = None) -> dict[str, str | None]:
        complete: dict[str, str | None] = {
            "DATABASE_URL": self.world.urls["writer"],
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.provider.url,
            "EMBEDMIGRATE_DB_WAIT": "2s",
        }
        return complete | (changes or {})

    def run(
        self,
        *args: str | os.PathLike[str],
        env: dict[str, str | None] | None = None,
        command: str = "generate-all",
        spent: int | None = 0,
    ) -> Completed:
        """Also looks for what no run may do; `spent` is how many requests there are by now."""
        done = self.cli(command, *args, env=self.environment(env), timeout=30)
        assert_clean(self, done)
        assert spent in {None, len(self.provider.requests)}, done
        return done

    def case(self, case: Case, *args: str) -> Completed:
        """Runs what the case says, with its placeholders filled in."""
        values = self.values
        (self.files / "open").mkdir(exist_ok=True)
        (self.files / "open").chmod(0o777)
        for name, content in case.files.items():
            (self.files / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        env = {k: v if v is None else v.format(**values) for k, v in case.env.items()}
        return self.run(*(arg.format(**values) for arg in case.args), *args, env=env)


@pytest.fixture
def stage(cli: CommandLine, world: World, provider: Provider, closed_port: int) -> Stage:
    return Stage(cli, world, provider, closed_port)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every flag that `--help` of any command names."""
    cli = CommandLine(tmp_path_factory.mktemp("help"))
    commands = [(name,) for name in COMMANDS]
    wide: dict[str, str | None] = {"COLUMNS": "240"}
    helps = [cli(*words, "--help", env=wide) for words in [*commands, ("config", "show")]]
    assert all("Usage" in shown.stdout for shown in helps), helps
    return {flag for shown in helps for flag in FLAG.findall(shown.stdout)}


def written(stage: Stage) -> dict[str, str]:
    """Every file that the tool may have written."""
    return {
        str(path): path.read_bytes().decode("utf-8", "replace")
        for path in stage.cli.folder.rglob("*")
        if path.is_file() and stage.files not in path.parents
    }


def assert_clean(stage: Stage, done: Completed) -> None:
    """No canary and no traceback, in any stream, file or file's name."""
    files = written(stage)
    everything = {"stdout": done.stdout, "stderr": done.stderr, **files}
    for place, text in everything.items():
        for canary in CANARIES:
            assert canary not in place, place
            assert canary not in text, f"{canary} in {place}: {text}"
        assert "Traceback" not in text, text
        assert "unexpected" not in text, text


def assert_names_what_exists(words: str, flags: set[str]) -> None:
    assert set(FLAG.findall(words)) <= flags | FOREIGN_FLAGS, words
    assert {name for name in COMMAND.findall(words) if name not in COMMANDS} <= {"config show"}


def objects(text: str) -> list[dict[str, Any]]:
    """Each line is one object with a schema."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(one["schema"] == "embedmigrate/1" for one in found)
    return found


def refusal(done: Completed) -> dict[str, Any]:
    """The one exit_error on stderr, which agrees with the exit code and with the summary."""
    (error,) = objects(done.stderr)
    assert error["message_type"] == "exit_error"
    assert error["exit_code"] == done.returncode
    last = objects(done.stdout)[-1]
    assert (last["message_type"], last["ok"]) == ("summary", False)
    assert last["exit_code"] == done.returncode
    assert last["error"]["code"] == error["code"]
    return error


def failed_checks(done: Completed) -> dict[str, str | None]:
    (plan,) = objects(done.stdout)
    assert plan["message_type"] == "plan"
    assert plan["exit_code"] == done.returncode
    return {c["name"]: c["code"] for c in plan["checks"] if c["status"] == "failed"}


def _ids(case: Case) -> str:
    return case.id


@pytest.mark.parametrize("case", CASES, ids=_ids)
def test_refuses_as_json(stage: Stage, flags: set[str], case: Case) -> None:
    done = stage.case(case, "--json")
    error = refusal(done)
    assert (error["code"], error["exit_code"]) == (case.code, case.exit), error
    said = " ".join([error["message"], *error["facts"]])
    for word in case.words:
        assert word.format(**stage.values) in said
    assert error["hint"]
    assert case.hint in error["hint"]
    assert_names_what_exists(f"{said} {error['hint']}", flags)
    assert not list(stage.cli.state_dir.glob("*.json")), "a refused run leaves no state"


@pytest.mark.parametrize("case", [c for c in CASES if c.plain], ids=_ids)
def test_refuses_in_words(stage: Stage, case: Case) -> None:
    done = stage.case(case, "-v")
    assert done.returncode == case.exit
    assert done.stdout == ""
    first, *_, last = done.stderr.splitlines()
    assert "error: " in done.stderr
    assert f"[{case.code}] exit {case.exit}" in done.stderr
    assert first.startswith(("error: ", "warning: ", "read "))
    for word in case.words:
        assert word.format(**stage.values) in done.stderr
    assert last.startswith("  hint: ")
    assert case.hint in last


@pytest.mark.parametrize("case", [c for c in CASES if c.dry], ids=_ids)
def test_dry_run_refuses_alike(stage: Stage, case: Case) -> None:
    done = stage.case(case, "--dry-run", "--json")
    assert done.returncode == case.exit
    if done.stdout:
        assert case.code in failed_checks(done).values()
    (error,) = objects(done.stderr)
    assert (error["message_type"], error["code"]) == ("exit_error", case.code)
    assert not stage.cli.state_dir.exists()


def test_missing_settings_are_reported_together(stage: Stage, flags: set[str]) -> None:
    nothing: dict[str, str | None] = dict.fromkeys(
        ("DATABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    )
    done = stage.run(*ARTICLES, env=nothing)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 2 problems\n")
    assert "no database configured" in done.stderr
    assert "no API key for provider openai" in done.stderr
    assert_names_what_exists(done.stderr, flags)


def test_json_of_the_environment_also_shapes_errors_in_the_settings(stage: Stage) -> None:
    done = stage.run(*ARTICLES, "--delay", "-1", env={"EMBEDMIGRATE_JSON": "1"})
    assert refusal(done)["code"] == "setting_invalid"


@pytest.mark.parametrize("args", [("--bogus",), ("--provider", "acme")], ids=["flag", "value"])
def test_usage_errors_end_with_2_and_say_what_is_wrong(stage: Stage, args: tuple[str]) -> None:
    done = stage.run(*args)
    assert done.returncode == 2
    assert args[-1] in done.stderr
    error = refusal(stage.run(*args, "--json"))
    assert (error["code"], error["exit_code"]) == ("usage", 2)
    assert args[-1] in error["message"]
    assert "--help" in error["hint"]


def _errors_in_the_package() -> Iterator[tuple[str, ast.Call]]:
    """Every place that makes one of our errors and gives it a code."""
    for path in sorted((ROOT / "embedmigrate").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if isinstance(vars(errors).get(node.func.id), type):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_error_has_a_code_and_a_hint() -> None:
    """What the engine retries or isolates gets its hint from its class, or ends as a row's code."""
    without = []
    for place, call in _errors_in_the_package():
        kind = vars(errors)[ast.unparse(call.func)]
        if not issubclass(kind, errors.EmbedMigrateError):
            continue
        if issubclass(kind, errors.TransientError | errors.RejectedInput):
            continue
        given = {keyword.arg for keyword in call.keywords}
        if not {"code", "hint"} <= given:
            without.append(f"{place} {ast.unparse(call)[:60]}")
    assert without == []


def test_every_flag_in_the_package_exists(flags: set[str]) -> None:
    for path in (ROOT / "embedmigrate").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            # A word by itself is an argument for another program.
            if node not in docstrings and " " in node.value:
                named = set(FLAG.findall(node.value))
                assert named <= flags | FOREIGN_FLAGS, f"{path}:{node.lineno}"


# What the state directory can hold


def _state(stage: Stage, **changes: Any) -> RunState:
    """The state of an ended run over `articles`, as the tool itself would have saved it."""
    words: dict[str, Any] = {
        "run_id": "7f3c9a",
        "job_id": "emb-job-1",
        "state": "stopped",
        "pid": 1,
        "host": "ops1",
        "user": "app",
        "started_at": "2026-09-22T02:00:01.000Z",
        "updated_at": "2026-09-22T02:00:02.000Z",
        "fingerprint": {"model": "openai/text-embedding-ada-002"},
        "selection": {},
        "target": {"table": "public.articles", "vector_column": "embedding", "where": "db"},
        "model": {"provider": "openai", "name": "text-embedding-ada-002", "dimensions": 1536},
        "command": "embedmigrate generate-all",
    }
    return RunState(**words | changes)


def _put(stage: Stage, content: bytes) -> Path:
    stage.cli.state_dir.mkdir(mode=0o700)
    name = job_name(stage.world.urls["writer"], "articles", "embedding")
    path = stage.cli.state_dir / f"{name}.json"
    path.write_bytes(content)
    return path


def _newer(state: bytes) -> bytes:
    return state.replace(b'"version": 1', b'"version": 99')


STATES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "truncated": (lambda state: state[:100], "checkpoint_corrupt", "it is not JSON"),
    "empty": (lambda _: b"", "checkpoint_corrupt", "is damaged"),
    "edited": (
        lambda state: state.replace(b"ops1", b"ops2"),
        "checkpoint_corrupt",
        "its checksum does not match",
    ),
    "foreign": (lambda _: b'{"hello": 1}', "checkpoint_foreign", "not written by embedmigrate"),
    "list": (lambda _: b"[1]", "checkpoint_foreign", "not written by embedmigrate"),
    "newer": (_newer, "checkpoint_newer", "a newer embedmigrate (format 99"),
    "other-model": (
        lambda state: state,
        "checkpoint_mismatch",
        "model: openai/text-embedding-ada-002 -> openai/text-embedding-3-small",
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_state_that_cannot_be_used(stage: Stage, flags: set[str], kind: str) -> None:
    change, code, word = STATES[kind]
    path = _put(stage, content := change(_state(stage).encode()))
    error = refusal(stage.run(*ARTICLES, "--json"))
    assert (error["code"], error["exit_code"]) == (code, 13)
    assert word in " ".join([error["message"], *error["facts"]])
    assert "--restart" in error["hint"]
    assert_names_what_exists(error["hint"], flags)
    assert path.read_bytes() == content, "what cannot be used is kept as it is"


def test_state_that_cannot_be_used_is_refused_by_the_others_too(stage: Stage) -> None:
    path = _put(stage, b'{"hello": 1}')
    dry = stage.run(*ARTICLES, "--dry-run", "--json")
    assert (dry.returncode, failed_checks(dry)) == (13, {"checkpoint": "checkpoint_foreign"})
    for command in ("status", "stop"):
        done = stage.run("--table", "articles", command=command)
        assert done.returncode == 13
        assert f"error: {path} was not written by embedmigrate" in done.stderr


def test_damaged_error_report(stage: Stage, flags: set[str]) -> None:
    stage.cli.state_dir.mkdir(mode=0o700)
    (stage.cli.state_dir / "abc123.errors.jsonl").write_bytes(b'{"id": "1"}\n{"id": "2\xff')
    error = refusal(stage.run(*ARTICLES, "--retry-failed", "abc123", "--json"))
    assert (error["code"], error["exit_code"]) == ("report_corrupt", 13)
    assert_names_what_exists(error["hint"], flags)


def test_lock_file_that_leads_elsewhere(stage: Stage) -> None:
    path = _put(stage, _state(stage).encode())
    path.with_suffix(".lock").symlink_to(stage.files / "elsewhere")
    done = stage.run(*ARTICLES)
    assert done.returncode == 13
    assert "error: the state directory" in done.stderr
    assert not (stage.files / "elsewhere").exists()


# Another run


@pytest.fixture
def articles(stage: Stage) -> Iterator[psycopg.Connection[Any]]:
    """For tests that get as far as writing; the table is as before when they end."""
    connection = stage.world.database.connect()
    yield connection
    connection.execute("UPDATE articles SET embedding = NULL")


def embedded(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(embedding) FROM articles").fetchone()
    assert row is not None
    return int(row[0])


def test_another_run_is_alive(stage: Stage, articles: psycopg.Connection[Any]) -> None:
    stage.provider.hang = threading.Event()
    first = stage.cli.start("generate-all", *ARTICLES, "--json", env=stage.environment())
    stage.provider.wait_for_arrivals(1, timeout=20)
    assert first.stdout is not None
    run_id = json.loads(first.stdout.readline())["run_id"]
    began = time.monotonic()
    plan = stage.run(*ARTICLES, "--dry-run")
    usual = time.monotonic() - began
    assert plan.returncode == 0
    assert "a run is working on this target now" in plan.stdout
    elsewhere = ("--state-dir", str(stage.cli.folder / "elsewhere"))
    for args, detail in ((), "pid"), (elsewhere, "embedmigrate"):
        began = time.monotonic()
        done = stage.run(*ARTICLES, *args, "--json")
        error = refusal(done)
        assert time.monotonic() - began < 2 * usual + 2, "it waits although nobody asked it to"
        assert (error["code"], error["exit_code"]) == ("lock_held", 11)
        assert error["message"] == "another run is working on public.articles.embedding"
        assert run_id in error["facts"][0]
        assert detail in error["facts"][0]
        assert error["details"]["run_id"] == run_id
        assert "--lock-timeout" in error["hint"]
    assert stage.provider.arrived == 1
    stage.provider.hang.set()
    assert first.wait(timeout=20) == 0
    assert embedded(articles) == ROWS


# Providers that refuse


def _echo(status: int, code: str, **headers: str) -> Reply:
    """An error that quotes the text and the key, as providers do."""
    body = openai_error(f"'{TEXT} 1' was refused for Bearer {KEY}", "error", code)
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass(frozen=True)
class Answer:
    """What the provider always answers, and how the run ends for it."""

    reply: Reply
    exit: int
    code: str
    words: str
    hint: str
    requests: int = 1


ANSWERS = {
    "401": Answer(
        _echo(401, "invalid_api_key"),
        7,
        "api_key_rejected",
        "rejected the API key (HTTP 401, invalid_api_key)",
        "--probe",
    ),
    "403": Answer(_echo(403, "forbidden"), 7, "api_key_rejected", "HTTP 403", "--probe"),
    "404": Answer(
        _echo(404, "model_not_found"), 7, "model_not_found", "does not know the model", "--model"
    ),
    "quota": Answer(
        _echo(429, "insufficient_quota", retry_after="1"),
        7,
        "quota_exhausted",
        "no remaining credit (insufficient_quota)",
        "run the same command again",
    ),
    "429": Answer(
        _echo(429, "rate_limit_exceeded", retry_after="0.6"),
        5,
        "rate_limited",
        "rate limit (HTTP 429, rate_limit_exceeded)",
        "--tpm",
        requests=0,
    ),
    "500": Answer(_echo(500, "server_error"), 5, "provider_error", "HTTP 500", "again", requests=0),
    "garbage": Answer(
        Reply(200, f"<html>{TEXT}</html>"), 7, "bad_reply", "", "--base-url", requests=0
    ),
}


def refused_run(done: Completed) -> dict[str, Any]:
    """As `refusal`, of a run that had begun."""
    error = refusal(done)
    summary = objects(done.stdout)[-1]
    assert (summary["state"], summary["rows_embedded"]) == ("failed", 0)
    assert summary["next_command"].startswith("embedmigrate generate-all --table articles")
    return error


@pytest.mark.parametrize("kind", ANSWERS)
def test_provider_refuses(
    stage: Stage, flags: set[str], articles: psycopg.Connection[Any], kind: str
) -> None:
    answer = ANSWERS[kind]
    stage.provider.script.extend([answer.reply] * 50)
    done = stage.run(*ARTICLES, *IMPATIENT, "--json", spent=None)
    error = refused_run(done)
    assert (error["code"], error["exit_code"]) == (answer.code, answer.exit)
    assert answer.words in error["message"]
    assert answer.hint in error["hint"]
    assert_names_what_exists(f"{error['message']} {error['hint']}", flags)
    sent = len(stage.provider.requests)
    assert sent == answer.requests or (not answer.requests and sent > 1)
    assert embedded(articles) == 0
    if answer.code == "api_key_rejected":
        assert error["facts"] == [f"Key sk-...{KEY[-4:]} from OPENAI_API_KEY."]


def test_provider_refuses_in_words(stage: Stage, articles: psycopg.Connection[Any]) -> None:
    stage.provider.key = "sk-another"
    done = stage.run(*ARTICLES, "-vv", spent=1)
    assert done.returncode == 7
    assert "rejected the API key (HTTP 401, invalid_api_key)" in done.stderr
    assert f"Key sk-...{KEY[-4:]} from OPENAI_API_KEY." in done.stderr
    assert "  hint: check the key" in done.stderr
    assert embedded(articles) == 0


def test_redirects_are_not_followed(stage: Stage) -> None:
    with Provider() as other:
        location = {"location": f"http://me:{PASSWORD}@127.0.0.1:{other.port}/v1/embeddings"}
        stage.provider.script.append(Reply(307, b"", location))
        done = stage.run(*ARTICLES, "--json", spent=1)
        assert other.arrived == 0
    error = refused_run(done)
    assert (error["code"], error["exit_code"]) == ("redirect_refused", 7)
    assert f"127.0.0.1:{other.port}" in error["message"]
    assert "--base-url" in error["hint"]


def test_nobody_listens_at_the_provider(stage: Stage) -> None:
    url = f"http://127.0.0.1:{stage.closed_port}/v1"
    done = stage.run(*ARTICLES, *IMPATIENT, "--base-url", url, "--json")
    error = refused_run(done)
    assert (error["code"], error["exit_code"]) == ("provider_unreachable", 5)
    assert f"127.0.0.1:{stage.closed_port} cannot be reached" in error["message"]
    assert "--base-url" in error["hint"]


def test_provider_that_never_answers(stage: Stage) -> None:
    stage.provider.hang = threading.Event()
    done = stage.run(*ARTICLES, *IMPATIENT, "--request-timeout", "300ms", "--json", spent=None)
    error = refused_run(done)
    assert (error["code"], error["exit_code"]) == ("provider_timeout", 5)
    assert "did not answer within 0.3 s" in error["message"]


def test_vectors_of_another_width(stage: Stage, articles: psycopg.Connection[Any]) -> None:
    stage.provider.dimensions = 3
    model = ("--model", "acme-embed", "--max-cost", "1", "--price", "0.1")
    error = refused_run(stage.run(*ARTICLES, *model, "--json", spent=1))
    assert (error["code"], error["exit_code"]) == ("dimension_mismatch", 10)
    assert "vectors of 3 dimensions, 1536 were expected" in error["message"]
    assert embedded(articles) == 0


@pytest.mark.parametrize(("rows", "code"), [(ROWS, 3), (25, 7)])
def test_all_rows_failing_is_never_success(
    stage: Stage, articles: psycopg.Connection[Any], rows: int, code: int
) -> None:
    articles.execute(
        "INSERT INTO articles SELECT n, %s || n FROM generate_series(%s::int + 1, %s) n",
        (f"{TEXT} ", ROWS, rows),
    )
    stage.provider.reject = lambda text: "xylophone" in text
    done = stage.run(*ARTICLES, "--json", spent=None)
    articles.execute("DELETE FROM articles WHERE id > %s", (ROWS,))
    assert done.returncode == code
    summary = objects(done.stdout)[-1]
    assert (summary["ok"], summary["exit_code"]) == (False, code)
    assert set(summary["errors_by_code"]) <= {"input_rejected"}
    assert embedded(articles) == 0
    report = stage.cli.state_dir / f"{summary['run_id']}.errors.jsonl"
    assert {json.loads(line)["code"] for line in report.read_text().splitlines()} == {
        "input_rejected"
    }


# What is not refused


@pytest.mark.parametrize(
    "extra",
    [
        ("--detailed-exitcode",),
        ("--force", "--yes"),
        ("--resume-from", "3"),
        ("--restart", "--max-cost", "5", "--limit", "2"),
    ],
    ids=" ".join,
)
def test_dry_run_of_a_role_that_may_only_read(stage: Stage, extra: tuple[str, ...]) -> None:
    role = psycopg.conninfo.conninfo_to_dict(stage.world.urls["reader"])["user"]
    connection = stage.world.database.connect()
    alter = sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on")
    connection.execute(alter.format(sql.Identifier(str(role))))
    before = sorted(stage.cli.folder.rglob("*"))
    env: dict[str, str | None] = {"DATABASE_URL": stage.world.urls["reader"]}
    done = stage.run(*ARTICLES, *extra, "--dry-run", "--json", env=env)
    assert done.returncode == (4 if extra == ("--detailed-exitcode",) else 0)
    (plan,) = objects(done.stdout)
    privileges = next(c for c in plan["checks"] if c["name"] == "privileges")
    assert (privileges["status"], privileges["code"]) == ("warning", "privilege_missing")
    assert plan["plan"]["rows_selected"] > 0
    assert plan["pending"]
    assert done.stderr == ""
    assert sorted(stage.cli.folder.rglob("*")) == before, "a dry run leaves no file"
    assert embedded(connection) == 0


def test_dry_run_lists_all_failures_at_once(stage: Stage, flags: set[str]) -> None:
    _put(stage, b"{")
    env: dict[str, str | None] = {"DATABASE_URL": stage.world.urls["nobody"]}
    args = (*ARTICLES, "--model", "text-embedding-3-large", "--max-cost", "0.0000001")
    none: dict[str, str | None] = {"OPENAI_API_KEY": f"{KEY}\n"}
    done = stage.run(*args, "--dry-run", "--json", env=env | none)
    assert failed_checks(done) == {
        "model": "dimension_mismatch",
        "privileges": "privilege_missing",
        "credentials": "api_key_malformed",
        "checkpoint": "checkpoint_corrupt",
        "plan": "privilege_missing",
    }
    assert done.returncode == 10
    words = stage.run(*args, "--dry-run", env=env | none)
    assert words.returncode == 10
    assert words.stdout.count("  failed  ") == 5
    assert words.stdout.count("hint: ") == 5
    assert_names_what_exists(words.stdout, flags)


def test_force_without_a_terminal_needs_no_further_flag(
    stage: Stage, articles: psycopg.Connection[Any]
) -> None:
    assert stage.run(*ARTICLES, "-q", spent=1).returncode == 0
    done = stage.run(*ARTICLES, "--force", "-q", spent=2)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert embedded(articles) == ROWS


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgres"])
def test_schemes_of_other_libraries_are_taken(stage: Stage, scheme: str) -> None:
    url = stage.world.urls["writer"].replace("postgresql", scheme, 1)
    done = stage.run(*ARTICLES, "--dry-run", env={"DATABASE_URL": url})
    assert done.returncode == 0
    assert "ok      connect" in done.stdout
