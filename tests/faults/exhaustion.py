"""The server has no room left: no disk, no connection."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.faults.arena import arena
from tests.faults.breakable import breakable
from tests.faults.postgres_faults import SLOW, Found, fill, judge, nothing_twice
from tests.faults.series import Outcome, series
from tests.servers import MEMORY
from tests.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.jobs import Job

FEW = "max_connections = 16\nsuperuser_reserved_connections = 0\nreserved_connections = 0\n"
ROWS = 800


@series("full-disk", rows=("G8",), short=2, long=20)
def full_disk(rounds: int, seed: int) -> Outcome:
    """A tablespace without a free byte: for a while, and in every other round for good."""
    found = Found()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return Outcome(rounds, {"skipped": "only root can mount a small disk"})
    with breakable() as server, arena(server) as job, _small_disk() as disk:
        if disk is None:
            return Outcome(rounds, {"skipped": "mount -t tmpfs is not allowed here"})
        folder = disk / "space"
        folder.mkdir()
        shutil.chown(folder, server.cluster.data.owner(), server.cluster.data.group())
        server.execute(
            sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(folder)))
        )
        fill(job, 1, "first")
        with psycopg.connect(job.database.url, autocommit=True) as session:
            session.execute("ALTER TABLE articles SET TABLESPACE small")
        filler = disk / "filler"

        def full() -> None:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
                while out.write(bytes(4096)) == 4096:
                    pass

        for number in range(rounds):
            _round(job, full, filler.unlink, found, f"{seed}.{number}", for_good=number % 2 == 1)
        with psycopg.connect(job.database.url, autocommit=True) as session:
            session.execute("ALTER TABLE articles SET TABLESPACE pg_default")
    nothing_twice_but_lost(found, rounds)
    return found.outcome()


@series("no-connections", rows=("G8",), short=2, long=20)
def no_connections(rounds: int, seed: int) -> Outcome:
    """Others take every connection: for a while, and in every other round for good."""
    found = Found()
    with breakable(FEW) as server, arena(server) as job:
        taken: list[psycopg.Connection[tuple[object, ...]]] = []

        def take() -> None:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(psycopg.OperationalError):
                    while True:
                        taken.append(psycopg.connect(server.dsn("postgres"), autocommit=True))
                row = (
                    taken[0]
                    .execute(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE application_name LIKE 'embedmigrate%'"
                    )
                    .fetchone()
                )
                if row == (0,):
                    return
                time.sleep(0.01)

        def give_back() -> None:
            while taken:
                taken.pop().close()

        for number in range(rounds):
            _round(job, take, give_back, found, f"{seed}.{number}", for_good=number % 2 == 1)
    nothing_twice_but_lost(found, rounds)
    return found.outcome()


def nothing_twice_but_lost(found: Found, rounds: int) -> None:
    """A run that gives up loses what was answered and could not be stored: 4 batches of 16."""
    most = rounds // 2 * 64
    if found.twice <= most:
        return
    nothing_twice(found)


def _round(
    job: Job,
    begin: Callable[[], None],
    end: Callable[[], None],
    found: Found,
    where: str,
    *,
    for_good: bool,
) -> None:
    fill(job, ROWS, where)
    job.provider.forget()
    job.provider.latency = 0.15
    process = job.start(*SLOW, "--db-wait", "3" if for_good else "60")
    while job.provider.arrived < 8 and process.poll() is None:
        time.sleep(0.01)
    begin()
    if not for_good:
        time.sleep(2)
        end()
    out, err = process.communicate(timeout=120)
    if for_good:
        end()
        if process.returncode == 0:  # it was done before there was nothing left
            judge(job, 0, out + err, found, where)
            return
        if process.returncode != 5:
            found.broken.append(f"exit {process.returncode}, {where}: {(out + err)[-400:]}")
        with psycopg.connect(job.database.url, autocommit=True) as session:
            if not Verifier(session).embedded():
                found.broken.append(f"nothing was saved, {where}")
        done = job.run(*SLOW)
        judge(job, done.returncode, done.stdout + done.stderr, found, where)
    else:
        judge(job, process.returncode, out + err, found, where)
    found.faults += 1


@contextlib.contextmanager
def _small_disk() -> Iterator[Path | None]:
    folder = Path(tempfile.mkdtemp(prefix="embedmigrate-disk-", dir=MEMORY))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()
