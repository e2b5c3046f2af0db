"""One bad row costs one row; nothing paid is bought twice; an outage is no bad text."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedmigrate.engine.account import Account
from embedmigrate.engine.model import (
    Batch,
    Embedded,
    Failure,
    Limits,
    Outcome,
    Row,
    Waiting,
)
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.parts import cut_off
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import (
    BadReply,
    DatabaseUnavailable,
    Exit,
    ProviderError,
    RateLimited,
    RejectedInput,
    RequestTooLarge,
    TransientError,
)
from tests.fakes import (
    Answer,
    MemoryTable,
    Rule,
    ScriptedEmbedder,
    digest,
    during,
    embedded,
    first,
    holding,
    loop_time,
    vector_of,
    virtually,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from embedmigrate.engine.model import Event

ROOMY = Limits(rows=4096, bytes=10_000_000, tokens=10_000_000)


class Bench:
    """A worker between a scripted provider and a table in memory."""

    def __init__(
        self,
        rows: int | MemoryTable,
        *rules: Rule,
        seconds: float = 0.0,
        concurrency: int = 8,
        limits: Limits = ROOMY,
        patience: Patience | None = None,
        dimensions: int = 4,
    ) -> None:
        self.table = rows if isinstance(rows, MemoryTable) else MemoryTable.numbered(rows)
        self.embedder = ScriptedEmbedder(*rules, seconds=seconds, dimensions=dimensions)
        self.events: list[Event] = []
        self.governor = Governor(Account(concurrency, clock=loop_time), report=self.events.append)
        self.worker = Worker(
            self.embedder,
            self.table,
            self.governor,
            limits=limits,
            admit=lambda row: row,
            patience=patience or Patience(),
            jitter=lambda: 0.5,
        )

    def batch(self, first: int = 1, last: int | None = None, seq: int = 0) -> Batch:
        texts = self.table.texts
        keys = [(str(n),) for n in range(first, (last or len(texts)) + 1)]
        rows = tuple(Row(k, texts[k], digest(texts[k]), len(texts[k])) for k in keys)
        return Batch(seq, rows, keys[-1])

    def batches(self, size: int) -> list[Batch]:
        ends = range(1, len(self.table.texts) + 1, size)
        return [self.batch(n, n + size - 1, seq) for seq, n in enumerate(ends)]

    async def __call__(self) -> Outcome:
        outcome = await self.worker(self.batch())
        self.check(outcome)
        return outcome

    async def all_at_once(self, size: int) -> list[Outcome]:
        outcomes = await asyncio.gather(*(self.worker(batch) for batch in self.batches(size)))
        for outcome in outcomes:
            self.check(outcome)
        return outcomes

    def check(self, outcome: Outcome) -> None:
        """What is true of every outcome."""
        self.table.check()
        assert self.governor.in_flight >= self.embedder.flying
        assert len({f.key for f in outcome.failed}) == len(outcome.failed)
        assert not {f.key for f in outcome.failed} & set(self.table.vectors)
        assert not (outcome.finished and outcome.error)


def bad_text(code: str = "input_rejected") -> RejectedInput:
    return RejectedInput("the provider refused the text (HTTP 400)", code=code, status=400)


def failing() -> TransientError:
    return TransientError("openai failed (HTTP 500)", code="provider_error", status=500)


def run(main: Coroutine[object, object, None]) -> None:
    virtually(main)


def most_extra(rows: int) -> int:
    return math.floor(2 * math.log2(rows)) + 2


async def one_bad(rows: int, position: int) -> None:
    bad = f"text {position}"
    bench = Bench(rows, holding([bad], bad_text))
    outcome = await bench()
    assert outcome.finished
    assert outcome.stored == rows - 1
    assert bench.table.stored == set(range(1, rows + 1)) - {position}
    assert outcome.failed == (
        Failure((str(position),), "input_rejected", bad_text().message, 400, 1, retryable=True),
    )
    assert outcome.requests == len(bench.embedder.requests)
    assert outcome.requests - 1 <= most_extra(rows)
    assert set(bench.embedder.answered.values()) <= {1}, "a good text was bought twice"
    assert outcome.retries == 0


@pytest.mark.parametrize("rows", range(1, 65))
def test_one_bad_text_at_any_place_costs_one_row(rows: int) -> None:
    async def main() -> None:
        for position in range(1, rows + 1):
            await one_bad(rows, position)

    run(main())


@pytest.mark.parametrize("position", [1, 2, 777, 1024, 1025, 1366, 2047, 2048])
def test_one_bad_text_in_the_largest_batch_costs_one_row(position: int) -> None:
    run(one_bad(2048, position))


@pytest.mark.parametrize("every", [2, 3, 7])
def test_many_bad_texts_cost_only_themselves(every: int) -> None:
    async def main() -> None:
        bad = {f"text {n}" for n in range(1, 65) if n % every == 0}
        bench = Bench(64, holding(bad, bad_text))
        outcome = await bench()
        assert outcome.finished
        assert {f"text {f.key[0]}" for f in outcome.failed} == bad
        assert outcome.stored == 64 - len(bad)
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


def test_tokens_and_requests_are_counted_as_charged() -> None:
    async def main() -> None:
        bench = Bench(10)
        outcome = await bench()
        assert outcome.tokens == sum(len(t) for t in bench.table.texts.values())
        assert (outcome.requests, outcome.retries, outcome.stored) == (1, 0, 10)

    run(main())


def test_rows_refused_before_the_request_are_part_of_the_outcome() -> None:
    async def main() -> None:
        bench = Bench(2)
        refused = (Failure(("9",), "input_too_long", "9 tokens, model limit 8"),)
        outcome = await bench.worker(replace(bench.batch(), refused=refused, last=("9",)))
        assert (outcome.failed, outcome.last, outcome.stored) == (refused, ("9",), 2)
        empty = await bench.worker(Batch(1, (), ("9",), refused))
        assert (empty.failed, empty.finished, empty.requests) == (refused, True, 0)

    run(main())


def test_a_429_is_waited_for_by_every_worker_and_loses_nothing() -> None:
    async def main() -> None:
        limited = first(3, lambda: RateLimited("429", retry_after=20, code="rate_limited"))
        bench = Bench(64, limited, seconds=0.2)
        await bench.governor.sleep(1)
        outcomes = await bench.all_at_once(8)
        assert all(o.finished and not o.failed for o in outcomes)
        assert len(bench.table.vectors) == 64
        times = bench.embedder.times
        # The first request goes alone, so the three refusals come one after the other.
        assert all(later - earlier >= 20.2 for earlier, later in pairwise(times[:4]))
        assert sum(o.retries for o in outcomes) == 3
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


def test_no_worker_sends_while_any_of_them_was_told_to_wait() -> None:
    async def main() -> None:
        told: list[float] = []
        count = 0

        def sometimes(texts: Sequence[str]) -> Answer:
            nonlocal count
            count += 1
            if count % 5 == 0:
                told.append(loop_time())
                return RateLimited("429", retry_after=7, code="rate_limited")
            return None

        bench = Bench(200, sometimes, seconds=0.3)
        outcomes = await bench.all_at_once(5)
        assert sum(o.stored for o in outcomes) == 200
        assert told
        for moment in told:
            assert not [t for t in bench.embedder.times if moment < t < moment + 7 - 1e-6]
        assert bench.embedder.most_flying <= 8

    run(main())


def test_a_429_without_a_wait_backs_off_longer_each_time() -> None:
    async def main() -> None:
        bench = Bench(1, first(8, lambda: RateLimited("429", code="rate_limited")))
        outcome = await bench()
        assert outcome.finished
        waits = [e.seconds for e in bench.events if isinstance(e, Waiting)]
        assert waits == [0.75, 1.5, 3, 6, 12, 22.5, 22.5, 22.5]
        gaps = np.diff(bench.embedder.times).tolist()
        assert gaps == pytest.approx(waits)

    run(main())


def test_a_provider_that_says_wait_no_time_is_not_flooded() -> None:
    async def main() -> None:
        limit = during(0, 1060, lambda: RateLimited("429", retry_after=0.0, code="rate_limited"))
        bench = Bench(1, limit, seconds=0.01)
        outcome = await bench()
        assert outcome.finished
        assert outcome.stored == 1
        assert len(bench.embedder.requests) < 30

    run(main())


def test_a_rate_limit_that_never_ends_ends_the_run_when_patience_does() -> None:
    async def main() -> None:
        bench = Bench(
            2,
            lambda _: RateLimited("429", retry_after=60, code="rate_limited"),
            patience=Patience(seconds=600),
        )
        began = loop_time()
        outcome = await bench()
        assert 600 < loop_time() - began <= 660
        assert not outcome.finished
        assert isinstance(outcome.error, RateLimited)
        assert outcome.error.exit_code is Exit.TEMPORARY
        assert not outcome.failed

    run(main())


@pytest.mark.parametrize("times", [1, 3, 7])
def test_a_server_error_that_passes_is_retried_with_the_same_texts(times: int) -> None:
    async def main() -> None:
        bench = Bench(8, first(times, failing))
        outcome = await bench()
        assert outcome.finished
        assert (outcome.stored, outcome.failed) == (8, ())
        assert (outcome.requests, outcome.retries) == (times + 1, times)
        assert len(set(bench.embedder.requests)) == 1

    run(main())


def test_a_server_error_that_says_when_to_come_back_is_believed() -> None:
    async def main() -> None:
        soon = TransientError("503", retry_after=11, code="provider_error", status=503)
        bench = Bench(8, first(1, lambda: soon))
        await bench()
        assert np.diff(bench.embedder.times).tolist() == pytest.approx([11])

    run(main())


@pytest.mark.parametrize("position", [1, 5, 16])
@pytest.mark.parametrize("rows", [1, 16])
def test_a_text_that_makes_the_server_fail_is_found_while_the_others_get_answers(
    rows: int, position: int
) -> None:
    async def main() -> None:
        if position > rows:
            return
        poison = f"text {position}"
        bench = Bench(17 if rows == 1 else rows, holding([poison], failing), seconds=0.5)
        if rows == 1:  # another batch shows that the provider lives
            outcomes = await asyncio.gather(
                bench.worker(bench.batch(1, 1)), steady(bench, 2, 17, seconds=120)
            )
            outcome = outcomes[0]
        else:
            outcome = await bench()
        assert outcome.finished
        assert [f.key for f in outcome.failed] == [(str(position),)]
        (failure,) = outcome.failed
        assert (failure.code, failure.http_status) == ("provider_error", 500)
        assert failure.retryable
        assert set(bench.embedder.answered.values()) == {1}
        assert bench.table.stored == set(range(1, len(bench.table.texts) + 1)) - {position}

    run(main())


async def steady(bench: Bench, begin: int, end: int, *, seconds: float) -> None:
    """One row after the other, over so many seconds."""
    for n in range(begin, end + 1):
        await asyncio.sleep(seconds / (end - begin + 1))
        await bench.worker(bench.batch(n, n, seq=n))


def test_a_provider_that_is_away_for_good_ends_the_run_and_fails_no_row() -> None:
    async def main() -> None:
        bench = Bench(32, lambda _: failing())
        began = loop_time()
        outcomes = await bench.all_at_once(8)
        for outcome in outcomes:
            assert not outcome.finished
            assert outcome.failed == ()
            assert outcome.error is not None
            assert outcome.error.exit_code is Exit.TEMPORARY
        assert bench.table.vectors == {}
        assert 600 <= loop_time() - began < 900

    run(main())


def test_an_outage_in_the_middle_is_sat_out_and_fails_no_row() -> None:
    async def main() -> None:
        bench = Bench(400, during(1010, 1310, failing), seconds=2.0, concurrency=4)
        outcomes = await bench.all_at_once(10)
        assert [f for o in outcomes for f in o.failed] == []
        assert all(o.finished for o in outcomes)
        assert len(bench.table.vectors) == 400
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


def test_an_outage_that_begins_with_one_worker_and_then_meets_all_fails_no_row() -> None:
    async def main() -> None:
        seen = 0

        def dying(texts: Sequence[str]) -> Answer:
            nonlocal seen
            if loop_time() < 1010 or loop_time() > 1300:
                return None
            seen += 1
            return failing() if seen != 2 else None  # a last request is still served

        bench = Bench(80, dying, seconds=2.0, concurrency=4)
        outcomes = await bench.all_at_once(10)
        assert [f for o in outcomes for f in o.failed] == []
        assert len(bench.table.vectors) == 80

    run(main())


def test_a_shaky_provider_loses_no_row() -> None:
    async def main() -> None:
        count = 0

        def every_fifth(texts: Sequence[str]) -> Answer:
            nonlocal count
            count += 1
            return failing() if count % 5 in {0, 3} else None

        bench = Bench(500, every_fifth, seconds=0.2)
        outcomes = await bench.all_at_once(5)
        assert sum(o.stored for o in outcomes) == 500
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


def test_a_bad_reply_is_asked_for_again_three_times_at_most() -> None:
    async def main() -> None:
        bench = Bench(8, first(2, lambda: BadReply("7 embeddings for 8 texts", code="bad_reply")))
        outcome = await bench()
        assert (outcome.finished, outcome.stored, outcome.requests) == (True, 8, 3)

    run(main())


def test_a_provider_of_bad_replies_only_ends_the_run_with_its_own_exit_code() -> None:
    async def main() -> None:
        bench = Bench(8, lambda _: BadReply("the reply is not JSON", code="bad_reply"))
        outcome = await bench()
        assert not outcome.finished
        assert isinstance(outcome.error, BadReply)
        assert outcome.error.exit_code is Exit.PROVIDER
        assert outcome.failed == ()
        assert bench.table.vectors == {}
        assert outcome.requests <= 8

    run(main())


def test_a_text_that_spoils_the_reply_is_found() -> None:
    async def main() -> None:
        spoiled = holding(["text 3"], lambda: BadReply("15 embeddings for 16", code="bad_reply"))
        bench = Bench(16, spoiled, seconds=0.1)
        outcome = await bench()
        assert outcome.finished
        assert [(f.key, f.code) for f in outcome.failed] == [(("3",), "bad_reply")]
        assert outcome.stored == 15
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


@pytest.mark.parametrize("answered", [0, 3, 5])
def test_vectors_that_do_not_fit_the_texts_are_never_stored(answered: int) -> None:
    async def main() -> None:
        count = Embedded(np.ones((answered, 4), np.float32), 1)
        bench = Bench(4, lambda _: count)
        outcome = await bench()
        assert isinstance(outcome.error, BadReply)
        assert bench.table.writes == []

    run(main())


def spoiling(bad: set[str], component: float, times: int = 10**9) -> Rule:
    """The vectors of bad texts are not sound, `times` times."""
    left = dict.fromkeys(bad, times)

    def rule(texts: Sequence[str]) -> Answer:
        right = embedded(texts, 4)
        for vector, text in zip(right.vectors, texts, strict=True):
            if left.get(text, 0) > 0:
                left[text] -= 1
                vector[:] = 0 if component == 0 else vector
                vector[1] = component
        return right

    return rule


@pytest.mark.parametrize("component", [float("nan"), float("inf"), float("-inf"), 0.0])
def test_a_vector_that_cannot_be_stored_is_asked_for_alone_once_and_then_given_up(
    component: float,
) -> None:
    async def main() -> None:
        bench = Bench(16, spoiling({"text 3", "text 11"}, component))
        outcome = await bench()
        assert outcome.finished
        assert outcome.stored == 14
        assert {(f.key, f.code, f.attempts) for f in outcome.failed} == {
            (("3",), "bad_vector", 2),
            (("11",), "bad_vector", 2),
        }
        assert bench.table.stored == set(range(1, 17)) - {3, 11}
        alone = bench.embedder.requests[1:]
        assert sorted(alone) == [("text 11",), ("text 3",)]

    run(main())


@pytest.mark.parametrize("component", [float("nan"), 0.0])
def test_a_vector_that_is_sound_when_asked_for_alone_is_stored(component: float) -> None:
    async def main() -> None:
        bench = Bench(16, spoiling({"text 3"}, component, times=1))
        outcome = await bench()
        assert (outcome.finished, outcome.stored, outcome.failed) == (True, 16, ())
        assert outcome.requests == 2

    run(main())


def test_a_server_error_while_a_vector_is_asked_for_alone_does_not_fail_its_row() -> None:
    async def main() -> None:
        broken = first(1, failing)

        def alone_fails_once(texts: Sequence[str]) -> Answer:
            return broken(texts) if len(texts) == 1 else None

        bench = Bench(16, alone_fails_once, spoiling({"text 3"}, float("nan"), times=1))
        outcome = await bench()
        assert (outcome.finished, outcome.stored, outcome.failed) == (True, 16, ())

    run(main())


def test_vectors_of_another_width_end_the_run_and_none_is_stored() -> None:
    async def main() -> None:
        wide = Embedded(np.ones((4, 5), np.float32), 1)
        bench = Bench(4, lambda _: wide)
        outcome = await bench()
        assert not outcome.finished
        assert outcome.error is not None
        assert (outcome.error.exit_code, outcome.error.code) == (Exit.TARGET, "dimension_mismatch")
        assert bench.table.writes == []
        assert outcome.requests == 1

    run(main())


def too_large() -> RequestTooLarge:
    return RequestTooLarge("the request is too large", code="request_too_large", status=413)


@pytest.mark.parametrize("most", [1, 10, 32, 64, 100])
def test_a_request_that_is_too_large_is_halved_and_the_size_remembered(most: int) -> None:
    async def main() -> None:
        refused = 0

        def limit(texts: Sequence[str]) -> Answer:
            nonlocal refused
            if len(texts) > most:
                refused += 1
                return too_large()
            return None

        bench = Bench(1280, limit)
        for batch in bench.batches(128):
            outcome = await bench.worker(batch)
            assert outcome.finished
        assert len(bench.table.vectors) == 1280
        assert refused <= math.ceil(math.log2(128 / most))
        assert most / 2 < bench.worker.limits.rows <= most
        assert set(bench.embedder.answered.values()) == {1}

    run(main())


def test_the_bytes_that_were_too_many_are_remembered_for_later_batches() -> None:
    async def main() -> None:
        table = MemoryTable.of({n: f"{n:03} " + "x" * 996 for n in range(1, 129)})
        bench = Bench(table, lambda texts: too_large() if sum(map(len, texts)) > 20_000 else None)
        outcome = await bench()
        assert outcome.stored == 128
        assert 10_000 <= bench.worker.limits.bytes <= 20_000

    run(main())


def test_a_single_text_that_is_too_large_fails_alone() -> None:
    async def main() -> None:
        bench = Bench(16, holding(["text 5"], too_large))
        outcome = await bench()
        assert outcome.finished
        assert [(f.key, f.code, f.http_status) for f in outcome.failed] == [
            (("5",), "request_too_large", 413)
        ]
        assert outcome.stored == 15

    run(main())


def test_one_giant_text_does_not_make_every_later_request_tiny() -> None:
    async def main() -> None:
        texts = {n: f"text {n}" for n in range(1, 257)}
        texts[5] = "x" * 900_000
        bench = Bench(
            MemoryTable.of(texts),
            lambda asked: too_large() if sum(map(len, asked)) > 500_000 else None,
        )
        for batch in bench.batches(64):
            outcome = await bench.worker(batch)
            assert outcome.finished
        assert bench.table.stored == set(texts) - {5}
        assert len(bench.embedder.requests) < 30

    run(main())


def test_a_row_that_changed_meanwhile_is_embedded_again_with_its_new_text() -> None:
    async def main() -> None:
        bench = Bench(8)
        edits = iter([("3", "another text")])

        def somebody(rows: Sequence[Row]) -> None:
            for key, text in edits:
                bench.table.texts[key,] = text

        bench.table.before_write = somebody
        outcome = await bench()
        assert (outcome.finished, outcome.stored, outcome.failed) == (True, 8, ())
        assert np.array_equal(bench.table.vectors["3",], vector_of("another text", 4))
        assert bench.embedder.requests[1:] == [("another text",)]

    run(main())


def test_a_row_that_keeps_changing_is_given_up_and_holds_up_no_other() -> None:
    async def main() -> None:
        bench = Bench(8)
        edits = 0

        def somebody(rows: Sequence[Row]) -> None:
            nonlocal edits
            edits += 1
            bench.table.texts["3",] = f"version {edits}"

        bench.table.before_write = somebody
        outcome = await bench()
        assert outcome.finished
        assert outcome.stored == 7
        assert [(f.key, f.code, f.retryable) for f in outcome.failed] == [
            (("3",), "row_keeps_changing", True)
        ]
        assert outcome.requests == 6

    run(main())


def test_a_changed_row_that_is_now_too_long_is_refused_by_the_same_rule() -> None:
    async def main() -> None:
        bench = Bench(2)
        refusal = Failure(("2",), "input_too_long", "9 tokens, model limit 8", attempts=0)
        bench.worker._admit = lambda row: refusal if len(row.text) > 8 else row
        bench.table.before_write = lambda rows: bench.table.texts.update({("2",): "x" * 9})
        outcome = await bench()
        assert (outcome.stored, outcome.failed, outcome.requests) == (1, (refusal,), 1)

    run(main())


def test_rows_that_vanished_or_were_filled_meanwhile_are_counted_as_such() -> None:
    async def main() -> None:
        bench = Bench(8)

        def somebody(rows: Sequence[Row]) -> None:
            del bench.table.texts["3",]
            bench.table.vectors["4",] = vector_of("text 4", 4)

        bench.table.before_write = somebody
        outcome = await bench()
        assert (outcome.stored, outcome.vanished, outcome.unchanged) == (6, 1, 1)
        assert outcome.requests == 1

    run(main())


def test_a_row_that_the_database_refuses_fails_without_another_request() -> None:
    async def main() -> None:
        bench = Bench(8)
        bench.table.refuses = {("3",)}
        outcome = await bench()
        assert outcome.finished
        assert [f.code for f in outcome.failed] == ["database_refused"]
        assert (outcome.stored, outcome.requests) == (7, 1)

    run(main())


def test_a_database_that_is_away_after_the_request_does_not_cost_another_one() -> None:
    async def main() -> None:
        bench = Bench(8)

        def away(rows: Sequence[Row]) -> None:
            raise DatabaseUnavailable("away", code="database_unavailable")

        bench.table.before_write = away
        outcome = await bench()
        assert not outcome.finished
        assert isinstance(outcome.error, DatabaseUnavailable)
        assert outcome.requests == len(bench.embedder.requests) == 1
        assert outcome.failed == ()
        assert outcome.tokens > 0

    run(main())


def test_what_was_stored_before_an_error_is_counted() -> None:
    async def main() -> None:
        bench = Bench(16, holding(["text 16"], bad_text))
        writes = 0

        def away_later(rows: Sequence[Row]) -> None:
            nonlocal writes
            writes += 1
            if writes > 1:
                raise DatabaseUnavailable("away", code="database_unavailable")

        bench.table.before_write = away_later
        outcome = await bench()
        assert not outcome.finished
        assert outcome.stored == len(bench.table.vectors) == 8

    run(main())


def test_twenty_refusals_with_nothing_stored_end_the_run() -> None:
    async def main() -> None:
        bench = Bench(64, lambda _: bad_text())
        outcome = await bench()
        assert not outcome.finished
        assert outcome.error is not None
        assert outcome.error.code == "provider_refuses_everything"
        assert outcome.error.exit_code is Exit.PROVIDER
        assert len(outcome.failed) == 20
        assert outcome.requests < 64

    run(main())


def test_refusals_count_over_batches() -> None:
    async def main() -> None:
        bench = Bench(64, lambda _: bad_text())
        outcomes = [await bench.worker(batch) for batch in bench.batches(4)]
        assert [o.finished for o in outcomes[:5]] == [True] * 4 + [False]

    run(main())


def test_texts_too_long_are_no_sign_against_the_provider() -> None:
    async def main() -> None:
        bench = Bench(64, lambda _: bad_text("input_too_long"))
        outcome = await bench()
        assert outcome.finished
        assert len(outcome.failed) == 64
        assert not any(f.retryable for f in outcome.failed)

    run(main())


def test_once_a_row_was_stored_any_number_of_refusals_is_about_the_rows() -> None:
    async def main() -> None:
        bench = Bench(128, holding({f"text {n}" for n in range(2, 129)}, bad_text))
        first, rest = bench.batch(1, 1), bench.batch(2, 128, seq=1)
        assert (await bench.worker(first)).stored == 1
        outcome = await bench.worker(rest)
        assert outcome.finished
        assert len(outcome.failed) == 127

    run(main())


@pytest.mark.parametrize("code", ["quota_exhausted", "api_key_rejected", "model_not_found"])
def test_a_final_refusal_is_met_by_one_request(code: str) -> None:
    async def main() -> None:
        bench = Bench(64, lambda _: ProviderError("no", code=code), seconds=0.5)

        async def carry(batch: Batch) -> Outcome:
            outcome = await bench.worker(batch)
            if outcome.error:
                bench.governor.close()  # as the job does at the first error
            return outcome

        outcomes = await asyncio.gather(*map(carry, bench.batches(8)))
        assert not any(o.finished for o in outcomes)
        errors = [o.error.code for o in outcomes if o.error]
        assert errors == [code]
        assert len(bench.embedder.requests) == 1
        assert bench.table.vectors == {}

    run(main())


def test_a_stop_during_a_wait_leaves_the_batch_unfinished_at_once() -> None:
    async def main() -> None:
        limit = RateLimited("429", retry_after=3600, code="rate_limited")
        bench = Bench(8, lambda _: limit, patience=Patience(seconds=7200))
        began = loop_time()
        work = asyncio.create_task(bench.worker(bench.batch()))
        await asyncio.sleep(5)
        bench.governor.close()
        outcome = await work
        assert loop_time() - began == pytest.approx(5)
        assert (outcome.finished, outcome.error, outcome.failed) == (False, None, ())

    run(main())


def test_a_stop_lets_what_flies_land_and_be_stored() -> None:
    async def main() -> None:
        bench = Bench(8, seconds=5)
        work = asyncio.create_task(bench.worker(bench.batch()))
        await asyncio.sleep(1)
        bench.governor.close()
        outcome = await work
        assert (outcome.finished, outcome.stored) == (True, 8)

    run(main())


def test_a_wait_of_a_day_is_longer_than_patience() -> None:
    async def main() -> None:
        limit = RateLimited("429", retry_after=86_400, code="rate_limited")
        bench = Bench(8, lambda _: limit, patience=Patience(seconds=600))
        began = loop_time()
        outcome = await bench()
        assert isinstance(outcome.error, RateLimited)
        assert outcome.error.exit_code is Exit.TEMPORARY
        assert loop_time() == began
        assert outcome.requests == 1
        assert not bench.events

    run(main())


def test_short_waits_may_be_asked_for_thousands_of_times() -> None:
    async def main() -> None:
        limit = first(3000, lambda: RateLimited("429", retry_after=0.1, code="rate_limited"))
        bench = Bench(1, limit)
        outcome = await bench()
        assert outcome.finished
        assert outcome.requests == 3001

    run(main())

    run(main())


def test_bad_replies_to_a_text_alone_cost_its_row_and_not_the_run() -> None:
    """A null where a vector should be is seen as such only beside the vectors of other texts."""

    spoiled = MemoryTable.numbered(8).texts[("3",)]

    async def main() -> None:
        def answer(texts: Sequence[str]) -> Answer:
            if list(texts) == [spoiled]:
                return BadReply("the embeddings are empty", code="bad_reply")
            if spoiled in texts:
                found = embedded(texts, 4)
                found.vectors[list(texts).index(spoiled)] = np.nan
                return found
            return None

        bench = Bench(8, answer)
        outcome = await bench()
        assert outcome.finished
        assert [f.key for f in outcome.failed] == [("3",)]
        assert len(bench.table.vectors) == 7

    run(main())


def test_patience_ends_the_tries_of_a_server_that_fails_for_ever() -> None:
    async def main() -> None:
        bench = Bench(4, lambda _: failing(), patience=Patience(seconds=2.0))
        began = loop_time()
        outcome = await bench()
        assert isinstance(outcome.error, TransientError)
        assert 1.0 <= loop_time() - began <= 3.0

    run(main())


def test_a_request_that_waited_while_the_limit_sank_is_halved_before_it_is_sent() -> None:
    async def main() -> None:
        def answer(texts: Sequence[str]) -> Answer:
            if len(texts) > 10:
                return RequestTooLarge("too large", code="request_too_large", status=413)
            return None

        bench = Bench(2048, answer, seconds=0.1)
        await bench.all_at_once(256)
        assert sum(len(texts) > 10 for texts in bench.embedder.requests) == 5
        assert len(bench.table.vectors) == 2048

    run(main())


@pytest.mark.parametrize(
    ("tokens", "charged", "saved", "told"),
    [
        (8192, 512, 0, 1),
        (8192, 8192, 0, 0),
        (8192, 6900, 0, 0),
        (400, 100, 0, 0),
        (8192, 0, 0, 0),
        (8192, 512, 1, 0),
    ],
)
def test_texts_that_may_have_been_cut_off_are_told_of(
    tokens: int, charged: int, saved: int, told: int
) -> None:
    row = Row(("1",), "text", b"", tokens)
    assert bool(cut_off((row,), charged, saved, lambda _: tokens)) == told


def test_an_estimate_accuses_nobody() -> None:
    row = Row(("1",), "text", b"", 8192)
    assert cut_off((row,), 512, 0, lambda _: 512) is None
