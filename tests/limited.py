"""A provider that lives by two token buckets, and an endless table, on the loop's clock."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from embedmigrate.engine.account import Account
from embedmigrate.engine.batching import Intake
from embedmigrate.engine.job import Job, Selection
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import Allowance, Allowances, Embedded, Limits, Row, Written
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.states import StopReason
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import RateLimited
from tests.fakes import loop_time, virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from embedmigrate.engine.model import Event, Key
    from embedmigrate.engine.vectors import Vectors


class _Bucket:
    """Starts full."""

    def __init__(self, per_minute: float, burst_seconds: float) -> None:
        self.per_minute = per_minute
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = self.capacity
        self._then = loop_time()

    def missing(self, units: float) -> float:
        """Seconds until it holds so many."""
        now = loop_time()
        self.level = min(self.capacity, self.level + (now - self._then) * self.rate)
        self._then = now
        return max(0.0, (units - self.level) / self.rate)

    def allowance(self) -> Allowance:
        reset = self.missing(self.capacity)
        return Allowance(self.per_minute, math.floor(self.level), round(reset, 3))


@dataclass(frozen=True)
class Terms:
    """How a provider behaves.

    Attributes:
        rpm: Requests that flow in a minute; None for any number.
        tpm: Tokens, likewise.
        burst: Seconds' worth that a full bucket holds.
        seconds: The median of a request's time; each is drawn around it.
        headers: Whether good answers tell what is left.
        retry_after: Whether refusals tell how long to wait.
        tokens: Of a request, on average.
        slots: Requests that are worked on at once; the others wait.
        writing: Seconds that a batch takes to be written, one at a time; 0 for none at all.
    """

    rpm: float | None = None
    tpm: float | None = None
    burst: float = 60.0
    seconds: float = 0.4
    headers: bool = True
    retry_after: bool = True
    tokens: int = 100
    slots: int = 1000
    writing: float = 0.0

    @property
    def most_requests_a_minute(self) -> float:
        return min(self.rpm or math.inf, (self.tpm or math.inf) / self.tokens)


@dataclass(frozen=True)
class Sample:
    """One moment of a run: `granted` and `refused` are requests until then."""

    at: float
    granted: int
    refused: int
    tokens: float
    allowed: int
    flying: int


@dataclass
class Run:
    terms: Terms
    samples: list[Sample] = field(default_factory=list)

    def rate(self, since: float, until: float) -> float:
        """Requests granted between two moments, per minute."""
        first, last = self.at(since), self.at(until)
        return (last.granted - first.granted) / (last.at - first.at) * 60

    def token_rate(self, since: float, until: float) -> float:
        first, last = self.at(since), self.at(until)
        return (last.tokens - first.tokens) / (last.at - first.at) * 60

    def refused(self, since: float, until: float) -> float:
        """The share of the requests between two moments that were refused."""
        first, last = self.at(since), self.at(until)
        refused = last.refused - first.refused
        return refused / max(1, refused + last.granted - first.granted)

    def at(self, moment: float) -> Sample:
        return max((s for s in self.samples if s.at <= moment), key=lambda s: s.at)


class LimitedProvider:
    """Grants a request when both buckets cover it, and takes from both or from none."""

    dimensions = 2

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self.chance = random.Random(seed)
        self.granted = self.refused = self.flying = self.most_flying = 0
        self.tokens = 0.0
        self.requests = _Bucket(terms.rpm, terms.burst) if terms.rpm else None
        self.token_bucket = _Bucket(terms.tpm, terms.burst) if terms.tpm else None
        self._slots = asyncio.Semaphore(terms.slots)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            async with self._slots:
                await asyncio.sleep(self.terms.seconds * self.chance.lognormvariate(0, 0.3))
            return self._answer(texts)
        finally:
            self.flying -= 1

    def _answer(self, texts: Sequence[str]) -> Embedded:
        tokens = sum(map(len, texts))
        asked = ((self.requests, 1.0), (self.token_bucket, float(tokens)))
        wanted = [(bucket, units) for bucket, units in asked if bucket]
        wait = max((bucket.missing(units) for bucket, units in wanted), default=0.0)
        if wait > 0:
            self.refused += 1
            after = math.ceil(wait * 1000) / 1000 if self.terms.retry_after else None
            raise RateLimited("429", retry_after=after, code="rate_limited", status=429)
        for bucket, units in wanted:
            bucket.level -= units
        self.granted += 1
        self.tokens += tokens
        left = Allowances(
            self.requests.allowance() if self.requests and self.terms.headers else None,
            self.token_bucket.allowance() if self.token_bucket and self.terms.headers else None,
        )
        vectors = np.ones((len(texts), self.dimensions), dtype=np.float32)
        return Embedded(vectors, tokens, left)

    async def aclose(self) -> None:
        pass


class EndlessTable:
    """Rows without end, and a sink that writes one batch at a time."""

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self.chance = random.Random(seed)
        self._connection = asyncio.Lock()

    async def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:
        for number in count():
            size = round(self.terms.tokens * self.chance.uniform(0.5, 1.5))
            yield Row((str(number),), str(number).ljust(size, "x"), str(number).encode())

    async def write(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        if self.terms.writing:
            async with self._connection:
                await asyncio.sleep(self.terms.writing)
        return Written(stored=len(rows))


def lived(
    terms: Terms,
    seed: int,
    seconds: float,
    *,
    concurrency: int = 32,
    auto: bool = True,
) -> Run:
    """A run of so many virtual seconds from a cold start, looked at ten times a second."""

    async def main() -> Run:
        events: list[Event] = []
        provider, table, run = LimitedProvider(terms, seed), EndlessTable(terms, seed), Run(terms)
        governor = Governor(Account(concurrency, auto=auto, clock=loop_time), report=events.append)
        intake = Intake(len, lambda text, tokens: text[:tokens], exact=True)
        limits = Limits(1, 1_000_000, 1_000_000)
        worker = Worker(
            provider,
            table,
            governor,
            limits=limits,
            admit=lambda row: intake.admit(row, None),
            patience=Patience(8, 600),
            jitter=provider.chance.random,
        )
        job = Job(
            table,
            worker,
            selection=Selection(),
            limits=lambda: limits,
            intake=intake,
            ledger=Ledger(selected=0, clock=loop_time),
            governor=governor,
            report=events.append,
        )
        began = loop_time()
        running = asyncio.create_task(job.run())
        while (at := loop_time() - began) < seconds + 0.05:
            p = provider
            run.samples.append(
                Sample(at, p.granted, p.refused, p.tokens, governor.allowed, p.flying)
            )
            await asyncio.sleep(0.1)
        job.tap.close(StopReason.SIGTERM)
        await running
        return run

    return virtually(main())
