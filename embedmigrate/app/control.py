"""`status` and `stop`: only the state directory is read, so both answer at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from embedmigrate.config import Loaded
from embedmigrate.config.surroundings import state_directory
from embedmigrate.engine.states import State
from embedmigrate.errors import CheckpointError
from embedmigrate.state import JobFiles, RunState, job_name
from embedmigrate.state.name import qualified, vector_place

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Status:
    """The last run of a job; `live` is decided by the lock alone."""

    name: str
    files: JobFiles
    run: RunState
    live: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """`result` is stopped, requested, not_running or timeout."""

    result: str
    run: RunState | None


def jobs(loaded: Loaded) -> list[JobFiles]:
    """The files of the job that the settings name; of every job when they do not name one fully."""
    directory = state_directory(loaded.settings)
    s = loaded.settings
    place = vector_place(s.table, s.vector_column, s.side_table)
    named = "table" in loaded.origins or "job" in loaded.origins
    if s.database_url and (named or {"vector_column", "side_table"} & loaded.origins.keys()):
        name = job_name(s.database_url.reveal(), s.table, place)
        return [JobFiles(directory, name)]
    wanted = f".{qualified(s.table)}.{place}" if named else None
    return [
        JobFiles(directory, path.name.removesuffix(".json"))
        for path in _state_files(directory)
        if wanted is None or path.name.removesuffix(".json").endswith(wanted)
    ]


def _state_files(directory: Path) -> list[Path]:
    try:
        return sorted(p for p in directory.glob("*.json") if not p.name.endswith(".control.json"))
    except OSError as error:
        raise CheckpointError(
            f"{directory} cannot be read: {error.strerror}",
            code="checkpoint_unreadable",
            hint="run as its owner, or choose another with --state-dir",
        ) from None


def statuses(loaded: Loaded) -> list[Status]:
    """What each job's state file and lock say; jobs that never ran are left out.

    Raises:
        CheckpointError: A state file is damaged, foreign or not readable.
    """
    found = []
    for files in jobs(loaded):
        # The lock first: a run that ends in between must not look like one that died.
        live = files.live()
        if (run := files.load()) is not None:
            if State(run.state).live and not live:
                run = replace(run, state=State.DEAD)
            found.append(Status(files.name, files, run, live))
    return found


def stop(
    loaded: Loaded,
    *,
    timeout: float,
    now: bool,
    wait: bool,
    on_asked: Callable[[RunState], None],
) -> list[Stop]:
    """Ask the live runs to end, and wait until their locks are free.

    Args:
        loaded: Names the job; every live one when it names none.
        timeout: Seconds to wait.
        now: Abort the requests in flight.
        wait: Whether to wait at all.
        on_asked: Told of each run that was asked.
    """
    live = [status for status in statuses(loaded) if status.live]
    if not live:
        return [Stop("not_running", None)]
    for status in live:
        status.files.ask({"run_id": status.run.run_id, "action": "stop", "now": now})
        on_asked(status.run)
    if not wait:
        return [Stop("requested", status.run) for status in live]
    deadline = time.monotonic() + timeout
    return [_waited(status, deadline) for status in live]


def _waited(status: Status, deadline: float) -> Stop:
    while status.files.live():
        if time.monotonic() >= deadline:
            return Stop("timeout", status.run)
        time.sleep(_POLL_SECONDS)
    return Stop("stopped", status.files.load())
