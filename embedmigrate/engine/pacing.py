"""One governor for all requests: how many at once, how many a minute, and when none at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf

from embedmigrate.engine.gate import Gate
from embedmigrate.engine.model import UNSAID, Allowance, Allowances, Report, Resumed, Waiting
from embedmigrate.engine.ports import Turn
from embedmigrate.engine.rates import Bucket, Clock, Learned, lasting
from embedmigrate.engine.widths import Fixed, Found
from embedmigrate.errors import RateLimited

_LOOK = 1.0
"""Seconds after which whoever waits for a rate looks whether it has risen."""

_NO_TIME = 0.001
"""Seconds that are not worth a sleep: what was taken too early is paid for by the next one."""


class Abandoned(Exception):  # noqa: N818  not an error: the run is ending
    """The run is stopping: what still waits for its turn shall not be sent."""


class Governor:
    """Lets requests through: a gate, a bucket for requests and one for tokens, a shared cooldown.

    The first request goes alone: a wrong key, model or width is met once and not by every worker
    at the same time. Then the gate is as wide as the operator said, narrower after a 429; or,
    with `auto`, as wide as pays, while the buckets follow the provider's rate.
    docs/explanation/concurrency.md tells how.

    Args:
        concurrency: Requests in flight at most.
        auto: Find out how many up to then pay, and how fast they may follow one another.
        report: Told of each cooldown and its end.
        rpm: Requests a minute at most.
        tpm: Tokens a minute at most.
        delay: Seconds for which a place stays taken after its request.
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        report: Report,
        auto: bool = False,
        rpm: float | None = None,
        tpm: float | None = None,
        delay: float = 0.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.most = concurrency
        self.last_success = float("-inf")
        self.closed = asyncio.Event()
        self._width: Fixed | Found = Found(concurrency) if auto else Fixed(concurrency)
        self._learned = Learned() if auto else None
        self._left = UNSAID
        self._left_at = float("-inf")
        self._writing = 0
        self._gate = Gate(1)
        self._queue = asyncio.Lock()
        self._requests = Bucket(rpm or inf, clock)
        self._tokens = Bucket(tpm or inf, clock)
        self._delay = delay
        self._clock = clock
        self._report = report
        self._until = float("-inf")
        self._refused_at = float("-inf")
        self._cooling = 0

    @property
    def allowed(self) -> int:
        """Requests that may be in flight now."""
        return self._width.allowed

    @property
    def in_flight(self) -> int:
        return self._gate.held

    @asynccontextmanager
    async def request(self, tokens: int) -> AsyncIterator[Turn]:
        """Hold one place in flight for the length of a request of about `tokens` tokens.

        The place stays taken for the operator's delay afterwards, while the caller already writes.

        Raises:
            Abandoned: The run is stopping.
        """
        await self._gate.enter()
        try:
            turn = Turn(tokens)
            await self._paced(turn)
            yield turn
        except RateLimited:
            self._refused(turn)
            raise
        finally:
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._gate.leave)
            else:
                self._gate.leave()

    async def _paced(self, turn: Turn) -> None:
        """One after the other, so that a rate that falls holds for those who already wait."""
        async with self._queue:
            self._requests.take(1)
            self._tokens.take(turn.tokens)
            while True:
                if (left := self._until - self._clock()) > 0:
                    await self._cool(left)
                elif (left := self._wait()) > _NO_TIME:
                    await self.sleep(min(left, _LOOK))
                else:
                    break
        if self.closed.is_set():
            raise Abandoned
        turn.at = self._clock()

    def _wait(self) -> float:
        """Seconds until the buckets let the next request through."""
        if self._learned:
            age = self._clock() - self._left_at
            self._requests.slow_down(_slower(self._learned.requests, self._left.requests, age))
            self._tokens.slow_down(_slower(self._learned.tokens, self._left.tokens, age))
        return max(self._requests.wait(), self._tokens.wait())

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

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A batch is on its way into the table: more of them than in flight are a backlog."""
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1

    def succeeded(self, turn: Turn | None = None, left: Allowances = UNSAID) -> None:
        """A good answer, and what the provider says is left."""
        now = self.last_success = self._clock()
        turn = turn or Turn(0, now)
        if left:
            self._left, self._left_at = left, now
        if self._learned:
            self._learned.granted(turn.tokens, now)
        if isinstance(self._width, Fixed):
            self._width.succeeded()
        elif turn.at > self._refused_at:  # what was sent before the last 429 tells of another width
            wanted = self._gate.crowded and not self._queue.locked()
            self._width.answered(
                now - turn.at, wanted=wanted, writing=self._writing, told=bool(self._left)
            )
        self._widen()

    def _widen(self) -> None:
        if not self.closed.is_set():
            self._gate.width = self.allowed
            self._gate.wake()

    def _refused(self, turn: Turn) -> None:
        """A 429 to a request that was sent after the last one: the others tell nothing new."""
        if not self._learned or turn.at <= self._refused_at:
            return
        self._refused_at = self._clock()
        self._learned.refused(self._refused_at)
        if isinstance(self._width, Found):
            self._width.limited()
            self._gate.width = min(self._gate.width, self.allowed)

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        """A 429: nobody sends for `seconds`, and fewer do afterwards."""
        now = self._clock()
        if isinstance(self._width, Fixed):
            self._width.limited(first=now >= self._until)
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


def _slower(learned: float, said: Allowance | None, age: float) -> float:
    """Units a second: the lower one of the two."""
    return min(learned, lasting(said, age)) if said else learned
