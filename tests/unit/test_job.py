"""Every eligible row reaches the worker once, and a stop leaves nothing half done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from embedmigrate.engine.account import Account
from embedmigrate.engine.batching import Intake
from embedmigrate.engine.job import Job, Selection
from embedmigrate.engine.ledger import Ledger
from embedmigrate.engine.model import (
    Advanced,
    Ending,
    Key,
    Limits,
    Row,
    RowFailed,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.states import State, StopReason
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import DatabaseUnavailable, Exit, ProviderError, RejectedInput
from tests.fakes import (
    MemoryTable,
    Rule,
    ScriptedEmbedder,
    digest,
    holding,
    loop_time,
    virtually,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from embedmigrate.engine.model import Event


class Bench:
    """A whole engine over a table in memory."""

    def __init__(
        self,
        table: MemoryTable,
        *rules: Rule,
        selection: Selection | None = None,
        size: int = 10,
        concurrency: int = 4,
        seconds: float = 1.0,
        text_tokens: int | None = None,
    ) -> None:
        self.table = table
        self.events: list[Event] = []
        self.embedder = ScriptedEmbedder(*rules, seconds=seconds)
        limits = Limits(size, 1_000_000, 1_000_000, text_tokens)
        intake = Intake(len, lambda text, tokens: text[:tokens], exact=True)
        self.governor = Governor(Account(concurrency, clock=loop_time), report=self.events.append)
        worker = Worker(
            self.embedder,
            table,
            self.governor,
            limits=limits,
            admit=lambda row: intake.admit(row, text_tokens),
            patience=Patience(),
            jitter=lambda: 0.5,
        )
        chosen = selection or Selection()
        self.ledger = Ledger(selected=len(table.texts), clock=loop_time, cursor=chosen.after)
        self.job = Job(
            table,
            worker,
            selection=chosen,
            limits=lambda: worker.limits,
            intake=intake,
            ledger=self.ledger,
            governor=self.governor,
            report=self.events.append,
        )

    async def run(self) -> Ending:
        ending = await self.job.run()
        self.table.check()
        assert self.governor.in_flight == self.embedder.flying == 0
        assert (
            ending.progress.rows_stored
            == sum(len(write) for write in self.table.writes)
            - ending.progress.rows_unchanged
            - ending.progress.rows_vanished
        )
        return ending

    def asked_for(self) -> list[str]:
        return [text for request in self.embedder.requests for text in request]


def run(main: Coroutine[object, object, None]) -> None:
    virtually(main)


def refused() -> RejectedInput:
    return RejectedInput("refused", code="input_rejected", status=400)


def at(seconds: float, what: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, what)


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 100, 333])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_row_is_embedded_once(rows: int, concurrency: int) -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(rows), concurrency=concurrency)
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED, Exit.OK)
        assert ending.error is None
        assert not ending.new_rows_left
        assert bench.table.stored == set(range(1, rows + 1))
        assert len(bench.asked_for()) == rows
        assert ending.progress.cursor == ((str(rows),) if rows else None)

    run(main())


def test_requests_fly_together_and_no_more_than_allowed() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(400), concurrency=4)
        began = loop_time()
        await bench.run()
        assert bench.embedder.most_flying == 4
        assert loop_time() - began <= 1 + 39 / 4 + 1

    run(main())


def test_rows_that_appear_behind_the_cursor_are_found() -> None:
    async def main() -> None:
        table = MemoryTable.of({n: f"text {n}" for n in range(100, 300)})
        late = iter([5, 150_000, 50])

        def somebody(rows: Sequence[Row]) -> None:
            for number in late:
                table.add(number)
                return

        table.before_write = somebody
        bench = Bench(table)
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED, Exit.OK)
        assert {5, 50, 150_000} <= table.stored
        assert len(bench.asked_for()) == 203
        assert ending.progress.cursor in {("299",), ("150000",)}

    run(main())


def test_a_row_that_is_emptied_behind_the_cursor_is_filled_again() -> None:
    async def main() -> None:
        table = MemoryTable.numbered(50)
        writes = 0

        def somebody(rows: Sequence[Row]) -> None:
            nonlocal writes
            writes += 1
            if writes == 3:
                table.vectors.pop(("1",))

        table.before_write = somebody
        bench = Bench(table, concurrency=1)
        ending = await bench.run()
        assert ending.exit_code is Exit.OK
        assert table.stored == set(range(1, 51))
        assert bench.asked_for().count("text 1") == 1  # its vector is remembered

    run(main())


def test_a_run_that_starts_in_the_middle_still_looks_at_every_row() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(60), selection=Selection(after=("40",)))
        ending = await bench.run()
        assert bench.embedder.requests[0][0] == "text 41"
        assert bench.table.stored == set(range(1, 61))
        assert (ending.state, ending.progress.cursor) == (State.COMPLETED, ("60",))

    run(main())


def test_force_replaces_every_vector_once_and_then_sweeps_for_new_rows_only() -> None:
    async def main() -> None:
        table = MemoryTable.numbered(30)
        await Bench(table).run()
        table.writes.clear()
        bench = Bench(table, selection=Selection(force=True))
        ending = await bench.run()
        assert ending.exit_code is Exit.OK
        assert len(bench.asked_for()) == 30
        assert ending.progress.rows_stored == 30

    run(main())


@pytest.mark.parametrize("limit", [1, 10, 25, 30])
def test_a_limit_takes_no_more_rows_and_ends_well(limit: int) -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(50), selection=Selection(rows=limit))
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.LIMIT_REACHED, Exit.OK)
        assert bench.table.stored == set(range(1, limit + 1))

    run(main())


def test_a_limit_above_the_rows_is_no_limit() -> None:
    async def main() -> None:
        ending = await Bench(MemoryTable.numbered(50), selection=Selection(rows=51)).run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED, Exit.OK)

    run(main())


@pytest.mark.parametrize("batches", [1, 3, 7, 12, 19])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_budget_is_used_up_and_never_exceeded(batches: int, concurrency: int) -> None:
    async def main() -> None:
        table = MemoryTable.of({n: f"text {n:05}" for n in range(1, 201)})
        chosen = Selection(tokens=batches * 100 + 50)
        bench = Bench(table, selection=chosen, concurrency=concurrency)
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.LIMIT_REACHED, Exit.BUDGET)
        assert ending.progress.tokens == batches * 100
        assert ending.error is not None
        assert ending.error.code == "over_budget"
        assert table.stored == set(range(1, batches * 10 + 1))

    run(main())


def test_a_budget_that_suffices_is_not_noticed() -> None:
    async def main() -> None:
        table = MemoryTable.of({n: f"text {n:05}" for n in range(1, 201)})
        ending = await Bench(table, selection=Selection(tokens=2000)).run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED, Exit.OK)

    run(main())


@pytest.mark.parametrize(
    ("reason", "state", "code"),
    [
        (StopReason.ASKED, State.STOPPED, Exit.STOPPED),
        (StopReason.SIGINT, State.INTERRUPTED, Exit.INTERRUPTED),
        (StopReason.SIGTERM, State.INTERRUPTED, Exit.TERMINATED),
        (StopReason.DURATION, State.LIMIT_REACHED, Exit.OK),
    ],
)
def test_a_stop_stores_what_is_in_flight_and_sends_nothing_more(
    reason: StopReason, state: State, code: Exit
) -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(400))
        at(5.5, lambda: bench.job.tap.close(reason))
        began = loop_time()
        ending = await bench.run()
        assert loop_time() - began == pytest.approx(6, abs=0.1)
        assert (ending.state, ending.exit_code) == (state, code)
        assert not [t for t in bench.embedder.times if t > began + 5.5]
        assert len(bench.table.vectors) == len(bench.asked_for()) == ending.progress.rows_stored
        assert 0 < len(bench.table.vectors) < 400

    run(main())


def test_the_first_reason_to_stop_is_the_one_that_counts() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(400))
        at(5.2, lambda: bench.job.tap.close(StopReason.SIGTERM))
        at(5.3, lambda: bench.job.tap.close(StopReason.ASKED))
        ending = await bench.run()
        assert ending.exit_code is Exit.TERMINATED

    run(main())


def test_a_stop_does_not_wait_for_rows_that_are_not_read_yet() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(0))

        async def silent(after: Key | None, *, force: bool) -> AsyncIterator[Row]:
            await asyncio.sleep(3600)
            yield Row(("1",), "late", b"")

        bench.job._source = type("Silent", (), {"rows": staticmethod(silent)})()
        at(2, lambda: bench.job.tap.close(StopReason.ASKED))
        began = loop_time()
        ending = await bench.job.run()
        assert ending.state is State.STOPPED
        assert loop_time() - began == pytest.approx(2)

    run(main())


def test_an_abort_gives_up_what_is_in_flight_and_claims_none_of_it() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(400), seconds=100)
        at(150, lambda: bench.job.tap.close(StopReason.SIGINT))
        at(151, bench.job.abort)
        began = loop_time()
        ending = await bench.run()
        assert loop_time() - began == pytest.approx(151, abs=0.1)
        assert ending.exit_code is Exit.INTERRUPTED
        assert bench.table.stored == set(range(1, 11))
        assert ending.progress.rows_stored == 10
        assert ending.progress.cursor == ("10",)

    run(main())


def test_the_cursor_never_passes_a_row_that_is_not_done() -> None:
    async def main() -> None:
        table = MemoryTable.numbered(300)
        bench = Bench(table)
        cursors: list[Key] = []

        def watch(event: Event) -> None:
            if isinstance(event, Advanced) and event.progress.cursor:
                cursors.append(event.progress.cursor)
                done = range(1, int(event.progress.cursor[0]) + 1)
                assert {(str(n),) for n in done} <= set(table.vectors)

        bench.job._report = watch
        await bench.run()
        assert cursors[-1] == ("300",)
        assert cursors == sorted(cursors, key=lambda key: int(key[0]))

    run(main())


def test_failed_rows_are_reported_and_not_taken_again_by_the_sweeps() -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(100), holding(["text 7", "text 93"], refused))
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED_WITH_ERRORS, Exit.PARTIAL)
        assert bench.table.stored == set(range(1, 101)) - {7, 93}
        told = [e.failure.key for e in bench.events if isinstance(e, RowFailed)]
        assert sorted(told) == [("7",), ("93",)]
        alone = [r for r in bench.embedder.requests if r in {("text 7",), ("text 93",)}]
        assert len(alone) == 2
        assert ending.progress.rows_failed == 2
        assert not ending.new_rows_left

    run(main())


def test_rows_too_long_cost_no_request_and_are_failed() -> None:
    async def main() -> None:
        table = MemoryTable.numbered(50)
        table.add(20, "x" * 100)
        bench = Bench(table, text_tokens=10)
        ending = await bench.run()
        assert ending.exit_code is Exit.PARTIAL
        assert table.stored == set(range(1, 51)) - {20}
        assert "x" * 100 not in bench.asked_for()
        assert ending.progress.cursor == ("50",)

    run(main())


def test_an_error_of_the_provider_ends_the_run_with_its_code() -> None:
    async def main() -> None:
        wrong = ProviderError("the key is wrong", code="api_key_rejected")
        bench = Bench(MemoryTable.numbered(400), lambda _: wrong)
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.FAILED, Exit.PROVIDER)
        assert ending.error is wrong
        assert len(bench.embedder.requests) == 1
        assert ending.progress.cursor is None

    run(main())


def test_an_error_in_the_middle_keeps_what_is_in_flight() -> None:
    async def main() -> None:
        wrong = ProviderError("no more credit", code="quota_exhausted")
        bench = Bench(MemoryTable.numbered(400), holding(["text 155"], lambda: wrong))
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.FAILED, Exit.PROVIDER)
        good = [r for r in bench.embedder.requests if "text 155" not in r]
        assert len(bench.table.vectors) == sum(map(len, good))
        assert ending.progress.cursor == ("150",)

    run(main())


@pytest.mark.parametrize("pages", [0, 1, 5])
def test_an_error_of_the_reader_loses_nothing_that_was_paid_for(pages: int) -> None:
    async def main() -> None:
        table = MemoryTable.numbered(400)
        read = 0

        def fail_later() -> None:
            nonlocal read
            read += 1
            if read > pages:
                raise DatabaseUnavailable("away", code="database_unavailable")

        table.before_page = fail_later
        bench = Bench(table)
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.FAILED, Exit.TEMPORARY)
        assert isinstance(ending.error, DatabaseUnavailable)
        assert len(table.vectors) == len(bench.asked_for())

    run(main())


class Snapshots(MemoryTable):
    """Each pass sees the table as it was when the pass began, as a slow reader would."""

    async def rows(self, after: Key | None, *, force: bool) -> AsyncIterator[Row]:
        for key, text in [(k, t) for k, t in self.texts.items() if k not in self.vectors]:
            yield Row(key, text, digest(text))


@pytest.mark.parametrize("sweeps", [1, 3])
def test_rows_that_never_stop_coming_end_the_run_and_it_says_so(sweeps: int) -> None:
    async def main() -> None:
        table = Snapshots.numbered(20)
        table.before_write = lambda rows: table.add(1000 + len(table.texts))
        bench = Bench(table, selection=Selection(sweeps=sweeps))
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.COMPLETED_WITH_ERRORS, Exit.PARTIAL)
        assert ending.new_rows_left
        assert ending.progress.rows_failed == 0
        assert ending.progress.cursor == ("20",)
        assert len(table.texts) > len(table.vectors) >= 20 + sweeps

    run(main())


@pytest.mark.parametrize("reason", [StopReason.LIMIT, StopReason.DURATION])
def test_failed_rows_show_in_the_exit_code_of_a_planned_end(reason: StopReason) -> None:
    async def main() -> None:
        bench = Bench(MemoryTable.numbered(800), holding(["text 3"], refused))
        at(15.5, lambda: bench.job.tap.close(reason))
        ending = await bench.run()
        assert (ending.state, ending.exit_code) == (State.LIMIT_REACHED, Exit.PARTIAL)

    run(main())


def test_a_second_run_has_nothing_to_do() -> None:
    async def main() -> None:
        table = MemoryTable.numbered(100)
        await Bench(table).run()
        table.writes.clear()
        bench = Bench(table)
        ending = await bench.run()
        assert ending.exit_code is Exit.OK
        assert bench.embedder.requests == []

    run(main())
