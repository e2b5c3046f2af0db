"""What belongs to a provider's account: its rates, its cooldown, and how wide it is used."""

import time
from collections.abc import Callable
from math import inf

from embedmigrate.engine.gate import Gate
from embedmigrate.engine.model import UNSAID, Allowance, Allowances, Waiting
from embedmigrate.engine.ports import Turn
from embedmigrate.engine.rates import Bucket, Clock, Learned, lasting
from embedmigrate.engine.turnstile import Turnstile
from embedmigrate.engine.widths import Fixed, Found


class Account:
    """A gate, a bucket for requests and one for tokens, and a cooldown, for all jobs together.

    The first request goes alone. Then the gate is as wide as the operator said, narrower after a
    429; or, with `auto`, as wide as pays, while the buckets follow the provider's rate.
    docs/explanation/concurrency.md tells how.

    Args:
        concurrency: Requests in flight at most.
        auto: Find out how many up to then pay, and how fast they may follow one another.
        rpm: Requests a minute at most.
        tpm: Tokens a minute at most.
        clock: Seconds from any origin.

    Attributes:
        until: The moment at which the cooldown is over.
        writing: Batches on their way into the tables.
        told: Who hears of a cooldown: one for each job.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        auto: bool = False,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.most = concurrency
        self.clock = clock
        self.gate = Gate(1)
        self.queue = Turnstile()
        self.until = -inf
        self.writing = 0
        self.told: list[Callable[[Waiting], None]] = []
        self._width: Fixed | Found = Found(concurrency) if auto else Fixed(concurrency)
        self._learned = Learned() if auto else None
        self._left = UNSAID
        self._left_at = -inf
        self._requests = Bucket(rpm or inf, clock)
        self._tokens = Bucket(tpm or inf, clock)
        self._refused_at = -inf

    @property
    def allowed(self) -> int:
        """Requests that may be in flight now."""
        return self._width.allowed

    def take(self, tokens: int) -> None:
        self._requests.take(1)
        self._tokens.take(tokens)

    def give_back(self, tokens: int) -> None:
        """What was taken for a request that was not sent."""
        self._requests.take(-1)
        self._tokens.take(-tokens)

    def cost(self, tokens: int) -> float:
        """Seconds for which a request uses the rates up."""
        return max(1 / self._requests.rate, tokens / self._tokens.rate)

    def wait(self) -> float:
        """Seconds until the buckets let the next request through."""
        if self._learned:
            age = self.clock() - self._left_at
            self._requests.slow_down(_slower(self._learned.requests, self._left.requests, age))
            self._tokens.slow_down(_slower(self._learned.tokens, self._left.tokens, age))
        return max(self._requests.wait(), self._tokens.wait())

    def succeeded(self, turn: Turn, left: Allowances, job: object) -> None:
        """A good answer to a job, and what the provider says is left."""
        now = self.clock()
        if left:
            self._left, self._left_at = left, now
        if self._learned:
            self._learned.granted(turn.tokens, now)
        if isinstance(self._width, Fixed):
            self._width.succeeded()
        elif turn.at > self._refused_at:  # what was sent before the last 429 tells of another width
            self._width.answered(
                now - turn.at,
                job=job,
                wanted=self.gate.crowded and not self.queue.taken,
                writing=self.writing,
                told=bool(self._left),
            )
        self.gate.width = self.allowed
        self.gate.wake()

    def refused(self, turn: Turn) -> None:
        """A 429 to a request that was sent after the last one: the others tell nothing new."""
        if not self._learned or turn.at <= self._refused_at:
            return
        self._refused_at = self.clock()
        self._learned.refused(self._refused_at)
        if isinstance(self._width, Found):
            self._width.limited()
            self.gate.width = min(self.gate.width, self.allowed)

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        """A 429: nobody sends for `seconds`, and fewer do afterwards."""
        now = self.clock()
        if isinstance(self._width, Fixed):
            self._width.limited(first=now >= self.until)
            self.gate.width = min(self.gate.width, self.allowed)
        if now + seconds > self.until:
            self.until = now + seconds
            for tell in self.told:
                tell(Waiting("provider_rate_limit", seconds, attempt, asked))


def _slower(learned: float, said: Allowance | None, age: float) -> float:
    """Units a second: the lower one of the two."""
    return min(learned, lasting(said, age)) if said else learned
