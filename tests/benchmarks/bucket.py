"""Token buckets for requests and tokens a minute, and the headers that a provider tells them by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Fills at `per_minute`, up to what `burst` seconds bring; full at the start."""

    per_minute: float
    burst: float
    level: float = field(init=False)
    _at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        return self.per_minute * self.burst / 60

    def refill(self, now: float) -> None:
        since = now - self._at if self._at is not None else 0.0
        self.level = min(self.capacity, self.level + since * self.per_minute / 60)
        self._at = now

    def wait(self, amount: float) -> float:
        """Seconds until it holds so much; what is above its capacity is owed afterwards."""
        return max(0.0, min(amount, self.capacity) - self.level) * 60 / self.per_minute

    def headers(self, name: str) -> dict[str, str]:
        until_full = (self.capacity - self.level) * 60 / self.per_minute
        return {
            f"x-ratelimit-limit-{name}": f"{self.per_minute:.0f}",
            f"x-ratelimit-remaining-{name}": f"{max(0.0, self.level):.0f}",
            f"x-ratelimit-reset-{name}": f"{until_full * 1000:.0f}ms",
        }


class Quota:
    """Requests and tokens together; a limit of zero is none."""

    def __init__(self, rpm: float, tpm: float, burst: float) -> None:
        named = {"requests": rpm, "tokens": tpm}
        self._buckets = {name: Bucket(rate, burst) for name, rate in named.items() if rate}

    def take(self, tokens: int, now: float) -> tuple[float, dict[str, str]]:
        """Seconds to wait, zero if the request is let in; the headers of the answer."""
        amounts = {"requests": 1, "tokens": tokens}
        for bucket in self._buckets.values():
            bucket.refill(now)
        wait = max((b.wait(amounts[name]) for name, b in self._buckets.items()), default=0.0)
        headers = dict[str, str]()
        for name, bucket in self._buckets.items():
            if not wait:
                bucket.level -= amounts[name]
            headers |= bucket.headers(name)
        if wait:
            headers["retry-after"] = str(math.ceil(wait))
            headers["retry-after-ms"] = str(math.ceil(wait * 1000))
        return wait, headers
