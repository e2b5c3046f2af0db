"""How fast requests and tokens may go: the operator's limit, the provider's, and a learned one."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from embedmigrate.engine.model import Allowance

Clock = Callable[[], float]

_HORIZON = 60.0
"""Seconds over which what is left is spread at most: a day's allowance need not last the day."""
_LEAST = 0.95
"""The share of its limit that we take however little the provider says is left."""

_BELOW = 0.95
"""Of a rate that was measured from one refusal to the next."""
_GUESSED = 0.25
"""Of the rate before the first refusal, which may have been a burst that the provider allowed."""
_GUESSED_GROWTH = 0.05
"""Of the rate with each answer, after a guess; the next refusal ends it."""
_GROWTH = 0.002
_DOUBT = 0.07
"""Added to the growth, divided by the requests that were measured: few make for a poor measure."""
_STRIDE = 100
"""Answers without a refusal after which the growth doubles, as CUBIC's does (RFC 9438)."""
_WALLS = 4
"""Refusals over which the rate is measured."""
_RECENT = 32
"""Answers over which it is guessed."""


class Bucket:
    """A token bucket that may go into debt, so that a request above its size still passes.

    Args:
        per_minute: Units let through in a minute; the operator's limit.
        clock: Seconds from any origin.
    """

    def __init__(self, per_minute: float, clock: Clock) -> None:
        self._limit = per_minute / 60
        self._pace = inf
        self._level = self._size
        self._clock = clock
        self._then = clock()

    @property
    def rate(self) -> float:
        """Units a second that it lets through now."""
        return min(self._limit, self._pace)

    @property
    def _size(self) -> float:
        """Two seconds of the operator's allowance: providers enforce shorter windows as well.

        A pace below it saves nothing up: a burst is what it is there to prevent.
        """
        return max(1.0, self._limit * 2) if self._limit <= self._pace and self._limit < inf else 0.0

    def slow_down(self, per_second: float) -> None:
        """Let no more than this through, for as long as it is below the operator's limit."""
        self._fill()
        self._pace = per_second

    def take(self, units: float) -> float:
        """Take `units`; the seconds to wait until they are covered."""
        self._fill()
        self._level -= units
        return self.wait()

    def wait(self) -> float:
        """Seconds until what was taken is covered."""
        self._fill()
        return max(0.0, -self._level / self.rate)

    def _fill(self) -> None:
        now, rate = self._clock(), self.rate
        if rate == inf:
            self._level = 0.0
        else:
            self._level = min(self._size, self._level + (now - self._then) * rate)
        self._then = now


def lasting(allowance: Allowance, age: float) -> float:
    """Units a second at which what is left lasts until it is whole again.

    A token bucket that is drained at this rate settles half full, and gives exactly what flows
    into it; a window that is emptied at this rate is empty when the next one begins.
    """
    left = allowance.reset - age
    if left <= 0:
        return inf
    refill = min(allowance.limit / 60, (allowance.limit - allowance.remaining) / allowance.reset)
    return max(allowance.remaining / min(left, _HORIZON), _LEAST * refill)


@dataclass(frozen=True, slots=True)
class _Wall:
    """A moment in which the provider's bucket was empty, and what it had given until then."""

    at: float
    requests: float
    tokens: float


class Learned:
    """The rates of a provider that only says when they are exceeded.

    What is granted from one refusal to another is what flowed into the provider's bucket between
    them: it was empty both times. That rate is kept a little below, then raised until the next.

    Attributes:
        requests: A second; infinite until something was refused.
        tokens: The same, in the tokens that we count.
    """

    def __init__(self) -> None:
        self.requests = self.tokens = inf
        self._granted = _Wall(0.0, 0, 0)
        self._walls: deque[_Wall] = deque(maxlen=_WALLS)
        self._recent: deque[_Wall] = deque(maxlen=_RECENT)
        self._growth = _GUESSED_GROWTH
        self._clean = 0

    def granted(self, tokens: float, now: float) -> None:
        g = self._granted
        self._granted = _Wall(now, g.requests + 1, g.tokens + tokens)
        self._recent.append(self._granted)
        if not self._walls:
            return
        self._clean += 1
        growth = self._growth * 2 ** (self._clean // _STRIDE)
        self.requests *= 1 + growth
        self.tokens *= 1 + growth

    def refused(self, now: float) -> None:
        """The first refusal of a cooldown."""
        wall = _Wall(now, self._granted.requests, self._granted.tokens)
        self._clean = 0
        if not self._walls:
            if len(self._recent) > 1:
                self._set(_GUESSED, self._recent[0], wall)
            self._walls.append(wall)
        elif wall.requests > self._walls[-1].requests:
            given = wall.requests - self._walls[0].requests
            # Half a request was in the bucket, on average.
            self._set(_BELOW * (given + 0.5) / given, self._walls[0], wall)
            self._growth = _GROWTH + _DOUBT / given
            self._walls.append(wall)

    def _set(self, share: float, first: _Wall, last: _Wall) -> None:
        seconds = max(last.at - first.at, 0.001)
        self.requests = share * (last.requests - first.requests) / seconds
        self.tokens = share * (last.tokens - first.tokens) / seconds
