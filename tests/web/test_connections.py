"""Connections that say nothing, or too slowly, keep nobody else out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest
import uvicorn

from embedmigrate.web import connections, gate
from tests.web.sites import ADMIN, site_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

HEAD = b"GET /healthz HTTP/1.1\r\n"


@pytest.fixture
def port(application: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with less patience than the real one."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        app = site_of(application, port=number).app
        config = uvicorn.Config(
            app, http=connections.Deadlined, lifespan="off", log_config=None, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield number
        server.should_exit = True
        thread.join(10)


def open_one(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def healthy(port: int) -> bool:
    return httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"Host: 127.0.0.1\r\n"])
def test_a_head_that_does_not_end_is_not_waited_for(port: int, said: bytes) -> None:
    with open_one(port) as one:
        one.sendall(said)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(100) == b""
        assert time.monotonic() - began < 5


def test_a_head_of_a_byte_at_a_time_is_not_waited_for(port: int) -> None:
    """Each byte does not begin the time anew."""
    began = time.monotonic()
    with open_one(port) as one, contextlib.suppress(OSError):
        for byte in HEAD * 100:
            one.sendall(bytes([byte]))
            time.sleep(0.1)
            if time.monotonic() - began > 8:
                pytest.fail("it is still being listened to")


def test_a_body_that_does_not_end_is_answered_and_closed(port: int) -> None:
    with open_one(port) as one:
        one.sendall(
            b"POST /api/admin/embeddings/stop HTTP/1.1\r\n"
            + f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {ADMIN}\r\n".encode()
            + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert one.recv(1000).startswith(b"HTTP/1.1 408")


def test_idle_connections_keep_nobody_out(port: int) -> None:
    """The one that has waited longest gives way."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(open_one(port)) for _ in range(60)]
        assert healthy(port)
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b""


def test_a_connection_is_kept_for_the_next_request(port: int) -> None:
    with httpx2.Client() as client:
        for _ in range(3):
            assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
