"""`init` finds what a database has and says what it lacks, in a file and in SQL that both work."""

from __future__ import annotations

import json
import re
import secrets
import tomllib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.schemas import validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import CommandLine, Completed
    from tests.servers import Database, PostgresServer

STRANGE = 'Odd "na.me"\n-- DROP'


class Init:
    """`init` in one database, and what may follow it."""

    def __init__(self, cli: CommandLine, url: str) -> None:
        self.cli = cli
        self.env = {"DATABASE_URL": url, "OPENAI_API_KEY": "sk-not-used-by-any-dry-run"}

    def __call__(self, *args: str, exit_code: int = 0) -> Completed:
        done = self.cli("init", *args, env=self.env)
        assert done.returncode == exit_code, done
        assert "Traceback" not in done.stderr
        return done

    def jobs(self, *args: str) -> dict[str, Any]:
        """Writes the file anew; its jobs."""
        self("--overwrite", *args)
        found: dict[str, Any] = tomllib.loads(self.file.read_text("utf-8"))["jobs"]
        return found

    def dry_run(self, job: str) -> dict[str, Any]:
        done = self.cli("generate-all", "--job", job, "--dry-run", "--json", env=self.env)
        plan: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == plan["exit_code"] == 0, done
        return plan

    @property
    def file(self) -> Path:
        return self.cli.folder / "embedmigrate.toml"


@pytest.fixture
def init(cli: CommandLine, database: Database) -> Init:
    return Init(cli, database.url)


@pytest.fixture
def bare(postgres: PostgresServer) -> Iterator[str]:
    """A database without the extension."""
    name = f"embedmigrate_bare_{secrets.token_hex(4)}"
    postgres.create_database(name)
    yield postgres.dsn(name)
    postgres.drop_database(name)


def run(url: str, script: str) -> None:
    """Statement by statement, as psql does it, in autocommit."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in re.split(r";\s*$", script, flags=re.MULTILINE):
            connection.execute(statement.encode())


def commented(script: str) -> str:
    """The statements that stand in comments; prose has no semicolon at its end."""
    lines = [line.removeprefix("-- ") for line in script.splitlines() if line.startswith("-- ")]
    return "\n".join(line for line in lines if re.match(r"(CREATE|ALTER).*;$", line))


def test_a_proposed_job_runs(init: Init, database: Database) -> None:
    run(
        database.url,
        "CREATE TABLE articles (id bigint PRIMARY KEY, slug text, title text, body text,"
        " password_hash text, updated_at timestamptz, embedding vector(1536),"
        " embedding_updated_at timestamptz);"
        "INSERT INTO articles (id, body) SELECT g, 'text ' || g FROM generate_series(1, 20) g;",
    )
    done = init()
    assert "[jobs.articles] public.articles" in done.stdout
    assert done.stdout.endswith("Next: embedmigrate generate-all --job articles --dry-run\n")
    text = init.file.read_text("utf-8")
    assert tomllib.loads(text)["jobs"] == {
        "articles": {
            "table": "public.articles",
            "text_column": ["body"],
            "vector_column": "embedding",
            "updated_at_column": "embedding_updated_at",
            "row_updated_at_column": "updated_at",
        }
    }
    assert "DATABASE_URL" in text
    assert "text could also be: title" in text
    assert "hash" not in text
    assert init.dry_run("articles")["plan"]["rows_selected"] == 20


@pytest.mark.parametrize(
    ("kind", "expected", "runs"),
    [
        ("vector(1536)", {}, True),
        ("vector(3072)", {"model": "text-embedding-3-large"}, True),
        ("halfvec(2000)", {"model": "text-embedding-3-large", "dimensions": 2000}, True),
        ("vector(256)", {"dimensions": 256}, True),
        ("vector(4096)", {}, False),
        ("vector", {}, False),
    ],
)
def test_the_model_fits_the_width(
    init: Init, database: Database, kind: str, expected: dict[str, Any], *, runs: bool
) -> None:
    run(database.url, f"CREATE TABLE a (id int PRIMARY KEY, body text, e {kind});")
    done = init("--json")
    answer = validate(done.stdout)
    settings = answer["jobs"][0]["settings"]
    assert {k: v for k, v in settings.items() if k in {"model", "dimensions"}} == expected
    assert bool(answer["jobs"][0]["problems"]) is not runs
    assert (answer["next_command"] is not None) is runs
    if runs:
        init.dry_run("a")
    else:
        assert "# cannot run yet: " in init.file.read_text("utf-8")


def test_names_are_quoted_in_the_file_and_in_sql(init: Init, database: Database) -> None:
    name = STRANGE.replace('"', '""')
    run(
        database.url,
        f'CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."{name}" ("tenantId" int,'
        ' "Id" uuid, "jobDescription" text, "updatedAt" timestamp(3), "Vec\'tor" vector(8),'
        ' PRIMARY KEY ("tenantId", "Id")); CREATE TABLE "order" (id int PRIMARY KEY, "a""b" text)',
    )
    run(database.url, init("--sql").stdout)
    run(database.url, init("--sql", "--table", "order", "--dimensions", "8").stdout)
    jobs = init.jobs()
    assert jobs["Odd_na_me_--_DROP"] == {
        "table": f'My Schema."{name}"',
        "text_column": ["jobDescription"],
        "vector_column": "Vec'tor",
        "updated_at_column": "Vec'tor_updated_at",
        "dimensions": 8,
    }
    assert jobs["order"]["text_column"] == ['a"b']
    plan = init.dry_run("Odd_na_me_--_DROP")
    assert plan["target"]["primary_key"] == ["tenantId", "Id"]
    init.dry_run("order")


def test_from_a_database_without_the_extension(cli: CommandLine, bare: str) -> None:
    init = Init(cli, bare)
    run(bare, "CREATE TABLE articles (id int PRIMARY KEY, body text); CREATE TABLE n (n int);")
    refused = init(exit_code=10)
    assert "no table in database" in refused.stderr
    assert "pgvector is not installed" in refused.stderr
    assert "Likely tables: public.articles." in refused.stderr
    assert "hint: embedmigrate init --sql --table public.articles" in refused.stderr
    assert not init.file.exists()

    unnamed = init("--sql").stdout
    assert "-- embedmigrate init --sql --table public.articles" in unnamed
    script = init("--sql", "--table", "public.articles").stdout
    assert "CREATE EXTENSION IF NOT EXISTS vector;" in script
    with psycopg.connect(bare) as connection:  # nothing was executed
        assert connection.execute("SELECT to_regtype('vector')").fetchone() == (None,)

    for printed in (unnamed, script, script, commented(script)):
        run(bare, printed)
    assert init.jobs()["articles"]["updated_at_column"] == "embedding_updated_at"
    init.dry_run("articles")
    again = init("--sql").stdout
    assert "It has its vector and its timestamp column." in again
    assert "It has a vector index (hnsw)" in again


@pytest.mark.parametrize("width", ["1536", "3072", "4000", "4001"])
def test_partitions_are_indexed_without_blocking(
    init: Init, database: Database, width: str
) -> None:
    run(
        database.url,
        "CREATE TABLE event (id int, day date, content text, PRIMARY KEY (id, day))"
        " PARTITION BY RANGE (day);"
        "CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        "CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');",
    )
    options = ("--sql", "--table", "event", "--dimensions", width)
    script = init(*options).stdout
    assert validate(init(*options, "--json").stdout)["sql"] == script.rstrip("\n")
    run(database.url, script)
    run(database.url, commented(script))
    jobs = init.jobs()
    assert list(jobs) == ["event"]
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE relispartition) FROM pg_class c"
            " JOIN pg_am m ON m.oid = c.relam WHERE m.amname = 'hnsw' AND relkind IN ('i', 'I')"
        ).fetchone()
    assert rows == ((0, 0) if width == "4001" else (3, 2))
    if width < "4":  # no model that is known gives more
        assert init.dry_run("event")["target"]["primary_key"] == ["id", "day"]


def test_a_wide_vector_is_indexed_as_halfvec(init: Init, database: Database) -> None:
    run(database.url, "CREATE TABLE a (id int PRIMARY KEY, body text, e vector(3072));")
    script = init("--sql").stdout
    assert 'USING hnsw (("e"::halfvec(3072)) halfvec_cosine_ops);' in script
    run(database.url, script)
    run(database.url, commented(script))
    assert "It has a vector index (hnsw)" in init("--sql").stdout


def test_types_are_qualified_where_the_search_path_misses_them(cli: CommandLine, bare: str) -> None:
    run(
        bare,
        'CREATE SCHEMA "Ext"; CREATE EXTENSION vector SCHEMA "Ext";'
        "CREATE TABLE a (id int PRIMARY KEY, body text);",
    )
    init = Init(cli, bare)
    script = init("--sql", "--table", "a", "--dimensions", "2500").stdout
    assert '"embedding" "Ext".halfvec(2500)' in script
    run(bare, script)
    run(bare, commented(script))
    assert init.jobs()["a"]["dimensions"] == 2500
    init.dry_run("a")


def test_a_column_of_that_name_is_left_alone(init: Init, database: Database) -> None:
    run(database.url, "CREATE TABLE a (id int PRIMARY KEY, body text, embedding float8[]);")
    run(database.url, init("--sql", "--table", "a").stdout)
    assert init.jobs()["a"]["vector_column"] == "embedding_vector"
    init.dry_run("a")


def test_what_makes_a_table_unfit_is_said(init: Init, database: Database) -> None:
    run(database.url, "CREATE TABLE a (n int, embedding vector(1536));")
    done = init()
    assert "warning: job a cannot run yet: it has neither a primary key" in done.stderr
    assert "warning: job a cannot run yet: no column looks like text" in done.stderr
    assert "Next:" not in done.stdout
    run(database.url, init("--sql").stdout)


def test_a_unique_index_stands_in_for_the_primary_key(init: Init, database: Database) -> None:
    columns = "x text NOT NULL, y int NOT NULL UNIQUE, z int UNIQUE, embedding vector(1536)"
    run(database.url, f"CREATE TABLE a ({columns}, body text, UNIQUE (x, y));")
    assert init.jobs()["a"]["key_column"] == ["y"]
    init.dry_run("a")


def test_every_vector_column_has_its_job_and_its_time(init: Init, database: Database) -> None:
    run(
        database.url,
        "CREATE SCHEMA other; CREATE TABLE other.a (id int PRIMARY KEY, e vector(1536), t text);"
        "CREATE TABLE a (id int PRIMARY KEY, data jsonb, embedding vector(1536),"
        " v2 halfvec(1536), embedding_updated_at timestamptz, updated_at timestamptz);",
    )
    jobs = init.jobs()
    assert list(jobs) == ["other_a", "public_a", "public_a_v2"]
    # Without a time of its own v2 would stamp the other's, and hide what is stale there.
    assert "row_updated_at_column" not in jobs["public_a"]
    assert "updated_at_column" not in jobs["public_a_v2"]
    run(database.url, init("--sql").stdout)
    jobs = init.jobs()
    assert jobs["public_a"]["row_updated_at_column"] == "updated_at"
    assert jobs["public_a_v2"]["updated_at_column"] == "v2_updated_at"
    for job in jobs:
        init.dry_run(job)
    assert list(init.jobs("--table", "other.a")) == ["a"]


def test_times_of_two_kinds_are_not_compared(init: Init, database: Database) -> None:
    columns = '"updatedAt" timestamp(3), embedding vector(1536), embedding_updated_at timestamptz'
    run(database.url, f"CREATE TABLE a (id int PRIMARY KEY, body text, {columns});")
    assert "row_updated_at_column" not in init.jobs()["a"]
    assert '# row_updated_at_column = "updatedAt" would find' in init.file.read_text("utf-8")


def test_a_model_of_the_settings_is_left_in_place(init: Init, database: Database) -> None:
    run(database.url, "CREATE TABLE a (id int PRIMARY KEY, body text, e vector(256));")
    init.env["EMBEDMIGRATE_PROVIDER"] = "local"
    assert "dimensions" not in init.jobs()["a"]
    init.dry_run("a")


def test_the_table_that_is_named_has_to_be_there(init: Init) -> None:
    assert 'table "public.nope" does not exist' in init("--table", "nope", exit_code=10).stderr
    assert "16,000 at most" in init("--sql", "--dimensions", "16001", exit_code=2).stderr
