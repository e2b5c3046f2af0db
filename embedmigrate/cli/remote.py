"""`status`, `stats` and `stop` of a server: the same output as of this machine."""

import time
from pathlib import Path
from typing import Any

from embedmigrate.app.control import Status
from embedmigrate.app.remote import Remote
from embedmigrate.app.values import Counts, Place, Stats
from embedmigrate.cli import jsonl, reports
from embedmigrate.cli import status as report
from embedmigrate.cli.scene import Scene
from embedmigrate.errors import Exit
from embedmigrate.secrets import redact
from embedmigrate.state import JobFiles, RunState

_POLL_SECONDS = 0.3
_OF_THE_RUN = ("run_id", "job_id", "state", "pid", "host", "user", "started_at", "updated_at")
_OF_ITS_END = ("target", "model", "errors", "error_report", "error", "ended_at", "exit_code")
_OF_ITS_PLACE = ("executor", "actors")


def status(scene: Scene) -> None:
    remote = Remote.of(scene.loaded)
    said = remote.get("status")["document"]
    out = scene.streams.out
    if scene.json:
        print(jsonl.encoded(said), flush=True)  # noqa: T201
    elif said.get("target"):
        report.show(_status(said), scene.streams, url=remote.url)
    elif said.get("state"):
        error = said.get("error") or {}
        words = f" · {redact(str(error.get('message', '')))}" if error else ""
        out.print(f"State    {said['state']} · run {said['run_id']}{words}")
    else:
        out.print(f"No run recorded for the job at {remote.url}.")


def stats(scene: Scene, *, fail_under: float | None, plain: bool) -> Exit:
    said = Remote.of(scene.loaded).get("stats")["document"]
    below = fail_under is not None and said["coverage_ratio"] * 100 < fail_under
    code = Exit.GATE if below else Exit.OK
    if scene.json:
        print(jsonl.encoded({**said, "exit_code": int(code)}), flush=True)  # noqa: T201
    else:
        reports.stats(_stats(said), scene.streams, tsv=plain)
    return code


def stop(scene: Scene, *, timeout: float, now: bool, wait: bool) -> Exit:
    """Ask, and wait until the server says that nothing runs any more."""
    remote, out = Remote.of(scene.loaded), scene.streams.out
    asked = remote.post("stop", {"now": True} if now else {})
    run_id = asked.get("runId")
    if not asked["stopped"]:
        result = "not_running"
    elif not wait:
        result = "requested"
    else:
        result = _waited(remote, timeout)
    if scene.json:
        print(jsonl.line("stop", {"result": result, "run_id": run_id}), flush=True)  # noqa: T201
    else:
        said = {
            "not_running": "Nothing is running.",
            "requested": f"Asked run {run_id} to stop.",
            "timeout": "It is still running; embedmigrate stop --now aborts what is in flight.",
            "stopped": f"Stopped run {run_id}.",
        }
        out.print(said[result])
    return Exit.TEMPORARY if result == "timeout" else Exit.OK


def _waited(remote: Remote, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while remote.get("status")["status"]["isRunning"]:
        if time.monotonic() >= deadline:
            return "timeout"
        time.sleep(_POLL_SECONDS)
    return "stopped"


def _status(said: dict[str, Any]) -> Status:
    head = {"schema", "message_type", "time", "live", "job", "state_file"}
    names = (*_OF_THE_RUN, *_OF_ITS_END, *_OF_ITS_PLACE)
    kept: dict[str, Any] = {name: said.get(name) for name in names}
    run = RunState(
        **kept,
        fingerprint={},
        selection={},
        command="",
        progress={key: value for key, value in said.items() if key not in head | set(names)},
    )
    name = str(said.get("job"))
    return Status(name, JobFiles(Path(), name), run, bool(said["live"]))


def _stats(said: dict[str, Any]) -> Stats:
    rows, target = said["rows"], said["target"]
    counts = Counts(
        total=rows["total"],
        without_text=rows["without_text"] or 0,
        eligible=rows["eligible"],
        embedded=rows["embedded"],
        missing=rows["missing"],
        stale=rows["stale"] or 0,
        exact=rows["exact"],
    )
    place = Place(
        database=target["database"],
        host=target["host"],
        port=target["port"],
        where="",
        server="",
        pgvector="",
        table=target["table"],
        primary_key=tuple(target["primary_key"]),
        key_types=(),
        text=str(target["text"]),
        text_columns=tuple(target["text_columns"]),
        vector_column=target["vector_column"],
        vector_type=target["vector_type"],
        dimensions=target["dimensions"],
        provider="",
        model="",
        side_table=target["side_table"],
    )
    indexes = tuple((one["name"], one["type"], one["valid"]) for one in said["indexes"])
    return Stats(
        place=place,
        counts=counts,
        tracks_staleness=rows["stale"] is not None,
        indexes=indexes,
        model_of_last_run=said["model_of_last_run"],
        estimate=None,
        orphaned=rows["orphaned"],
    )
