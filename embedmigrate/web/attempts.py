"""How many wrong tokens an address may send before it is told to wait."""

import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 10
WINDOW_SECONDS = 60.0
_REMEMBERED = 10_000


class Attempts:
    """Failed logins of the last minute, by address; the oldest addresses are forgotten first.

    A right token is let in all the same: with 32 characters nobody guesses it, and behind a proxy
    all share one address, so that one of them could lock out the rest.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def fail(self, address: str) -> float:
        """Note one more; seconds to wait, 0 while there are not too many."""
        now = self._clock()
        began, count = self._failed.pop(address, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, count = now, 0
        self._failed[address] = (began, count + 1)
        while len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)
        return began + WINDOW_SECONDS - now if count >= MOST else 0.0
