"""What only several jobs have as JSON: ends without a run, and the last line of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedmigrate.app.values import DryRun, JobEnd, Totals
from embedmigrate.cli import jsonl
from embedmigrate.errors import Exit


def unbegun(end: JobEnd) -> str:
    """The summary of one of several jobs that did not begin, or did not come to its own end."""
    error = jsonl.error_body(end.error) if end.error else None
    return jsonl.line(
        "summary",
        {
            "run_id": None,
            "ok": False,
            "state": end.state,
            "exit_code": int(end.exit_code),
            "error": error,
        },
        end.name,
    )


def all_jobs(ends: Sequence[JobEnd], total: Totals | None, code: Exit) -> str:
    """The last stdout line of `--all-jobs`."""
    jobs = [
        {
            "job": end.name,
            "exit_code": int(end.exit_code),
            "state": end.state,
            "run_id": end.run_id,
        }
        for end in ends
    ]
    return jsonl.line("all_jobs", _together(code, jobs, total) | {"dry_run": False})


def all_plans(found: Mapping[str, DryRun], total: Totals, code: Exit) -> str:
    """The same of a dry run."""
    jobs = [
        {"job": name, "exit_code": int(d.exit_code), "state": None, "run_id": None}
        for name, d in found.items()
    ]
    return jsonl.line("all_jobs", _together(code, jobs, total) | {"dry_run": True})


def _together(code: Exit, jobs: list[dict[str, Any]], total: Totals | None) -> dict[str, Any]:
    plan = total and {
        "jobs": total.jobs,
        "rows_selected": total.rows,
        "estimated_tokens": total.tokens,
        "estimated_requests": total.requests,
        "estimated_cost_usd": total.cost_usd,
    }
    return {"ok": code is Exit.OK, "exit_code": int(code), "jobs": jobs, "plan": plan}
