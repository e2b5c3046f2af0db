"""The frozen values that flow through the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from embedmigrate.engine.states import State
from embedmigrate.errors import EmbedMigrateError, Exit

if TYPE_CHECKING:  # status and --help read these values without paying for numpy
    from embedmigrate.engine.vectors import Vectors

Key: TypeAlias = tuple[str, ...]
"""A primary key as text, one entry for each column; SQL casts it back."""

CountTokens: TypeAlias = Callable[[str], int]


class Row(NamedTuple):
    """A row to embed; `digest` is the SHA-256 of its source text, which guards the write.

    A tuple, because there are as many of them as rows: a frozen dataclass takes six times as long.
    """

    key: Key
    text: str
    digest: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that could not be embedded, by key and reason: never its text."""

    key: Key
    code: str
    message: str
    http_status: int | None = None
    attempts: int = 1
    retryable: bool = False
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request carries; `last` is the key at which the scan stood when it was cut."""

    seq: int
    rows: tuple[Row, ...]
    last: Key
    refused: tuple[Failure, ...] = ()
    force: bool = False

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the provider says is left of its limit.

    Attributes:
        limit: Units when it is whole.
        remaining: Units that are left.
        reset: Seconds until it is whole again.
    """

    limit: float
    remaining: float
    reset: float


@dataclass(frozen=True, slots=True)
class Allowances:
    """Of each kind, where the provider says it."""

    requests: Allowance | None = None
    tokens: Allowance | None = None

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens)


UNSAID = Allowances()


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, the tokens that were charged, and what is left."""

    vectors: "Vectors"
    tokens: int
    left: Allowances = UNSAID


@dataclass(frozen=True, slots=True)
class Written:
    """What one guarded write found.

    Attributes:
        stored: Rows whose vector is now in the table.
        unchanged: Rows that somebody else had filled meanwhile.
        vanished: Rows that are gone or no longer eligible.
        changed: Rows whose text differs from the one that was embedded, as they are now.
        refused: Rows that the database would not take.
    """

    stored: int = 0
    unchanged: int = 0
    vanished: int = 0
    changed: tuple[Row, ...] = ()
    refused: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch; the cursor may pass it only when it is `finished`."""

    seq: int
    last: Key
    finished: bool
    stored: int = 0
    unchanged: int = 0
    vanished: int = 0
    failed: tuple[Failure, ...] = ()
    tokens: int = 0
    requests: int = 0
    retries: int = 0
    reused: int = 0
    error: EmbedMigrateError | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold; `text_tokens` is the model's limit for a single text."""

    rows: int
    bytes: int
    tokens: int
    text_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """One snapshot that feeds the display, the log, the JSON stream and the state file."""

    state: State = State.STARTING
    reason: str | None = None
    wait_seconds: float | None = None
    rows_selected: int = 0
    rows_already_done: int = 0
    rows_stored: int = 0
    rows_unchanged: int = 0
    rows_vanished: int = 0
    rows_failed: int = 0
    rows_skipped: int = 0
    requests: int = 0
    retries: int = 0
    texts_reused: int = 0
    tokens: int = 0
    cost_usd: float | None = None
    rows_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    eta_seconds: float | None = None
    in_flight: int = 0
    concurrency: int = 0
    cursor: Key | None = None

    @property
    def rows_processed(self) -> int:
        return (
            self.rows_stored
            + self.rows_unchanged
            + self.rows_vanished
            + self.rows_failed
            + self.rows_skipped
        )

    @property
    def rows_total(self) -> int:
        """Rows of this run and of the interrupted one that it continues; never below the done."""
        return self.rows_already_done + max(self.rows_selected, self.rows_processed)

    @property
    def rows_done(self) -> int:
        return self.rows_already_done + self.rows_processed

    @property
    def done_ratio(self) -> float:
        return self.rows_done / self.rows_total if self.rows_total else 1.0


@dataclass(frozen=True, slots=True)
class Advanced:
    progress: Progress


@dataclass(frozen=True, slots=True)
class RowFailed:
    failure: Failure


@dataclass(frozen=True, slots=True)
class Waiting:
    """Requests wait, all of them; `seconds` is None where the end is not known."""

    reason: str
    seconds: float | None
    attempt: int
    asked: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The wait is over."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that an operator should know once; `minor` where it is shown on request only."""

    code: str
    message: str
    minor: bool = False


Event: TypeAlias = Advanced | RowFailed | Waiting | Resumed | Noticed
Report: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, as the exit code tells it."""

    state: State
    exit_code: Exit
    progress: Progress
    error: EmbedMigrateError | None = None
    new_rows_left: bool = False
