"""`embedmigrate serve` as a process of its own."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.jobs import Job

ADMIN = "admin-0123456789-0123456789-0123456789"
VIEWER = "viewer-0123456789-0123456789-0123456789"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass
class Served:
    """`embedmigrate serve` for a job; the port stays the same when it is started again."""

    job: Job
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def env(self) -> dict[str, str | None]:
        tokens = {"EMBEDMIGRATE_ADMIN_TOKEN": ADMIN, "EMBEDMIGRATE_VIEWER_TOKEN": VIEWER}
        return self.job.env | tokens

    def start(self) -> None:
        words = ("serve", "--port", str(self.port), *self.job.options)
        self.process = self.job.cli.start(*words, env=self.env)
        self.wait()

    def wait(self, timeout: float = 15) -> None:
        deadline = time.monotonic() + timeout
        while True:
            assert self.process.poll() is None, self.process.communicate()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
