"""What the use cases return → the bodies of the replies."""

from collections import Counter
from typing import Any

from embedmigrate.app import documents
from embedmigrate.app.values import DryRun, OneRow
from embedmigrate.app.values import Stats as Coverage
from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError
from embedmigrate.secrets import redact
from embedmigrate.state import JobFiles
from embedmigrate.web.replies import (
    Check,
    ErrorKind,
    Errors,
    Fault,
    OneResult,
    Plan,
    Stats,
)
from embedmigrate.web.status import Snapshot, percent, row_error


def stats(found: Coverage, age: float) -> Stats:
    c = found.counts
    missing = c.missing + c.stale
    return Stats(
        total_resumes=c.total,
        resumes_with_embeddings=c.embedded,
        resumes_without_embeddings=missing,
        coverage_percentage=percent(c.coverage),
        rows_total=c.total,
        rows_eligible=c.eligible,
        rows_with_embedding=c.embedded,
        rows_missing=missing,
        rows_stale=c.stale if found.tracks_staleness and c.exact else None,
        coverage_ratio=round(c.coverage, 6),
        exact=c.exact,
        age_seconds=round(age, 1),
        table=found.place.table,
        vector_column=found.place.vector_column,
    )


def stats_document(found: Coverage) -> dict[str, Any]:
    """As `embedmigrate stats --json`, without the SQL that the text may be set as."""
    said = documents.stats(found)
    columns = ", ".join(found.place.text_columns)
    return {**said, "target": {**said["target"], "text": columns or "(expression)"}}


def document(taken: Snapshot) -> dict[str, Any]:
    """What `embedmigrate status --json` says, and of a run that has not come to its first save."""
    fresh = taken.launch if taken.starting or taken.refused else None
    if fresh:
        fault = taken.refused.model_dump() if taken.refused else None
        state = State.STARTING if taken.starting else State.FAILED
        more = {"run_id": fresh.run_id, "job_id": fresh.job_id, "state": state, "error": fault}
        return documents.no_status() | more | {"live": taken.running}
    return documents.status(taken.report) if taken.report else documents.no_status()


def one(row: OneRow, given: str) -> OneResult:
    fault = None
    if row.error:
        fault = Fault(code=str(row.error["code"]), message=redact(str(row.error["message"])))
    return OneResult(
        success=row.result in {"embedded", "unchanged"},
        resume_id=given,
        duration=round(row.seconds * 1000),
        id=given,
        outcome=row.result,
        tokens=row.tokens,
        cost_usd=row.cost_usd,
        error=fault,
    )


def plan(found: DryRun) -> Plan:
    e, c, place, error = found.estimate, found.counts, found.place, found.error
    return Plan(
        possible=error is None,
        error=Fault(code=error.code, message=redact(error.message)) if error else None,
        checks=[
            Check(
                name=one.name,
                status=one.status,
                message=redact(one.message),
                code=one.error.code if one.error else None,
            )
            for one in found.checks
        ],
        rows_selected=found.selected,
        tokens=e.tokens if e else None,
        tokens_error_ratio=round(e.error, 4) if e else None,
        requests=e.requests if e else None,
        cost_usd=e.cost_usd if e else None,
        seconds=round(e.seconds, 1) if e else None,
        rows_total=c.total if c else None,
        rows_with_embedding=c.embedded if c else None,
        rows_missing=c.missing + c.stale if c else None,
        table=place.table if place else None,
        vector_column=place.vector_column if place else None,
        model=place.model if place else None,
    )


def error_lines(files: JobFiles, run_id: str | None, *, named: bool) -> list[dict[str, Any]]:
    """The report of a run; a run without failed rows has none.

    Raises:
        CheckpointError: The run that was named has no report, or it is damaged.
    """
    if run_id is None:
        return []
    try:
        return files.errors_of(run_id)
    except CheckpointError as error:
        if named or error.code != "report_missing":
            raise
        return []


def errors(
    lines: list[dict[str, Any]], run_id: str | None, code: str | None, limit: int, offset: int
) -> Errors:
    kinds = Counter(str(line.get("code")) for line in lines)
    first = {str(line.get("code")): line for line in reversed(lines)}
    wanted = [line for line in lines if code is None or line.get("code") == code]
    return Errors(
        run_id=run_id,
        total=len(lines),
        by_code=[
            ErrorKind(
                code=kind,
                count=count,
                retryable=bool(first[kind].get("retryable")),
                example=row_error(first[kind]),
            )
            for kind, count in kinds.most_common()
        ],
        rows=[row_error(line) for line in wanted[offset : offset + limit]],
        offset=offset,
    )
