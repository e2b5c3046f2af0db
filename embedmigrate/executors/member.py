"""One actor as the driver sees it: batches in flight, its turns, and the messages to it."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from embedmigrate.engine.model import Batch, Limits, Outcome
from embedmigrate.engine.pacing import Governor
from embedmigrate.executors.messages import Done, Down, Introduction, Notice, Up
from embedmigrate.executors.turns import Turns

_FAREWELL = 3.0
"""Seconds that an actor has to close its connections."""


class Died(Exception):  # noqa: N818  what happened to an actor
    """The actor, its process or its node is gone, or cannot be reached any more."""


class Remote(Protocol):
    """An actor's methods as calls; each raises Died when the actor does."""

    async def open(self) -> Introduction: ...
    async def work(self, batch: Batch) -> Done: ...
    async def poll(self) -> list[Up]: ...
    async def tell(self, messages: Sequence[Down]) -> None: ...
    async def close(self) -> list[Up]: ...
    def kill(self) -> None:
        """For good, and without waiting for it."""
        ...


class Member:
    """One actor from its start to its end; another one takes its place afterwards.

    Attributes:
        in_flight: Batches that it has.
        finished: Batches that it has returned.
        limits: Of a request, as its worker knows them; None before its first outcome.
    """

    def __init__(self, remote: Remote) -> None:
        self.in_flight = 0
        self.finished = 0
        self.limits: Limits | None = None
        self._remote = remote
        self._turns: Turns | None = None
        self._outbox: list[Down] = []
        self._filled = asyncio.Event()

    async def introduce(self) -> Introduction:
        return await self._remote.open()

    async def work(self, batch: Batch) -> Outcome:
        done = await self._remote.work(batch)
        self.finished += 1
        self.limits = done.limits
        return done.outcome

    def tell(self, message: Down) -> None:
        self._outbox.append(message)
        self._filled.set()

    async def converse(self, governor: Governor, notice: Notice) -> None:
        """Carry messages both ways for as long as the actor lives.

        Raises:
            Died: Always, sooner or later.
        """
        self._turns = Turns(governor, self.tell, notice)
        post = asyncio.create_task(self._post())
        try:
            while True:
                self._turns.hear(await self._remote.poll())
        finally:
            self._turns.give_back()
            post.cancel()
            await asyncio.gather(post, return_exceptions=True)

    async def _post(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(0)
            told, self._outbox = self._outbox, []
            self._filled.clear()
            await self._remote.tell(told)

    async def dismiss(self) -> None:
        """Let it close what it has open, and end it."""
        with contextlib.suppress(Died, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                last = await self._remote.close()
                if self._turns:
                    self._turns.hear(last)
                    self._turns.give_back()
        self._remote.kill()

    def kill(self) -> None:
        self._remote.kill()
