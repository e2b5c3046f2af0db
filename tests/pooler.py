"""PgBouncer from Debian's package, in transaction mode."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest
from urllib.parse import parse_qs, urlsplit

from tests.servers import Database, _free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def pooled(database: Database, size: int = 2) -> Iterator[Database]:
    """The same database through a pool of so many server connections.

    Raises:
        SkipTest: It is not installed.
    """
    if shutil.which("pgbouncer") is None:
        raise SkipTest("pgbouncer is not installed: apt-get install pgbouncer")
    parts = urlsplit(database.url)
    words = {key: values[0] for key, values in parse_qs(parts.query).items()}
    host, port = words.get("host", parts.hostname), words.get("port", parts.port)
    folder = Path(tempfile.mkdtemp(prefix="embedmigrate-pooler-"))
    folder.chmod(0o777)  # it becomes another user, who must enter
    listen = _free_port()
    (folder / "pgbouncer.ini").write_text(
        "[databases]\n"
        f"{database.name} = host={host} port={port} dbname={database.name} user=postgres\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\n"
        f"default_pool_size = {size}\nlogfile = {folder}/log\n"
    )
    command = ["pgbouncer", "-u", "nobody", str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(listen)
        url = f"postgresql://postgres@127.0.0.1:{listen}/{database.name}"
        yield Database(database.name, url, database.server)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise TimeoutError("PgBouncer does not listen")
