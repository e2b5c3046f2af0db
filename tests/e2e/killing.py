"""Kills runs at random moments while somebody else works in the same table.

By hand: `python -m tests.e2e.killing --rounds 1000 --seed 5` prints what it found.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString, Self

from tests.conftest import CommandLine
from tests.e2e.jobs import Job, shuffling
from tests.provider import Provider
from tests.servers import Database, PostgresServer
from tests.targets import create, edit, take_away, verifier

if TYPE_CHECKING:
    from types import TracebackType

    from tests.tables import Session
    from tests.targets import Table

WORKERS = 4
BATCH = 16
_BEHIND = 1000
"""Rows before the first one at most: a table that grows for an hour is slow to look at."""


@dataclass
class Found:
    """What a series of kills came to."""

    kills: int = 0
    ended_by_themselves: int = 0
    checks: int = 0
    lost: list[int] = field(default_factory=list)
    """Texts that each kill left answered and not stored: they have to be sent again."""
    sent_again: int = 0
    exit_code: int = -1
    output: str = ""
    edits: int = 0
    texts: int = 0
    leftovers: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """State files that were no JSON after a kill."""


class Writer:
    """The application: edits, deletes, inserts and takes vectors away, until it is told to rest."""

    def __init__(self, job: Job, session: Session, rows: int, seed: int) -> None:
        self.edits = 0
        self.nulled: set[str] = set()
        """Texts that it made pending again, which are rightly sent again."""
        self._job = job
        self._session = session
        self._random = random.Random(seed)
        self._next = rows
        self._behind = 0
        self._gone: list[int] = []
        self.still = threading.Lock()
        """Whoever holds it sees nothing change, and knows of every vector that was taken away."""
        self._stop = threading.Event()
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._work, name="writer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rest()

    def rest(self) -> None:
        """Returns when nothing is being written any more."""
        self._stop.set()
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def take_away(self, rows: int) -> None:
        """So that there is always something to do."""
        some: LiteralString = "true ORDER BY random() LIMIT %s"
        self.nulled |= take_away(self._job, self._session, some, (rows,))

    def _work(self) -> None:
        try:
            while not self._stop.wait(0.004):
                with self.still:
                    self._once()
                self.edits += 1
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._errors.append(error)

    def _once(self) -> None:
        some = self._random.randint(1, self._next)
        match self._random.randrange(6):
            case 0 | 1:
                edit(self._job, self._session, some, f"Edit {self.edits} of {some}")
            case 2:
                self._delete(some)
            case 3:
                if self._gone:
                    self._insert(self._gone.pop())
                else:
                    self._next += 1
                    self._insert(self._next)
            case 4:
                self._behind -= 1
                self._insert(self._behind)
                self._delete(self._behind + _BEHIND)
            case _:
                self.nulled |= take_away(self._job, self._session, "id = %s", (some,))

    def _delete(self, number: int) -> None:
        gone = self._session.execute("DELETE FROM articles WHERE id = %s", (number,))
        if gone.rowcount and number > 0:
            self._gone.append(number)

    def _insert(self, number: int) -> None:
        self._session.execute(
            "INSERT INTO articles (id, title, body) VALUES (%s, '', %s)",
            (number, f"Insert {self.edits} of {number}"),
        )


def kill_rounds(
    job: Job, *, rounds: int, seed: int, rows: int = 2500, check_every: int = 5
) -> Found:
    """Kills as many runs, and lets the last one finish.

    Raises:
        AssertionError: A stored vector is not the one of its row's text.
    """
    session = job.database.connect()
    create(job, session, rows)
    table = verifier(job)
    job.provider.mangle = shuffling(seed)
    job.provider.latency = 0.06
    job.provider.fail_rate = 0.05
    job.provider.reset_rate = 0.01
    job.provider.random = random.Random(seed)
    chance = random.Random(seed)
    found = Found()
    options = ("--batch-size", str(BATCH), "--concurrency", str(WORKERS))
    with Writer(job, session, rows, seed) as writer:
        for number in range(1, rounds + 1):
            if len(table.missing()) < rows // 3:
                writer.take_away(rows // 2)
            before = job.provider.texts_sent
            _one_round(job, options, chance, found)
            found.lost.append(_lost(job, table, writer, before))
            found.damaged += _damaged(job.cli.state_dir)
            if number % check_every == 0:
                assert not table.wrong()
                found.checks += 1
        writer.rest()
        found.edits = writer.edits
    done = job.run(*options, timeout=120)
    found.exit_code, found.output = done.returncode, done.stdout + done.stderr
    assert not table.wrong()
    assert not table.missing()
    sent = job.provider.texts_sent
    found.texts = sent.total()
    found.sent_again = sum(n - 1 for text, n in sent.items() if text not in writer.nulled)
    found.leftovers = [p.name for p in job.cli.state_dir.iterdir() if p.name.endswith(".tmp")]
    return found


def _one_round(job: Job, options: tuple[str, ...], chance: random.Random, found: Found) -> None:
    """At times before the first request, at times in the middle of the work."""
    process = job.start(*options)
    arrived = job.provider.arrived
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0.0, 0.6))
    else:
        while job.provider.arrived == arrived and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.5))
    if process.poll() is None:
        found.kills += 1
        process.kill()
    else:
        found.ended_by_themselves += 1
    process.communicate()


def _damaged(folder: Path) -> list[str]:
    found = []
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            found.append(path.name)
    return found


def _lost(job: Job, table: Table, writer: Writer, before: Counter[str]) -> int:
    """Texts answered since `before` whose rows are pending, though nobody took their vectors."""
    while job.provider.in_flight or _sessions(table.session):
        time.sleep(0.01)
    with writer.still:
        texts, sent = table.texts(), job.provider.texts_sent
        pending = [texts.get(key, "") for key in table.missing()]
        return sum(sent[text] - before[text] for text in pending if text not in writer.nulled)


def _sessions(session: Session) -> int:
    """A server process may still be at work for a client that is gone."""
    row = session.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'embedmigrate%'"
        " AND datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


def main() -> None:
    """Prints the figures of one series."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.killing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=2500)
    options = parser.parse_args()
    server = PostgresServer.from_environment()
    with tempfile.TemporaryDirectory() as folder, Provider() as provider:
        server.create_database("killing")
        database = Database("killing", server.dsn("killing"), server)
        database.connect().execute("CREATE EXTENSION vector")
        cli = CommandLine(Path(folder))
        try:
            job = Job(cli, database, provider)
            found = kill_rounds(job, rounds=options.rounds, seed=options.seed, rows=options.rows)
        finally:
            cli.kill_all()
            provider.sever()
            database.drop()
            server.stop()
    print(f"kills {found.kills}, ended by themselves {found.ended_by_themselves}")
    print(f"edits by the application {found.edits}, texts sent {found.texts}")
    print(f"sent again {found.sent_again}, at most {max(found.lost)} because of one kill")
    print(f"checks {found.checks}, wrong vectors 0, missing at the end 0, exit {found.exit_code}")


if __name__ == "__main__":
    main()
