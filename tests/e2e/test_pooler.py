"""A transaction pooler in between: no session state, no prepared statement, the same result."""

import shutil

import pytest

from tests.conftest import CommandLine
from tests.pooler import pooled
from tests.provider import Provider, vector_of
from tests.servers import Database

pytestmark = pytest.mark.skipif(
    shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"
)
ROWS = 300


def test_a_run_through_a_transaction_pooler_is_complete_and_says_what_does_not_hold(
    database: Database, provider: Provider, cli: CommandLine
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, embedding vector(8))")
        connection.execute(
            "INSERT INTO docs SELECT i, 'text ' || i FROM generate_series(1, %s) i", (ROWS,)
        )
    provider.dimensions = 8
    env = {
        "OPENAI_BASE_URL": provider.url,
        "EMBEDMIGRATE_TABLE": "docs",
        "EMBEDMIGRATE_TEXT_COLUMN": "body",
        "EMBEDMIGRATE_MODEL": "small",
    }
    with pooled(database) as through:
        env["DATABASE_URL"] = through.url
        done = cli("generate-all", "--batch-size", "20", env=env)
        quiet = cli("generate-all", "--pooler", "-q", "--force", env=env)
    assert done.returncode == 0, done.stderr
    assert "code=no_database_lock" in done.stderr
    with database.connect() as connection:
        rows = connection.execute("SELECT body, embedding::text FROM docs").fetchall()
    assert len(rows) == ROWS
    for body, vector in rows:
        stored = [float(x) for x in vector.strip("[]").split(",")]
        assert stored == pytest.approx(vector_of(body, 8).tolist(), abs=1e-6)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
