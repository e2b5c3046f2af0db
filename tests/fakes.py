"""A provider that follows a script, a table in memory, and a clock that nobody waits for."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from embedmigrate.engine.model import Embedded, Failure, Key, Row, Written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Any, Self

    from embedmigrate.engine.vectors import Vectors

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Instead of waiting it moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everybody waits for something that never comes")
            self.loop.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeping takes no time, and the clock says that it did; waiting for nothing is an error."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Skipping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def virtually(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on a loop whose hours pass at once."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def loop_time() -> float:
    """The clock to give to a Governor under `virtually`."""
    return asyncio.get_running_loop().time()


@lru_cache(maxsize=10_000)
def vector_of(text: str, dimensions: int) -> Vectors:
    """So that a vector stored with the wrong row is seen."""
    content = b"".join(
        sha256(f"{n} {text}".encode("utf-8", "surrogatepass")).digest()
        for n in range(dimensions // 16 + 1)
    )
    whole = np.frombuffer(content, "<i2")[:dimensions].astype(np.float32)
    vector: Vectors = whole + np.float32(0.5)
    vector.flags.writeable = False
    return vector


def embedded(texts: Sequence[str], dimensions: int) -> Embedded:
    """The right answer; a text costs as many tokens as it has characters."""
    vectors = np.stack([vector_of(text, dimensions) for text in texts])
    return Embedded(vectors, sum(map(len, texts)))


Answer: TypeAlias = "Embedded | Exception | None"
Rule: TypeAlias = "Callable[[Sequence[str]], Answer]"


class ScriptedEmbedder:
    """Asks its rules in turn; the first that answers decides, and silence means success.

    Attributes:
        requests: The texts of each request, in the order of arrival.
        times: When each arrived, on the loop's clock.
    """

    def __init__(self, *rules: Rule, dimensions: int = 4, seconds: float = 0.0) -> None:
        self.dimensions = dimensions
        self.rules = list(rules)
        self.seconds = seconds
        self.requests: list[tuple[str, ...]] = []
        self.times: list[float] = []
        self.answered: Counter[str] = Counter()
        self.flying = 0
        self.most_flying = 0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.requests.append(tuple(texts))
        self.times.append(loop_time())
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.flying -= 1
        for rule in self.rules:
            answer = rule(texts)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                self.answered.update(texts)
                return answer
        self.answered.update(texts)
        return embedded(texts, self.dimensions)

    async def aclose(self) -> None:
        pass


def first(times: int, make: Callable[[], Exception]) -> Rule:
    """The first `times` requests fail, whatever is in them."""
    left = times

    def rule(texts: Sequence[str]) -> Answer:
        nonlocal left
        if left:
            left -= 1
            return make()
        return None

    return rule


def holding(bad: Iterable[str], make: Callable[[], Exception]) -> Rule:
    """Every request that holds one of the bad texts fails."""
    refused = set(bad)
    return lambda texts: make() if refused.intersection(texts) else None


def during(begin: float, end: float, make: Callable[[], Exception]) -> Rule:
    """Every request that is answered between two moments of the loop's clock fails."""
    return lambda texts: make() if begin <= loop_time() < end else None


def row(number: int, text: str | None = None) -> Row:
    """The row of a table that has numbers for keys."""
    content = f"text {number}" if text is None else text
    return Row((str(number),), content, digest(content), len(content))


def digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass
class MemoryTable:
    """Source and sink at once, with the guard that the real statement has.

    Attributes:
        texts: By key; numbers as text, ordered as numbers.
        vectors: What was stored.
        before_write: Called with the rows of each write; where somebody else changes them.
        before_page: Called before each page is read.
        refuses: Keys that the database does not take.
    """

    texts: dict[Key, str] = field(default_factory=dict)
    vectors: dict[Key, Vectors] = field(default_factory=dict)
    before_write: Callable[[Sequence[Row]], None] = lambda rows: None
    before_page: Callable[[], None] = lambda: None
    refuses: set[Key] = field(default_factory=set)
    page: int = 16
    writes: list[tuple[Key, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, texts: Mapping[int, str]) -> Self:
        return cls({(str(number),): text for number, text in texts.items()})

    @classmethod
    def numbered(cls, rows: int) -> Self:
        return cls.of({number: f"text {number}" for number in range(1, rows + 1)})

    def add(self, number: int, text: str | None = None) -> None:
        self.texts[str(number),] = f"text {number}" if text is None else text

    async def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:
        last = int(after[0]) if after else -1
        while True:
            self.before_page()
            found = sorted(
                int(key[0])
                for key in self.texts
                if int(key[0]) > last and (force or key not in self.vectors)
            )
            if not found:
                return
            for number in found[: self.page]:
                text = self.texts[str(number),]
                yield Row((str(number),), text, digest(text))
                last = number
            await asyncio.sleep(0)

    async def write(self, rows: Sequence[Row], vectors: Vectors, *, force: bool) -> Written:
        self.before_write(rows)
        await asyncio.sleep(0)
        self.writes.append(tuple(row.key for row in rows))
        stored = unchanged = vanished = 0
        changed: list[Row] = []
        refused: list[Failure] = []
        for one, vector in zip(rows, vectors, strict=True):
            text = self.texts.get(one.key)
            if text is None:
                vanished += 1
            elif one.key in self.refuses:
                refused.append(Failure(one.key, "database_refused", "22003"))
            elif digest(text) != one.digest:
                changed.append(Row(one.key, text, digest(text)))
            elif one.key in self.vectors and not force:
                unchanged += 1
            else:
                self.vectors[one.key] = vector.copy()
                stored += 1
        return Written(stored, unchanged, vanished, tuple(changed), tuple(refused))

    def check(self) -> None:
        """Each stored vector is that of the row's own text."""
        for key, vector in self.vectors.items():
            expected = vector_of(self.texts[key], len(vector))
            assert np.array_equal(vector, expected), f"row {key} has the vector of another text"

    @property
    def stored(self) -> set[int]:
        return {int(key[0]) for key in self.vectors}
