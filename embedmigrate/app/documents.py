"""Documents of the JSON interface that more than one output has."""

from dataclasses import asdict
from typing import Any

from embedmigrate.app.control import Status
from embedmigrate.app.records import now
from embedmigrate.app.values import Estimate, Place, Stats
from embedmigrate.secrets import redact_within

SCHEMA = "embedmigrate/1"


def document(message_type: str, body: dict[str, Any]) -> dict[str, Any]:
    """With the envelope that all of them have, and without secrets."""
    head = {"schema": SCHEMA, "message_type": message_type, "time": now()}
    found: dict[str, Any] = redact_within({**head, **body})
    return found


def target(place: Place) -> dict[str, Any]:
    return {
        "database": place.database,
        "host": place.host,
        "port": place.port,
        "table": place.table,
        "primary_key": list(place.primary_key),
        "text": place.text,
        "text_columns": list(place.text_columns),
        "vector_column": place.vector_column,
        "side_table": place.side_table,
        "vector_type": place.vector_type,
        "dimensions": place.dimensions,
    }


def costs(e: Estimate) -> dict[str, Any]:
    return {
        "estimated_tokens": e.tokens,
        "estimated_tokens_error": round(e.error, 4),
        "rows_sampled": e.sampled,
        "token_counter": e.counter,
        "estimated_requests": e.requests,
        "estimated_cost_usd": e.cost_usd,
        "price_usd_per_1m_tokens": e.price,
        "estimated_seconds": round(e.seconds, 1),
        "bound_by": e.bound_by,
    }


def stats(s: Stats) -> dict[str, Any]:
    c = s.counts
    return document(
        "stats",
        {
            "target": target(s.place),
            "rows": {
                "total": c.total,
                "without_text": c.without_text if c.exact else None,
                "eligible": c.eligible,
                "embedded": c.embedded,
                "missing": c.missing,
                "stale": c.stale if s.tracks_staleness and c.exact else None,
                "orphaned": s.orphaned,
                "exact": c.exact,
            },
            "coverage_ratio": round(c.coverage, 6),
            "model_of_last_run": s.model_of_last_run,
            "indexes": [{"name": n, "type": m, "valid": v} for n, m, v in s.indexes],
            "to_finish": costs(s.estimate) if s.estimate else None,
            "exit_code": int(s.exit_code),
        },
    )


def status(s: Status) -> dict[str, Any]:
    run = asdict(s.run)
    kept = ("run_id", "job_id", "state", "pid", "host", "user", "started_at", "updated_at")
    rest = (
        *("ended_at", "exit_code", "error", "target", "model", "errors", "error_report"),
        *("executor", "actors"),
    )
    return document(
        "status",
        {name: run[name] for name in kept}
        | run["progress"]
        | {name: run[name] for name in rest}
        | {"live": s.live, "job": s.name, "state_file": str(s.files.state)},
    )


def no_status() -> dict[str, Any]:
    return document("status", {"run_id": None, "state": None, "live": False})
