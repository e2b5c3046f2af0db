"""What the series with actors judges by."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from tests.faults.deaths import Death, charge, hold
from tests.provider import Request


def asked(at: float, client: int, *texts: str, status: int = 200) -> Request:
    return Request(at, texts, {}, {}, status, client=client)


def test_a_resend_is_charged_to_whoever_died_and_to_nobody_else() -> None:
    first, second = Death(10.0, frozenset({1, 2})), Death(20.0, frozenset({3}))
    unexplained = charge(
        [
            asked(9.5, 1, "a", "b"),
            asked(9.7, 2, "c", status=0),  # never answered: not paid for
            asked(15.0, 3, "a", "b", "c"),
            asked(25.0, 4, "b"),
            asked(26.0, 4, "d"),
            asked(27.0, 5, "d"),
        ],
        [first, second],
    )
    assert first.again == {"a", "b"}
    assert first.after == 5.0
    assert second.again == {"b"}
    assert unexplained == ["d"], "sent again though its sender lives"


def test_the_connections_of_a_process_are_seen() -> None:
    words = "import socket,sys;s=socket.create_connection(('127.0.0.1',int(sys.argv[1])));input()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-c", words, str(port)], stdin=subprocess.PIPE, text=True
        )
        try:
            connection, (_, theirs) = server.accept()
            assert hold(process.pid, port).ports == {theirs}
            assert hold(process.pid, port + 1).ports == frozenset()
            connection.close()
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
