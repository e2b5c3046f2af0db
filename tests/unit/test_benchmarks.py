"""What the benchmarks calculate: quotas, medians and shares; and what their provider says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedmigrate.embedders.reply import parse
from tests.benchmarks.bucket import Quota
from tests.benchmarks.measuring import Measured
from tests.benchmarks.provider import Answers
from tests.benchmarks.results import Setting, curve, table

ONE = Measured(10, 1.0, 10.0, 100.0, 50.0, 80.0, 7000.0, 1, 0)


def test_a_quota_refuses_what_is_above_it_and_says_for_how_long() -> None:
    quota = Quota(rpm=60, tpm=0, burst=2)
    assert [quota.take(5, now=0.0)[0] for _ in range(3)] == [0.0, 0.0, 1.0]
    wait, headers = quota.take(5, now=0.75)
    assert wait == pytest.approx(0.25)
    assert headers["retry-after"] == "1"
    assert headers["retry-after-ms"] == "250"
    assert quota.take(5, now=1.0)[0] == 0.0


def test_tokens_are_refused_without_taking_a_request() -> None:
    quota = Quota(rpm=60, tpm=600, burst=60)
    assert quota.take(600, now=0.0)[0] == 0.0
    wait, headers = quota.take(100, now=0.0)
    assert wait == pytest.approx(10.0)
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-remaining-tokens"] == "0"


def test_without_limits_there_are_no_headers() -> None:
    assert Quota(0, 0, 60).take(10**9, now=0.0) == (0.0, {})


def test_shares_of_the_mark_are_taken_round_by_round() -> None:
    rounds = [
        {
            "embedmigrate": replace(ONE, rows_per_second=ours),
            "bare": replace(ONE, rows_per_second=mark),
        }
        for ours, mark in [(10, 20), (40, 50), (90, 180)]  # of the medians it would be 80 %
    ]
    setting = Setting("compare", 10, 0, "vector", "base64", 128, 8, rounds)
    line = setting.lines({})[0]
    assert line["figures"]["rows_per_second"] == [40, 10, 90]
    assert line["of_mark"] == [0.5, 0.5, 0.8]


def test_who_did_not_do_the_work_has_no_figures() -> None:
    setting = Setting("compare", 10, 0, "vector", "base64", 128, 8, [{"vecshift": ONE}])
    setting.absent["vecshift"] = "exit code 1, 9 of 10 rows\nwhy | not"
    lines = setting.lines({})
    assert [line.get("figures") for line in lines] == [None]
    assert "| vecshift | not measured: why / not |" in table(lines)


def test_a_curve_keeps_its_rates_when_points_are_merged() -> None:
    assert curve([0, 10, 20], 0.25) == {"step": 0.25, "rates": [0, 40, 80]}
    long = curve([5] * 1000, 0.25)
    assert long["step"] * len(long["rates"]) == pytest.approx(250, abs=4)
    assert set(long["rates"]) == {20}


@pytest.mark.parametrize(("only_float", "as_base64"), [(False, True), (False, False), (True, True)])
def test_the_fast_provider_speaks_the_protocol(*, only_float: bool, as_base64: bool) -> None:
    head, data = Answers(8, only_float=only_float).get(300, 77, as_base64=as_base64)
    embedded, numbered = parse(head + data, 300)
    assert embedded.vectors.shape == (300, 8)
    assert embedded.tokens == 77
    assert numbered
    assert (b'"embedding":[' in data) == (only_float or not as_base64)
