"""The figures of all jobs in Prometheus' text format."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from embedmigrate import __version__
from embedmigrate.errors import EmbedMigrateError
from embedmigrate.web.counting import Counted, Coverage
from embedmigrate.web.status import Snapshot, Watch

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "last_success_timestamp_seconds": "Unix time of the last run that ended with exit code 0.",
    "last_completion_timestamp_seconds": "Unix time at which the last run ended.",
    "last_run_duration_seconds": "How long the last run took.",
    "last_run_exit_code": "Exit code of the last run.",
    "last_run_rows": "Rows of the last run, by what became of them.",
    "last_run_tokens": "Tokens that the last run was charged for.",
    "last_run_cost_usd": "What the last run cost, where the price is known.",
    "last_run_retries": "Requests that the last run sent again.",
    "rows": "Rows of the table, by state.",
    "coverage_ratio": "Rows with a current embedding, of those that have text.",
    "running": "1 while a run is at work.",
    "build_info": "The version, as a label.",
}
Sample = tuple[str, dict[str, str], float]


async def page(seen: Iterable[tuple[Watch, Coverage]]) -> str:
    samples: list[Sample] = [("build_info", {"version": __version__}, 1)]
    for watch, coverage in seen:
        taken, counted = watch.look(), None
        try:
            counted = await coverage.get()
        except EmbedMigrateError:  # an outage of the database must not hide how the run goes
            counted = coverage.last
        samples += _samples(taken, counted)
    return "".join(_rendered(samples))


def _samples(taken: Snapshot, counted: Counted | None) -> Iterator[Sample]:
    run, s = taken.run, taken.job.settings
    target: dict[str, Any] = run.target if run else {}
    labels = {
        "table": str(target.get("table", s.table)),
        "column": str(target.get("vector_column", s.vector_column)),
        "model": str(run.model.get("name")) if run else s.model or "",
    }
    p = run.progress if run else {}
    yield "running", labels, int(taken.running)
    yield "last_success_timestamp_seconds", labels, _unix(run.last_success_at if run else None)
    yield "last_completion_timestamp_seconds", labels, _unix(run.ended_at if run else None)
    yield "last_run_duration_seconds", labels, float(p.get("elapsed_seconds") or 0)
    yield "last_run_exit_code", labels, (run.exit_code or 0) if run else 0
    for result in ("embedded", "failed", "skipped"):
        yield "last_run_rows", labels | {"result": result}, int(p.get(f"rows_{result}") or 0)
    yield "last_run_tokens", labels, int(p.get("tokens") or 0)
    yield "last_run_cost_usd", labels, float(p.get("cost_usd") or 0)
    yield "last_run_retries", labels, int(p.get("retries") or 0)
    if counted:
        c = counted.stats.counts
        rows = {"eligible": c.eligible, "embedded": c.embedded, "missing": c.missing + c.stale}
        for state, number in rows.items():
            yield "rows", labels | {"state": state}, number
        yield "coverage_ratio", labels, c.coverage


def _rendered(samples: list[Sample]) -> Iterator[str]:
    for name, words in _HELP.items():
        mine = [sample for sample in samples if sample[0] == name]
        if mine:
            yield f"# HELP embedmigrate_{name} {words}\n# TYPE embedmigrate_{name} gauge\n"
        for _, labels, value in mine:
            listed = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            yield f"embedmigrate_{name}{{{listed}}} {value:.16g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _unix(iso: str | None) -> float:
    return datetime.fromisoformat(iso).timestamp() if iso else 0.0
