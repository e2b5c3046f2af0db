"""The files of one job: state, lock, control and error reports; atomic, private, never stale."""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedmigrate.errors import CheckpointError, LockedError
from embedmigrate.secrets import redact_within
from embedmigrate.state.atomic import read, write_atomically
from embedmigrate.state.record import RunState

_LOCK_PATIENCE = 0.4
"""Seconds for which a start overlooks a held lock: `status` takes a share of it for an instant."""


class JobFiles:
    """`NAME.json`, `.lock`, `.control.json` and `RUN.errors.jsonl` in one private directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.state = directory / f"{name}.json"
        self.previous = directory / f"{name}.json.prev"
        self._lock = directory / f"{name}.lock"
        self._control = directory / f"{name}.control.json"
        self._held: int | None = None

    def prepare(self) -> None:
        """Make the directory, or see that it is ours to write and nobody else's.

        Raises:
            CheckpointError: It cannot be written safely.
        """
        with self._writing():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_private()

    def _try_out(self) -> None:
        """Clear what killed runs left half written, and write once; only with the lock held.

        Before it is, such a file may be one that a live run is just about to rename.
        """
        probe, name = self.directory / f".{self.name}.probe", _escaped(self.name)
        with self._writing():
            for pattern in (f".{name}.json.*.tmp", f"..{name}.probe.*.tmp"):
                for leftover in self.directory.glob(pattern):
                    leftover.unlink(missing_ok=True)
            write_atomically(probe, b"")
            probe.unlink(missing_ok=True)

    def inspect(self) -> None:
        """Would `prepare` find fault? Nothing is written.

        Raises:
            CheckpointError: It would.
        """
        with self._writing():
            above = (self.directory, *self.directory.absolute().parents)
            found = next(path for path in above if path.exists())
            if not found.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(found, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if found == self.directory:
                self._check_private()

    def _check_private(self) -> None:
        if self.directory.stat().st_mode & 0o022:
            raise CheckpointError(
                f"others may write to the state directory {self.directory}",
                code="state_dir_unsafe",
                hint=f"chmod 700 {self.directory}, or choose another with --state-dir",
            )

    def load(self) -> RunState | None:
        """The last run as it was saved; None where there is none.

        Raises:
            CheckpointError: The file is damaged, foreign, newer or unreadable.
        """
        return self._load(self.state)

    def load_previous(self) -> RunState | None:
        """The run before, where the last one's file is damaged."""
        try:
            return self._load(self.previous)
        except CheckpointError:
            return None

    def _load(self, path: Path) -> RunState | None:
        try:
            content = read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(path, error) from None
        return RunState.decode(content, str(path))

    def save(self, state: RunState) -> None:
        """Replace the state file: the old one or the new one is there, never half of one."""
        with self._writing():
            write_atomically(self.state, state.encode())

    def keep_previous(self) -> None:
        """Keep what the last run left, for the day on which the state file is damaged."""
        with self._writing(), contextlib.suppress(FileNotFoundError):
            write_atomically(self.previous, read(self.state))

    def put_aside(self, label: str) -> Path | None:
        """Rename the state file, so that nothing of it is lost."""
        aside = self.state.with_name(f"{self.state.name}.{label}-{int(time.time())}")
        with self._writing():
            try:
                self.state.rename(aside)
            except FileNotFoundError:
                return None
        return aside

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job's lock; the kernel frees it when the process ends, however it ends.

        Raises:
            LockedError: Another process holds it, and named itself in the state file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            deadline = time.monotonic() + _LOCK_PATIENCE
            while not self._try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise self._held_by()
                time.sleep(0.05)
            self._held = fd
            self._try_out()
            yield
        finally:
            self._held = None
            with contextlib.suppress(OSError):  # the rows are stored: no reason to end otherwise
                os.close(fd)

    def live(self) -> bool:
        """Whether a run is alive; a process number would not tell (containers, reuse)."""
        try:
            fd = os.open(self._lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._unreadable(self._lock, error) from None
        try:
            return not self._try_lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def _held_by(self) -> LockedError:
        facts, details, place = [], {}, self.name
        with contextlib.suppress(CheckpointError):
            if state := self.load():
                place = state.place
                ratio = state.progress.get("done_ratio") or 0
                facts = [
                    f"Run {state.run_id}, pid {state.pid} on {state.host}, user {state.user}, "
                    f"started {state.started_at}, {int(ratio * 100)} % done."
                ]
                details = {
                    "run_id": state.run_id,
                    "pid": state.pid,
                    "host": state.host,
                    "started_at": state.started_at,
                }
        return LockedError(
            f"another run is working on {place}",
            code="lock_held",
            facts=tuple(facts),
            hint="embedmigrate status · embedmigrate stop · or wait with --lock-timeout 30m",
            details=details,
        )

    def ask(self, request: dict[str, Any]) -> None:
        """Leave a request for the live run."""
        with self._writing():
            write_atomically(self._control, json.dumps(request).encode())

    def asked(self, run_id: str) -> dict[str, Any] | None:
        """The request left for this very run; one for an earlier run is no request."""
        try:
            request = json.loads(read(self._control))
        except (OSError, ValueError):
            return None
        if not isinstance(request, dict) or request.get("run_id") != run_id:
            return None
        return request

    def error_report(self, run_id: str) -> Path:
        return self.directory / f"{run_id}.errors.jsonl"

    def append_error(self, run_id: str, line: dict[str, Any]) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.error_report(run_id), flags, 0o600)
        try:
            os.write(fd, (json.dumps(redact_within(line)) + "\n").encode())
        finally:
            os.close(fd)

    def errors_of(self, run_id: str) -> list[dict[str, Any]]:
        """The failed rows of a run.

        Raises:
            CheckpointError: There is no report of that run.
        """
        try:
            content = read(self.error_report(run_id)).decode()
        except OSError:
            raise CheckpointError(
                f"no error report of run {run_id} in {self.directory}",
                code="report_missing",
                hint="embedmigrate status shows the last run; without --retry-failed every row "
                "without a vector is tried again",
            ) from None
        except UnicodeDecodeError:
            content = "damaged"
        try:
            lines = [json.loads(line) for line in content.split("\n") if line.strip()]
        except ValueError:
            lines = [None]
        if not all(isinstance(line, dict) and "id" in line for line in lines):
            raise CheckpointError(
                f"the error report of run {run_id} in {self.directory} is damaged",
                code="report_corrupt",
                hint="without --retry-failed every row without a vector is tried again",
            )
        return lines

    def _unreadable(self, path: Path, error: OSError) -> CheckpointError:
        owner = ""
        with contextlib.suppress(OSError):
            owner = f"Its directory belongs to user id {path.parent.stat().st_uid}."
        return CheckpointError(
            f"{path} cannot be read: {error.strerror}",
            code="checkpoint_unreadable",
            facts=(owner,) if owner else (),
            hint="run as that user, or choose another directory with --state-dir",
        )

    def _try_lock(self, fd: int, kind: int) -> bool:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # as of a network file system without a lock server
            raise self._unwritable(error) from None
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever the disk refuses is the state directory's fault, and said of it."""
        try:
            yield
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"the state directory {self.directory} cannot be written: {error.strerror}",
            code="state_dir_unwritable",
            facts=("Nothing was sent: a run that cannot save its place does not begin.",),
            hint="choose another directory with --state-dir",
        )


def _escaped(name: str) -> str:
    """For glob, in which brackets mean something."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
