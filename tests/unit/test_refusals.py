"""What an HTTP answer means, when to ask again, and that no message leaks the text."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmigrate.embedders.headers import allowances, retry_after
from embedmigrate.embedders.refusals import refusal
from embedmigrate.engine.model import UNSAID, Allowance, Allowances
from embedmigrate.errors import (
    Exit,
    ProviderError,
    RateLimited,
    RejectedInput,
    RequestTooLarge,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

WHO = "openai at api.openai.com"


def error(
    code: Any = None,
    message: str = "",
    *,
    type: str | None = None,  # noqa: A002 - as in the reply
) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type, "code": code, "param": None}})


def refused(
    status: int, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> ProviderError:
    return refusal(status, headers or {}, content, who=WHO)


@pytest.mark.parametrize(
    ("status", "kind", "code", "exit_code"),
    [
        (400, RejectedInput, "input_rejected", Exit.PARTIAL),
        (401, ProviderError, "api_key_rejected", Exit.PROVIDER),
        (402, ProviderError, "quota_exhausted", Exit.PROVIDER),
        (403, ProviderError, "api_key_rejected", Exit.PROVIDER),
        (404, ProviderError, "model_not_found", Exit.PROVIDER),
        (405, ProviderError, "provider_refused", Exit.PROVIDER),
        (408, TransientError, "provider_error", Exit.TEMPORARY),
        (409, TransientError, "provider_error", Exit.TEMPORARY),
        (410, ProviderError, "provider_refused", Exit.PROVIDER),
        (413, RequestTooLarge, "request_too_large", Exit.PARTIAL),
        (422, RejectedInput, "input_rejected", Exit.PARTIAL),
        (425, TransientError, "provider_error", Exit.TEMPORARY),
        (429, RateLimited, "rate_limited", Exit.TEMPORARY),
        (500, TransientError, "provider_error", Exit.TEMPORARY),
        (502, TransientError, "provider_error", Exit.TEMPORARY),
        (503, TransientError, "provider_error", Exit.TEMPORARY),
        (504, TransientError, "provider_error", Exit.TEMPORARY),
        (529, TransientError, "provider_error", Exit.TEMPORARY),
        (301, ProviderError, "redirect_refused", Exit.PROVIDER),
        (302, ProviderError, "redirect_refused", Exit.PROVIDER),
        (307, ProviderError, "redirect_refused", Exit.PROVIDER),
        (308, ProviderError, "redirect_refused", Exit.PROVIDER),
        (204, ProviderError, "provider_refused", Exit.PROVIDER),
    ],
)
def test_each_status_means_one_error(
    status: int, kind: type[ProviderError], code: str, exit_code: Exit
) -> None:
    found = refused(status)
    assert type(found) is kind
    assert (found.code, found.exit_code) == (code, exit_code)


@pytest.mark.parametrize(
    "code",
    ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"],
)
@pytest.mark.parametrize("status", [402, 403, 429])
def test_a_quota_that_is_used_up_is_not_worth_asking_again(status: int, code: str) -> None:
    for content in (error(code), error(None, type=code)):
        found = refused(status, content, {"retry-after": "1"})
        assert type(found) is ProviderError
        assert (found.code, found.exit_code) == ("quota_exhausted", Exit.PROVIDER)


def test_a_quota_is_recognised_by_type_where_the_code_is_another() -> None:
    found = refused(429, error("429", type="insufficient_quota"))
    assert found.code == "quota_exhausted"


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "requests", "tokens", None, 429])
def test_a_rate_limit_passes(code: object) -> None:
    assert isinstance(refused(429, error(code)), RateLimited)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens, however you requested 9001 tokens "
        "(9001 in your prompt; 0 for the completion). Please reduce your prompt.",
        "This model's maximum context length is 8192 tokens. However, your messages got 9001.",
    ],
)
def test_the_numbers_of_a_text_too_long_are_told(message: str) -> None:
    found = refused(400, error("context_length_exceeded", message))
    assert type(found) is RejectedInput
    assert found.code == "input_too_long"
    assert found.message == "9001 tokens, model limit 8192"
    assert found.status == 400


@pytest.mark.parametrize(
    "message",
    [
        "Input validation error: `inputs` must have less than 512 tokens: too many tokens",
        "the input length exceeds the context length",
        "input is too long for this model",
        "Input exceeds the model's maximum length",
        "exceeded max input length",
        "The maximum sequence length is smaller",
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_text_too_long_is_recognised_in_the_words_of_other_servers(
    status: int, message: str
) -> None:
    for content in (error(None, message), orjson.dumps({"error": message}), message.encode()):
        assert refused(status, content).code == "input_too_long"


@pytest.mark.parametrize(
    "message",
    [
        "batch size 128 > maximum allowed batch size 32",
        "'$.input' is invalid: array too long, expected at most 2048 items",
        "too many inputs: at most 64",
        "maximum number of inputs is 10",
        "Requested 600000 tokens, max 300000 tokens per request",
        "Payload Too Large",
    ],
)
def test_too_many_texts_in_one_request_are_told_from_a_text_too_long(message: str) -> None:
    found = refused(400, error(None, message))
    assert type(found) is RequestTooLarge
    assert found.code == "request_too_large"


def test_a_413_is_about_the_request_whatever_it_says() -> None:
    found = refused(413, b"<html>maximum context length</html>")
    assert type(found) is RequestTooLarge
    assert found.status == 413


def test_a_server_error_that_shall_not_be_retried_is_about_the_texts() -> None:
    found = refused(500, headers={"x-should-retry": "false"})
    assert type(found) is RejectedInput
    assert (found.code, found.status) == ("provider_error", 500)
    assert type(refused(500, headers={"x-should-retry": "true"})) is TransientError


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_is_asked_for_comes_with_the_error(status: int) -> None:
    found = refused(status, headers={"retry-after": "7"})
    assert isinstance(found, TransientError)
    assert (found.retry_after, found.status) == (7, status)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": " 12 "}, 12),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30),
        ({"retry-after": formatdate(NOW + 30, localtime=False)}, 30),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0),
        ({"retry-after": "Wed, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
    ],
)
def test_the_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=NOW) == seconds


def test_a_date_is_compared_with_the_clock_of_this_moment() -> None:
    waits = retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert waits is not None
    assert 95 < waits <= 100


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1),
        ("1.5s", 1.5),
        ("20ms", 0.02),
        ("6m0s", 360),
        ("1h2m3s", 3723),
        ("2m", 120),
        ("1h", 3600),
        ("1m30.5s", 90.5),
        ("", None),
        ("soon", None),
        ("12", None),
        ("1.2.3s", None),
        (".s", None),
    ],
)
def test_the_reset_of_a_limit_that_is_used_up_is_the_wait(
    value: str, seconds: float | None
) -> None:
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": value}
    assert retry_after(headers) == (None if seconds is None else pytest.approx(seconds))


def test_only_limits_that_are_used_up_count_and_the_longest_of_them() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "3s",
        "x-ratelimit-remaining-tokens": "17",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert retry_after(headers) == 3
    assert retry_after(headers | {"x-ratelimit-remaining-tokens": "0"}) == 360
    assert retry_after(headers | {"x-ratelimit-remaining-requests": "5"}) is None
    assert retry_after(headers | {"retry-after": "9"}) == 9


names = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-remaining-requests",
        "location",
        "x-should-retry",
    ]
)
header_values = (
    st.sampled_from(["0", "1.2.3s", "..s", "false", "//", "Mon, 01 Jan 0001 00:00:00 -0000"])
    | st.text(alphabet="0123456789.hms:, GMT+-eJan", max_size=30)
    | st.text(max_size=20)
)


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([300, 307, 400, 401, 403, 404, 413, 422, 429, 500, 503, 599]),
    st.dictionaries(names, header_values, max_size=4),
    st.binary(max_size=40) | st.text(max_size=20).map(lambda t: orjson.dumps({"error": t})),
)
def test_whatever_a_server_answers_it_is_a_provider_error(
    status: int, headers: dict[str, str], content: bytes
) -> None:
    found = refused(status, content, headers)
    if isinstance(found, TransientError) and found.retry_after is not None:
        assert 0 <= found.retry_after < float("inf")


CANARY = "canary-of-a-text"


@pytest.mark.parametrize(
    "status", [301, 400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 425, 429, 500, 503]
)
@pytest.mark.parametrize(
    "content",
    [
        error("x", CANARY),
        error(f"{CANARY} with spaces", CANARY),
        error(None, f"maximum context length is 8 tokens, {CANARY} got 9", type=CANARY + "!"),
        error(None, f"too many inputs: {CANARY}"),
        error({"nested": CANARY}, CANARY),
        error([CANARY], CANARY),
        orjson.dumps({"error": CANARY}),
        orjson.dumps({"error": [CANARY]}),
        orjson.dumps([CANARY]),
        orjson.dumps({"detail": [{"msg": "bad", "input": CANARY}]}),
        CANARY.encode(),
        f"<p>{CANARY}".encode(),
    ],
)
def test_no_word_of_the_answer_is_shown(status: int, content: bytes) -> None:
    found = refused(status, content, {"retry-after": CANARY})
    shown = repr((found.message, found.code, found.facts, found.hint, found.details, found.args))
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://elsewhere.example/v1/embeddings", "elsewhere.example"),
        ("http://user:secret@elsewhere.example:81/?key=secret", "elsewhere.example:81"),
        ("//elsewhere.example/x", "another path"),
        ("/v2/embeddings?key=secret", "another path"),
    ],
)
def test_a_redirect_names_the_host_and_nothing_else_of_the_address(
    location: str, host: str
) -> None:
    found = refused(307, headers={"location": location})
    assert host in found.message
    assert "secret" not in found.message


def test_a_code_is_shown_because_it_tells_what_to_do() -> None:
    assert "invalid_api_key" in refused(401, error("invalid_api_key", CANARY)).message
    assert WHO in refused(401).message


def test_what_is_left_is_read_from_a_good_answer() -> None:
    headers = {
        "x-ratelimit-limit-requests": "3000",
        "x-ratelimit-remaining-requests": "2999",
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-limit-tokens": "1000000",
        "x-ratelimit-remaining-tokens": "900000",
        "x-ratelimit-reset-tokens": "6s",
    }
    requests, tokens = Allowance(3000, 2999, 0.02), Allowance(1_000_000, 900_000, 6)
    assert allowances(headers) == Allowances(requests, tokens)
    headers |= {"x-ratelimit-reset-tokens": "1m2.5s", "x-ratelimit-limit-requests": "many"}
    assert allowances(headers) == Allowances(None, Allowance(1_000_000, 900_000, 62.5))


@pytest.mark.parametrize("missing", ["limit", "remaining", "reset"])
def test_a_part_of_what_is_left_says_nothing(missing: str) -> None:
    headers = {f"x-ratelimit-{word}-tokens": "7" for word in ("limit", "remaining", "reset")}
    assert allowances(headers).tokens == Allowance(7, 7, 7)
    del headers[f"x-ratelimit-{missing}-tokens"]
    assert allowances(headers) == UNSAID
    assert not allowances(headers)
