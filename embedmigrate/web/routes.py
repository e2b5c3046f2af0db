"""The endpoints: each reads its body, calls one use case and answers with one reply."""

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from embedmigrate import __version__
from embedmigrate.app.one import generate_one
from embedmigrate.app.preview import dry_run
from embedmigrate.config import Loaded
from embedmigrate.errors import CheckpointError, ConfigError, LockedError
from embedmigrate.web import metrics, replies, shaping
from embedmigrate.web.bodies import GenerateAll, GenerateOne, RetryFailed, RunOptions, Stop
from embedmigrate.web.counting import Coverage
from embedmigrate.web.history import history
from embedmigrate.web.jobs import Job, Jobs, quick
from embedmigrate.web.launching import launch
from embedmigrate.web.refusals import Refusal
from embedmigrate.web.status import Watch, status
from embedmigrate.web.streaming import Closing, events

BASE = "/api/admin/embeddings"
_AT_ONCE = 4
"""Rows, plans and the like that are worked on at the same time."""


class Desk:
    """What the routes share: the jobs, and what is known of each."""

    def __init__(self, jobs: Jobs, closing: Closing) -> None:
        self.jobs = jobs
        self.closing = closing
        self.watches = {job.files.name: Watch(job) for job in jobs.all()}
        self.coverages = {job.files.name: Coverage(job) for job in jobs.all()}
        self.hands = asyncio.Semaphore(_AT_ONCE)

    def watch(self, job: Job) -> Watch:
        return self.watches[job.files.name]

    def coverage(self, job: Job) -> Coverage:
        return self.coverages[job.files.name]


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskOf = Annotated[Desk, Depends(_desk)]


def _job(
    desk: DeskOf,
    job: Annotated[
        str | None,
        Query(description="A job of the configuration file; without it the default job."),
    ] = None,
) -> Job:
    return desk.jobs.get(job)


JobOf = Annotated[Job, Depends(_job)]


api = APIRouter(prefix=BASE)
beside = APIRouter()


@api.get("/stats", summary="Coverage of the table")
async def stats(desk: DeskOf, job: JobOf) -> replies.StatsReply:
    """Counted at most every few seconds, for all who ask together."""
    ended = None
    with contextlib.suppress(CheckpointError):  # a damaged state file is no reason not to count
        ended = desk.watch(job).look().ended_ago
    counted = await desk.coverage(job).get(run_ended_ago=ended)
    shown = shaping.stats(counted.stats, counted.age)
    return replies.StatsReply(stats=shown, document=shaping.stats_document(counted.stats))


@api.get("/status", summary="The current or last run")
async def state(desk: DeskOf, job: JobOf) -> replies.StatusReply:
    """From the state directory alone; the database is not asked."""
    taken = desk.watch(job).look()
    return replies.StatusReply(status=status(taken), document=shaping.document(taken))


@api.post("/generate-all", summary="Start a run", status_code=200)
async def generate_all(desk: DeskOf, job: JobOf, body: GenerateAll) -> replies.StartReply:
    """In a process of its own, which goes on when the server ends; answers before it has begun."""
    return await _start(desk, job, body)


@api.post("/retry-failed", summary="Try failed rows again")
async def retry_failed(
    desk: DeskOf, job: JobOf, body: RetryFailed | None = None
) -> replies.StartReply:
    """A run over the rows that failed in another run."""
    return await _start(desk, job, body or RetryFailed())


@api.post("/plan", summary="What a run would do")
async def plan(desk: DeskOf, job: JobOf, body: GenerateAll) -> replies.PlanReply:
    """Every check, and rows, tokens, cost and time; nothing is sent and nothing is changed."""
    loaded = quick(_with_options(job, body.settings()))
    async with desk.hands:
        found = await asyncio.to_thread(asyncio.run, dry_run(loaded))
    return replies.PlanReply(plan=shaping.plan(found))


@api.post("/generate-one", summary="Embed one row")
async def one(desk: DeskOf, job: JobOf, body: GenerateOne) -> replies.OneReply:
    """Waits until the row has its vector."""
    async with desk.hands:
        row = await asyncio.to_thread(asyncio.run, generate_one(job.quick, [body.resume_id]))
    result = shaping.one(row, body.resume_id)
    return replies.OneReply(success=result.success, result=result)


@api.post("/stop", summary="Ask the run to stop")
async def stop(desk: DeskOf, job: JobOf, body: Stop | None = None) -> replies.StopReply:
    """It finishes what is in flight, saves its place and ends; the status tells when it has."""
    watch = desk.watch(job)
    watch.forget()
    taken = watch.look()
    if not taken.running or taken.run_id is None:
        return replies.StopReply(stopped=False, run_id=None)
    request = {"run_id": taken.run_id, "action": "stop", "now": bool(body and body.now)}
    await asyncio.to_thread(job.files.ask, request)
    return replies.StopReply(stopped=True, run_id=taken.run_id)


@api.get("/errors", summary="The failed rows of a run")
async def errors(
    desk: DeskOf,
    job: JobOf,
    run_id: Annotated[
        str | None, Query(alias="runId", pattern="^[0-9a-f]{6}$", description="Default: the last.")
    ] = None,
    code: Annotated[str | None, Query(max_length=64, description="Only of this kind.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> replies.ErrorsReply:
    """By kind, and row by row: keys and reasons, never a row's text."""
    run = desk.watch(job).look().run
    wanted = run_id or (run.run_id if run else None)
    found = await asyncio.to_thread(shaping.error_lines, job.files, wanted, named=bool(run_id))
    return replies.ErrorsReply(errors=shaping.errors(found, wanted, code, limit, offset))


@api.get("/history", summary="How far the last run was at which moment")
async def so_far(desk: DeskOf, job: JobOf) -> replies.HistoryReply:
    """A few hundred moments at most, for a chart."""
    watch = desk.watch(job)
    run = watch.look().run
    run_id = run.run_id if run else None
    return replies.HistoryReply(history=await asyncio.to_thread(history, watch.events, run_id))


@beside.get("/api/admin/whoami", summary="Who asks, and which jobs there are")
async def whoami(request: Request, desk: DeskOf) -> replies.WhoamiReply:
    listed = [
        replies.JobEntry(
            name=job.name, table=job.settings.table, vector_column=job.settings.vector_column
        )
        for job in desk.jobs.all()
    ]
    return replies.WhoamiReply(role=request.scope["role"], jobs=listed, version=__version__)


@beside.get("/healthz", summary="Whether the server is up")
async def healthz() -> replies.Health:
    """Needs no token and says nothing else."""
    return replies.Health()


@beside.get(
    "/events",
    summary="Server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def stream(desk: DeskOf, job: JobOf) -> StreamingResponse:
    """The state at once and whenever it changes, four times a second at most.

    `status` carries the object of that name of /status; `row_error` a row as in its `errors`;
    `start`, `notice`, `summary` and `exit_error` what the run says, as `generate-all --json`.
    """
    watch = desk.watch(job)
    watch.look()
    return StreamingResponse(events(watch, desk.closing), media_type="text/event-stream")


@beside.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
async def prometheus(desk: DeskOf) -> PlainTextResponse:
    """Of all jobs; text format 0.0.4."""
    seen = [(desk.watch(job), desk.coverage(job)) for job in desk.jobs.distinct()]
    return PlainTextResponse(await metrics.page(seen), media_type=metrics.MEDIA_TYPE)


async def _start(desk: Desk, job: Job, body: RunOptions) -> replies.StartReply:
    watch, options = desk.watch(job), body.settings()
    _with_options(job, options)
    try:
        started = await asyncio.to_thread(launch, job, options)
    except LockedError as error:
        watch.forget()
        running = watch.look().job_id
        more = {"jobId": running, "currentJobId": running}
        raise Refusal(409, error.code, error.message, more=more) from None
    finally:
        watch.forget()
    return replies.StartReply(job_id=started.job_id, run_id=started.run_id)


def _with_options(job: Job, options: dict[str, Any]) -> Loaded:
    """The settings of one run.

    Raises:
        Refusal: A value does not fit, or is above what the operator allows.
    """
    ceiling, wanted = job.settings.max_cost, options.get("max_cost")
    if ceiling is not None and wanted is not None and wanted > ceiling:
        raise Refusal(422, "over_budget", f"maxCost is above the server's own limit of {ceiling:g}")
    try:
        return job.with_options(options)
    except ConfigError as error:
        raise Refusal(422, error.code, error.message) from None
