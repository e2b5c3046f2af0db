"""A semaphore whose width may change while it is in use."""

import asyncio
from collections import deque


class Gate:
    """Lets so many through at once, in the order in which they came."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether anybody waits for a place."""
        return bool(self._waiting)

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
