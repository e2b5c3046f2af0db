"""What the engine asks of the outside; each port is as narrow as its one caller."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol, TypeAlias

from embedmigrate.engine.model import (
    UNSAID,
    Allowances,
    Batch,
    Embedded,
    Key,
    Outcome,
    Row,
    Written,
)

if TYPE_CHECKING:
    from embedmigrate.engine.vectors import Vectors


class Source(Protocol):
    def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:
        """Eligible rows in key order, after `after`; only pending ones unless `force`."""
        ...


class Embedder(Protocol):
    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One request.

        Raises:
            ProviderError: And nothing else, whatever the provider did.
        """
        ...

    async def aclose(self) -> None: ...


class Sink(Protocol):
    async def write(self, rows: Sequence[Row], vectors: "Vectors", *, force: bool) -> Written:
        """Store the vectors of rows whose text is still the one embedded; safe to repeat.

        Raises:
            DatabaseUnavailable: The database stayed away; nothing more is known of the rows.
        """
        ...


@dataclass(slots=True)
class Turn:
    """One request: about how many tokens it holds, and when it was let through."""

    tokens: int
    at: float = inf


class Pacer(Protocol):
    """What a worker asks of the governor, wherever that is."""

    @property
    def last_success(self) -> float:
        """When the provider last answered well, by `now`; -inf if it never has."""
        ...

    def now(self) -> float:
        """Seconds from any origin."""
        ...

    def request(self, tokens: int) -> AbstractAsyncContextManager[Turn]:
        """Hold one place in flight for the length of a request.

        Raises:
            Abandoned: The run is stopping.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the run stops meanwhile.

        Raises:
            Abandoned: The run is stopping.
        """
        ...

    def writing(self) -> AbstractContextManager[None]:
        """A batch is on its way into the table."""
        ...

    def succeeded(self, turn: Turn | None = None, left: Allowances = UNSAID) -> None:
        """A good answer, and what the provider says is left."""
        ...

    def limited(self, seconds: float, *, attempt: int, asked: bool) -> None:
        """A 429: nobody sends for `seconds`."""
        ...

    def alive_since(self, moment: float) -> bool:
        """Whether the provider has answered well after `moment`."""
        ...


Submit: TypeAlias = Callable[[Batch], Awaitable[Outcome]]
