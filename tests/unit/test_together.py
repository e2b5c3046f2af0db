"""What jobs of one process share, and what ends the process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from embedmigrate.app.all_jobs import exit_code_of
from embedmigrate.app.company import Watchdog, Wish
from embedmigrate.app.opening import Opening
from embedmigrate.app.together import Together
from embedmigrate.app.values import Estimate, JobEnd
from embedmigrate.config import Loaded, Settings
from embedmigrate.engine.states import State
from embedmigrate.errors import ConfigError, Exit
from embedmigrate.secrets import Secret
from tests.fakes import virtually

if TYPE_CHECKING:
    from embedmigrate.app.values import Totals


class Bench:
    """Jobs that do nothing but agree."""

    def __init__(self, *, answer: bool = True, **jobs: dict[str, Any]) -> None:
        self.jobs = {name: Loaded(Settings(**given), {}) for name, given in jobs.items()}
        self.totals: list[Totals] = []
        self.questions: list[str] = []
        self.answer = answer
        self.together = Together(self.jobs, planned=self.totals.append, confirm=self.confirm)

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answer

    def opening(self, name: str) -> Opening:
        return Opening(self.jobs[name])


def wish(rows: int, *, cost: float | None = 1.0, overwrites: int = 0) -> Wish:
    estimate = Estimate(rows, rows * 10, 0, rows, "cl100k_base", 1, 1, "latency", cost, None)
    return Wish(estimate, overwrites)


def test_jobs_of_one_host_and_key_share_an_account() -> None:
    bench = Bench(
        a={"api_key": Secret("one")},
        b={"api_key": Secret("one"), "model": "text-embedding-3-large"},
        other_key={"api_key": Secret("two")},
        other_host={"api_key": Secret("one"), "base_url": "https://example.org/v1"},
        local={"provider": "local"},
        hash={"provider": "hash"},
    )
    accounts = {name: bench.together.account(bench.opening(name)) for name in bench.jobs}
    assert accounts["a"] is accounts["b"]
    assert len({id(account) for account in accounts.values()}) == 5


@pytest.mark.parametrize(
    ("wanted", "most", "auto"),
    [(["auto", "auto"], 32, True), (["auto", 6], 6, False), ([9, 6, "auto"], 6, False)],
)
def test_the_lowest_number_in_flight_holds(wanted: list[Any], most: int, auto: bool) -> None:
    jobs: dict[str, Any] = {f"job{n}": {"concurrency": c} for n, c in enumerate(wanted)}
    bench = Bench(**jobs)
    account = bench.together.account(bench.opening("job0"))
    assert account.most == most
    assert (account._learned is not None) is auto


def test_the_lowest_rates_hold() -> None:
    bench = Bench(a={"rpm": 600.0}, b={"rpm": 120.0}, c={"tpm": 6000.0})
    account = bench.together.account(bench.opening("a"))
    assert account.cost(1) == pytest.approx(0.5)
    assert account.cost(1000) == pytest.approx(10)


def test_all_begin_when_the_last_is_checked_and_one_question_is_asked() -> None:
    async def main() -> None:
        bench = Bench(a={}, b={}, c={})
        together, begun = bench.together, list[str]()

        async def job(name: str, seconds: float, wanted: Wish) -> None:
            await asyncio.sleep(seconds)
            await together.agree(name, wanted)
            begun.append(name)

        tasks = [
            asyncio.create_task(job("a", 1, wish(100, overwrites=60))),
            asyncio.create_task(job("b", 5, wish(50, overwrites=40))),
        ]
        await asyncio.sleep(6)
        assert begun == []
        together.not_awaited("c")
        await asyncio.gather(*tasks)
        assert sorted(begun) == ["a", "b"]
        assert bench.questions == ["Overwrite 100 vectors (2 jobs), about $2.00?"]
        (total,) = bench.totals
        assert (total.jobs, total.rows, total.tokens, total.cost_usd) == (2, 150, 1500, 2)
        await together.agree("c", wish(10, overwrites=10))
        assert len(bench.questions) == 1

    virtually(main())


def test_a_no_is_that_of_all() -> None:
    async def main() -> None:
        bench = Bench(a={}, b={}, answer=False)
        wishes = (bench.together.agree(name, wish(1, overwrites=1)) for name in bench.jobs)
        ends = await asyncio.gather(*wishes, return_exceptions=True)
        assert [getattr(end, "code", None) for end in ends] == ["declined", "declined"]
        assert all(isinstance(end, ConfigError) for end in ends)
        assert bench.together.begun == set()

    virtually(main())


def test_a_question_that_cannot_be_put_is_no_yes_and_holds_nobody() -> None:
    async def main() -> None:
        bench = Bench(a={}, b={})

        def broken(question: str) -> bool:
            raise BrokenPipeError

        bench.together._confirm = broken
        wishes = (bench.together.agree(name, wish(1, overwrites=1)) for name in bench.jobs)
        ends = await asyncio.gather(*wishes, return_exceptions=True)
        assert [type(end) for end in ends] == [ConfigError, BrokenPipeError]

    virtually(main())


def test_jobs_that_all_come_late_are_asked_about_all_the_same() -> None:
    async def main() -> None:
        bench = Bench(a={}, b={})
        for name in bench.jobs:
            bench.together.not_awaited(name)
        for name in bench.jobs:
            await bench.together.agree(name, wish(10, overwrites=10))
        assert bench.questions == ["Overwrite 10 vectors (1 job), about $1.00?"]

    virtually(main())


def test_one_price_that_is_not_known_makes_the_sum_unknown() -> None:
    async def main() -> None:
        bench = Bench(a={}, b={})
        await asyncio.gather(
            bench.together.agree("a", wish(1)), bench.together.agree("b", wish(1, cost=None))
        )
        assert bench.totals[0].cost_usd is None

    virtually(main())


def test_a_job_that_hangs_ends_the_process_only_when_no_other_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    watchdog = Watchdog()
    with watchdog.alive("hangs"):
        with watchdog.alive("works"):
            watchdog.overdue("hangs", Exit.STOPPED)
            assert codes == []
            assert watchdog.hangs("hangs")
            assert not watchdog.hangs("works")
        watchdog.overdue("hangs", Exit.TERMINATED)
        time.sleep(0.2)
        assert codes == [Exit.TERMINATED]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 3, 0], 3), ([3, 11, 5], 11), ([0, 143], 143), ([6, 3], 6), ([], 0)],
)
def test_the_exit_code_of_several_jobs(codes: list[int], expected: int) -> None:
    ends = tuple(JobEnd(f"job{n}", Exit(c), State.COMPLETED) for n, c in enumerate(codes))
    assert exit_code_of(ends) == expected
