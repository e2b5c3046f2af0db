"""A Ray cluster of several nodes on this machine, whose processes can be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_STARTING = 60.0


class RayNodes:
    """A head, which the driver talks to, and other nodes.

    Args:
        environment: What `ray start` is given, beside what every process needs.
        cpus: Of each node.
        others: Nodes beside the head.
    """

    def __init__(self, environment: Mapping[str, str], *, cpus: int = 1, others: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="em-rays-"))
        self.address = f"127.0.0.1:{_free_port()}"
        self._cpus = cpus
        self._others = others
        # Its own token: whatever the developer's Ray is told does not matter here.
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "RAY_USAGE_STATS_ENABLED": "0",
            # A node that is gone is found out within seconds and not within half a minute.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "4",
            **self.token,
            **environment,
        }
        self._nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        port = self.address.partition(":")[2]
        self._start("--head", f"--port={port}", f"--temp-dir={self.folder}")
        for _ in range(self._others):
            self.add_node()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in reversed(self._nodes):
            for pid in _session(node.pid):
                _kill(pid)
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_node(self) -> None:
        """The one beside the head, after it was killed."""
        self._start(f"--address={self.address}")

    def actors(self, *, second: bool = False) -> list[int]:
        """Process numbers of the actors that run now; only those of the second node, if asked."""
        nodes = self._nodes[1:] if second else self._nodes
        return [pid for node in nodes for pid in _session(node.pid) if _is_actor(pid)]

    def kill_node(self) -> None:
        """The second node as a power cut would."""
        node = self._nodes.pop()
        for pid in _session(node.pid):
            _kill(pid)
        node.wait()

    def logs(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the session by name."""
        for path in sorted(self.folder.rglob("*")):
            with contextlib.suppress(OSError):
                if path.is_file():
                    yield path.name, path.read_bytes()

    def _start(self, *arguments: str) -> None:
        known = _raylets(self._nodes)
        ray = Path(sys.executable).parent / "ray"
        common = (f"--num-cpus={self._cpus}", "--object-store-memory=100000000", "--block")
        quiet = ("--disable-usage-stats", "--include-dashboard=false")
        self._nodes.append(
            subprocess.Popen(
                [str(ray), "start", *arguments, *common, *(quiet if "--head" in arguments else ())],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        deadline = time.monotonic() + _STARTING
        while _raylets(self._nodes) == known:
            if self._nodes[-1].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ray start {arguments} has failed")
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _raylets(nodes: list[subprocess.Popen[bytes]]) -> set[int]:
    return {pid for node in nodes for pid in _session(node.pid) if b"/raylet\0" in _words(pid)}


def _is_actor(pid: int) -> bool:
    return _words(pid).startswith(b"ray::Actor")


def _words(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _session(leader: int) -> list[int]:
    """Processes of the session that this one leads: proc(5), the sixth field."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(stat.parent.name))
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
