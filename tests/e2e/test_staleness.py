"""Which rows are stale, where the columns' precision and zone differ and a trigger stamps both."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.provider import Provider
    from tests.servers import Database

ROWS = 40


@pytest.mark.parametrize(
    ("row_time", "vector_time"),
    [
        ("timestamptz", "timestamp(3)"),
        ("timestamp", "timestamptz(0)"),
        ("timestamp(3)", "timestamp(0)"),
        ("timestamptz", "timestamptz"),
    ],
)
def test_a_row_is_stale_when_it_was_edited_and_not_by_a_rounding_or_a_zone(
    database: "Database",
    provider: "Provider",
    cli: "CommandLine",
    row_time: str,
    vector_time: str,
) -> None:
    zoned = row_time.startswith("timestamptz")
    stamp = "now()" if zoned else "(now() AT TIME ZONE 'UTC')"
    provider.dimensions = 8
    with database.connect() as connection:
        connection.execute(f"ALTER DATABASE \"{database.name}\" SET timezone = 'Asia/Kathmandu'")
        connection.execute(
            f"CREATE TABLE docs (id int PRIMARY KEY, body text, embedding vector(8),"
            f" changed {row_time} NOT NULL DEFAULT {stamp}, embedding_updated_at {vector_time});"
            f"INSERT INTO docs (id, body) SELECT i, 'text ' || i FROM generate_series(1, {ROWS}) i;"
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN NEW.changed := {stamp}; RETURN NEW; END $$;"
            "CREATE TRIGGER stamp BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION stamp()"
        )
    options = ["--table", "docs", "--text-column", "body", "--model", "small"]
    options += ["--row-updated-at-column", "changed"]
    env = {"DATABASE_URL": database.url, "OPENAI_BASE_URL": provider.url}
    assert cli("generate-all", *options, env=env).returncode == 0
    assert cli("generate-all", *options, env=env).returncode == 0
    assert sum(provider.texts_sent.values()) == ROWS

    with database.connect() as connection:
        connection.execute("SELECT pg_sleep(1.1)")
        connection.execute("UPDATE docs SET body = 'edited' WHERE id = 7")
    assert cli("generate-all", *options, env=env).returncode == 0
    assert provider.texts_sent["edited"] == 1
    assert sum(provider.texts_sent.values()) == ROWS + 1
