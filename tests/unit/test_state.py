"""The state file is whole or refused, private, and locked by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import stat
import string
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.errors import CheckpointError, Exit, LockedError
from embedmigrate.secrets import redact
from embedmigrate.state import JobFiles, RunState, job_name, network_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATE = RunState(
    run_id="run-1",
    job_id="emb-job-1",
    state="running",
    pid=4711,
    host="db1",
    user="ada",
    started_at="2026-01-01T00:00:00Z",
    updated_at="2026-01-01T00:00:01Z",
    fingerprint={"model": "text-embedding-3-small", "table": "public.Zürich"},
    selection={"where": "x > 1"},
    target={"table": "public.t", "vector_column": "embedding", "primary_key": ["id"]},
    model={"name": "m", "dimensions": 1536},
    command="embedmigrate generate-all",
    progress={"done_ratio": 0.426, "tokens": 12},
    cursor=["17", "é\u2028"],
    errors=[{"key": ["3"], "code": "input_rejected"}],
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=4), json_values, max_size=3)
states = st.builds(
    replace,
    st.just(STATE),
    command=st.text(max_size=20),
    fingerprint=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    progress=objects,
    cursor=st.none() | st.lists(st.text(max_size=5), max_size=3),
    errors=st.lists(objects, max_size=2),
    exit_code=st.none() | st.integers(0, 143),
)


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    made = JobFiles(tmp_path / "state", "db-abc123.public.t.embedding")
    made.prepare()
    return made


def names(files: JobFiles) -> set[str]:
    return {path.name for path in files.directory.iterdir()}


@settings(deadline=None, max_examples=100)
@given(states)
def test_a_state_is_read_back_as_it_was_written(state: RunState) -> None:
    assert RunState.decode(state.encode(), "x") == state


def test_a_state_that_was_saved_is_loaded(files: JobFiles) -> None:
    assert files.load() is None
    files.save(STATE)
    assert files.load() == STATE
    files.save(replace(STATE, state="completed"))
    loaded = files.load()
    assert loaded is not None
    assert loaded.state == "completed"


def test_an_argument_that_is_not_unicode_can_be_saved(files: JobFiles) -> None:
    odd = replace(STATE, command="embedmigrate --where " + os.fsdecode(b"caf\xe9"))
    files.save(odd)
    assert files.load() == odd


def test_every_change_of_a_single_byte_is_noticed_or_means_the_same() -> None:
    content = STATE.encode()
    for at in range(len(content)):
        for byte in {content[at] ^ 1, content[at] ^ 0x80, 0x20, 0x30, 0x22} - {content[at]}:
            damaged = content[:at] + bytes([byte]) + content[at + 1 :]
            with contextlib.suppress(CheckpointError):
                assert RunState.decode(damaged, "x") == STATE


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 5000), st.binary(max_size=3), st.integers(0, 40))
def test_every_replaced_stretch_is_noticed_or_means_the_same(
    at: int, inserted: bytes, removed: int
) -> None:
    content = STATE.encode()
    at %= len(content)
    damaged = content[:at] + inserted + content[at + removed :]
    with contextlib.suppress(CheckpointError):
        assert RunState.decode(damaged, "x") == STATE


def test_every_truncation_is_noticed() -> None:
    content = STATE.encode()
    for length in range(len(content) - 1):
        with pytest.raises(CheckpointError) as caught:
            RunState.decode(content[:length], "x")
        assert caught.value.code == "checkpoint_corrupt"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "checkpoint_corrupt"),
        (b"\x00" * 64, "checkpoint_corrupt"),
        (b"\xff\xfe", "checkpoint_corrupt"),
        (b"[" * 100_000, "checkpoint_corrupt"),
        (b"[]", "checkpoint_foreign"),
        (b"null", "checkpoint_foreign"),
        (b"{}", "checkpoint_foreign"),
        (b'{"format": "terraform", "version": 4}', "checkpoint_foreign"),
        (b'{"format": "embedmigrate-state"}', "checkpoint_corrupt"),
        (b'{"format": "embedmigrate-state", "version": "9"}', "checkpoint_corrupt"),
        (b'{"format": "embedmigrate-state", "version": 2}', "checkpoint_newer"),
        (b'{"format": "embedmigrate-state", "version": 99, "all": "new"}', "checkpoint_newer"),
    ],
)
def test_what_is_not_a_state_is_refused_by_name(files: JobFiles, content: bytes, code: str) -> None:
    files.state.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        files.load()
    assert (caught.value.code, caught.value.exit_code) == (code, Exit.CHECKPOINT)
    assert str(files.state) in caught.value.message
    assert files.state.read_bytes() == content


def test_a_file_with_a_right_checksum_but_missing_fields_is_damaged() -> None:
    from embedmigrate.state.record import FORMAT, VERSION, _checksum

    body = {"run_id": "x"}
    content = json.dumps(
        {"format": FORMAT, "version": VERSION, "checksum": _checksum(body), **body}
    ).encode()
    with pytest.raises(CheckpointError, match="fields are missing"):
        RunState.decode(content, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "dreaming"),
        ("pid", "5"),
        ("progress", []),
        ("cursor", [None]),
        ("fingerprint", {"model": 5}),
        ("target", {"table": "t"}),
        ("errors", [5]),
        ("exit_code", "0"),
    ],
)
def test_a_field_of_another_type_is_damage_whatever_the_checksum(name: str, value: object) -> None:
    from embedmigrate.state.record import FORMAT, VERSION, _checksum

    body = asdict(STATE) | {name: value}
    content = json.dumps(
        {"format": FORMAT, "version": VERSION, "checksum": _checksum(body), **body}
    ).encode()
    with pytest.raises(CheckpointError, match="makes no sense"):
        RunState.decode(content, "x")


@pytest.mark.parametrize("version", [0, -1, "1", None, True, 1.0])
def test_a_version_that_never_was_is_damage(version: object) -> None:
    body = json.loads(STATE.encode()) | {"version": version}
    with pytest.raises(CheckpointError, match="version") as caught:
        RunState.decode(json.dumps(body).encode(), "x")
    assert caught.value.code == "checkpoint_corrupt"


@pytest.mark.parametrize(
    "write",
    [
        lambda files: files.keep_previous(),
        lambda files: files.put_aside("corrupt"),
        lambda files: files.ask({"run_id": "run-1"}),
    ],
)
def test_a_disk_that_refuses_is_no_bug(
    files: JobFiles, monkeypatch: pytest.MonkeyPatch, write: Callable[[JobFiles], object]
) -> None:
    files.save(STATE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CheckpointError) as caught:
        write(files)
    assert caught.value.code == "state_dir_unwritable"
    assert files.load() == STATE


def test_a_file_system_without_locks_is_no_bug(
    files: JobFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(CheckpointError, match="No locks available") as caught, files.locked():
        pytest.fail("it was taken for locked")
    assert caught.value.code == "state_dir_unwritable"


def test_the_run_before_is_there_when_the_last_one_is_damaged(files: JobFiles) -> None:
    assert files.load_previous() is None
    files.save(STATE)
    files.keep_previous()
    files.state.write_bytes(b"damaged")
    assert files.load_previous() == STATE
    files.previous.write_bytes(b"damaged as well")
    assert files.load_previous() is None


def test_a_file_that_is_put_aside_is_kept(files: JobFiles) -> None:
    assert files.put_aside("corrupt") is None
    files.state.write_bytes(b"damaged")
    aside = files.put_aside("corrupt")
    assert aside is not None
    assert aside.read_bytes() == b"damaged"
    assert ".corrupt-" in aside.name
    assert files.load() is None


def test_writing_leaves_no_temporary_file_and_nothing_that_others_can_read(
    files: JobFiles,
) -> None:
    old = os.umask(0)
    try:
        for _ in range(3):
            files.save(STATE)
        files.ask({"run_id": "run-1", "stop": True})
        files.append_error("run-1", {"key": ["1"]})
        with files.locked():
            pass
    finally:
        os.umask(old)
    assert not [name for name in names(files) if "tmp" in name or "probe" in name]
    assert stat.S_IMODE(files.directory.stat().st_mode) == 0o700
    for path in files.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("call", ["fsync", "write", "replace"])
def test_a_write_that_fails_leaves_the_old_state_and_no_litter(
    files: JobFiles, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    files.save(STATE)
    before = names(files)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        if call == "replace":
            broken.setattr(Path, "replace", full)
        elif call == "fsync":
            broken.setattr(os, "fsync", full)
        else:
            broken.setattr(os, "fdopen", full)
        with pytest.raises(CheckpointError) as caught:
            files.save(replace(STATE, state="completed"))
    assert caught.value.code == "state_dir_unwritable"
    assert "No space left" in caught.value.message
    assert names(files) == before
    assert files.load() == STATE


def test_what_an_earlier_crash_left_is_removed_and_nothing_else(files: JobFiles) -> None:
    left = files.directory / f".{files.name}.json.123-abcd.tmp"
    others = files.directory / ".another-job.json.123-abcd.tmp"
    for path in (left, others):
        path.write_bytes(b"half")
    with files.locked():
        pass
    assert not left.exists()
    assert others.exists()


def test_a_start_beside_a_live_run_does_not_take_its_temporary_file(files: JobFiles) -> None:
    with files.locked():
        writing = files.directory / f".{files.name}.json.{os.getpid()}-abcd.tmp"
        writing.write_bytes(b"half")
        second = JobFiles(files.directory, files.name)
        second.prepare()
        with pytest.raises(LockedError), second.locked():
            pass
        assert writing.exists()


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770, 0o702, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(CheckpointError) as caught:
        JobFiles(directory, "job").prepare()
    assert caught.value.code == "state_dir_unsafe"
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_a_directory_that_others_may_only_read_is_taken(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "closed"
    directory.mkdir(mode=mode)
    JobFiles(directory, "job").prepare()
    assert list(directory.iterdir()) == []


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError) as caught:
            JobFiles(place, "job").prepare()
        assert caught.value.exit_code is Exit.CHECKPOINT


def test_a_state_file_that_is_a_link_is_not_followed(files: JobFiles, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(STATE.encode())
    files.state.symlink_to(elsewhere)
    with pytest.raises(CheckpointError) as caught:
        files.load()
    assert caught.value.code == "checkpoint_unreadable"
    files.save(replace(STATE, state="completed"))
    assert elsewhere.read_bytes() == STATE.encode()
    assert not files.state.is_symlink()


def test_a_lock_or_a_report_that_is_a_link_is_not_followed(files: JobFiles, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (files.directory / f"{files.name}.lock").symlink_to(target)
    files.error_report("run-1").symlink_to(target)
    with pytest.raises(CheckpointError, match="symbolic"), files.locked():
        pass
    with pytest.raises(OSError, match="symbolic"):
        files.append_error("run-1", {})
    assert not target.exists()


HOLD = """
import sys, time
from pathlib import Path
from embedmigrate.state import JobFiles
with JobFiles(Path(sys.argv[1]), sys.argv[2]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(files: JobFiles) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    arguments = [sys.executable, "-c", HOLD, str(files.directory), files.name]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_one_process_at_a_time_holds_the_lock_and_sigkill_frees_it(files: JobFiles) -> None:
    assert not files.live()
    with holder(files) as process:
        assert files.live()
        with pytest.raises(LockedError) as caught, files.locked():
            pytest.fail("two processes hold the lock")
        assert (caught.value.code, caught.value.exit_code) == ("lock_held", Exit.LOCKED)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not files.live()
        with files.locked():
            assert files.live()
    assert not files.live()
    assert (files.directory / f"{files.name}.lock").exists()


def test_whoever_holds_the_lock_is_named(files: JobFiles) -> None:
    files.save(STATE)
    with holder(files), pytest.raises(LockedError) as caught, files.locked():
        pass
    (fact,) = caught.value.facts
    assert "run-1" in fact
    assert "pid 4711 on db1, user ada" in fact
    assert "42 % done" in fact
    assert caught.value.details["pid"] == 4711


def test_a_damaged_state_does_not_hide_that_the_lock_is_held(files: JobFiles) -> None:
    files.state.write_bytes(b"damaged")
    with holder(files), pytest.raises(LockedError) as caught, files.locked():
        pass
    assert caught.value.facts == ()


def test_a_look_at_the_lock_does_not_keep_a_run_from_starting(files: JobFiles) -> None:
    import fcntl
    import threading

    with files.locked():
        pass
    fd = os.open(files.directory / f"{files.name}.lock", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [fd]).start()
    began = time.monotonic()
    with files.locked():
        assert time.monotonic() - began < 0.4


def test_the_lock_is_free_after_an_error_inside(files: JobFiles) -> None:
    with pytest.raises(ZeroDivisionError), files.locked():
        _ = 1 / 0
    assert not files.live()


def test_a_request_is_for_the_run_that_it_names(files: JobFiles) -> None:
    assert files.asked("run-1") is None
    files.ask({"run_id": "run-1", "stop": True})
    assert files.asked("run-1") == {"run_id": "run-1", "stop": True}
    assert files.asked("run-2") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"run_id": "run-2"}'])
def test_a_request_that_makes_no_sense_is_none(files: JobFiles, content: bytes) -> None:
    (files.directory / f"{files.name}.control.json").write_bytes(content)
    assert files.asked("run-1") is None


def test_without_a_report_it_is_said_so(files: JobFiles) -> None:
    with pytest.raises(CheckpointError) as caught:
        files.errors_of("run-9")
    assert caught.value.code == "report_missing"


@pytest.mark.parametrize(
    "key",
    [
        "plain",
        "two\nlines",
        "line\u2028separator",
        "next\x85line",
        "\x1c\x1d\x1e",
        "\u2029",
        'quote"',
        "password=secret",
        "Bearer of news",
        "https://a:b@c",
        "sk-12345678",
    ],
)
def test_each_failed_row_is_one_line_that_can_be_read_back(files: JobFiles, key: str) -> None:
    files.append_error("run-1", {"id": [key], "code": "a"})
    files.append_error("run-1", {"id": ["2"], "code": "b"})
    first, second = files.errors_of("run-1")
    assert first == {"id": [redact(key)], "code": "a"}
    assert second == {"id": ["2"], "code": "b"}
    assert files.error_report("run-1").read_bytes().count(b"\n") == 2


def test_no_secret_reaches_the_report(files: JobFiles) -> None:
    files.append_error(
        "run-1",
        {"message": "postgresql://ada:c4n4ry@db/x", "more": {"deep": ["password=c4n4ry"]}},
    )
    assert b"c4n4ry" not in files.error_report("run-1").read_bytes()


def name_of(url: str) -> str:
    return job_name(url, "t", "embedding")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db:5433/app",
        "postgres://db:5433/app",
        "postgresql+psycopg://db:5433/app",
        "postgresql://ada@db:5433/app",
        "postgresql://ada:secret@db:5433/app",
        "postgresql://ada:an%40other@db:5433/app",
        "postgresql://ada:se@cret@db:5433/app",
        "postgresql://db:5433/app?sslmode=require&connect_timeout=3",
        " postgresql://db:5433/app\n",
        "postgresql:///app?host=db&port=5433",
        "host=db port=5433 dbname=app",
        "dbname=app user=ada password=secret host=db port=5433",
        "host = 'db' port = '5433' dbname = 'app'",
    ],
)
def test_the_same_database_has_the_same_name_however_it_is_written(url: str) -> None:
    assert name_of(url) == name_of("postgresql://db:5433/app")
    assert name_of(url).startswith("app-")
    assert name_of(url).endswith(".public.t.embedding")


def test_databases_of_other_servers_and_other_columns_have_other_names() -> None:
    distinct = [
        name_of("postgresql://db/app"),
        name_of("postgresql://db:5433/app"),
        name_of("postgresql://db2/app"),
        name_of("postgresql://db/other"),
        name_of("postgresql:///app"),
        name_of("postgresql://a:1,b:2/app"),
        name_of("postgresql://a:1,b:3/app"),
        name_of("service=production"),
        name_of("service=staging"),
        name_of("embedded:/srv/a"),
        name_of("embedded:/srv/b"),
        job_name("postgresql://db/app", "other", "embedding"),
        job_name("postgresql://db/app", "private.t", "embedding"),
        job_name("postgresql://db/app", "t", "other"),
    ]
    assert len(set(distinct)) == len(distinct)


def test_a_table_without_a_schema_is_that_of_public() -> None:
    assert job_name("postgresql://db/app", "public.t", "e") == name_of(
        "postgresql://db/app"
    ).replace("embedding", "e")


def test_the_password_has_no_part_in_the_name() -> None:
    assert "c4n4ry" not in name_of("postgresql://ada:c4n4ry@db/app")
    assert name_of("postgresql://ada:one@db/app") == name_of("postgresql://ada:two@db/app")


identifiers = st.text(max_size=30) | st.text(string.printable, max_size=300)
places = st.one_of(
    st.text(max_size=40),
    st.builds("postgresql://{}@{}/{}".format, *[st.text(max_size=20)] * 3),
    st.builds("host={} dbname='{}'".format, *[st.text(max_size=20)] * 2),
    st.builds("embedded:{}".format, st.text(max_size=20)),
)


@settings(deadline=None, max_examples=300)
@given(places, identifiers, identifiers)
def test_the_name_is_always_a_safe_name_of_a_file(url: str, table: str, column: str) -> None:
    name = job_name(url, table, column)
    assert name not in {"", ".", ".."}
    assert set(name) <= set(string.ascii_letters + string.digits + " $-_.~")
    assert len(f".{name}.control.json.4194304-01234567.tmp") <= 255
    assert Path(name).name == name
    assert job_name(url, table, column) == name


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    long = "x" * 300
    assert job_name("dbname=a", long + "1", "e") != job_name("dbname=a", long + "2", "e")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_do_not_damage_the_state(value: float) -> None:
    odd: dict[str, Any] = {"rows_per_second": value}
    loaded = RunState.decode(replace(STATE, progress=odd).encode(), "x")
    assert str(loaded.progress["rows_per_second"]) == str(value)


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/with\040space rw - nfs4 server:/export rw
31 22 0:41 / /mnt rw shared:3 - tmpfs tmpfs rw
32 22 0:42 / /home rw - ext4 /dev/sdb rw
33 32 0:43 / /home rw - cifs //server/home rw
34 22 0:44 / /data rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/mnt/with space/state", "nfs4"),
        ("/mnt/without/state", None),
        ("/mnt/with spaces", None),
        ("/home/anna/state", "cifs"),
        ("/data", "fuse.sshfs"),
        ("/var/lib/state", None),
    ],
)
def test_a_network_file_system_is_known_by_its_mount(
    tmp_path: Path, place: str, kind: str | None
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_file_system(Path(place), table) == kind


def test_where_there_is_no_table_of_mounts_nothing_is_said(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "none") is None
    assert network_file_system(tmp_path) is None
