"""The governor as a worker in another process sees it."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from embedmigrate.engine.model import UNSAID, Allowances, Noticed
from embedmigrate.engine.pacing import Abandoned, sleep_unless
from embedmigrate.engine.ports import Turn
from embedmigrate.errors import RateLimited
from embedmigrate.executors.messages import (
    Alive,
    Answered,
    Asked,
    Closed,
    Denied,
    Down,
    Ended,
    Granted,
    Limited,
    Up,
    Writing,
)


class GovernorProxy:
    """Asks the driver for turns, and tells it what came of them.

    Its clock is its own: what is told about others is told as lengths of time. That the provider
    has answered another actor is known here about half a second later.
    """

    def __init__(self) -> None:
        self.last_success = float("-inf")
        self.closed = asyncio.Event()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._outbox: list[Up] = []
        self._filled = asyncio.Event()

    def say(self, message: Up) -> None:
        self._outbox.append(message)
        self._filled.set()

    async def outgoing(self, seconds: float) -> list[Up]:
        """What has been said since the last call; waits so long for something."""
        if not self._outbox:
            try:
                await asyncio.wait_for(self._filled.wait(), seconds)
            except TimeoutError:
                return []
        await asyncio.sleep(0)  # whoever is ready speaks up first: they travel together
        said, self._outbox = self._outbox, []
        self._filled.clear()
        return said

    def hear(self, messages: Sequence[Down]) -> None:
        """What the driver has answered."""
        for message in messages:
            match message:
                case Granted(number):
                    self._settle(number)
                case Denied(number):
                    self._settle(number, Abandoned())
                case Alive(age):
                    self.last_success = max(self.last_success, self.now() - age)
                case Closed():
                    self._close()

    def _settle(self, number: int, error: Abandoned | None = None) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return
        if error:
            waiting.set_exception(error)
        else:
            waiting.set_result(None)

    def _close(self) -> None:
        self.closed.set()
        for number in list(self._waiting):
            self._settle(number, Abandoned())

    def notice(self, code: str, message: str) -> None:
        self.say(Noticed(code, message))

    def now(self) -> float:
        return time.monotonic()

    @asynccontextmanager
    async def request(self, tokens: int) -> AsyncIterator[Turn]:
        if self.closed.is_set():
            raise Abandoned
        number = next(self._numbers)
        granted = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.say(Asked(number, tokens))
        refused = False
        try:
            await granted
            yield Turn(tokens, self.now())
        except RateLimited:
            refused = True
            raise
        finally:
            del self._waiting[number]
            self.say(Ended(number, refused))

    async def sleep(self, seconds: float) -> None:
        await sleep_unless(self.closed, seconds)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self.say(Writing(began=True))
        try:
            yield
        finally:
            self.say(Writing(began=False))

    def succeeded(self, turn: Turn | None = None, left: Allowances = UNSAID) -> None:
        now = self.last_success = self.now()
        turn = turn or Turn(0, now)
        self.say(Answered(turn.tokens, now - turn.at, left))

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        self.say(Limited(seconds, attempt, asked))

    def alive_since(self, moment: float) -> bool:
        return self.last_success > moment
