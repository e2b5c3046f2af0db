"""What runs in an actor: the engine's worker, and a proxy of the governor."""

import contextlib
import os
import socket
from collections.abc import Sequence

from embedmigrate import __version__
from embedmigrate.engine.model import Batch
from embedmigrate.errors import EmbedMigrateError
from embedmigrate.executors.messages import Build, Done, Down, Introduction, Up, Workplace
from embedmigrate.executors.proxy import GovernorProxy

_LONGEST_POLL = 20.0
"""Seconds after which an actor that has nothing to say answers all the same."""


class Actor:
    """One worker in a process of its own; knows nothing of Ray.

    Args:
        build: Opens what the worker needs, here.
        threads: As many as the actor has CPUs; libraries would start one for each of the node's.
    """

    def __init__(self, build: Build, threads: int) -> None:
        for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
            os.environ[name] = str(threads)
        self._build = build
        self._proxy = GovernorProxy()
        self._stack = contextlib.AsyncExitStack()
        self._place: Workplace | None = None

    async def open(self) -> Introduction:
        """Open and check everything; nothing is sent and nothing written."""
        host = socket.gethostname()
        try:
            build = self._build(self._proxy, self._proxy.notice)
            self._place = await self._stack.enter_async_context(build)
        except EmbedMigrateError as error:
            return Introduction(host, __version__, refusal=error)
        return Introduction(host, __version__, self._place.facts)

    async def work(self, batch: Batch) -> Done:
        """Embed, check and write one batch."""
        if self._place is None:
            raise RuntimeError("work before open")
        outcome = await self._place.worker(batch)
        return Done(outcome, self._place.worker.limits)

    async def poll(self) -> list[Up]:
        """What is to be told to the governor, as soon as there is something."""
        return await self._proxy.outgoing(_LONGEST_POLL)

    async def tell(self, messages: Sequence[Down]) -> None:
        self._proxy.hear(messages)

    async def close(self) -> list[Up]:
        """Close what was opened; returns what has not been told yet."""
        await self._stack.aclose()
        return await self._proxy.outgoing(0)
