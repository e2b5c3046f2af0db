"""What the use cases tell the display: plain values, rendered nowhere but there."""

from dataclasses import dataclass, field
from typing import Any

from embedmigrate.engine.model import Key, Progress
from embedmigrate.engine.states import State
from embedmigrate.errors import EmbedMigrateError, Exit


@dataclass(frozen=True, slots=True)
class Counts:
    """Coverage of a table, within `--where`."""

    total: int
    without_text: int
    eligible: int
    embedded: int
    missing: int
    stale: int
    exact: bool = True

    @property
    def coverage(self) -> float:
        return self.embedded / self.eligible if self.eligible else 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the selected rows will cost.

    Attributes:
        rows: Rows that are estimated.
        error: Half the width of the 95 % interval of `tokens`, as a ratio; 0 when all were counted.
        sampled: Texts that were counted.
        counter: `cl100k_base` or `bytes/4`.
        bound_by: `tpm`, `rpm`, `delay`, `latency` or `index`: what decides about `seconds`.
        seconds_without_index: What it would be if no vector index were live.
    """

    rows: int
    tokens: int
    error: float
    sampled: int
    counter: str
    requests: int
    seconds: float
    bound_by: str
    cost_usd: float | None
    price: float | None
    seconds_without_index: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """The target and the model, as every output names them."""

    database: str
    host: str | None
    port: int | None
    where: str
    server: str
    pgvector: str
    table: str
    primary_key: tuple[str, ...]
    key_types: tuple[str, ...]
    text: str
    text_columns: tuple[str, ...]
    vector_column: str
    vector_type: str
    dimensions: int
    provider: str
    model: str
    side_table: str | None = None

    @property
    def filled(self) -> str:
        """The column that is filled, with its table."""
        return f"{self.side_table or self.table}.{self.vector_column}"


@dataclass(frozen=True, slots=True)
class Started:
    """Everything that is known before the first request."""

    run_id: str
    version: str
    pid: int
    host: str
    place: Place
    counts: Counts
    selected: int
    already_done: int
    estimate: Estimate
    resume_from: Key | None
    force: bool
    state_file: str
    error_report: str
    batch_size: int
    concurrency: int
    executor: str = "local"
    actors: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended; the last word on stdout."""

    run_id: str
    state: State
    exit_code: Exit
    place: Place
    progress: Progress
    before: Counts
    after: Counts
    counted_after: bool
    errors_by_code: dict[str, int]
    skipped_by_code: dict[str, int]
    new_rows_left: bool
    state_file: str
    error_report: str | None
    next_command: str | None
    error: EmbedMigrateError | None = None


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How one of several jobs ended.

    Attributes:
        run_id: None where it did not begin.
        error: Why it did not begin; afterwards errors are in the summary.
    """

    name: str
    exit_code: Exit
    state: State
    run_id: str | None = None
    summary: Summary | None = None
    error: EmbedMigrateError | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What several jobs will take together; the cost is None where one of the prices is unknown."""

    jobs: int
    rows: int
    tokens: int
    requests: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a dry run; `status` is ok, warning, failed or skipped."""

    name: str
    status: str
    message: str
    error: EmbedMigrateError | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """The preview: every check, and the plan where the checks allowed one."""

    checks: tuple[Check, ...]
    exit_code: Exit
    place: Place | None = None
    counts: Counts | None = None
    selected: int | None = None
    estimate: Estimate | None = None
    resume_from: Key | None = None
    state_file: str | None = None

    @property
    def error(self) -> EmbedMigrateError | None:
        """The first reason for which a run would not begin."""
        return next((c.error for c in self.checks if c.status == "failed" and c.error), None)


@dataclass(frozen=True, slots=True)
class Stats:
    """Coverage of a table.

    Attributes:
        tracks_staleness: Whether the number of stale rows means anything.
        indexes: Name, method and validity of each vector index.
        orphaned: Vectors of rows that are gone; None where there is no side table.
    """

    place: Place
    counts: Counts
    tracks_staleness: bool
    indexes: tuple[tuple[str, str, bool], ...]
    model_of_last_run: str | None
    estimate: Estimate | None
    exit_code: Exit = Exit.OK
    orphaned: int | None = None


@dataclass(frozen=True, slots=True)
class OneRow:
    """`result` is embedded, unchanged, skipped or failed."""

    key: Key
    result: str
    tokens: int
    cost_usd: float | None
    seconds: float
    error: dict[str, Any] | None = None
    exit_code: Exit = Exit.OK


@dataclass(frozen=True, slots=True)
class Proposal:
    """A job that `init` found.

    Attributes:
        found: What a person wants to see of it, by label.
        notes: What else could be set, as comments for the file.
        problems: Why it cannot run as it is.
    """

    name: str
    settings: dict[str, Any]
    found: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setup:
    """What `init` found where; `likely` are tables that have text and no vector column."""

    where: str
    pgvector: str
    jobs: tuple[Proposal, ...]
    likely: tuple[str, ...] = ()
