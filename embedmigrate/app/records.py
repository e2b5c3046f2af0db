"""Snapshots and failures as plain records: for the state file, the reports and the JSON stream."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from embedmigrate.secrets import redact

if TYPE_CHECKING:  # `status` starts without the model
    from embedmigrate.engine.model import Failure, Progress


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_line(failure: "Failure", run_id: str) -> dict[str, Any]:
    """A failed row for a machine: key, code and counts, never its text."""
    key = failure.key[0] if len(failure.key) == 1 else list(failure.key)
    return {
        "id": key,
        "code": failure.code,
        "message": redact(failure.message),
        "http_status": failure.http_status,
        "attempts": failure.attempts,
        "retryable": failure.retryable,
        "skipped": failure.skipped,
        "time": now(),
        "run_id": run_id,
    }


def as_json(progress: "Progress") -> dict[str, Any]:
    """A snapshot for the state file, with the names of the JSON interface."""
    return {
        "rows_selected": progress.rows_selected,
        "rows_total": progress.rows_total,
        "rows_done": progress.rows_done,
        "rows_embedded": progress.rows_stored,
        "rows_unchanged": progress.rows_unchanged,
        "rows_vanished": progress.rows_vanished,
        "rows_failed": progress.rows_failed,
        "rows_skipped": progress.rows_skipped,
        "done_ratio": round(progress.done_ratio, 6),
        "requests": progress.requests,
        "retries": progress.retries,
        "texts_reused": progress.texts_reused,
        "tokens": progress.tokens,
        "cost_usd": progress.cost_usd,
        "rows_per_second": round(progress.rows_per_second, 2),
        "elapsed_seconds": round(progress.elapsed_seconds, 3),
        "eta_seconds": None if progress.eta_seconds is None else round(progress.eta_seconds, 1),
        "in_flight": progress.in_flight,
        "concurrency": progress.concurrency,
        "state_reason": progress.reason,
        "wait_seconds": progress.wait_seconds,
        "last_id": key_text(progress.cursor),
    }


def key_text(key: tuple[str, ...] | list[str] | None) -> str | None:
    """A key as one string that `--resume-from` takes: plain, or a JSON list of its columns."""
    if not key:
        return None
    return key[0] if len(key) == 1 else json.dumps(list(key), ensure_ascii=False)
