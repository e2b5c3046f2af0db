"""Actors that share the batches of a run: one that dies is replaced, its batches go to others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from embedmigrate.engine.model import Batch, Limits, Outcome
from embedmigrate.engine.pacing import Abandoned, Governor
from embedmigrate.errors import ClusterUnavailable, ConfigError, EmbedMigrateError
from embedmigrate.executors.member import Died, Member, Remote
from embedmigrate.executors.messages import Alive, Closed, Introduction, Notice

_MUSTER = 30.0
"""Seconds after which a run begins with those actors that there are."""
_MOST_DEATHS = 5
"""Actors that may die with a batch before it is not given to another."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_ALIVE_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a team is made of.

    Attributes:
        actors: How many there shall be.
        each: Batches that one has at once.
        wait: Seconds for which there may be no actor at all.
        mine: What every actor's introduction has to agree with.
    """

    actors: int
    each: int
    wait: float
    mine: Introduction


class Team:
    """Hires actors, hands out batches, and tells the actors what the governor says."""

    def __init__(self, plan: Plan, hire: Callable[[], Remote]) -> None:
        self._plan = plan
        self._hire = hire
        self._ready: list[Member] = []
        self._hired: set[Member] = set()
        self._changed = asyncio.Event()
        self._waiting: set[int] = set()
        self._since = asyncio.get_running_loop().time()
        self._refusal: EmbedMigrateError | None = None
        self._last_words = ""
        self._dismissed = False
        self._orders: asyncio.Future[tuple[Governor, Notice]] = (
            asyncio.get_running_loop().create_future()
        )
        self._slots: list[asyncio.Task[None]] = []

    @property
    def size(self) -> int:
        """Actors that are there now."""
        return len(self._ready)

    async def muster(self) -> None:
        """Start all actors and let them check what they need.

        Raises:
            EmbedMigrateError: One of them refuses, or there is none in time.
        """
        self._slots = [asyncio.create_task(self._slot()) for _ in range(self._plan.actors)]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MUSTER
        while self.size < self._plan.actors:
            if self._refusal:
                raise self._refusal
            now = loop.time()
            if self.size and now >= deadline:
                return
            if not self.size and now - self._since > max(_MUSTER, self._plan.wait):
                raise self._unavailable()
            await self._change(1.0)

    async def _slot(self) -> None:
        """One place in the team, with one actor after the other in it."""
        fruitless = 0
        while not self._dismissed:
            member = Member(self._hire())
            self._hired.add(member)
            try:
                await self._enlist(member)
                governor, notice = await asyncio.shield(self._orders)
                if governor.closed.is_set():
                    member.tell(Closed())
                await member.converse(governor, notice)
            except Died as death:
                self._note(str(death))
            except EmbedMigrateError as error:
                self._refusal = self._refusal or error
                self._last_words = error.message
            finally:
                self._leave(member)
            fruitless = 0 if member.finished else fruitless + 1
            if fruitless and not self._dismissed:
                await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (fruitless - 1)))

    def _note(self, words: str) -> None:
        self._last_words = words
        if self._orders.done() and not self._dismissed:
            _, notice = self._orders.result()
            notice("actor_died", f"an actor has died, its batches go to others: {words}")

    async def _enlist(self, member: Member) -> None:
        found = await member.introduce()
        mine = self._plan.mine
        if found.refusal:
            raise found.refusal
        theirs = {"embedmigrate": found.version, **found.facts}
        ours = {"embedmigrate": mine.version, **mine.facts}
        differences = [name for name in ours if theirs.get(name) != ours[name]]
        if differences:
            raise ConfigError(
                f"an actor on {found.host} would not do this run's work",
                code="actor_differs",
                facts=tuple(
                    f"{name}: {theirs.get(name)} there, {ours[name]} here" for name in differences
                ),
                hint="the same embedmigrate, and a DATABASE_URL for the same database, on every "
                "node",
            )
        self._ready.append(member)
        self._tell_waiting()

    def _leave(self, member: Member) -> None:
        if member in self._ready:
            self._ready.remove(member)
            if not self._ready:
                self._since = asyncio.get_running_loop().time()
        self._hired.discard(member)
        member.kill()
        self._tell_waiting()

    @contextlib.asynccontextmanager
    async def working(self, governor: Governor, notice: Notice) -> AsyncIterator[None]:
        """Actors may send for as long as this lasts, at the governor's pace."""
        self._orders.set_result((governor, notice))
        if self.size < self._plan.actors:
            message = (
                f"{self.size} of {self._plan.actors} actors are there: the cluster has no room "
                "for the others yet"
            )
            notice("actors_missing", message)
        beside = [
            asyncio.create_task(self._spread(governor)),
            asyncio.create_task(self._announce_end(governor)),
        ]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _spread(self, governor: Governor) -> None:
        """That the provider lives is news to those who wait for it."""
        told = float("-inf")
        while True:
            await asyncio.sleep(_ALIVE_EVERY)
            if (last := governor.last_success) > told:
                told = last
                for member in self._ready:
                    member.tell(Alive(governor.now() - last))

    async def _announce_end(self, governor: Governor) -> None:
        await governor.closed.wait()
        for member in self._ready:
            member.tell(Closed())
        self._tell_waiting()

    def limits(self, given: Limits) -> Limits:
        """Of a request: the lowest that any actor has found, or those given."""
        found = [given, *(m.limits for m in self._ready if m.limits)]
        return replace(
            given, rows=min(one.rows for one in found), bytes=min(one.bytes for one in found)
        )

    async def submit(self, batch: Batch) -> Outcome:
        """Have a batch done by the actor that has least to do, or by another if that one dies."""
        deaths = 0
        while True:
            try:
                member = await self._free(batch.seq)
            except Abandoned:
                return _unfinished(batch, deaths)
            except EmbedMigrateError as error:
                return _unfinished(batch, deaths, error)
            member.in_flight += 1
            self._tell_waiting()
            try:
                outcome = await member.work(batch)
            except Died as death:
                self._leave(member)  # nobody shall get it before its slot has noticed
                deaths += 1
                if deaths >= _MOST_DEATHS:
                    return _unfinished(batch, deaths, _keeps_dying(death))
            else:
                return _with_losses(outcome, batch, deaths)
            finally:
                member.in_flight -= 1
                self._tell_waiting()

    async def _free(self, seq: int) -> Member:
        """The actor with the fewest batches; waits until one has room.

        The batch that was cut first goes first: one whose actor died would otherwise be overtaken
        by new ones for as long as nobody replaces it, and the cursor would wait for it.

        Raises:
            Abandoned: The run is stopping.
            ClusterUnavailable: There has been no actor for too long.
        """
        governor, _ = await asyncio.shield(self._orders)
        self._waiting.add(seq)
        try:
            while not governor.closed.is_set():
                member = min(self._ready, key=lambda one: one.in_flight, default=None)
                first = seq == min(self._waiting)
                if member and first and member.in_flight < self._plan.each:
                    return member
                alone = asyncio.get_running_loop().time() - self._since
                if member is None and alone > self._plan.wait:
                    raise self._unavailable()
                await self._change(1.0)
        finally:
            self._waiting.discard(seq)
        raise Abandoned

    async def _change(self, seconds: float) -> None:
        """Something has changed, or some time has passed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def _tell_waiting(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _unavailable(self) -> ClusterUnavailable:
        facts = (f"The last one ended so: {self._last_words}",) if self._last_words else ()
        return ClusterUnavailable(
            f"no actor could be had for {self._plan.wait:g} s",
            code="no_actor",
            facts=facts,
            hint="ray status shows what the cluster has; compare --cpus-per-actor and "
            "--gpus-per-actor",
        )

    async def dismiss(self) -> None:
        """End all actors."""
        self._dismissed = True
        hired = list(self._hired)
        ready = list(self._ready)
        await asyncio.gather(*(member.dismiss() for member in ready), return_exceptions=True)
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        for member in hired:
            member.kill()


def _unfinished(batch: Batch, deaths: int, error: EmbedMigrateError | None = None) -> Outcome:
    outcome = Outcome(batch.seq, batch.last, finished=False, failed=batch.refused, error=error)
    return _with_losses(outcome, batch, deaths)


def _with_losses(outcome: Outcome, batch: Batch, deaths: int) -> Outcome:
    """What dead actors may have sent counts as paid: a budget holds rather too early than late."""
    if not deaths:
        return outcome
    return replace(
        outcome,
        tokens=outcome.tokens + deaths * batch.tokens,
        retries=outcome.retries + deaths,
    )


def _keeps_dying(death: Died) -> ClusterUnavailable:
    return ClusterUnavailable(
        f"{_MOST_DEATHS} actors have died with the same batch",
        code="actors_keep_dying",
        facts=(f"The last one ended so: {death}",),
        hint="often a node's memory: a smaller --batch-size or --concurrency needs less",
    )
