"""The network between the tool, the provider and PostgreSQL: toxics, black holes, lost replies."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

from tests.conftest import Completed
from tests.faults.arena import arena
from tests.faults.judging import Judge
from tests.faults.proxy import (
    TOXICS,
    CommitCutter,
    CommitSwallower,
    Proxy,
    RequestClock,
    Setting,
)
from tests.faults.series import Outcome, series
from tests.targets import create, drop, stored, verifier

if TYPE_CHECKING:
    import subprocess

    from tests.e2e.jobs import Job
    from tests.faults.proxy import Toxic


def _server_of(job: Job) -> tuple[tuple[str, int], dict[str, str]]:
    """Where PostgreSQL listens on TCP, and who may come in."""
    given = conninfo_to_dict(job.database.tcp_url())
    who = {name: str(given[name]) for name in ("user", "password") if given.get(name)}
    return (str(given["host"]), int(given["port"] or 5432)), who


def _through(proxy: Proxy, job: Job, who: dict[str, str]) -> dict[str, str]:
    """Without TLS, so that the proxy can read what it cuts."""
    plain = {"sslmode": "disable", "gssencmode": "disable", **who}
    address = f"postgresql://127.0.0.1:{proxy.port}/{job.database.name}?{urlencode(plain)}"
    return {"DATABASE_URL": address}


@series("commit-cut", rows=("G4",), short=30, long=200)
def commit_cut(rounds: int, seed: int) -> Outcome:
    """`rounds` connections end between the COMMIT of a write and the reply to it."""
    judge, batch = Judge(seed), 8
    cutter = CommitCutter(rounds, seed)
    with arena() as job:
        upstream, who = _server_of(job)
        rows = rounds * batch * 3
        create(job, job.database.connect(), rows)
        table = verifier(job)
        with Proxy(upstream, watch=cutter, seed=seed) as proxy:
            options = ("--batch-size", str(batch))
            done = job.run(*options, env=_through(proxy, job, who), timeout=600)
        judge.run(done, 0)
        judge.table(table)
        judge.paid_once(job)
        judge.holds(cutter.cuts == rounds, f"only {cutter.cuts} cuts")
        sent = job.sent()
    figures = {
        "rows": rows,
        "cuts": cutter.cuts,
        "cuts_after_a_certain_commit": cutter.answered,
        "texts_sent": sent,
        "texts_sent_again": sent - rows,
    }
    return Outcome(cutter.cuts, figures, tuple(judge.broken))


BATCH, WORKERS = 10, 4
LATENCY = 0.1
EVENTS = ("terminate", "lost commit", "lasting hole")
"""Besides the toxics, for PostgreSQL: pg_terminate_backend of every session of the tool; a COMMIT
that never arrives; and a black hole for the connections that are open, for ever, while new ones
are well."""
PATIENCE = 40.0


@dataclass
class Stalls:
    """How long nothing was stored because of each event, from its end or until it ended."""

    job: Job
    judge: Judge
    done: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._session = self.job.database.connect()

    def stored(self) -> int:
        return stored(self.job, self._session)

    def terminate(self) -> None:
        self._session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'embedmigrate%' AND datname = current_database()"
        )

    def progress(self, run: subprocess.Popen[str], since: float, event: str) -> bool:
        """Waits until something is stored; false when the run has ended."""
        before = self.stored()
        while self.stored() == before:
            if run.poll() is not None:
                return False
            if time.monotonic() - since > PATIENCE:
                self.judge.holds(False, f"nothing stored for {PATIENCE:g} s after {event}")
                return False
            time.sleep(0.05)
        self.longest[event] = max(self.longest.get(event, 0.0), time.monotonic() - since)
        self.done[event] += 1
        return True


def _suffer(
    run: subprocess.Popen[str],
    proxy: Proxy,
    stalls: Stalls,
    plan: list[tuple[str, float]],
    swallower: CommitSwallower,
) -> None:
    """One event after the other for as long as the run lasts; takes from `plan` what it did."""
    if not stalls.progress(run, time.monotonic(), "start"):
        return
    while plan:
        event, hold = plan[0]
        began = time.monotonic()
        if event == "terminate":
            stalls.terminate()
        elif event == "lasting hole":
            proxy.drop_all()
        elif event == "lost commit":
            swallower.armed.set()
            while swallower.armed.is_set() and run.poll() is None:
                time.sleep(0.01)
        else:
            with proxy.suffering(_toxic(event)):
                time.sleep(hold)
            began = time.monotonic()
        if not stalls.progress(run, began, event):
            return
        del plan[0]


def _toxic(name: str) -> Toxic:
    return next(toxic for toxic in TOXICS if toxic == name)


def _runs(
    stalls: Stalls,
    proxy: Proxy,
    plan: list[tuple[str, float]],
    env: dict[str, str],
    swallower: CommitSwallower | None = None,
) -> int:
    """Runs until the plan is used up, each over a new table, each checked; texts sent again."""
    job, judge, again = stalls.job, stalls.judge, 0
    session = job.database.connect()
    while plan and not judge.broken:
        some, rest = plan[:12], plan[12:]
        rows = int(sum(hold + 1.5 for _, hold in some) * BATCH * WORKERS / LATENCY)
        drop(session)
        create(job, session, rows)
        table = verifier(job, session)
        job.provider.forget()
        job.provider.latency = LATENCY
        run = job.start(*OPTIONS, env=env)
        output: list[str] = []
        reader = threading.Thread(target=lambda run=run, out=output: out.extend(run.communicate()))
        reader.start()
        _suffer(run, proxy, stalls, some, swallower or CommitSwallower())
        job.provider.latency = 0.0
        reader.join(PATIENCE + 60)
        judge.holds(run.poll() is not None, "the run does not end")
        run.kill()
        reader.join()
        judge.run(Completed(run.returncode, *output), 0)
        judge.table(table)
        again += sum(times - 1 for times in job.provider.texts_sent.values())
        plan = some + rest
    return again


def _plan(events: tuple[str, ...], rounds: int, seed: int) -> list[tuple[str, float]]:
    """Short ones first, then some that last longer than a request may."""
    chance = random.Random(seed)
    turns = [events[n % len(events)] for n in range(rounds)]
    holds = [chance.uniform(0.3, 1.0 if n < len(events) else 4.5) for n in range(rounds)]
    return list(zip(turns, holds, strict=True))


def _figures(stalls: Stalls, rounds: int) -> dict[str, object]:
    events = {name: n for name, n in stalls.done.items() if name != "start"}
    stalls.judge.holds(sum(events.values()) == rounds, f"only {events} of {rounds} were survived")
    return {
        "events": events,
        "longest_stall_after_s": {
            name: round(seconds, 1) for name, seconds in stalls.longest.items() if name != "start"
        },
        "wrong_vectors": 0,
        "missing_at_exit_0": 0,
    }


OPTIONS = (
    *("--batch-size", str(BATCH), "--concurrency", str(WORKERS)),
    *("--request-timeout", "3s", "--restart"),
)
DEADLINE = 3.0


@series("toxics-provider", rows=("P8",), short=8, long=120)
def toxics_provider(rounds: int, seed: int) -> Outcome:
    """Each of the eight toxics in turn between the tool and the provider."""
    judge, clock = Judge(seed), RequestClock()
    slow = Setting(bytes_per_second=500, slice_delay=0.1)
    with (
        arena() as job,
        Proxy(("127.0.0.1", job.provider.port), clock=clock, setting=slow, seed=seed) as proxy,
    ):
        stalls = Stalls(job, judge)
        env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{proxy.port}/v1"}
        lost = _runs(stalls, proxy, _plan(TOXICS, rounds, seed), env)
    longest = max(clock.seconds)
    judge.holds(longest <= DEADLINE + 1, f"P8: a request of {longest:.1f} s")
    figures = _figures(stalls, rounds) | {
        "requests": len(clock.seconds),
        "longest_request_s": round(longest, 2),
        "deadline_s": DEADLINE,
        "texts_whose_answer_was_lost": lost,
    }
    return Outcome(rounds, figures, tuple(judge.broken))


@series("toxics-postgres", rows=("G1", "G5"), short=11, long=88)
def toxics_postgres(rounds: int, seed: int) -> Outcome:
    """Each of the eight toxics in turn between the tool and PostgreSQL, and three more events.

    The short form sets libpq's timeouts lower than the tool does; the long one leaves them alone.
    """
    judge, swallower = Judge(seed), CommitSwallower()
    events = (*EVENTS, *TOXICS)
    quick = {"tcp_user_timeout": "2000", "keepalives_idle": "1", "connect_timeout": "2"}
    silent = Setting(unacknowledged=True, limit_bytes=3000)
    with arena() as job:
        upstream, who = _server_of(job)
        with Proxy(upstream, watch=swallower, setting=silent, seed=seed) as proxy:
            stalls = Stalls(job, judge)
            plan = _plan(events, rounds, seed)
            env = _through(proxy, job, who | (quick if rounds <= len(events) else {}))
            again = _runs(stalls, proxy, plan, env, swallower)
    judge.holds(not again, f"{again} answered texts were sent again")
    longest = max(stalls.longest.values(), default=0.0)
    judge.holds(longest <= 20, f"G5: nothing was stored for {longest:.1f} s")
    return Outcome(rounds, _figures(stalls, rounds), tuple(judge.broken))
