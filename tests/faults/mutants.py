"""Defects to switch on, each in a process of its own: whoever finds none of them finds nothing.

`python -m tests.faults.mutants NAME[,NAME] -- generate-all ...` runs the command line with them;
`save-state DIRECTORY` and `zygote` take the place of a command of embedmigrate's.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _put(owner: Any, name: str, value: object) -> None:
    """Instead of what is there under that name: a defect in nothing would go unnoticed."""
    if not hasattr(owner, name):
        raise LookupError(f"{owner!r} has no {name}: the mutant is out of date")
    setattr(owner, name, value)


def highest_cursor() -> None:
    """The cursor is the highest finished batch, whatever lies unfinished below it."""
    from dataclasses import replace

    from embedmigrate.engine.ledger import Ledger
    from embedmigrate.engine.model import Outcome

    def advance(self: Ledger, outcome: Outcome) -> None:
        if outcome.finished and outcome.seq >= self._expected and self._tracks_cursor:
            self._expected = outcome.seq + 1
            self._progress = replace(self._progress, cursor=outcome.last)

    _put(Ledger, "_advance", advance)


def unguarded_write() -> None:
    """The vector is stored whatever the row's text is by now, and nobody looks afterwards."""
    from psycopg.sql import SQL, Composed

    from embedmigrate.postgres import sql
    from embedmigrate.postgres.target import Target

    guarded = sql.update

    def update(t: Target, *, force: bool) -> Composed:
        whole = guarded(t, force=force).as_string(None)
        bare, found = re.subn(
            r" AND \(sha256\(convert_to\(.*(?= RETURNING )", "", whole, flags=re.DOTALL
        )
        blind, seen = re.subn(
            r", sha256\(.* IS DISTINCT FROM _em_new\._em_digest$", ", false", bare
        )
        if (found, seen) != (1, 1):
            raise LookupError("the statement has no guard: the mutant is out of date")
        return Composed([SQL(blind)])

    _put(sql, "update", update)


@contextlib.contextmanager
def _texts_unread() -> Iterator[None]:
    """What is composed in here takes every text for the one that was embedded."""
    from psycopg.sql import SQL

    from embedmigrate.postgres import side_sql, terms

    _put(side_sql, "unchanged", lambda target: SQL("true"))
    try:
        yield
    finally:
        _put(side_sql, "unchanged", terms.unchanged)


def _composed_blindly(name: str) -> None:
    from psycopg.sql import Composed

    from embedmigrate.postgres import side_sql

    guarded = getattr(side_sql, name)

    def blind(*args: Any, **more: Any) -> Composed:
        with _texts_unread():
            whole: Composed = guarded(*args, **more)
        if whole == guarded(*args, **more):
            raise LookupError(f"{name} has no guard: the mutant is out of date")
        return whole

    _put(side_sql, name, blind)


def blind_copy() -> None:
    """A batch is copied into the side table whatever the texts of its rows are by now."""
    _composed_blindly("new_among")


def blind_merge() -> None:
    """A batch is merged into the side table whatever the texts of its rows are by now."""
    _composed_blindly("merge")


def shifted_copy() -> None:
    """In a copy into the side table each row has the vector of the row before it."""
    import numpy as np

    from embedmigrate.postgres import copying, side_sink

    real = copying.copied

    def shifted(rows: Any, vectors: Any, *args: Any, **more: Any) -> bytes:
        return real(rows, np.roll(vectors, 1, axis=0), *args, **more)

    _put(side_sink, "copied", shifted)


def positional_mapping() -> None:
    """The n-th embedding of a reply is taken for the n-th text's, whatever its index."""
    from embedmigrate.embedders import reply

    def in_order(items: list[dict[str, Any]]) -> tuple[list[Any], bool]:
        return [item.get("embedding") for item in items], True

    _put(reply, "_in_order", in_order)


def in_place_state() -> None:
    """The state file is overwritten where it is."""
    from embedmigrate.state import files

    def write(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    _put(files, "write_atomically", write)


def retried_quota() -> None:
    """An exhausted account is taken for a rate limit, which passes."""
    from embedmigrate.embedders import openai, refusals
    from embedmigrate.errors import RateLimited

    real = refusals.refusal

    def refusal(status: int, headers: Any, content: bytes, *, who: str) -> Exception:
        if status == 429:
            return RateLimited(f"{who} rate limit", retry_after=0.05, code="rate_limited")
        return real(status, headers, content, who=who)

    _put(openai, "refusal", refusal)


def no_final_sweep() -> None:
    """One pass over the table is taken for all there is."""
    from embedmigrate.engine.job import Job
    from embedmigrate.engine.model import Ending
    from embedmigrate.engine.states import State

    async def run(self: Job) -> Ending:
        self._show(State.RUNNING)
        await self._pass(self._selection.after, force=self._selection.force)
        return self._ending(new_rows_left=False)

    _put(Job, "run", run)


def failed_counts_as_done() -> None:
    """A row that the provider refuses is counted among the stored."""
    from dataclasses import replace

    from embedmigrate.engine.ledger import Ledger
    from embedmigrate.engine.model import Outcome

    real = Ledger.record

    def record(self: Ledger, outcome: Outcome) -> None:
        self.excluded.update(f.key for f in outcome.failed)
        real(self, replace(outcome, stored=outcome.stored + len(outcome.failed), failed=()))

    _put(Ledger, "record", record)


def pid_file_lock() -> None:
    """The lock is a process number in a file."""
    from embedmigrate.errors import LockedError
    from embedmigrate.state.files import JobFiles

    @contextlib.contextmanager
    def locked(self: JobFiles) -> Iterator[None]:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self._lock.read_text()), 0)
            raise LockedError("another run is at work", code="lock_held")
        self._lock.write_text(str(os.getpid()))
        try:
            self._try_out()
            yield
        finally:
            self._lock.unlink(missing_ok=True)

    _put(JobFiles, "locked", locked)


def no_locks() -> None:
    """Neither lock is taken: what is left is the guard of each write."""
    from embedmigrate.postgres import lock
    from embedmigrate.state.files import JobFiles

    @contextlib.contextmanager
    def locked(self: JobFiles) -> Iterator[None]:
        yield

    async def take(connection: object, target: object) -> None:
        """Nothing."""

    _put(JobFiles, "locked", locked)
    _put(lock, "take", take)


def saves_often() -> None:
    """The state file is written twenty times a second instead of once."""
    from embedmigrate.app import keeper

    _put(keeper, "_EVERY_SECONDS", 0.05)


MUTANTS: dict[str, Callable[[], None]] = {
    "highest-cursor": highest_cursor,
    "unguarded-write": unguarded_write,
    "positional-mapping": positional_mapping,
    "in-place-state": in_place_state,
    "retried-quota": retried_quota,
    "no-final-sweep": no_final_sweep,
    "failed-counts-as-done": failed_counts_as_done,
    "pid-file-lock": pid_file_lock,
    "blind-copy": blind_copy,
    "blind-merge": blind_merge,
    "shifted-copy": shifted_copy,
}
"""The defects that the series must find."""

BESIDE = {"blind-copy", "blind-merge", "shifted-copy"}
"""Those of them that show in a side table."""

AIDS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "no-locks": no_locks,
    "saves-often": saves_often,
}
"""What is no defect to be found, but the ground for looking for one."""


def save_state(directory: str) -> None:
    """Save a state with the lock held, as a run does; 13 where it says that it cannot."""
    from embedmigrate.errors import CheckpointError
    from embedmigrate.state import JobFiles
    from tests.faults.states import state

    files = JobFiles(Path(directory), "job")
    os.chdir(directory)  # a mark in the list of system calls: what comes before is Python's start
    try:
        files.prepare()
        with files.locked():
            files.keep_previous()
            files.save(state("new"))
    except CheckpointError as refused:
        print(refused.message)
        sys.exit(int(refused.exit_code))


def save_for_ever(directory: str) -> None:
    """Save one state after the other, until somebody kills this process."""
    from embedmigrate.state import JobFiles
    from tests.faults.states import state

    files = JobFiles(Path(directory), "job")
    print("ready", flush=True)
    for number in range(1_000_000):
        files.save(state(f"number {number}"))
        time.sleep(0)


def main() -> None:
    names, mark, *command = sys.argv[1:]
    if mark != "--":
        raise SystemExit("usage: python -m tests.faults.mutants NAME[,NAME] -- COMMAND ...")
    for name in names.split(","):
        if name.startswith("crash:"):
            from tests.faults.crash_points import arm

            arm(*name.split(":")[1:])
        else:
            (MUTANTS | AIDS)[name]()
    match command:
        case ["save-state", directory]:
            save_state(directory)
        case ["save-for-ever", directory]:
            save_for_ever(directory)
        case ["zygote"]:
            from tests.faults.zygote import serve

            serve()
        case _:
            from embedmigrate.cli import main as run

            sys.argv = ["embedmigrate", *command]
            run()


if __name__ == "__main__":
    main()
