"""Every output as one versioned JSON object a line; the schemas are in docs/reference/schemas."""

import json
from typing import Any

from embedmigrate.app import documents
from embedmigrate.app.control import Status, Stop
from embedmigrate.app.documents import costs, document, target
from embedmigrate.app.records import as_json, error_line, key_text
from embedmigrate.app.values import (
    Check,
    Counts,
    DryRun,
    Estimate,
    OneRow,
    Place,
    Started,
    Stats,
    Summary,
)
from embedmigrate.engine.model import Failure, Progress
from embedmigrate.errors import EmbedMigrateError
from embedmigrate.secrets import redact


def line(message_type: str, body: dict[str, Any], job: str | None = None) -> str:
    """One document; `job` is the name of the one of several that it is about."""
    named = {"job": job} if job else {}
    return encoded(document(message_type, {**named, **body}))


def encoded(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False)


def stats(s: Stats) -> str:
    return encoded(documents.stats(s))


def status(s: Status) -> str:
    return encoded(documents.status(s))


def model(place: Place) -> dict[str, Any]:
    return {"provider": place.provider, "name": place.model, "dimensions": place.dimensions}


def plan(counts: Counts, selected: int, estimate: Estimate | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "rows_total": counts.total,
        "rows_without_text": counts.without_text,
        "rows_eligible": counts.eligible,
        "rows_embedded": counts.embedded,
        "rows_missing": counts.missing,
        "rows_stale": counts.stale,
        "rows_selected": selected,
    }
    return body | (costs(estimate) if estimate else {})


def started(s: Started, job: str | None = None) -> str:
    return line(
        "start",
        {
            "run_id": s.run_id,
            "version": s.version,
            "dry_run": False,
            "pid": s.pid,
            "host": s.host,
            "target": target(s.place),
            "model": model(s.place),
            "plan": plan(s.counts, s.selected, s.estimate),
            "resume": {"from": key_text(s.resume_from), "rows_already_done": s.already_done},
            "limits": {
                "concurrency": s.concurrency,
                "batch_size": s.batch_size,
                "executor": s.executor,
                "actors": s.actors,
            },
            "state_file": s.state_file,
            "error_report": s.error_report,
        },
        job,
    )


def progress(p: Progress, run_id: str, job: str | None = None) -> str:
    return line("status", {"run_id": run_id, "state": p.state, **as_json(p)}, job)


def row_error(failure: Failure, run_id: str, job: str | None = None) -> str:
    return line("row_error", error_line(failure, run_id), job)


def notice(code: str, message: str, job: str | None = None, **more: Any) -> str:
    return line("notice", {"code": code, "message": message, **more}, job)


def coverage(counts: Counts) -> dict[str, Any]:
    return {
        "rows_embedded": counts.embedded,
        "rows_missing": counts.missing + counts.stale,
        "coverage_ratio": round(counts.coverage, 6),
    }


def summary(s: Summary, job: str | None = None) -> str:
    p = s.progress
    return line(
        "summary",
        {
            "run_id": s.run_id,
            "ok": s.exit_code == 0,
            "state": s.state,
            "exit_code": int(s.exit_code),
            "rows_selected": p.rows_selected,
            "rows_embedded": p.rows_stored,
            "rows_unchanged": p.rows_unchanged,
            "rows_vanished": p.rows_vanished,
            "rows_failed": p.rows_failed,
            "rows_skipped": p.rows_skipped,
            "rows_remaining": s.after.missing + s.after.stale,
            "remaining_counted": s.counted_after,
            "new_rows_left": s.new_rows_left,
            "errors_by_code": s.errors_by_code,
            "skipped_by_code": s.skipped_by_code,
            "before": coverage(s.before),
            "after": coverage(s.after),
            "requests": p.requests,
            "retries": p.retries,
            "texts_reused": p.texts_reused,
            "tokens": p.tokens,
            "cost_usd": p.cost_usd,
            "duration_seconds": round(p.elapsed_seconds, 3),
            "last_id": key_text(p.cursor),
            "state_file": s.state_file,
            "error_report": s.error_report,
            "next_command": s.next_command,
            "error": error_body(s.error) if s.error else None,
        },
        job,
    )


def error_body(error: EmbedMigrateError) -> dict[str, Any]:
    return {
        "exit_code": int(error.exit_code),
        "code": error.code,
        "message": redact(error.message),
        "facts": [redact(fact) for fact in error.facts],
        "hint": redact(error.hint) if error.hint else None,
        "docs": f"docs/reference/errors.md#{error.code}",
        "details": error.details,
    }


def exit_error(error: EmbedMigrateError, run_id: str | None, job: str | None = None) -> str:
    return line("exit_error", {"run_id": run_id, **error_body(error)}, job)


def refused_summary(error: EmbedMigrateError) -> str:
    """The last stdout line of a run that never began."""
    return line(
        "summary",
        {
            "run_id": None,
            "ok": False,
            "state": "failed",
            "exit_code": int(error.exit_code),
            "error": error_body(error),
        },
    )


def check(c: Check) -> dict[str, Any]:
    return {
        "name": c.name,
        "status": c.status,
        "message": redact(c.message),
        "code": c.error.code if c.error else None,
    }


def dry_run(d: DryRun, job: str | None = None) -> str:
    return line(
        "plan",
        {
            "dry_run": True,
            "exit_code": int(d.exit_code),
            "pending": None if d.selected is None else d.selected > 0,
            "checks": [check(c) for c in d.checks],
            "target": target(d.place) if d.place else None,
            "model": model(d.place) if d.place else None,
            "plan": plan(d.counts, d.selected or 0, d.estimate) if d.counts else None,
            "resume": {"from": key_text(d.resume_from)},
            "state_file": d.state_file,
        },
        job,
    )


def no_status() -> str:
    return encoded(documents.no_status())


def stop(s: Stop) -> str:
    run_id = s.run.run_id if s.run else None
    return line("stop", {"result": s.result, "run_id": run_id})


def row(r: OneRow) -> str:
    return line(
        "row",
        {
            "id": key_text(r.key),
            "result": r.result,
            "tokens": r.tokens,
            "cost_usd": r.cost_usd,
            "duration_seconds": round(r.seconds, 3),
            "error": r.error,
            "exit_code": int(r.exit_code),
        },
    )
