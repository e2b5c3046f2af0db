"""What a job is doing, from its state file, its locks and its events; the database is not asked."""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from embedmigrate.app.control import Status as Report
from embedmigrate.app.records import key_text
from embedmigrate.engine.states import State
from embedmigrate.secrets import redact
from embedmigrate.state import RunState
from embedmigrate.web.events_file import EventsFile, Launch, Tail
from embedmigrate.web.jobs import Job
from embedmigrate.web.replies import Fault, RowError, Status

FRESH_SECONDS = 0.2
_MOST_UNREAD = 1000
_VANISHED = Fault(code="internal", message="the process ended without a word")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known at one moment.

    Attributes:
        live: A run holds the lock.
        alive: The process that a server started last has not ended.
        starting: It has not come to its first save yet.
        refused: Why the last process that a server started did not begin.
    """

    job: Job
    run: RunState | None
    live: bool
    launch: Launch | None = None
    alive: bool = False
    starting: bool = False
    refused: Fault | None = None
    refused_with: int | None = None

    @property
    def running(self) -> bool:
        return self.live or self.alive

    @property
    def run_id(self) -> str | None:
        """The run that is at work, or will be in a moment: what a stop has to name."""
        if self.starting and self.launch:
            return self.launch.run_id
        return self.run.run_id if self.run else None

    @property
    def job_id(self) -> str | None:
        if (self.starting or self.refused) and self.launch:
            return self.launch.job_id
        return self.run.job_id if self.run else None

    @property
    def ended_ago(self) -> float | None:
        """Seconds since the last run ended."""
        ended = self.run.ended_at if self.run else None
        return time.time() - _unix(ended) if ended else None

    @property
    def report(self) -> Report | None:
        """As the command line shows it."""
        if self.run is None:
            return None
        return Report(self.job.files.name, self.job.files, self.run, self.live)


class Watch:
    """Looks at most five times a second, however many ask."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.events = EventsFile(job.files.directory, job.files.name)
        self._tail = Tail(self.events)
        self._said: dict[str, dict[str, Any]] = {}
        self._listeners: list[deque[dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._taken: Snapshot | None = None
        self._at = -math.inf
        self._stamp: tuple[int, int] | None = None
        self._run: RunState | None = None

    def forget(self) -> None:
        """Look anew the next time: something was just started or asked to stop."""
        self._at = -math.inf

    @contextlib.contextmanager
    def listening(self) -> Iterator[deque[dict[str, Any]]]:
        """What the process says from now on; who does not take it loses the oldest of it."""
        heard: deque[dict[str, Any]] = deque(maxlen=_MOST_UNREAD)
        self._listeners.append(heard)
        try:
            yield heard
        finally:
            self._listeners[:] = [one for one in self._listeners if one is not heard]

    def look(self) -> Snapshot:
        """The state of the job, at most `FRESH_SECONDS` old.

        Raises:
            CheckpointError: The state file is damaged or cannot be read.
        """
        with self._lock:
            if self._taken is None or time.monotonic() - self._at >= FRESH_SECONDS:
                self._taken = self._look()
                self._at = time.monotonic()
            return self._taken

    def _look(self) -> Snapshot:
        # The locks first: a run that ends in between must not look like one that died.
        live, alive = self.job.files.live(), self.events.alive()
        run, launch = self._load(), self.events.launch()
        self._hear()
        if launch and not _began(launch, run):
            refused, code = (None, None) if alive else _reason(self._said)
            return Snapshot(self.job, run, live, launch, alive, alive, refused, code)
        if run and State(run.state).live:
            if not live:
                run = replace(run, state=State.DEAD)
            elif launch and alive and launch.run_id == run.run_id:
                run = _fresher(run, self._said.get("status"))
        return Snapshot(self.job, run, live, launch, alive)

    def _hear(self) -> None:
        """The last line of each kind is kept; every line goes to those who listen."""
        for line in self._tail.read():
            if line["message_type"] == "launch":
                self._said.clear()
            self._said[line["message_type"]] = line
            for heard in self._listeners:
                heard.append(line)

    def _load(self) -> RunState | None:
        """Read again only where the file is another one: it is replaced, never changed."""
        try:
            found = self.job.files.state.stat()
        except FileNotFoundError:
            self._stamp = self._run = None
            return None
        except OSError:
            found = None
        stamp = (found.st_ino, found.st_mtime_ns) if found else None
        if stamp is None or stamp != self._stamp:
            self._run = self.job.files.load()
            self._stamp = stamp
        return self._run


def _began(launch: Launch, run: RunState | None) -> bool:
    """Whether the state file tells of that run, or of one after it."""
    return run is not None and (launch.run_id == run.run_id or run.started_at > launch.time)


def _reason(said: Mapping[str, dict[str, Any]]) -> tuple[Fault, int | None]:
    """The last words of a process that did not come to its first save."""
    summary = said.get("summary", {})
    error = summary.get("error") or said.get("exit_error") or {}
    code = summary.get("exit_code", error.get("exit_code"))
    if not error.get("code"):
        return _VANISHED, code
    return Fault(code=str(error["code"]), message=redact(str(error["message"]))), code


def _fresher(run: RunState, said: dict[str, Any] | None) -> RunState:
    """The state file is a second old at most, the events a quarter of one."""
    if not said or said.get("run_id") != run.run_id or said["time"] < run.updated_at:
        return run
    progress = {name: said.get(name, value) for name, value in run.progress.items()}
    state = str(said.get("state", run.state))
    return replace(run, progress=progress, state=state, updated_at=said["time"])


def status(taken: Snapshot) -> Status:
    """As the API says it."""
    run, s = taken.run, taken.job.settings
    fresh = taken.starting or taken.refused is not None
    told = None if fresh else run
    p = told.progress if told else {}
    launch = taken.launch if fresh else None
    started_at = launch.time if launch else (told.started_at if told else None)
    done, total = int(p.get("rows_done") or 0), int(p.get("rows_total") or 0)
    lost = sum(int(p.get(n) or 0) for n in ("rows_failed", "rows_skipped", "rows_vanished"))
    failed, ratio = int(p.get("rows_failed") or 0), float(p.get("done_ratio") or 0.0)
    elapsed, eta = float(p.get("elapsed_seconds") or 0.0), p.get("eta_seconds")
    if taken.running and not p and started_at:
        elapsed = max(0.0, time.time() - _unix(started_at))
    last_id = p.get("last_id")
    return Status(
        is_running=taken.running,
        current_job_id=taken.job_id,
        start_time=round(_unix(started_at) * 1000) if started_at else None,
        total_resumes=total,
        processed_resumes=done,
        successful_resumes=max(0, done - lost),
        failed_resumes=failed,
        progress_percentage=percent(ratio),
        elapsed_time=round(elapsed * 1000),
        estimated_time_remaining=None if eta is None else round(float(eta) * 1000),
        last_processed_resume_id=last_id,
        errors=[row_error(line) for line in (told.errors if told else [])],
        state=_state(taken),
        state_reason=p.get("state_reason"),
        wait_seconds=p.get("wait_seconds"),
        run_id=launch.run_id if launch else (told.run_id if told else None),
        started_at=started_at,
        updated_at=told.updated_at if told else started_at,
        ended_at=told.ended_at if told else None,
        exit_code=taken.refused_with if taken.refused else (told.exit_code if told else None),
        error=taken.refused or _fault(told),
        rows_total=total,
        rows_processed=done,
        rows_embedded=int(p.get("rows_embedded") or 0),
        rows_failed=failed,
        rows_skipped=int(p.get("rows_skipped") or 0),
        rows_per_second=float(p.get("rows_per_second") or 0.0),
        progress_ratio=ratio,
        last_processed_id=last_id,
        tokens=int(p.get("tokens") or 0),
        cost_usd=p.get("cost_usd"),
        requests=int(p.get("requests") or 0),
        retries=int(p.get("retries") or 0),
        concurrency=int(p.get("concurrency") or 0),
        in_flight=int(p.get("in_flight") or 0),
        table=str(run.target["table"]) if run else s.table,
        vector_column=str(run.target["vector_column"]) if run else s.vector_column,
        model=str(run.model.get("name")) if run else s.model,
        job=taken.job.name,
    )


def _state(taken: Snapshot) -> str:
    if taken.starting:
        return State.STARTING
    if taken.refused:
        return State.FAILED
    return taken.run.state if taken.run else ("starting" if taken.live else "idle")


def _fault(run: RunState | None) -> Fault | None:
    if run is None or not run.error:
        return None
    return Fault(code=str(run.error["code"]), message=redact(str(run.error["message"])))


def row_error(line: Mapping[str, Any]) -> RowError:
    """A line of the error report; it holds the key and the reason, never the row's text."""
    key = line.get("id")
    text = key_of(key)
    return RowError(
        resume_id=text,
        id=text,
        code=str(line.get("code")),
        message=redact(str(line.get("message"))),
        attempts=int(line.get("attempts") or 0),
        http_status=line.get("http_status"),
        retryable=bool(line.get("retryable")),
        skipped=bool(line.get("skipped")),
        time=line.get("time"),
    )


def key_of(key: Any) -> str:
    return (key_text(key) or "") if isinstance(key, list) else str(key)


def percent(ratio: float) -> float:
    """Floored to two digits, so that 100 means all of them."""
    return math.floor(ratio * 10_000 + 1e-9) / 100


def _unix(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
