"""Commands in a real pseudo-terminal, seen as a person would see them."""

from __future__ import annotations

import os
import re
import time
import warnings
from typing import TYPE_CHECKING, Any, Self

import pexpect  # type: ignore[import-untyped,unused-ignore]  # types-pexpect is optional
import pyte

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

CHUNK = 65536


class _Screen(pyte.HistoryScreen):
    """Hands answers to the program's questions, such as the cursor's position, back to it."""

    def __init__(self, columns: int, rows: int, child: Any) -> None:
        super().__init__(columns, rows, history=10_000)
        self._child = child

    def write_process_input(self, data: str) -> None:
        self._child.send(data.encode())


class Terminal:
    """The command is started at once and killed when the context ends."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self._columns = columns
        self._child = _spawn(command, columns, rows, env, cwd)
        self._display = _Screen(columns, rows, self._child)
        self._stream = pyte.ByteStream(self._display)
        self._raw = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def raw(self) -> bytes:
        """Every byte that has been read so far, escape sequences included."""
        return bytes(self._raw)

    @property
    def pid(self) -> int:
        """The command leads its own session, so this is also its process group."""
        return int(self._child.pid)

    def screen(self) -> list[str]:
        """The rows from top to bottom without trailing spaces, after reading what has arrived."""
        while self._read(0):
            pass
        return [line.rstrip() for line in self._display.display]

    def scrolled_off(self) -> list[str]:
        """The rows that have left the screen at its top, oldest first."""
        return [
            "".join(line[column].data for column in range(self._columns)).rstrip()
            for line in self._display.history.top
        ]

    def text(self) -> str:
        """All rows, also those that have scrolled off."""
        screen = self.screen()
        return "\n".join(self.scrolled_off() + screen)

    def wait_for(self, pattern: str, timeout: float = 10) -> re.Match[str]:
        """Searches all rows with ^ and $ for each, also those that have scrolled off."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.text(), re.MULTILINE)
            if found:
                return found
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{pattern!r} does not appear in:\n{self.text()}")
            if not self._read(min(0.2, max(0.0, deadline - time.monotonic()))) and self._ended():
                raise EOFError(f"the command ended without {pattern!r}:\n{self.text()}")

    def send(self, text: str) -> None:
        """Types the text; end it with \\r for the Enter key."""
        self._child.send(text.encode())

    def interrupt(self) -> None:
        """Types Ctrl-C, which the terminal and not this class turns into SIGINT."""
        self._child.sendintr()

    def resize(self, columns: int, rows: int) -> None:
        """The command is told by SIGWINCH."""
        self._columns = columns
        self._display.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def wait(self, timeout: float = 30) -> int:
        """The exit code, negative for a signal as with subprocess."""
        deadline = time.monotonic() + timeout
        while not self._ended():
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the command still runs:\n{self.text()}")
            self._read(0.1)
        self._child.wait()
        if self._child.exitstatus is None:
            return -int(self._child.signalstatus)
        return int(self._child.exitstatus)

    def close(self) -> None:
        """Kills the command if it still runs."""
        self._child.close(force=True)

    def _ended(self) -> bool:
        return bool(self._child.flag_eof)

    def _read(self, timeout: float) -> bool:
        """Says whether anything arrived."""
        if self._child.closed or self._ended():
            return False
        try:
            data: bytes = self._child.read_nonblocking(CHUNK, timeout)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self._raw += data
        self._stream.feed(data)
        return True


def _spawn(
    command: Sequence[str],
    columns: int,
    rows: int,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
) -> Any:
    environment = dict(os.environ if env is None else env)
    environment.setdefault("TERM", "xterm-256color")
    with warnings.catch_warnings():
        # Python 3.12 warns of forkpty() in a process with threads; the child execs at once.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = pexpect.spawn(
            command[0],
            list(command[1:]),
            dimensions=(rows, columns),
            env=environment,
            cwd=cwd,
            timeout=None,
        )
    child.delaybeforesend = None
    return child
