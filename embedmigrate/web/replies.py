"""The bodies of the answers: the original's names first, and neutral ones beside them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from embedmigrate.web.tokens import Role


class Reply(BaseModel):
    """Names are snake_case here and camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Fault(Reply):
    code: str = Field(description="A stable name; docs/reference/errors.md lists them.")
    message: str


class Refused(Reply):
    """What every request is answered that is not carried out."""

    success: Literal[False] = False
    error: Fault
    job_id: str | None = Field(None, description="With 409: the job that is running.")
    current_job_id: str | None = Field(None, description="The same under the other name.")


class Stats(Reply):
    total_resumes: int
    resumes_with_embeddings: int
    resumes_without_embeddings: int
    coverage_percentage: float = Field(description="Of the rows that have text, floored.")
    rows_total: int
    rows_eligible: int = Field(description="Rows that have text.")
    rows_with_embedding: int
    rows_missing: int
    rows_stale: int | None = Field(description="Null where staleness is not tracked.")
    coverage_ratio: float
    exact: bool = Field(description="False: from the planner's statistics; the table is large.")
    age_seconds: float = Field(description="How long ago the table was counted.")
    table: str
    vector_column: str


class StatsReply(Reply):
    success: Literal[True] = True
    stats: Stats
    document: dict[str, Any] = Field(description="The same as `embedmigrate stats --json`.")


class RowError(Reply):
    resume_id: str
    id: str
    code: str
    message: str
    attempts: int
    http_status: int | None
    retryable: bool
    skipped: bool
    time: str | None


class Status(Reply):
    """Times are in milliseconds, where the name does not say seconds."""

    is_running: bool
    current_job_id: str | None = Field(description="emb-job-MILLISECONDS; of the last run too.")
    start_time: int | None = Field(description="Milliseconds since 1970.")
    total_resumes: int
    processed_resumes: int
    successful_resumes: int
    failed_resumes: int
    progress_percentage: float
    elapsed_time: int
    estimated_time_remaining: int | None
    last_processed_resume_id: str | None
    errors: list[RowError] = Field(description="The first hundred.")
    state: str = Field(description="idle before the first run; else as `embedmigrate status`.")
    state_reason: str | None
    wait_seconds: float | None
    run_id: str | None
    started_at: str | None
    updated_at: str | None
    ended_at: str | None
    exit_code: int | None
    error: Fault | None = Field(description="Why the run ended, or why it did not begin.")
    rows_total: int
    rows_processed: int
    rows_embedded: int
    rows_failed: int
    rows_skipped: int
    rows_per_second: float
    progress_ratio: float
    last_processed_id: str | None
    tokens: int
    cost_usd: float | None
    requests: int
    retries: int
    concurrency: int
    in_flight: int
    table: str
    vector_column: str
    model: str | None
    job: str | None = Field(description="Its name in the configuration file; null: the default.")


class StatusReply(Reply):
    success: Literal[True] = True
    status: Status
    document: dict[str, Any] = Field(description="The same as `embedmigrate status --json`.")


class StartReply(Reply):
    success: Literal[True] = True
    job_started: Literal[True] = True
    job_id: str
    run_id: str


class StopReply(Reply):
    success: Literal[True] = True
    stopped: bool = Field(description="False when nothing runs.")
    run_id: str | None


class OneResult(Reply):
    success: bool = Field(description="Whether the row has a current vector now.")
    resume_id: str
    duration: int = Field(description="Milliseconds.")
    id: str
    outcome: str = Field(description="embedded, unchanged, skipped or failed.")
    tokens: int
    cost_usd: float | None
    error: Fault | None


class OneReply(Reply):
    success: bool
    result: OneResult


class ErrorKind(Reply):
    code: str
    count: int
    retryable: bool
    example: RowError


class Errors(Reply):
    run_id: str | None
    total: int
    by_code: list[ErrorKind]
    rows: list[RowError]
    offset: int


class ErrorsReply(Reply):
    success: Literal[True] = True
    errors: Errors


class History(Reply):
    run_id: str | None
    points: list[tuple[float, int]] = Field(
        description="Seconds since the first row was read, and rows dealt with by then. "
        "Empty where the run was not started through a server."
    )


class HistoryReply(Reply):
    success: Literal[True] = True
    history: History


class Check(Reply):
    name: str
    status: str = Field(description="ok, warning, failed or skipped.")
    message: str
    code: str | None


class Plan(Reply):
    """What a run with these options would do; null where a failed check kept it unknown."""

    possible: bool
    error: Fault | None
    checks: list[Check]
    rows_selected: int | None
    tokens: int | None
    tokens_error_ratio: float | None
    requests: int | None
    cost_usd: float | None
    seconds: float | None
    rows_total: int | None
    rows_with_embedding: int | None
    rows_missing: int | None
    table: str | None
    vector_column: str | None
    model: str | None


class PlanReply(Reply):
    success: Literal[True] = True
    plan: Plan


class JobEntry(Reply):
    name: str | None = Field(description="For ?job=NAME; null for the default job.")
    table: str
    vector_column: str


class WhoamiReply(Reply):
    success: Literal[True] = True
    role: Role
    jobs: list[JobEntry]
    version: str


class Health(Reply):
    success: Literal[True] = True
