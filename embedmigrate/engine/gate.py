"""A semaphore whose width may change while it is in use, and whose places several jobs share."""

import asyncio
import itertools
from collections import deque
from math import inf


class Share:
    """One job's part of a gate.

    Attributes:
        most: Places that it may hold, however wide the gate is.
        held: Places that it holds.
        served: The number of the last place that it was given.
        waiting: Who of the job waits, in the order in which they came.
    """

    def __init__(self) -> None:
        self.most = inf
        self.held = 0
        self.served = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    @property
    def wants(self) -> bool:
        return bool(self.waiting) and self.held < self.most


class Gate:
    """Lets so many through at once: of one job in their order, of several the one that holds least.

    A place is held for as long as its request takes. Given away in turns, most of them would soon
    be in the hands of the job with the slowest requests.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.held = 0
        self._shares: list[Share] = []
        self._places = itertools.count(1)

    def join(self) -> Share:
        share = Share()
        self._shares.append(share)
        return share

    def part(self, share: Share) -> None:
        """It asks for nothing more; what it still holds it leaves as before."""
        self._shares.remove(share)

    @property
    def crowded(self) -> bool:
        """Whether anybody waits for a place."""
        return any(share.waiting for share in self._shares)

    async def enter(self, share: Share) -> None:
        if self.held < self.width and share.held < share.most and not share.waiting:
            self._give(share)
            return
        turn = asyncio.get_running_loop().create_future()
        share.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave(share)
            elif turn in share.waiting:  # else it was passed over in the same instant
                share.waiting.remove(turn)
            raise

    def leave(self, share: Share) -> None:
        self.held -= 1
        share.held -= 1
        self.wake()

    def wake(self) -> None:
        while self.held < self.width:
            wanting = [share for share in self._shares if share.wants]
            if not wanting:
                return
            self._wake_one(min(wanting, key=lambda share: (share.held, share.served)))

    def dismiss(self, share: Share) -> None:
        """Wake everybody of one job, whatever the width."""
        while share.waiting:
            self._wake_one(share)

    def _wake_one(self, share: Share) -> None:
        turn = share.waiting.popleft()
        if not turn.done():
            self._give(share)
            turn.set_result(None)

    def _give(self, share: Share) -> None:
        self.held += 1
        share.held += 1
        share.served = next(self._places)
