"""What a batch comes to does not depend on where it is done."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedmigrate.engine.model import Batch, Waiting
from embedmigrate.errors import (
    BadReply,
    ClusterUnavailable,
    ConfigError,
    Exit,
    ProviderError,
    TransientError,
)
from embedmigrate.executors import team
from tests.provider import FAILURES, Reply, openai_error

if TYPE_CHECKING:
    from embedmigrate.engine.model import Outcome
    from tests.contract.conftest import Bench, Rig

SIZE = 10


def batches(bench: Bench) -> list[Batch]:
    cut = [tuple(bench.rows[n : n + SIZE]) for n in range(0, len(bench.rows), SIZE)]
    return [Batch(number, rows, rows[-1].key) for number, rows in enumerate(cut)]


async def all_of(bench: Bench) -> list[Outcome]:
    return await asyncio.gather(*(bench.submit(batch) for batch in batches(bench)))


def test_rows_are_stored(rig: Rig) -> None:
    table = rig.table(60)

    async def main() -> None:
        async with rig.open() as bench:
            outcomes = await all_of(bench)
            assert [o.seq for o in outcomes] == list(range(6))
            assert all(o.finished and o.stored == SIZE and o.requests == 1 for o in outcomes)
            assert sum(o.tokens for o in outcomes) > 0
            assert bench.governor.in_flight == 0

    asyncio.run(main())
    table.check()
    assert rig.provider.texts_sent.total() == 60
    assert rig.provider.peak_in_flight <= 4


def test_an_edited_row_gets_the_vector_of_its_new_text(rig: Rig) -> None:
    table = rig.table(20)
    edit = iter(["UPDATE articles SET body = 'somebody was quicker' WHERE id = 7"])

    def meanwhile(texts: tuple[str, ...]) -> None:
        for statement in edit:
            rig.session.execute(statement.encode())

    rig.provider.intercept = meanwhile

    async def main() -> None:
        async with rig.open() as bench:
            outcomes = await all_of(bench)
            assert all(o.finished for o in outcomes)
            assert sum(o.stored for o in outcomes) == 20

    asyncio.run(main())
    assert table.wrong() == []
    assert table.missing() == []
    assert rig.provider.texts_sent["somebody was quicker"] == 1


def test_a_refused_text_costs_its_own_row(rig: Rig) -> None:
    table = rig.table(20)
    rig.provider.reject = lambda text: text.startswith("Article 13 ")

    async def main() -> None:
        async with rig.open() as bench:
            outcomes = await all_of(bench)
            assert all(o.finished for o in outcomes)
            (failure,) = [f for o in outcomes for f in o.failed]
            assert failure.key == ("13",)
            assert failure.http_status == 400

    asyncio.run(main())
    table.check(without=["13"])
    assert set(rig.provider.texts_sent.values()) == {1}, "a good text was bought twice"


def test_a_429_makes_everybody_wait(rig: Rig) -> None:
    table = rig.table(40)

    async def main() -> None:
        async with rig.open() as bench:
            await bench.submit(batches(bench)[0])
            limit = Reply(429, FAILURES[429], {"retry-after": "2"})
            rig.provider.script.append(limit)
            outcomes = await all_of(bench)
            assert all(o.finished for o in outcomes)
            assert sum(o.retries for o in outcomes) == 1
            (waiting,) = [e for e in bench.events if isinstance(e, Waiting)]
            assert waiting.seconds == 2
            assert waiting.asked

    asyncio.run(main())
    table.check()
    refused = next(r for r in rig.provider.requests if r.status == 429)
    # Those that were under way come to their end; nobody sends anything new.
    between = [r.at - refused.at for r in rig.provider.requests if r.at > refused.at + 0.5]
    assert between
    assert min(between) >= 1.9


def test_an_error_that_passes_is_tried_again(rig: Rig) -> None:
    table = rig.table(30)
    rig.provider.script.extend([Reply(500, FAILURES[500]), Reply(503, FAILURES[503])])

    async def main() -> None:
        async with rig.open() as bench:
            outcomes = await all_of(bench)
            assert all(o.finished and o.error is None for o in outcomes)
            assert sum(o.retries for o in outcomes) == 2

    asyncio.run(main())
    table.check()


def test_what_has_no_turn_yet_is_abandoned(rig: Rig) -> None:
    table = rig.table(80)
    rig.provider.latency = 0.5

    async def main() -> None:
        async with rig.open() as bench:
            await bench.submit(batches(bench)[0])
            work = [asyncio.ensure_future(bench.submit(batch)) for batch in batches(bench)[1:]]
            await asyncio.to_thread(rig.provider.wait_for_arrivals, 3)
            bench.governor.close()
            outcomes = await asyncio.gather(*work)
            assert all(o.error is None for o in outcomes)
            done = [o for o in outcomes if o.finished]
            assert 0 < len(done) <= 4
            assert all(not o.requests for o in outcomes if not o.finished)
            assert sum(o.stored for o in done) + SIZE == len(table.embedded())

    asyncio.run(main())
    assert table.wrong() == []
    assert rig.provider.texts_sent.total() == len(table.embedded()), "sent and not stored"


def test_a_refusal_of_the_key_ends_the_run(rig: Rig) -> None:
    table = rig.table(10)
    body = openai_error("Incorrect API key provided", "invalid_request_error", "invalid_api_key")
    rig.provider.intercept = lambda texts: Reply(401, body)

    async def main() -> None:
        async with rig.open() as bench:
            (outcome,) = await all_of(bench)
            error = outcome.error
            assert isinstance(error, ProviderError)
            assert not isinstance(error, TransientError | BadReply)
            assert error.exit_code is Exit.PROVIDER
            assert error.hint
            assert not outcome.finished

    asyncio.run(main())
    assert table.embedded() == []


def test_an_actor_that_dies_costs_no_row(ray_rig: Rig) -> None:
    table = ray_rig.table(200)
    ray_rig.provider.latency = 0.2

    async def main() -> None:
        async with ray_rig.open() as bench:
            work = [asyncio.ensure_future(bench.submit(batch)) for batch in batches(bench)]
            await asyncio.to_thread(ray_rig.provider.wait_for_arrivals, 6)
            os.kill(_actors()[0], signal.SIGKILL)
            outcomes = await asyncio.gather(*work)
            assert all(o.finished for o in outcomes)
            # What it had written and not reported is found to be there.
            assert sum(o.stored + o.unchanged for o in outcomes) == 200
            assert 1 <= sum(o.retries for o in outcomes) <= 2
            assert bench.told.count("actor_died") == 1
            assert bench.governor.in_flight == 0

    asyncio.run(main())
    table.check()


def test_a_batch_that_kills_every_actor_ends_the_run(
    ray_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "_FIRST_PAUSE", 0.1)
    table = ray_rig.table(10)

    def deadly(texts: tuple[str, ...]) -> None:
        for pid in _actors():
            os.kill(pid, signal.SIGKILL)

    ray_rig.provider.intercept = deadly

    async def main() -> None:
        async with ray_rig.open() as bench:
            (outcome,) = await all_of(bench)
            assert isinstance(outcome.error, ClusterUnavailable)
            assert outcome.error.code == "actors_keep_dying"
            assert outcome.error.exit_code is Exit.TEMPORARY

    asyncio.run(main())
    assert table.embedded() == []


def test_an_actor_that_sees_another_database_is_refused(ray_rig: Rig) -> None:
    ray_rig.table(10)

    async def main() -> None:
        async with ray_rig.opening() as opening:
            await opening.everything()
            team = ray_rig.team(opening, database="7000000000000000000/16384")
            try:
                with pytest.raises(ConfigError) as refusal:
                    await team.muster()
            finally:
                await team.dismiss()
            assert refusal.value.code == "actor_differs"
            assert refusal.value.facts[0].startswith("database: ")

    asyncio.run(main())
    assert ray_rig.provider.arrived == 0


def test_without_an_actor_the_run_gives_up_in_time(ray_rig: Rig) -> None:
    table = ray_rig.table(10)
    ray_rig.provider.latency = 20

    async def main() -> None:
        async with ray_rig.open(max_wait=0.5) as bench:
            work = asyncio.create_task(all_of(bench))
            await asyncio.to_thread(ray_rig.provider.wait_for_arrivals, 1)
            assert bench.team is not None
            bench.team._hire = _no_room  # type: ignore[assignment]
            began = time.monotonic()
            for pid in _actors():
                os.kill(pid, signal.SIGKILL)
            (outcome,) = await work
            assert isinstance(outcome.error, ClusterUnavailable)
            assert outcome.error.code == "no_actor"
            assert time.monotonic() - began < 10

    asyncio.run(main())
    assert table.embedded() == []


class _Pending:
    """An actor for which the cluster has no room."""

    async def open(self) -> None:
        await asyncio.Event().wait()

    def kill(self) -> None:
        pass


def _no_room() -> _Pending:
    return _Pending()


def _actors() -> list[int]:
    """Of the clusters that this process has started."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if one.read_bytes().startswith(b"ray::Actor") and os.getpid() in _ancestors(one.parent):
                found.append(int(one.parent.name))
    return found


def _ancestors(process: Path) -> list[int]:
    stat = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    parent = int(stat[1])
    return [parent, *_ancestors(process.parent / str(parent))] if parent > 1 else []
