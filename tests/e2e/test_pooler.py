"""A transaction pooler in between: no session state, no prepared statement, the same result."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import CommandLine
from tests.provider import Provider, vector_of
from tests.servers import Database

pytestmark = pytest.mark.skipif(
    shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"
)
ROWS = 300


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def pooled_url(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PgBouncer in transaction mode in front of the test's database."""
    parts = urlsplit(database.url)
    words = {key: values[0] for key, values in parse_qs(parts.query).items()}
    host, port = words.get("host", parts.hostname), words.get("port", parts.port)
    folder = Path(f"/tmp/embedmigrate-pooler-{_free_port()}")  # noqa: S108  another user must enter
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    listen = _free_port()
    (folder / "pgbouncer.ini").write_text(
        "[databases]\n"
        f"{database.name} = host={host} port={port} dbname={database.name} user=postgres\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nlogfile = {folder}/log\n"
    )
    command = ["pgbouncer", "-u", "nobody", str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", listen), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"postgresql://postgres@127.0.0.1:{listen}/{database.name}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def test_a_run_through_a_transaction_pooler_is_complete_and_says_what_does_not_hold(
    database: Database, provider: Provider, cli: CommandLine, pooled_url: str
) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, embedding vector(8))")
        connection.execute(
            "INSERT INTO docs SELECT i, 'text ' || i FROM generate_series(1, %s) i", (ROWS,)
        )
    provider.dimensions = 8
    env = {
        "DATABASE_URL": pooled_url,
        "OPENAI_BASE_URL": provider.url,
        "EMBEDMIGRATE_TABLE": "docs",
        "EMBEDMIGRATE_TEXT_COLUMN": "body",
        "EMBEDMIGRATE_MODEL": "small",
    }
    done = cli("generate-all", "--batch-size", "20", env=env)
    assert done.returncode == 0, done.stderr
    assert "code=no_database_lock" in done.stderr
    with database.connect() as connection:
        rows = connection.execute("SELECT body, embedding::text FROM docs").fetchall()
    assert len(rows) == ROWS
    for body, vector in rows:
        stored = [float(x) for x in vector.strip("[]").split(",")]
        assert stored == pytest.approx(vector_of(body, 8).tolist(), abs=1e-6)
    quiet = cli("generate-all", "--pooler", "-q", "--force", env=env)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
