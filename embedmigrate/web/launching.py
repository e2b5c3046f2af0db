"""Starts a job as a process of its own, which knows nothing of the server and outlives it."""

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from embedmigrate.app.records import now
from embedmigrate.config.surroundings import environment_of_a_job
from embedmigrate.errors import LockedError
from embedmigrate.web.events_file import EventsFile, Launch
from embedmigrate.web.jobs import Job

_EVENTS_A_SECOND = 4
_SECRET = {"database_url", "lock_database_url"}
_SERVERS_OWN = {"host", "port", "token_file", "allowed_host", "cors_origin", "log_file"}
_SERVERS_OWN |= {"json", "quiet", "verbose", "color"}


def launch(job: Job, options: Mapping[str, Any]) -> Launch:
    """Begin, and return before it has begun.

    Args:
        job: What to run.
        options: Settings of this run alone, by key.

    Raises:
        LockedError: One is at work, or was started a moment ago.
        CheckpointError: The state directory cannot be used.
    """
    files = job.files
    files.prepare()
    if files.live():
        raise LockedError(
            "another run is working on this job",
            code="lock_held",
            hint="embedmigrate status · embedmigrate stop",
        )
    started = Launch(secrets.token_hex(3), f"emb-job-{int(time.time() * 1000)}", now())
    with EventsFile(files.directory, files.name).reserved(started) as fd:
        process = subprocess.Popen(  # noqa: S603  our own interpreter, and words that were checked
            command(job, options),
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=environment_of_a_job(_variables(job, started)),
            start_new_session=True,
        )
    # Somebody has to take note of its end, or it stays in the table of processes.
    threading.Thread(target=process.wait, daemon=True, name="embedmigrate-child").start()
    return started


def command(job: Job, options: Mapping[str, Any]) -> list[str]:
    """The words: as who sits at the machine would type them."""
    words = [sys.executable, "-m", "embedmigrate", "generate-all", "--json"]
    words.append(f"--progress-interval={1 / _EVENTS_A_SECOND:g}")
    flags = {k: v for k, v in job.flags.items() if k not in _SECRET | _SERVERS_OWN}
    if job.name:
        flags["job"] = job.name
    for key, value in {**flags, **options}.items():
        words += _words(key, value)
    return words


def _words(key: str, value: Any) -> Sequence[str]:
    flag = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list | tuple):
        return [f"{flag}={one}" for one in value]
    return [f"{flag}={value}"]


def _variables(job: Job, started: Launch) -> dict[str, str]:
    """What argv must not show, for it can be read by everybody on the machine."""
    given = {key: str(job.flags[key]) for key in _SECRET if job.flags.get(key)}
    given |= {"run_id": started.run_id, "job_id": started.job_id}
    return {f"EMBEDMIGRATE_{key.upper()}": value for key, value in given.items()}
