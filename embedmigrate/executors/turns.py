"""The places that one actor holds at the governor, which the driver keeps for it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from embedmigrate.engine.model import Noticed
from embedmigrate.engine.pacing import Abandoned, Governor
from embedmigrate.engine.ports import Turn
from embedmigrate.errors import RateLimited
from embedmigrate.executors.messages import (
    Answered,
    Asked,
    Denied,
    Down,
    Ended,
    Granted,
    Limited,
    Notice,
    Up,
    Writing,
)


class Turns:
    """Does at the governor what the actor's messages say.

    Each turn is a task that stands in the governor's own queue and holds its place for as long
    as the actor's request lasts, so that one rule paces all actors, and a dead one leaves nothing
    taken.
    """

    def __init__(self, governor: Governor, tell: Callable[[Down], None], notice: Notice) -> None:
        self._governor = governor
        self._tell = tell
        self._notice = notice
        self._ends: dict[int, asyncio.Future[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: list[AbstractContextManager[None]] = []

    def hear(self, messages: Sequence[Up]) -> None:
        for message in messages:
            self._hear(message)

    def _hear(self, message: Up) -> None:
        match message:
            case Asked(number, tokens):
                self._ask(number, tokens)
            case Ended(number, refused):
                end = self._ends.pop(number, None)
                if end and not end.done():
                    end.set_result(refused)
            case Answered(tokens, seconds, left):
                self._governor.succeeded(Turn(tokens, self._governor.now() - seconds), left)
            case Limited(seconds, attempt, asked):
                self._governor.limited(seconds, attempt=attempt, asked=asked)
            case Writing(began):
                self._write(began=began)
            case Noticed(code, words):
                self._notice(code, words)

    def _ask(self, number: int, tokens: int) -> None:
        end = self._ends[number] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._hold(number, tokens, end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, number: int, tokens: int, end: asyncio.Future[bool]) -> None:
        try:
            async with self._governor.request(tokens):
                self._tell(Granted(number))
                _raise_if(refused=await end)
        except RateLimited:
            pass  # the governor has seen it
        except Abandoned:
            self._tell(Denied(number))

    def _write(self, *, began: bool) -> None:
        if began:
            write = self._governor.writing()
            write.__enter__()
            self._writes.append(write)
        elif self._writes:
            self._writes.pop().__exit__(None, None, None)

    def give_back(self) -> None:
        """The actor is gone: nothing that it held stays taken."""
        for task in self._tasks:
            task.cancel()
        self._ends.clear()
        while self._writes:
            self._write(began=False)


def _raise_if(*, refused: bool) -> None:
    if refused:
        raise RateLimited("a 429 to an actor", code="rate_limited")
