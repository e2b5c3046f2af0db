"""One job's governor: when its next request may go, and that none goes after its end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf

from embedmigrate.engine.account import Account
from embedmigrate.engine.model import UNSAID, Allowances, Report, Resumed, Waiting
from embedmigrate.engine.ports import Turn
from embedmigrate.errors import RateLimited

_LOOK = 1.0
"""Seconds after which whoever waits for a rate looks whether it has risen."""

_NO_TIME = 0.001
"""Seconds that are not worth a sleep: what was taken too early is paid for by the next one."""


class Abandoned(Exception):  # noqa: N818  not an error: the run is ending
    """The run is stopping: what still waits for its turn shall not be sent."""


async def sleep_unless(closed: asyncio.Event, seconds: float) -> None:
    """Sleep for as long as the event does not happen.

    Raises:
        Abandoned: It has.
    """
    if seconds <= 0:
        return
    try:
        await asyncio.wait_for(closed.wait(), seconds)
    except TimeoutError:
        return
    raise Abandoned


class Governor:
    """Lets a job's requests through, within what its provider's account allows to all jobs.

    The job's own are its end, its pauses for its database, its delay, and its first request,
    which goes alone: a wrong key, model or width is met once and not by every worker at the same
    time. A job that waits for its database holds no place of the account meanwhile.

    Args:
        account: Shared with the other jobs that use it.
        report: Told of each cooldown and its end.
        delay: Seconds for which a place stays taken after its request.
    """

    def __init__(self, account: Account, *, report: Report, delay: float = 0.0) -> None:
        self.most = account.most
        self.last_success = -inf
        self.closed = asyncio.Event()
        self._account = account
        self._share = account.gate.join()
        self._share.most = 1
        self._lane = account.queue.join()
        self._delay = delay
        self._clock = account.clock
        self._report = report
        self._until = -inf
        self._cooling = 0
        self._held_back = False
        account.told.append(self._hold_back)

    @property
    def allowed(self) -> int:
        """Requests that may be in flight now, of all jobs together."""
        return self._account.allowed

    @property
    def in_flight(self) -> int:
        return self._share.held

    @asynccontextmanager
    async def request(self, tokens: int) -> AsyncIterator[Turn]:
        """Hold one place in flight for the length of a request of about `tokens` tokens.

        The place stays taken for the operator's delay afterwards, while the caller already writes.

        Raises:
            Abandoned: The run is stopping.
        """
        turn = Turn(tokens)
        await self._enter(turn)
        try:
            yield turn
        except RateLimited:
            self._account.refused(turn)
            raise
        finally:
            self._leave()

    async def _enter(self, turn: Turn) -> None:
        """Take a place, and wait with it until the rates cover the request."""
        while True:
            while (left := self._until - self._clock()) > 0:
                await self._cool(left)
            if self.closed.is_set():
                raise Abandoned
            await self._account.gate.enter(self._share)
            passed = False
            try:
                passed = await self._paced(turn.tokens)
            finally:
                if not passed:
                    self._leave()
            if passed:
                break
        self._resume()
        turn.at = self._clock()

    def _leave(self) -> None:
        if self._delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay, self._account.gate.leave, self._share)
        else:
            self._account.gate.leave(self._share)

    async def _paced(self, tokens: int) -> bool:
        """One after the other, so that a rate that falls holds for those who already wait.

        False where the job is to leave its database in peace: others may go meanwhile.
        """
        account = self._account
        if self.closed.is_set() or not await account.queue.enter(self._lane, account.cost(tokens)):
            raise Abandoned
        sent = False
        account.take(tokens)
        try:
            while True:
                if (left := account.until - self._clock()) > 0:
                    await self._cool(left)
                elif self._until > self._clock():
                    break
                elif (left := account.wait()) > _NO_TIME:
                    await self.sleep(min(left, _LOOK))
                else:
                    sent = True
                    break
        finally:
            if not sent:
                account.give_back(tokens)
            account.queue.leave()
        return sent

    async def _cool(self, seconds: float) -> None:
        self._cooling += 1
        try:
            await self.sleep(seconds)
        finally:
            self._cooling -= 1
            if not self._cooling and max(self._until, self._account.until) <= self._clock():
                self._resume()

    def _hold_back(self, waiting: Waiting) -> None:
        self._held_back = True
        self._report(waiting)

    def _resume(self) -> None:
        """Told once, by whoever notices first."""
        if self._held_back:
            self._held_back = False
            self._report(Resumed())

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the run stops meanwhile.

        Raises:
            Abandoned: The run is stopping.
        """
        await sleep_unless(self.closed, seconds)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A batch is on its way into the table: more of them than in flight are a backlog."""
        self._account.writing += 1
        try:
            yield
        finally:
            self._account.writing -= 1

    def succeeded(self, turn: Turn | None = None, left: Allowances = UNSAID) -> None:
        """A good answer, and what the provider says is left."""
        self.last_success = self._clock()
        self._share.most = inf
        self._account.succeeded(turn or Turn(0, self.last_success), left, self)

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        """A 429: no job of the account sends for `seconds`, and fewer requests fly afterwards."""
        self._account.limited(seconds, attempt=attempt, asked=asked)

    def pause(self, seconds: float, reason: str) -> None:
        """The job sends nothing for `seconds`, for its database's sake; told once."""
        now = self._clock()
        fresh = now >= max(self._until, self._account.until)
        self._until = max(self._until, now + seconds)
        if fresh:
            self._hold_back(Waiting(reason, None, 0, asked=True))

    def alive_since(self, moment: float) -> bool:
        """Whether the provider has answered this job well after `moment` of the governor's clock.

        Not another job: its model may be well while ours is down.
        """
        return self.last_success > moment

    def now(self) -> float:
        return self._clock()

    def close(self) -> None:
        """Let nothing more of this job be sent; whoever of it waits is told."""
        self.closed.set()
        self._account.gate.dismiss(self._share)
        self._account.queue.dismiss(self._lane)

    def retire(self) -> None:
        """The job has ended, and hears no more of the account."""
        self.close()
        self._account.told.remove(self._hold_back)
        self._account.gate.part(self._share)
        self._account.queue.part(self._lane)
