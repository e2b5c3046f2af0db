"""Which death has had which text sent again: told by the connection that had sent it before."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.provider import Request

_LATE = 2.0
"""Seconds after a death in which the provider may still find what the dead one had sent."""


@dataclass
class Death:
    """One process that was killed.

    Attributes:
        at: By the machine's monotonic clock.
        ports: Its ends of the connections to the provider, in that moment.
        again: Texts that it had sent and that were sent again afterwards.
        after: Seconds from its death to the last of them.
    """

    at: float
    ports: frozenset[int]
    again: set[str] = field(default_factory=set)
    after: float = 0.0


def hold(pid: int, port: int) -> Death:
    """Keep a process still that is about to be killed, and look at its connections meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    return Death(time.monotonic(), connections(pid, port))


def connections(pid: int, port: int) -> frozenset[int]:
    """The process's ends of its connections to this port of the machine."""
    inodes = set[str]()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(descriptor.readlink().name.removeprefix("socket:").strip("[]"))
    # proc_pid_net(5): local address, remote address, …; the tenth field is the inode.
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    ours = (fields for line in lines if (fields := line.split())[9] in inodes)
    return frozenset(_port(one[1]) for one in ours if _port(one[2]) == port)


def _port(address: str) -> int:
    return int(address.partition(":")[2], 16)


def charge(requests: Iterable[Request], deaths: Iterable[Death]) -> list[str]:
    """Write each text that was sent again to the death of whoever had sent it before.

    Returns those whose sender was not killed: nothing but a death has a text sent again.
    """
    dead, unexplained = sorted(deaths, key=lambda one: one.at), list[str]()
    for text, before, after in _repeated(requests):
        death = next(
            (d for d in dead if before.client in d.ports and d.at > before.at - _LATE), None
        )
        if death is None:
            unexplained.append(text)
        else:
            death.again.add(text)
            death.after = max(death.after, after.at - death.at)
    return unexplained


def _repeated(requests: Iterable[Request]) -> Iterator[tuple[str, Request, Request]]:
    """Each text that was answered more than once, with two requests that follow one another."""
    answered: dict[str, list[Request]] = defaultdict(list)
    by_time: Callable[[Request], float] = lambda one: one.at  # noqa: E731
    for request in sorted((r for r in requests if r.status == 200), key=by_time):
        for text in request.texts:
            answered[text].append(request)
    for text, those in answered.items():
        for before, after in itertools.pairwise(those):
            yield text, before, after
