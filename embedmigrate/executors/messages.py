"""What an actor and the driver say to each other, beside batches and their outcomes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from embedmigrate.engine.model import UNSAID, Allowances, Batch, Limits, Noticed, Outcome
from embedmigrate.engine.ports import Pacer
from embedmigrate.errors import EmbedMigrateError


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of about `tokens` tokens waits for its turn."""

    number: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The request is over, or nobody waits for its turn any more; `refused` is a 429."""

    number: int
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A good answer after so many seconds; no clock is shared, so lengths travel and not times."""

    tokens: int
    seconds: float
    left: Allowances = UNSAID


@dataclass(frozen=True, slots=True)
class Limited:
    """A 429 after which nobody shall send for so many seconds."""

    seconds: float
    attempt: int
    asked: bool


@dataclass(frozen=True, slots=True)
class Writing:
    """A batch begins to be written, or has been."""

    began: bool


Up: TypeAlias = Asked | Ended | Answered | Limited | Writing | Noticed
"""From the actor."""


@dataclass(frozen=True, slots=True)
class Granted:
    number: int


@dataclass(frozen=True, slots=True)
class Denied:
    """The run is stopping: this request shall not be sent."""

    number: int


@dataclass(frozen=True, slots=True)
class Alive:
    """The provider has answered somebody well, so many seconds ago."""

    age: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The run is stopping."""


Down: TypeAlias = Granted | Denied | Alive | Closed
"""To the actor."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Where an actor runs and what it works on.

    Attributes:
        host: The node's name.
        version: Of embedmigrate there.
        facts: What has to be the same everywhere, by name.
        refusal: Why it cannot work, if it cannot.
    """

    host: str
    version: str
    facts: dict[str, str] = field(default_factory=dict)
    refusal: EmbedMigrateError | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """An outcome, and the limits of a request as that worker knows them by now."""

    outcome: Outcome
    limits: Limits


class BatchWorker(Protocol):
    """The engine's worker, as an actor uses it."""

    limits: Limits

    async def __call__(self, batch: Batch) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Workplace:
    """A worker with everything it needs, and the facts for the introduction."""

    worker: BatchWorker
    facts: dict[str, str]


Notice: TypeAlias = Callable[[str, str], None]
"""Takes a code and a sentence."""

Build: TypeAlias = Callable[[Pacer, Notice], AbstractAsyncContextManager[Workplace]]
"""Opens a workplace in the process where it is called; picklable, and without any secret."""
