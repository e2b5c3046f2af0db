"""The application in this process, and the command `serve` in another."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from embedmigrate.web.attempts import Attempts
from embedmigrate.web.door import Door
from embedmigrate.web.gate import Audited, Gate
from embedmigrate.web.jobs import Jobs
from embedmigrate.web.routes import BASE, Desk
from embedmigrate.web.site import site
from embedmigrate.web.streaming import Closing
from embedmigrate.web.tokens import Role, Tokens

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from tests.e2e.jobs import Job

ADMIN = "admin-0123456789-0123456789-0123456789"
VIEWER = "viewer-0123456789-0123456789-012345678"
HOST = "127.0.0.1:5001"


def bearer(token: str = ADMIN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@dataclass
class Site:
    """Requests go straight to the application; each may come from another address."""

    app: ASGIApp
    audited: list[Audited] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        token: str | None = ADMIN,
        address: str = "127.0.0.1",
        host: str = HOST,
    ) -> httpx2.Response:
        """With the admin's token, unless another is given."""

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app, client=(address, 50000))
            async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                sent = (bearer(token) if token else {}) | dict(headers or {})
                return await client.request(method, path, headers=sent, content=content, json=json)

        return asyncio.run(ask())


def behind_the_gate() -> FastAPI:
    """The settings come from the environment, as always."""
    return site(Desk(Jobs({}), Closing()))


def site_of(
    app: ASGIApp,
    *,
    port: int = 5001,
    origins: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Site:
    """With a gate of its own in front."""
    audited, warned = list[Audited](), list[str]()
    gate = Gate(
        app,
        door=Door.of("127.0.0.1", port, allowed, origins),
        tokens=Tokens([(Role.ADMIN, ADMIN), (Role.VIEWER, VIEWER)]),
        audit=audited.append,
        warn=warned.append,
        attempts=Attempts(clock),
    )
    return Site(gate, audited, warned)


class Served:
    """`embedmigrate serve` over a job; its address is read from what it prints."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address
        self.log: list[str] = []
        assert process.stderr is not None
        threading.Thread(target=self.log.extend, args=(process.stderr,), daemon=True).start()

    @classmethod
    def start(cls, job: Job, env: Mapping[str, str | None], *more: str) -> Served:
        words = ("serve", *job.options, "--port", "0", *more)
        process = job.cli.start(*words, env=job.env | dict(env))
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Serving on "):
            raise AssertionError(f"{line}\n{process.communicate(timeout=10)[1]}")
        return cls(process, line.split()[-1])

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Its exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(timeout)

    def ask(
        self, method: str, path: str, json: Any = None, *, token: str = ADMIN, timeout: float = 20
    ) -> httpx2.Response:
        path = path if path.startswith("/") else f"{BASE}/{path}"
        return httpx2.request(
            method, f"{self.address}{path}", headers=bearer(token), json=json, timeout=timeout
        )

    def get(self, path: str, *, token: str = ADMIN) -> Any:
        """The body of an answer that is as wanted."""
        answer = self.ask("GET", path, token=token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, json: Any = None) -> Any:
        answer = self.ask("POST", path, json)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("status")["status"]
        return found

    def until(self, true: Callable[[dict[str, Any]], bool], timeout: float = 20) -> dict[str, Any]:
        """The first status of which it is true."""
        deadline = time.monotonic() + timeout
        while not true(status := self.status):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{status}")
            time.sleep(0.05)
        return status
