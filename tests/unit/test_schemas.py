"""What jsonl builds fits the published schemas; what is damaged does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from embedmigrate.app.control import Status, Stop
from embedmigrate.app.records import as_json, error_line, now
from embedmigrate.app.values import (
    Check,
    Counts,
    DryRun,
    Estimate,
    JobEnd,
    OneRow,
    Place,
    Started,
    Stats,
    Summary,
    Totals,
)
from embedmigrate.cli import jsonl, jsonl_jobs
from embedmigrate.cli.configuration import show_settings
from embedmigrate.cli.terminal import open_streams
from embedmigrate.config import load, options
from embedmigrate.engine.model import Failure, Progress
from embedmigrate.engine.states import State
from embedmigrate.errors import BudgetError, ConfigError, Exit
from embedmigrate.state import JobFiles, RunState
from tests import schemas

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "7f3c9a"
PLACE = Place(
    database="prod",
    host="db.internal",
    port=5432,
    where="app@db.internal:5432/prod",
    server="18.4",
    pgvector="0.8.5",
    table="public.articles",
    primary_key=("tenant", "id"),
    key_types=("uuid", "bigint"),
    text="title + body",
    text_columns=("title", "body"),
    vector_column="embedding",
    vector_type="vector",
    dimensions=1536,
    provider="openai",
    model="text-embedding-3-small",
)
COUNTS = Counts(1000, 20, 980, 900, 70, 10)
ESTIMATE = Estimate(
    rows=80,
    tokens=41_000,
    error=0.031,
    sampled=60,
    counter="cl100k_base",
    requests=1,
    seconds=0.4,
    bound_by="latency",
    cost_usd=0.00082,
    price=0.02,
)
STARTED = Started(
    run_id=RUN,
    version="0.1.0",
    pid=4711,
    host="ops1",
    place=PLACE,
    counts=COUNTS,
    selected=80,
    already_done=0,
    estimate=ESTIMATE,
    resume_from=None,
    force=False,
    state_file="/var/lib/embedmigrate/prod.json",
    error_report=f"/var/lib/embedmigrate/{RUN}.errors.jsonl",
    batch_size=128,
    concurrency=8,
)
PROGRESS = Progress(
    state=State.RUNNING,
    rows_selected=80,
    rows_stored=40,
    requests=3,
    retries=1,
    tokens=20_000,
    cost_usd=0.0004,
    rows_per_second=12.5,
    elapsed_seconds=3.2,
    eta_seconds=None,
    in_flight=2,
    concurrency=8,
    cursor=("a", "17"),
)
FAILURE = Failure(("a", "18"), "input_too_long", "9120 tokens, model limit 8192", 400)
ERROR = ConfigError(
    "no database configured",
    code="database_url_missing",
    facts=("Looked everywhere.",),
    hint="export DATABASE_URL=...",
    details={"looked_at": ["DATABASE_URL"]},
)
SUMMARY = Summary(
    run_id=RUN,
    state=State.COMPLETED,
    exit_code=Exit.OK,
    place=PLACE,
    progress=replace(PROGRESS, state=State.COMPLETED),
    before=COUNTS,
    after=replace(COUNTS, embedded=980, missing=0, stale=0),
    counted_after=True,
    errors_by_code={},
    skipped_by_code={},
    new_rows_left=False,
    state_file=STARTED.state_file,
    error_report=None,
    next_command=None,
)
RUN_STATE = RunState(
    run_id=RUN,
    job_id="emb-job-1795478040144",
    state=State.STOPPED,
    pid=4711,
    host="ops1",
    user="app",
    started_at=now(),
    updated_at=now(),
    fingerprint={"model": "openai/text-embedding-3-small"},
    selection={"where": ""},
    target={
        "table": "public.articles",
        "vector_column": "embedding",
        "primary_key": ["id"],
        "where": PLACE.where,
    },
    model={"provider": "openai", "name": "text-embedding-3-small", "dimensions": 1536},
    command="embedmigrate generate-all",
    progress=as_json(PROGRESS),
    errors=[error_line(FAILURE, RUN)],
    error_report=STARTED.error_report,
    error={"code": "database_unavailable", "message": "the database stayed away"},
    ended_at=now(),
    exit_code=5,
)
STATUS = Status("prod.articles", JobFiles(Path("state"), "prod.articles"), RUN_STATE, live=False)
DRY_RUN = DryRun(
    checks=(Check("connect", "ok", "app@db"), Check("live_index", "warning", "hnsw is live")),
    exit_code=Exit.GATE,
    place=PLACE,
    counts=COUNTS,
    selected=80,
    estimate=ESTIMATE,
    resume_from=("a", "17"),
    state_file=STARTED.state_file,
)
STATS = Stats(PLACE, COUNTS, True, (("articles_hnsw", "hnsw", True),), "3-small", ESTIMATE)
ENDS = (
    JobEnd("a", Exit.OK, State.COMPLETED, RUN, SUMMARY),
    JobEnd("b", Exit.USAGE, State.FAILED, error=ERROR),
    JobEnd("c", Exit.TERMINATED, State.INTERRUPTED),
)
TOTALS = Totals(jobs=2, rows=160, tokens=6400, requests=2, cost_usd=None)

SAMPLES: dict[str, Callable[[], str]] = {
    "start": lambda: jsonl.started(STARTED),
    "start, resumed, price not known": lambda: jsonl.started(
        replace(
            STARTED,
            resume_from=("a", "1"),
            already_done=5,
            estimate=replace(ESTIMATE, cost_usd=None, price=None),
        )
    ),
    "start, local socket": lambda: jsonl.started(
        replace(STARTED, place=replace(PLACE, host=None, port=None, text_columns=()))
    ),
    "status, live": lambda: jsonl.progress(PROGRESS, RUN),
    "status, throttled": lambda: jsonl.progress(
        replace(PROGRESS, state=State.THROTTLED, reason="provider_rate_limit", wait_seconds=21.0),
        RUN,
    ),
    "status, nothing done yet": lambda: jsonl.progress(Progress(), RUN),
    "status of a run that ended": lambda: jsonl.status(STATUS),
    "status of a run that is starting": lambda: jsonl.status(
        replace(
            STATUS,
            live=True,
            run=replace(
                RUN_STATE,
                state=State.STARTING,
                progress={},
                errors=[],
                error=None,
                ended_at=None,
                exit_code=None,
            ),
        )
    ),
    "status of a run that died": lambda: jsonl.status(
        replace(STATUS, run=replace(RUN_STATE, state=State.DEAD, ended_at=None, exit_code=None))
    ),
    "status, none": jsonl.no_status,
    "row_error": lambda: jsonl.row_error(FAILURE, RUN),
    "row_error, one key column, skipped": lambda: jsonl.row_error(
        replace(FAILURE, key=("18",), http_status=None, attempts=0, skipped=True), RUN
    ),
    "notice": lambda: jsonl.notice("live_index", "hnsw index i is live"),
    "notice, throttled": lambda: jsonl.notice("throttled", "waiting", wait_seconds=21.0),
    "notice, throttled for an unknown time": lambda: jsonl.notice(
        "throttled", "waiting", wait_seconds=None
    ),
    "summary": lambda: jsonl.summary(SUMMARY),
    "summary, with errors": lambda: jsonl.summary(
        replace(
            SUMMARY,
            state=State.COMPLETED_WITH_ERRORS,
            exit_code=Exit.PARTIAL,
            errors_by_code={"input_too_long": 1},
            skipped_by_code={"input_too_long": 2},
            new_rows_left=True,
            error_report=STARTED.error_report,
            next_command=f"embedmigrate generate-all --retry-failed {RUN}",
        )
    ),
    "summary, failed": lambda: jsonl.summary(
        replace(
            SUMMARY,
            state=State.FAILED,
            exit_code=Exit.BUDGET,
            counted_after=False,
            error=BudgetError("over", code="over_budget"),
        )
    ),
    "summary of a run that never began": lambda: jsonl.refused_summary(ERROR),
    "exit_error": lambda: jsonl.exit_error(ERROR, None),
    "exit_error of a run": lambda: jsonl.exit_error(ConfigError("x", code="declined"), RUN),
    "plan": lambda: jsonl.dry_run(DRY_RUN),
    "plan, nothing could be checked": lambda: jsonl.dry_run(
        DryRun((Check("connect", "failed", "no answer", ERROR),), Exit.TEMPORARY)
    ),
    "plan without an estimate": lambda: jsonl.dry_run(replace(DRY_RUN, estimate=None)),
    "stats": lambda: jsonl.stats(STATS),
    "stats, estimated": lambda: jsonl.stats(
        replace(
            STATS,
            counts=replace(COUNTS, exact=False),
            tracks_staleness=False,
            indexes=(),
            model_of_last_run=None,
            estimate=None,
            exit_code=Exit.GATE,
        )
    ),
    "row": lambda: jsonl.row(OneRow(("a", "17"), "embedded", 40, 8e-07, 0.3)),
    "row, failed": lambda: jsonl.row(
        OneRow(("18",), "failed", 0, None, 0.3, error_line(FAILURE, ""), Exit.PARTIAL)
    ),
    "all_jobs": lambda: jsonl_jobs.all_jobs(ENDS, TOTALS, Exit.USAGE),
    "all_jobs, none could begin": lambda: jsonl_jobs.all_jobs(ENDS[1:], None, Exit.USAGE),
    "all_jobs, dry run": lambda: jsonl_jobs.all_plans({"a": DRY_RUN}, TOTALS, Exit.GATE),
    "start of one of several jobs": lambda: jsonl.started(STARTED, "a"),
    "status of one of several jobs": lambda: jsonl.progress(PROGRESS, RUN, "a"),
    "row_error of one of several jobs": lambda: jsonl.row_error(FAILURE, RUN, "a"),
    "notice of one of several jobs": lambda: jsonl.notice("live_index", "hnsw", "a"),
    "summary of one of several jobs": lambda: jsonl.summary(SUMMARY, "a"),
    "summary of one of several that could not begin": lambda: jsonl_jobs.unbegun(ENDS[1]),
    "summary of one of several that did not come to begin": lambda: jsonl_jobs.unbegun(ENDS[2]),
    "exit_error of one of several jobs": lambda: jsonl.exit_error(ERROR, None, "a"),
    "plan of one of several jobs": lambda: jsonl.dry_run(DRY_RUN, "a"),
    "stop": lambda: jsonl.stop(Stop("stopped", RUN_STATE)),
    "stop, nothing runs": lambda: jsonl.stop(Stop("not_running", None)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_document_fits_its_schema(name: str) -> None:
    document = schemas.validate(SAMPLES[name]())
    assert document["message_type"] == name.partition(",")[0].split()[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_key_that_is_new_is_no_fault(name: str) -> None:
    document = json.loads(SAMPLES[name]())
    assert schemas.validate(json.dumps(document | {"later": {"more": 1}}))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_key_that_is_promised_must_be_there(name: str) -> None:
    document = json.loads(SAMPLES[name]())
    for key in schemas.schema(document["message_type"])["required"]:
        less = {k: v for k, v in document.items() if k != key}
        assert not schemas.validator(document["message_type"]).is_valid(less), key


DAMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "another version": ("start", {"schema": "embedmigrate/2"}),
    "another document": ("start", {"message_type": "summary"}),
    "a time without a zone": ("notice", {"time": "2026-11-24T02:00:01.000"}),
    "a run id that is none": ("start", {"run_id": "run-1"}),
    "a state that does not exist": ("status, live", {"state": "sleeping"}),
    "a ratio above one": ("status, live", {"done_ratio": 1.01}),
    "a negative count": ("status, live", {"rows_failed": -1}),
    "a run without a state": ("status, live", {"state": None}),
    "a key as a number": ("row_error", {"id": 918233}),
    "a composite key of one": ("row_error", {"id": ["18"]}),
    "a code with a space": ("exit_error", {"code": "no database"}),
    "facts as one string": ("exit_error", {"facts": "Looked everywhere."}),
    "an anchor elsewhere": ("exit_error", {"docs": "https://example.org/#x"}),
    "a result that does not exist": ("row", {"result": "done"}),
    "a stop that does not exist": ("stop", {"result": "killed"}),
    "an exit code as text": ("summary", {"exit_code": "0"}),
    "a refusal without its error": ("summary of a run that never began", {"error": None}),
    "a check of an unknown status": (
        "plan",
        {"checks": [{"name": "x", "status": "good", "message": "", "code": None}]},
    ),
    "a plan without checks": ("plan", {"checks": []}),
    "half an estimate": ("stats", {"to_finish": {"estimated_tokens": 1}}),
    "a target without a table": ("stats", {"target": {}}),
    "an end of no job": ("all_jobs", {"jobs": [{"exit_code": 0, "state": None, "run_id": None}]}),
    "no jobs": ("all_jobs", {"jobs": []}),
    "half of what they take": ("all_jobs", {"plan": {"jobs": 2}}),
    "an interruption of no job": (
        "summary of a run that never began",
        {"state": "interrupted", "error": None},
    ),
    "coverage above one": ("stats", {"coverage_ratio": 2}),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_document_is_refused(name: str) -> None:
    sample, change = DAMAGES[name]
    document = json.loads(SAMPLES[sample]())
    with pytest.raises(ValidationError):
        schemas.validator(document["message_type"]).validate(document | change)


def test_keys_that_come_together_do() -> None:
    document = json.loads(SAMPLES["status, live"]())
    del document["tokens"]
    assert not schemas.validator("status").is_valid(document)
    run = json.loads(SAMPLES["status of a run that ended"]())
    del run["exit_code"]
    assert not schemas.validator("status").is_valid(run)


def test_every_schema_has_a_sample() -> None:
    covered = {name.partition(",")[0].split()[0] for name in SAMPLES}
    assert set(schemas.names()) - covered == ELSEWHERE


ELSEWHERE = {"config", "init"}
"""Documents that are built where they are printed, in the tests of their commands."""


def test_config_show_fits_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load({}, environ={"DATABASE_URL": "postgresql://app:secret@db/prod"})
    show_settings(loaded, open_streams(json=True), json=True)
    document = schemas.validate(capsys.readouterr().out)
    assert set(document["settings"]) == set(options())
    assert "secret" not in document["settings"]["database_url"]["value"]


JOB = {"name": "a", "settings": {"table": "a"}, "found": {"key": "id"}, "notes": [], "problems": []}
INIT: dict[str, Any] = {
    "file": "embedmigrate.toml",
    "where": "app@db/prod",
    "pgvector": None,
    "jobs": [JOB],
    "next_command": None,
}


def test_init_is_a_file_or_statements() -> None:
    assert schemas.validate(jsonl.line("init", INIT))
    assert schemas.validate(jsonl.line("init", {"sql": "-- nothing"}))
    for body in ({}, INIT | {"jobs": [{}]}, {"file": "x"}):
        with pytest.raises(ValidationError):
            schemas.validate(jsonl.line("init", body))


@pytest.mark.parametrize("name", [*schemas.names(), "common"])
def test_the_schemas_are_schemas(name: str) -> None:
    schema = schemas.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for inner in _objects(schema):
        assert inner.get("additionalProperties", True) is not False, "new keys may appear"


def _objects(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for one in node for found in _objects(one)]
    if not isinstance(node, dict):
        return []
    inner = [found for one in node.values() for found in _objects(one)]
    return [node, *inner] if "properties" in node else inner


@pytest.mark.parametrize(
    "line", ["[]", '"start"', "null", '{"message_type": "verse"}', '{"message_type": "common"}']
)
def test_what_is_no_document_is_refused(line: str) -> None:
    with pytest.raises(AssertionError):
        schemas.validate(line)
