"""What the engine asks of the outside; each port is as narrow as its one caller."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from embedmigrate.engine.model import Batch, Embedded, Key, Outcome, Row, Written

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


Submit: TypeAlias = Callable[[Batch], Awaitable[Outcome]]
