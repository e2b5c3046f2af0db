"""What a job says of itself while it runs: the lines that its process writes, one JSON object each.

The file is the process's stdout and stderr. The server locks it and hands the lock on with the
open file: the kernel holds it for as long as that process lives, and tells any server that asks.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedmigrate.errors import LockedError
from embedmigrate.secrets import redact_within

_PATIENCE = 0.05
"""Seconds for which a start overlooks a held lock: a look takes a share of it for an instant."""
_LAST_BYTES = 65_536
_CHUNK = 1_048_576


@dataclass(frozen=True, slots=True)
class Launch:
    """How a job was started through a server."""

    run_id: str
    job_id: str
    time: str


class EventsFile:
    """`NAME.events.jsonl` beside the state file, of mode 0600, and the one of the run before."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.events.jsonl"
        self._previous = directory / f"{name}.events.jsonl.prev"

    @contextlib.contextmanager
    def reserved(self, launch: Launch) -> Iterator[int]:
        """A fresh file for one process, locked; the descriptor is closed here and lives on there.

        Raises:
            LockedError: A process that was started before still lives.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            old = os.open(self.path, flags, 0o600)
            try:
                if not _lock(old, patience=_PATIENCE):
                    raise _held()
                if os.fstat(old).st_ino != self.path.stat().st_ino:
                    continue  # another server was quicker by a moment: look at its file
                self.path.rename(self._previous)
                fd = os.open(self.path, flags | os.O_EXCL, 0o600)
            finally:
                os.close(old)
            break
        try:
            _lock(fd, patience=_PATIENCE)
            if os.fstat(fd).st_ino != self.path.stat().st_ino:
                raise _held()
            os.write(fd, _line(launch))
            yield fd
        finally:
            os.close(fd)

    def alive(self) -> bool:
        """Whether the process that writes into it lives."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not _lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def launch(self) -> Launch | None:
        """The first line; None where no server has started a run yet."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with self.path.open("rb") as file:
                said = json.loads(file.readline(10_000))
            return Launch(said["run_id"], said["job_id"], said["time"])
        return None


class Tail:
    """Reads what is new, from one file to the next when a new run begins.

    Its first read gives the end of what is there already.
    """

    def __init__(self, file: EventsFile) -> None:
        self._path = file.path
        self._inode = 0
        self._offset = 0
        self._rest = b""
        with contextlib.suppress(OSError):
            found = self._path.stat()
            self._inode, self._offset = found.st_ino, max(0, found.st_size - _LAST_BYTES)

    def read(self) -> list[dict[str, Any]]:
        try:
            found = self._path.stat()
            if found.st_ino != self._inode:
                self._inode, self._offset, self._rest = found.st_ino, 0, b""
            if found.st_size == self._offset:
                return []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read(_CHUNK)
        except OSError:
            return []
        self._offset += len(content)
        whole, _, self._rest = (self._rest + content).rpartition(b"\n")
        return parsed(whole)


def parsed(content: bytes) -> list[dict[str, Any]]:
    """The objects among the lines; a half one and a foreign one are left out."""
    found = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line)
            if isinstance(said, dict) and "message_type" in said:
                found.append(redact_within(said))
    return found


def _line(launch: Launch) -> bytes:
    said = {"message_type": "launch", "time": launch.time}
    said |= {"run_id": launch.run_id, "job_id": launch.job_id}
    return (json.dumps(said) + "\n").encode()


def _held() -> LockedError:
    return LockedError(
        "a run was started a moment ago",
        code="lock_held",
        hint="embedmigrate status · embedmigrate stop",
    )


def _lock(fd: int, kind: int = fcntl.LOCK_EX, *, patience: float = 0.0) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        else:
            return True
