"""A state as a run leaves it, without a run."""

from __future__ import annotations

from embedmigrate.state import RunState


def state(mark: str, errors: int = 100) -> RunState:
    """As large as they become: a hundred failed rows."""
    return RunState(
        run_id="abc123",
        job_id="emb-job-1",
        state="running",
        pid=1,
        host="here",
        user="somebody",
        started_at="2026-01-01T00:00:00Z",
        updated_at="2026-01-01T00:00:01Z",
        fingerprint={"table": "public.articles (1)"},
        selection={"where": ""},
        target={"table": "public.articles", "vector_column": "embedding"},
        model={"name": "hash"},
        command=mark,
        progress={"rows_total": 5},
        cursor=["5"],
        errors=[{"id": str(n), "code": "input_rejected", "message": mark} for n in range(errors)],
    )
