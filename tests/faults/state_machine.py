"""Any order of runs, kills, edits and damage, over a real table, with a look after each step."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests import tables
from tests.e2e.jobs import shuffling
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import wait_until
from tests.faults.zygote import Zygote
from tests.verifier import Verifier

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Completed
    from tests.e2e.jobs import Job

STEPS = 12
SIZES = ("--batch-size", "7", "--concurrency", "3")
IDS = st.integers(1, 120)
MODELS = ("text-embedding-3-small", "text-embedding-3-large")

ARENA: list[tuple[Job, Zygote]] = []
"""Shared by all examples: a server takes longer to start than an example takes to run."""
TOLD: Counter[str] = Counter()


class Machine(RuleBasedStateMachine):
    """What may happen to a job in the weeks that it takes."""

    @initialize()
    def begin(self) -> None:
        TOLD["examples"] += 1
        self.job, self.zygote = ARENA[0]
        self.job.database.disconnect()  # those of the example before
        self.session = self.job.database.connect()
        self.session.execute("DROP TABLE IF EXISTS articles")
        tables.articles(self.session, 60, gaps=False)
        for path in self._state_files("*"):
            path.unlink()
        self.table = Verifier(self.session)
        self.edits = self.behind = 0
        self.model = MODELS[0]
        self.damaged = False

    @rule()
    def run(self) -> None:
        """To its end: whatever happened before, all is done or the file is refused."""
        done = self._run()
        if done.returncode == 13:
            assert self.damaged or "checkpoint" in done.stderr or "model" in done.stderr
            done = self._run("--restart")
        assert done.returncode == 0, done.stderr
        assert self.table.missing() == [], "exit 0 with rows missing"
        self.damaged = False

    @rule(texts=st.integers(0, 40), wait=st.floats(0, 0.05))
    def kill(self, texts: int, wait: float) -> None:
        """A run, killed after about so many texts."""
        self.job.provider.latency = 0.03
        before = self.job.sent()
        forked = self.zygote.start("generate-all", *self._options(), env=self.job.env)
        ended: list[Completed] = []

        def far_enough() -> bool:
            ended.extend(filter(None, [self.zygote.poll(forked)]))
            return bool(ended) or self.job.sent() >= before + texts

        wait_until(far_enough, 20)
        time.sleep(wait)
        if not ended:
            TOLD["kills"] += 1
            self.zygote.kill(forked)
        wait_until(lambda: not self._sessions())

    @rule(row=IDS, again=st.booleans())
    def edit(self, row: int, again: bool) -> None:
        """By an application that keeps its side of the bargain: the old vector goes."""
        self.edits += 1
        body = f"Edit {self.edits}" if again else "The same text"
        self.session.execute(
            "UPDATE articles SET body = %s, embedding = NULL WHERE id = %s", (body, row)
        )

    @rule(row=IDS)
    def delete(self, row: int) -> None:
        self.session.execute("DELETE FROM articles WHERE id = %s", (row,))

    @rule(rows=st.integers(1, 5))
    def insert_behind(self, rows: int) -> None:
        for _ in range(rows):
            self.behind -= 1
            self._insert(self.session, self.behind)

    @rule(wait=st.floats(0.05, 0.3))
    def late_commit(self, wait: float) -> None:
        """A row with a low number that becomes visible in the middle of a run."""
        self.behind -= 1
        other = self.job.database.connect()
        other.autocommit = False
        self._insert(other, self.behind)
        late = threading.Timer(wait, other.commit)
        late.start()
        done = self._run()
        late.join()
        other.close()
        assert done.returncode in {0, 3, 13}, done.stderr

    @rule(where=st.integers(0, 2**16), how=st.sampled_from(["flip", "cut", "nothing", "garbage"]))
    def corrupt_the_state(self, where: int, how: str) -> None:
        for path in self._state_files("*.embedding.json"):
            content = bytearray(path.read_bytes())
            if how == "flip" and content:
                content[where % len(content)] ^= 1 << where % 8
            if how == "cut":
                del content[where % (len(content) + 1) :]
            path.write_bytes({"nothing": b"", "garbage": b"\0nonsense"}.get(how, bytes(content)))
            self.damaged = True
            TOLD["damaged"] += 1

    @rule()
    def change_the_model(self) -> None:
        """Refused, and nothing is sent: the column is another model's by now."""
        first = bool(self._state_files("*.embedding.json"))
        if not first or self.damaged:
            return
        self.session.execute("UPDATE articles SET embedding = NULL WHERE id = 3")
        before = self.job.provider.arrived
        done = self._run("--model", MODELS[1], "--price", "0.1")
        assert done.returncode == 13, (done.returncode, done.stderr)
        assert self.job.provider.arrived == before
        TOLD["models_refused"] += 1

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "table"):
            TOLD["looks"] += 1
            assert self.table.wrong() == []

    def teardown(self) -> None:
        if hasattr(self, "table"):
            self.run()
            assert self.table.wrong() == []

    def _options(self, *more: str) -> tuple[str, ...]:
        return (*self.job.options, *SIZES, *more)

    def _run(self, *more: str) -> Completed:
        self.job.provider.latency = 0.0
        TOLD["runs"] += 1
        done = self.zygote.run("generate-all", *self._options(*more), env=self.job.env)
        assert "bug in embedmigrate" not in done.stderr, done.stderr
        return done

    def _insert(self, session: Any, number: int) -> None:
        session.execute(
            "INSERT INTO articles (id, title, body) VALUES (%s, '', %s)",
            (number, f"Insert of {number}"),
        )

    def _state_files(self, pattern: str) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return list(self.job.cli.state_dir.glob(pattern))
        return []

    def _sessions(self) -> int:
        row = self.session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'embedmigrate%'"
            " AND datname = current_database()"
        ).fetchone()
        return int(row[0]) if row else 0


@series("state-machine", rows=("S1", "S4", "S6", "C1", "C2", "C3"), short=5, long=150)
def state_machine(rounds: int, seed: int) -> Outcome:
    """So many examples of a dozen steps."""
    settings = hypothesis.settings(
        max_examples=rounds,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    TOLD.clear()
    broken: tuple[str, ...] = ()
    with arena() as job, Zygote(job.cli) as zygote:
        job.provider.mangle = shuffling(seed)
        ARENA[:] = [(job, zygote)]
        try:
            run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)
        except (AssertionError, HypothesisException) as wrong:
            # A kill is not to be repeated to the millisecond: one that is not found again counts.
            broken = (f"seed {seed}: {''.join(traceback.format_exception(wrong))[-6000:]}",)
        finally:
            ARENA.clear()
    return Outcome(TOLD["examples"], {**TOLD}, broken)
