"""One governor for all requests: how many at once, how many a minute, and when none at all."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from embedmigrate.engine.model import Report, Resumed, Waiting

Clock = Callable[[], float]

_RECOVERY = 8
"""Clean rounds of requests before one more is let in flight after a 429 lowered the number."""


class Abandoned(Exception):  # noqa: N818  not an error: the run is ending
    """The run is stopping: what still waits for its turn shall not be sent."""


class Bucket:
    """A token bucket that may go into debt, so that a request above its size still passes.

    Args:
        per_minute: Units let through in a minute.
        clock: Seconds from any origin.
    """

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._rate = per_minute / 60
        # Two seconds of allowance: providers enforce minute limits over shorter windows as well.
        self._size = max(1.0, self._rate * 2)
        self._level = self._size
        self._clock = clock
        self._then = clock()

    def take(self, units: float) -> float:
        """Take `units`; the seconds to wait until they are covered."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._then) * self._rate)
        self._then = now
        self._level -= units
        return max(0.0, -self._level / self._rate)


class _Gate:
    """A semaphore whose width may change while it is in use."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        if self.held < self.width and not self._waiting:
            self.held += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        self.held -= 1
        self.wake()

    def wake(self) -> None:
        while self._waiting and self.held < self.width:
            turn = self._waiting.popleft()
            if not turn.done():
                self.held += 1
                turn.set_result(None)

    def dismiss(self) -> None:
        """Wake everybody, whatever the width."""
        self.width = max(self.width, self.held + len(self._waiting))
        self.wake()


class Governor:
    """Lets requests through: a gate that narrows on 429, two buckets, one shared cooldown.

    The first request goes alone: a wrong key, model or width is met once and not by every worker
    at the same time. The number in flight halves on a 429 (once a cooldown, however many requests
    met it) and recovers by one after `_RECOVERY` clean rounds: additive increase, multiplicative
    decrease, as in TCP (Chiu and Jain, 1989).
    """

    def __init__(
        self,
        concurrency: int,
        *,
        report: Report,
        rpm: float | None = None,
        tpm: float | None = None,
        delay: float = 0.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.most = concurrency
        self.allowed = concurrency
        self.last_success = float("-inf")
        self.closed = asyncio.Event()
        self._gate = _Gate(1)
        self._requests = Bucket(rpm, clock) if rpm else None
        self._tokens = Bucket(tpm, clock) if tpm else None
        self._delay = delay
        self._clock = clock
        self._report = report
        self._until = float("-inf")
        self._clean = 0
        self._cooling = 0

    @property
    def in_flight(self) -> int:
        return self._gate.held

    @asynccontextmanager
    async def request(self, tokens: int) -> AsyncIterator[None]:
        """Hold one place in flight for the length of a request of about `tokens` tokens.

        The place stays taken for the operator's delay afterwards, while the caller already writes.

        Raises:
            Abandoned: The run is stopping.
        """
        await self._gate.enter()
        try:
            await self._paced(tokens)
            yield
        finally:
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._gate.leave)
            else:
                self._gate.leave()

    async def _paced(self, tokens: int) -> None:
        waits = [b.take(n) for b, n in ((self._requests, 1), (self._tokens, tokens)) if b]
        await self.sleep(max(waits, default=0.0))
        while (left := self._until - self._clock()) > 0:
            await self._cool(left)
        if self.closed.is_set():
            raise Abandoned

    async def _cool(self, seconds: float) -> None:
        self._cooling += 1
        try:
            await self.sleep(seconds)
        finally:
            self._cooling -= 1
            if not self._cooling and self._until <= self._clock():
                self._report(Resumed())

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the run stops meanwhile.

        Raises:
            Abandoned: The run is stopping.
        """
        if seconds <= 0:
            return
        try:
            await asyncio.wait_for(self.closed.wait(), seconds)
        except TimeoutError:
            return
        raise Abandoned

    def succeeded(self) -> None:
        self.last_success = self._clock()
        if self.allowed < self.most:
            self._clean += 1
            if self._clean >= self.allowed * _RECOVERY:
                self.allowed += 1
                self._clean = 0
        self._widen()

    def _widen(self) -> None:
        if not self.closed.is_set():
            self._gate.width = self.allowed
            self._gate.wake()

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        """A 429: nobody sends for `seconds`, and fewer do afterwards."""
        now = self._clock()
        self._clean = 0
        if now >= self._until:
            self.allowed = max(1, self.allowed // 2)
            self._gate.width = min(self._gate.width, self.allowed)
        if now + seconds > self._until:
            self._until = now + seconds
            self._report(Waiting("provider_rate_limit", seconds, attempt, asked))

    def pause(self, seconds: float, reason: str) -> None:
        """Nobody sends for `seconds`, for another reason than the provider's; told once."""
        now = self._clock()
        fresh = now >= self._until
        self._until = max(self._until, now + seconds)
        if fresh:
            self._report(Waiting(reason, None, 0, asked=True))

    def alive_since(self, moment: float) -> bool:
        """Whether the provider has answered well after `moment` of the governor's clock."""
        return self.last_success > moment

    def now(self) -> float:
        return self._clock()

    def close(self) -> None:
        """Let nothing more be sent; whoever waits is told."""
        self.closed.set()
        self._gate.dismiss()
