"""What the jobs of one process share: accounts, the moment at which they begin, one answer."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from embedmigrate.app.company import Company, Watchdog, Wish, ask, declined
from embedmigrate.app.opening import Opening
from embedmigrate.app.signals import Signals
from embedmigrate.app.values import Estimate, Totals
from embedmigrate.config import Loaded
from embedmigrate.embedders.models import Choice
from embedmigrate.engine.account import Account
from embedmigrate.errors import ConfigError

_CONNECTIONS = 16
"""In the pools of all jobs, as far as two for each allow; PostgreSQL takes 100 by default."""
_LAST_WORDS = 1.5
"""Seconds in which the loop, if it still turns, says how all jobs ended."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What one job asks of its provider's account."""

    choice: Choice
    rpm: float | None
    tpm: float | None


class Together:
    """Holds the jobs back until all have been checked, and asks the operator once.

    Args:
        jobs: Settings of each job by its name.
        planned: Told what those that can begin will take.
        confirm: Asks the operator.
    """

    def __init__(
        self,
        jobs: Mapping[str, Loaded],
        *,
        planned: Callable[[Totals], None],
        confirm: Callable[[str], bool],
    ) -> None:
        self.signals = Signals()
        self.watchdog = Watchdog(_LAST_WORDS)
        self.connections = max(2, min(4, _CONNECTIONS // max(1, len(jobs))))
        self.begun = set[str]()
        self._awaited = set(jobs)
        self._wishes: dict[str, Wish] = {}
        self._decided = asyncio.Event()
        self._asked = False
        self._refusal: ConfigError | None = None
        self._planned = planned
        self._confirm = confirm
        self._terms: dict[tuple[str, ...], list[_Terms]] = {}
        self._accounts: dict[tuple[str, ...], Account] = {}
        for loaded in jobs.values():
            self._note(loaded)

    def _note(self, loaded: Loaded) -> None:
        try:
            opening = Opening(loaded)
        except ConfigError:  # the job itself will say so
            return
        s = loaded.settings
        terms = self._terms.setdefault(_account_of(opening), [])
        terms.append(_Terms(opening.choice, s.rpm, s.tpm))

    def account(self, opening: Opening) -> Account:
        """The one of the job's provider; of all that its jobs name, the lowest limit holds."""
        key = _account_of(opening)
        if key not in self._accounts:
            terms = self._terms[key]
            fixed = [t.choice.concurrency for t in terms if not t.choice.auto]
            self._accounts[key] = Account(
                min(fixed or [t.choice.concurrency for t in terms]),
                auto=not fixed,
                rpm=_lowest(t.rpm for t in terms),
                tpm=_lowest(t.tpm for t in terms),
            )
        return self._accounts[key]

    async def agree(self, name: str, wish: Wish) -> None:
        """A job is ready to begin.

        Raises:
            ConfigError: The operator would rather not.
        """
        if self._decided.is_set():
            self._ask([wish])
        self._wishes[name] = wish
        self.not_awaited(name)
        await self._decided.wait()
        if self._refusal:
            raise self._refusal
        self.begun.add(name)

    def not_awaited(self, name: str) -> None:
        """It is ready, or has ended, or waits for another run: it no longer holds the others up."""
        self._awaited.discard(name)
        if not self._awaited and not self._decided.is_set():
            try:
                self._decide(list(self._wishes.values()))
            except BaseException:  # a broken pipe is no yes, and keeps nobody waiting
                self._refusal = declined()
                raise
            finally:
                self._decided.set()

    def _decide(self, wishes: list[Wish]) -> None:
        if wishes:
            self._planned(totals(wish.estimate for wish in wishes))
            self._ask(wishes)

    def _ask(self, wishes: list[Wish]) -> None:
        """Once, by those that are ready; the answer is that of all that come later."""
        forced = [wish for wish in wishes if wish.overwrites]
        if self._asked or not forced:
            return
        self._asked = True
        vectors = sum(wish.overwrites for wish in forced)
        jobs = "1 job" if len(forced) == 1 else f"{len(forced)} jobs"
        cost = totals(wish.estimate for wish in forced).cost_usd
        try:
            ask(self._confirm, f"{vectors:,} vectors ({jobs})", cost)
        except ConfigError as error:
            self._refusal = error


class Member(Company):
    """One job's part in it."""

    def __init__(self, name: str, together: Together) -> None:
        super().__init__(together.signals, together.watchdog)
        self.connections = together.connections
        self._name = name
        self._together = together

    def account(self, opening: Opening) -> Account:
        return self._together.account(opening)

    def late(self) -> None:
        self._together.not_awaited(self._name)

    async def agree(self, wish: Wish, confirm: Callable[[str], bool]) -> None:  # noqa: ARG002
        await self._together.agree(self._name, wish)


def totals(plans: Iterable[Estimate]) -> Totals:
    listed = list(plans)
    costs = [plan.cost_usd for plan in listed]
    return Totals(
        jobs=len(listed),
        rows=sum(plan.rows for plan in listed),
        tokens=sum(plan.tokens for plan in listed),
        requests=sum(plan.requests for plan in listed),
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _account_of(opening: Opening) -> tuple[str, ...]:
    """Host and key; a model that runs here has no account, and its jobs share the machine."""
    provider = opening.choice.provider
    if provider in {"local", "hash"}:
        return (provider,)
    return (provider, opening.access.host, opening.access.key or "")


def _lowest(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
