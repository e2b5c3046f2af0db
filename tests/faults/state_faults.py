"""Starts at the same time, and state files that are damaged."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

from embedmigrate.errors import CheckpointError
from embedmigrate.state import RunState
from embedmigrate.state.record import _checksum
from tests.e2e.jobs import shuffling
from tests.e2e.killing import Writer
from tests.faults.arena import arena
from tests.faults.series import Outcome, series
from tests.faults.signals import SIZES, Supply, wait_until
from tests.faults.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Completed
    from tests.e2e.jobs import Job

AT_ONCE = 8


@series("simultaneous-starts", rows=("S9", "S11"), short=2, long=200)
def simultaneous_starts(rounds: int, seed: int) -> Outcome:
    """Eight at once: with one state directory, with eight of them, and without any lock."""
    broken, chance = list[str](), random.Random(seed)
    with arena() as job, Zygote(job.cli) as locked, Zygote(job.cli, "no-locks") as unlocked:
        supply = Supply(job, 300)
        job.provider.mangle = shuffling(seed)
        edits = 0
        for number in range(1, rounds + 1):
            supply.refill(300)
            apart = bool(number % 2)
            for wrong in _one_winner(job, locked, apart=apart):
                broken.append(f"round {number}, {apart=}, seed {seed}: {wrong}")
            supply.refill(300)
            session = job.database.connect()
            writer = Writer(job, session, supply.rows, chance.randrange(10**6))
            writer._behind = -1000 * number
            with session, writer:
                for wrong in _overlapping(job, unlocked, writer):
                    broken.append(f"round {number} without locks, seed {seed}: {wrong}")
            edits += writer.edits
            done = job.run(*SIZES)
            wrong_rows, missing = len(supply.table.wrong()), len(supply.table.missing())
            if done.returncode or wrong_rows or missing:
                said = f"exit {done.returncode}, {wrong_rows} wrong, {missing} missing"
                broken.append(f"round {number}, seed {seed}: {said}")
    figures = {
        "starts": rounds * AT_ONCE,
        "winners": rounds,
        "overlapping_runs_without_locks": rounds * AT_ONCE,
        "edits_meanwhile": edits,
        "wrong_vectors": wrong_rows,
    }
    return Outcome(rounds * AT_ONCE, figures, tuple(broken))


def _one_winner(job: Job, zygote: Zygote, *, apart: bool) -> Iterator[str]:
    """The winner waits at the provider until the others have ended."""
    gate = _Gate(job)
    running = []
    for n in range(AT_ONCE):
        own = {"EMBEDMIGRATE_STATE_DIR": str(job.cli.folder / f"state-{n}")} if apart else {}
        env = job.env | own
        running.append(zygote.start("generate-all", *job.options, *SIZES, env=env))
    ended = list[Any]()

    def all_but_one() -> bool:
        for forked in [*running]:
            if done := zygote.poll(forked):
                running.remove(forked)
                ended.append(done)
        return len(running) <= 1

    if not wait_until(all_but_one, 60):
        yield f"{len(running)} were still at work"
    gate.open()
    last = [zygote.wait(forked) for forked in running]
    codes = sorted(done.returncode for done in (*ended, *last))
    if codes != [0] + [11] * (AT_ONCE - 1):
        yield f"exit codes {codes}"
    for done in ended:
        if "another run is working on" not in done.stderr:
            yield f"a loser says {done.stderr[-200:]}"


class _Gate:
    """Closed, the provider keeps every request waiting."""

    def __init__(self, job: Job) -> None:
        import threading

        self._job = job
        job.provider.hang = self._event = threading.Event()

    def open(self) -> None:
        self._event.set()
        self._job.provider.hang = None


def _overlapping(job: Job, zygote: Zygote, writer: Writer) -> Iterator[str]:
    """All of them work; each has a state directory of its own, as on as many machines."""
    job.provider.latency = 0.02
    running = [
        zygote.start(
            "generate-all",
            *job.options,
            *SIZES,
            env=job.env | {"EMBEDMIGRATE_STATE_DIR": str(job.cli.folder / f"state-{n}")},
        )
        for n in range(AT_ONCE)
    ]
    time.sleep(0.5)
    writer.rest()
    job.provider.latency = 0.0
    for forked in running:
        done = zygote.wait(forked)
        if done.returncode not in {0, 3}:
            yield f"exit {done.returncode}: {done.stderr[-300:]}"


def _flip(content: bytes, chance: random.Random) -> bytes:
    flipped = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _garbage(content: bytes, chance: random.Random) -> bytes:
    return chance.choice((chance.randbytes(200), b"\0" * len(content), b"[" * 100_000, b"nonsense"))


def _other_tool(content: bytes, chance: random.Random) -> bytes:
    bodies: list[Any] = [{"version": 3, "cursor": 7}, [], None, 5, "state", {"format": "other"}]
    return json.dumps(chance.choice(bodies)).encode()


def _version(content: bytes, chance: random.Random) -> bytes:
    body = json.loads(content)
    body["version"] = chance.choice((0, -1, 2, 99, "1", None, 1.5, True, []))
    return json.dumps(body).encode()


def _another_job(content: bytes, chance: random.Random) -> bytes:
    """Whole and valid, and of another table, database, model or endpoint."""
    body = _body(content)
    name = chance.choice(sorted(body["fingerprint"]))
    body["fingerprint"][name] += "x"
    return _sealed(body)


def _wrong_type(content: bytes, chance: random.Random) -> bytes:
    """With the right checksum, as a tool that imitates ours might write it."""
    body = _body(content)
    name = chance.choice(sorted(body))
    body[name] = chance.choice(([], {}, 5, "x", None, [None], {"x": 1}))
    return _sealed(body)


def _body(content: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(content)
    for name in ("format", "version", "checksum"):
        del body[name]
    return body


def _sealed(body: dict[str, Any]) -> bytes:
    head = {"format": "embedmigrate-state", "version": 1, "checksum": _checksum(body)}
    return json.dumps(head | body).encode()


CORRUPTIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _flip, _cut, _garbage, _other_tool, _version, _another_job, _wrong_type),
)


def _decodes(content: bytes) -> RunState | None:
    try:
        return RunState.decode(content, "it")
    except CheckpointError:
        return None


@series("state-corruptions", rows=("S4", "S5", "S6"), short=48, long=1000)
def state_corruptions(rounds: int, seed: int) -> Outcome:
    """A damaged or foreign file where the state should be: a word about it, whatever it is."""
    chance, broken = random.Random(seed), list[str]()
    counted = {"refused_with_13": 0, "kept_and_went_on": 0, "read_as_it_was": 0, "crashes": 0}
    with arena() as job, Zygote(job.cli) as zygote:
        supply = Supply(job, 20)
        for _ in range(2):
            job.run()
        file = next(job.cli.state_dir.glob("*.embedding.json"))
        previous = file.with_name(f"{file.name}.prev")
        whole, before = file.read_bytes(), previous.read_bytes()
        for number in range(1, rounds + 1):
            corrupt = CORRUPTIONS[number % len(CORRUPTIONS)]
            content = corrupt(whole, chance)
            file.write_bytes(content)
            previous.write_bytes(corrupt(before, chance) if chance.random() < 0.2 else before)
            supply.session.execute("UPDATE articles SET embedding = NULL WHERE id = 7")
            arrived = job.provider.arrived
            done = zygote.run("generate-all", *job.options, *_more(chance), env=job.env)
            spent = job.provider.arrived - arrived
            what, wrong = _judged(content, done, file, spent)
            counted[what] += 1
            if not wrong and done.returncode == 0 and supply.table.missing():
                wrong = "exit 0 with a row missing"
            if wrong:
                where = f"round {number}, {corrupt.__name__[1:]}, seed {seed}"
                broken.append(f"{where}: {wrong}: {done.stderr[-400:]}")
            for aside in job.cli.state_dir.glob("*.corrupt-*"):
                aside.unlink()
    return Outcome(rounds, counted, tuple(broken[:20]))


def _more(chance: random.Random) -> tuple[str, ...]:
    """Whoever goes on from the saved cursor reads more of the file than others."""
    return ("--resume-from", "last") if chance.random() < 0.3 else ()


def _judged(content: bytes, done: Completed, file: Path, spent: int) -> tuple[str, str]:
    """What the run has made of the file, and what is wrong with that."""
    if done.returncode == 13:
        kept = file.read_bytes() == content
        wrong = f"{spent} requests before it was refused" if spent else ""
        return "refused_with_13", wrong or ("" if kept else "the file was not left as it was")
    if done.returncode != 0:
        return "crashes", f"exit {done.returncode}"
    asides = list(file.parent.glob("*.corrupt-*"))
    if asides and asides[0].read_bytes() == content:
        named = asides[0].name in "".join(done.stderr.split())
        return "kept_and_went_on", "" if named else f"{asides[0].name} is not named"
    silent = _decodes(content) is None
    return "read_as_it_was", "a silent restart" if silent else ""
