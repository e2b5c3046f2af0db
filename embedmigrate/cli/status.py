"""What `status` shows a person."""

import time

from embedmigrate.app.control import Status
from embedmigrate.cli import wording
from embedmigrate.cli.terminal import Streams
from embedmigrate.engine.states import State


def show(s: Status, streams: Streams, *, url: str | None = None) -> None:
    """Of this machine, or of the server at that address."""
    run, p = s.run, s.run.progress
    now = time.time()
    age = wording.duration(wording.seconds_since(run.updated_at, now))
    done, total = p.get("rows_done", 0), p.get("rows_total", 0)
    listed = [
        ("Job", f"{run.place} on {run.target['where']}"),
        ("State", _state_line(s)),
        (
            "Run",
            f"{run.run_id} · pid {run.pid} on {run.host} · user {run.user} · started "
            f"{wording.duration(wording.seconds_since(run.started_at, now))} ago",
        ),
    ]
    if run.actors:
        listed.append(("Executor", f"{run.executor}, {wording.plural(run.actors, 'actor')}"))
    if p:
        rate = f" · {p['rows_per_second']:,.1f} rows/s · ETA {wording.duration(p['eta_seconds'])}"
        listed += [
            (
                "Progress",
                f"{wording.number(done)} / {wording.number(total)} "
                f"({wording.percent(p['done_ratio'], 0)})" + (rate if s.live else ""),
            ),
            ("Spent", f"{wording.tokens(p['tokens'])} tokens · {wording.money(p['cost_usd'])}"),
            (
                "Errors",
                f"{wording.plural(p['rows_failed'], 'failed row')} · {p['retries']} retries",
            ),
            ("Saved", f"{age} ago at id {p['last_id'] or '(none yet)'}"),
        ]
    listed.append(("Next", _advice(s, f" --url {url}" if url else "")))
    streams.out.print(wording.pairs(listed, indent=0))


def _state_line(s: Status) -> str:
    run = s.run
    if run.state == State.DEAD:
        return (
            "dead · the process ended without saving a final state "
            f"(last heartbeat {run.updated_at})"
        )
    words = run.state
    if s.live and run.progress.get("state_reason"):
        words += f" · {wording.reason(run.progress['state_reason'])}"
        if run.progress.get("wait_seconds"):
            words += f", {run.progress['wait_seconds']:.0f} s"
    if run.exit_code is not None:
        words += f" · exit code {run.exit_code}"
    if run.error:
        words += f" · {run.error['message']}"
    return words


def _advice(s: Status, where: str) -> str:
    if s.live:
        return f"embedmigrate stop{where}"
    if s.run.state == State.COMPLETED:
        return f"embedmigrate stats{where}"
    if where:
        return "start it again there   (resumes; no rows are lost)"
    return f"{s.run.command}   (resumes; no rows are lost)"
