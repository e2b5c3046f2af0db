"""A live index or a trigger is named before a run, with what it makes of this very run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests import tables
from tests.e2e.jobs import Job, ok
from tests.schemas import validate

if TYPE_CHECKING:
    from tests.tables import Session

ROWS = 20_000
HNSW = "CREATE INDEX near ON {} USING hnsw (embedding vector_cosine_ops)"
TRIGGER = (
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON {}"
    " FOR EACH ROW EXECUTE FUNCTION touch()"
)


@pytest.fixture(params=["articles", "article_vectors"])
def table(request: pytest.FixtureRequest) -> str:
    """Where the vectors go: into the row, or into a side table."""
    return str(request.param)


@pytest.fixture
def wide(job: Job, session: Session, table: str) -> Job:
    """Twenty thousand rows to fill with 1,536 dimensions."""
    tables.articles(session, 0, width=1536)
    session.execute(
        "INSERT INTO articles (id, title, body) SELECT n, '', 'Text ' || n"
        " FROM generate_series(1, %s) n",
        (ROWS,),
    )
    if table == "articles":
        return dataclasses.replace(job, dimensions=None)
    side = ("--side-table", table)
    ddl = ("init", "--sql", "--table", "articles", *side, "--dimensions", "1536")
    session.execute(ok(job.cli(*ddl, env=job.env)).stdout.encode())
    return dataclasses.replace(job, dimensions=None, options=(*job.options, *side))


def previewed(job: Job) -> tuple[dict[str, str], dict[str, Any]]:
    """The messages of the checks by name, and the plan."""
    document = validate(ok(job.run("--dry-run", "--json")).stdout)
    return {c["name"]: c["message"] for c in document["checks"]}, document["plan"]


def test_the_expected_time_is_that_of_the_index(wide: Job, session: Session, table: str) -> None:
    checks, plan = previewed(wide)
    assert plan["bound_by"] == "latency"
    assert "live_index" not in checks
    usual = plan["estimated_seconds"]

    session.execute(HNSW.format(table).encode())
    checks, plan = previewed(wide)

    assert plan["bound_by"] == "index"
    assert plan["estimated_seconds"] > 10 * usual
    assert checks["live_index"] == (
        "hnsw index near is live: 20,000 rows take about 51 s to about 3 min with it instead of "
        "about 8 s; drop it and build it again afterwards"
    )
    said = ok(wide.run("--dry-run")).stdout
    assert "about 3 min (bound by index)" in said


def test_an_index_that_costs_little_is_not_made_much_of(
    wide: Job, session: Session, table: str
) -> None:
    command = "CREATE INDEX near ON {} USING ivfflat (embedding vector_l2_ops) WITH (lists = {})"
    session.execute(command.format(table, 10).encode())
    checks, plan = previewed(wide)
    assert plan["bound_by"] == "latency"
    assert "does not make this run slower" in checks["live_index"]
    session.execute("DROP INDEX near; SET maintenance_work_mem = '400MB'")
    session.execute(command.format(table, 2000).encode())
    checks, plan = previewed(wide)
    assert plan["bound_by"] == "index"
    assert "20,000 rows take about 22 s with it" in checks["live_index"]


def test_a_row_trigger_is_named_before_the_run(wide: Job, session: Session, table: str) -> None:
    session.execute(TRIGGER.format(table).encode())
    checks, _ = previewed(wide)
    assert "row trigger touch fires for every vector written" in checks["row_trigger"]
    done = ok(wide.run("--provider", "hash", "--limit", "1500"))
    assert "code=row_trigger" in done.stderr
    assert "1 s more for 1,500 rows" in done.stderr
