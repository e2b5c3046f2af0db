"""Starts the command line from a process that has it loaded: a start for the price of a fork."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Self

from tests.conftest import Completed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import CommandLine


@dataclass(frozen=True)
class Forked:
    """A command that was started."""

    pid: int
    number: int
    folder: Path

    def output(self, name: str) -> str:
        """Empty also where it was killed before it had a place to write to."""
        try:
            return (self.folder / f"{name}-{self.number}").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""


class Zygote:
    """Give it the names of defects to switch on; leave it to end every process it has started."""

    def __init__(self, cli: CommandLine, names: str = "none") -> None:
        self._cli = cli
        self._started = 0
        self._open: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.mutants", names, "--", "zygote"],
            env=cli.environment({"OPENBLAS_NUM_THREADS": "1"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._open:
            os.kill(pid, signal.SIGKILL)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Of the process that forks."""
        return self._process.pid

    def start(self, *args: str, env: Mapping[str, str | None]) -> Forked:
        self._started += 1
        made = Forked(0, self._started, self._cli.folder)
        order = {
            "args": args,
            "env": self._cli.environment(env),
            "out": str(made.folder / f"out-{made.number}"),
            "err": str(made.folder / f"err-{made.number}"),
            "cwd": str(made.folder),
        }
        pid = self._ask(order)
        assert pid is not None
        self._open.add(pid)
        return Forked(pid, made.number, made.folder)

    def poll(self, forked: Forked) -> Completed | None:
        """None while it runs; to be asked no more once it has ended."""
        code = self._ask({"poll": forked.pid})
        if code is None:
            return None
        self._open.discard(forked.pid)
        done = Completed(code, forked.output("out"), forked.output("err"))
        self._cli.heard += (done.stdout, done.stderr)
        for name in ("out", "err"):
            (forked.folder / f"{name}-{forked.number}").unlink(missing_ok=True)
        return done

    def wait(self, forked: Forked, timeout: float = 60) -> Completed:
        deadline = time.monotonic() + timeout
        while (done := self.poll(forked)) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(forked.output("out") + forked.output("err"))
            time.sleep(0.005)
        return done

    def kill(self, forked: Forked) -> None:
        """And wait until it is gone."""
        os.kill(forked.pid, signal.SIGKILL)
        self.wait(forked)

    def run(self, *args: str, env: Mapping[str, str | None], timeout: float = 60) -> Completed:
        return self.wait(self.start(*args, env=env), timeout)

    def _ask(self, order: Mapping[str, object]) -> int | None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return None if answer is None else int(answer)


def serve() -> None:
    """The other side: a line of JSON in, a line of JSON out."""
    import embedmigrate.app.generate
    import embedmigrate.cli.audience
    import embedmigrate.cli.commands
    import embedmigrate.embedders.openai  # noqa: F401  loaded is all that they shall be

    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _become(order)
        print(pid, flush=True)


def _become(order: dict[str, object]) -> None:
    """A process like one that a shell has started; does not return."""
    code = 1
    try:
        os.setsid()
        _redirect(str(order["out"]), str(order["err"]))
        os.chdir(str(order["cwd"]))
        os.environ.clear()
        os.environ.update(order["env"])  # type: ignore[call-overload]
        sys.argv = ["embedmigrate", *order["args"]]  # type: ignore[misc]
        from embedmigrate.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  as the interpreter would end
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _redirect(out: str, err: str) -> None:
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = TextIOWrapper(os.fdopen(0, "rb", closefd=False))
    sys.stdout = TextIOWrapper(os.fdopen(1, "wb", closefd=False), "utf-8", line_buffering=True)
    sys.stderr = TextIOWrapper(os.fdopen(2, "wb", closefd=False), "utf-8", line_buffering=True)
