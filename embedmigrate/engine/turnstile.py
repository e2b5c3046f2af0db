"""One at a time, and what it takes to pass differs: jobs share the time and not the turns."""

import asyncio
import itertools
from collections import deque


class Lane:
    """One job's queue before a turnstile.

    Attributes:
        spent: What its passages have cost, counted from when it last had nobody waiting.
        served: The number of its last passage.
        waiting: Who of it waits, with what each passage costs.
    """

    def __init__(self) -> None:
        self.spent = 0.0
        self.served = 0
        self.waiting: deque[tuple[asyncio.Future[bool], float]] = deque()


class Turnstile:
    """A lock: of one job in their order, of several the one whose passages have cost the least.

    This is start-time fair queueing (Goyal, 1996). A job whose requests hold a hundred times the
    tokens passes a hundred times less often, and one that was away has saved nothing up.
    """

    def __init__(self) -> None:
        self.taken = False
        self._lanes: list[Lane] = []
        self._start = 0.0
        self._passages = itertools.count(1)

    def join(self) -> Lane:
        lane = Lane()
        self._lanes.append(lane)
        return lane

    def part(self, lane: Lane) -> None:
        self._lanes.remove(lane)

    async def enter(self, lane: Lane, cost: float) -> bool:
        """Whether the lock is held now; it is not when the job was dismissed.

        Args:
            lane: The job's.
            cost: Of this passage, in any unit that all jobs share.
        """
        if not lane.waiting:
            lane.spent = max(lane.spent, self._start)
        if not self.taken:
            self._serve(lane, cost)
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        place = (turn, cost)
        lane.waiting.append(place)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                if turn.result():
                    self.leave()
            elif place in lane.waiting:  # else it was passed over in the same instant
                lane.waiting.remove(place)
            raise

    def leave(self) -> None:
        self.taken = False
        waiting = [lane for lane in self._lanes if lane.waiting]
        while waiting and not self.taken:
            lane = min(waiting, key=lambda lane: (lane.spent, lane.served))
            turn, cost = lane.waiting.popleft()
            if not turn.done():
                self._serve(lane, cost)
                turn.set_result(True)
            waiting = [lane for lane in waiting if lane.waiting]

    def dismiss(self, lane: Lane) -> None:
        """Wake everybody of one job, with nothing."""
        while lane.waiting:
            turn, _ = lane.waiting.popleft()
            if not turn.done():
                turn.set_result(False)

    def _serve(self, lane: Lane, cost: float) -> None:
        self.taken = True
        self._start = lane.spent
        lane.spent += cost
        lane.served = next(self._passages)
