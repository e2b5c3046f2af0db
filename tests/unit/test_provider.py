"""The provider that all other tests lean on does what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.provider import (
    Body,
    Provider,
    Reply,
    _Bucket,
    _duration,
    mangle_vectors,
    vector_from,
    vector_of,
)
from tests.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODEL = "text-embedding-3-small"


class Client:
    """Keeps its connection as the tool does."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.http = httpx2.Client(trust_env=False, timeout=10)

    def embed(
        self,
        *texts: str,
        headers: dict[str, str] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> httpx2.Response:
        """The fields can replace the model and the input."""
        body = {"model": MODEL, "input": list(texts), **(fields or {})}
        return self.http.post(f"{self.provider.url}/embeddings", json=body, headers=headers)


@pytest.fixture
def client(provider: Provider) -> Iterator[Client]:
    """Closed before the provider is reset."""
    made = Client(provider)
    yield made
    made.http.close()


def message_of(response: httpx2.Response) -> str:
    """What the error says."""
    return str(response.json()["error"]["message"])


def vectors_in(response: httpx2.Response) -> list[Any]:
    """Decoded, in the order of the answer."""
    assert response.status_code == 200, response.text
    return [vector_from(item["embedding"]) for item in response.json()["data"]]


@given(st.text(st.characters()), st.integers(1, 4000))
def test_vectors_are_deterministic_units(text: str, dimensions: int) -> None:
    vector = vector_of(text, dimensions)
    assert vector.dtype == np.float32
    assert vector.shape == (dimensions,)
    assert np.array_equal(vector, vector_of(text, dimensions))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_vectors_differ_and_narrower_ones_are_prefixes() -> None:
    assert abs(float(vector_of("a", 1536) @ vector_of("b", 1536))) < 0.2
    prefix = vector_of("a", 1536)[:256]
    assert np.allclose(prefix / np.linalg.norm(prefix), vector_of("a", 256), atol=1e-6)


def test_vectors_do_not_change_between_processes() -> None:
    program = "from tests.provider import vector_of; print(vector_of('é', 3).tolist())"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(vector_of("é", 3).tolist())


def test_base64_and_floats_are_the_same_vectors(client: Client) -> None:
    texts = ("one", "zwei ü", "three " * 100)
    floats = vectors_in(client.embed(*texts))
    packed = vectors_in(client.embed(*texts, fields={"encoding_format": "base64"}))
    for text, first, second in zip(texts, floats, packed, strict=True):
        assert np.array_equal(first, second)
        assert np.array_equal(first, vector_of(text, 1536))


def test_answer_has_usage_and_is_recorded(client: Client, provider: Provider) -> None:
    answer = client.embed("abcdefgh", "x", "x", headers={"X-Mark": "7"}).json()
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    (request,) = provider.requests
    assert (request.status, request.path) == (200, "/v1/embeddings")
    assert request.texts == ("abcdefgh", "x", "x") == tuple(request.body["input"])
    assert request.headers["x-mark"] == "7"
    assert provider.texts_sent == {"abcdefgh": 1, "x": 2}


@pytest.mark.parametrize(
    ("model", "fields", "width"),
    [
        ("text-embedding-3-small", {}, 1536),
        ("text-embedding-3-large", {}, 3072),
        ("text-embedding-3-large", {"dimensions": 256}, 256),
        ("text-embedding-ada-002", {}, 1536),
        ("nomic", {}, 768),
    ],
)
def test_width(
    client: Client, provider: Provider, model: str, fields: dict[str, int], width: int
) -> None:
    provider.dimensions = 768
    (vector,) = vectors_in(client.embed("a", fields={"model": model, **fields}))
    assert vector.shape == (width,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "'$.input' is invalid"),
        ({"input": ["a", ""]}, "'$.input' is invalid"),
        ({"input": []}, "'$.input' is invalid"),
        ({"input": [1]}, "'$.input' is invalid"),
        ({"input": ["a"] * 2049}, "'$.input' is invalid"),
        ({"input": None}, "'$.input' is invalid"),
        ({"model": ""}, "you must provide a model"),
        ({"encoding_format": "hex"}, "'hex' is not one of"),
        ({"dimensions": 1537}, "Invalid value for 'dimensions'"),
        ({"dimensions": 0}, "Invalid value for 'dimensions'"),
        ({"model": "text-embedding-ada-002", "dimensions": 5}, "does not support"),
    ],
)
def test_malformed_requests(client: Client, fields: dict[str, object], message: str) -> None:
    response = client.embed("a", fields=fields)
    assert response.status_code == 400
    assert message in message_of(response)
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_2048_inputs_are_accepted(client: Client) -> None:
    assert len(vectors_in(client.embed(*["a"] * 2048, fields={"dimensions": 2}))) == 2048


def test_a_body_that_is_not_json(client: Client, provider: Provider) -> None:
    response = client.http.post(f"{provider.url}/embeddings", content=b"{")
    assert response.status_code == 400
    assert provider.requests[0].body == {}


def test_openai_key(client: Client, provider: Provider) -> None:
    provider.key = "sk-right"
    refused = client.embed("a", headers={"Authorization": "Bearer sk-wrong"})
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert client.embed("a", headers={"api-key": "sk-right"}).status_code == 401
    right = {"Authorization": "Bearer sk-right"}
    assert client.embed("a", headers=right).status_code == 200
    models = client.http.get(f"{provider.url}/models", headers=right).json()
    assert MODEL in [model["id"] for model in models["data"]]
    assert client.http.get(f"{provider.url}/models").status_code == 401
    assert provider.texts_sent == {"a": 1}


def test_azure(client: Client, provider: Provider) -> None:
    provider.key, provider.dimensions = "azure-key", 8
    url = f"{provider.origin}/openai/deployments/mine/embeddings"
    version = {"api-version": "2024-10-21"}
    headers = {"api-key": "azure-key"}
    body = {"input": ["a"]}
    answer = client.http.post(url, params=version, headers=headers, json=body)
    assert np.array_equal(vectors_in(answer)[0], vector_of("a", 8))
    assert client.http.post(url, params=version, json=body).status_code == 401
    assert client.http.post(url, headers=headers, json=body).status_code == 404


def test_unknown_urls(client: Client, provider: Provider) -> None:
    assert client.http.post(f"{provider.origin}/embeddings", json={}).status_code == 404
    assert client.http.get(f"{provider.url}/nothing").status_code == 404


def test_script_comes_first(client: Client, provider: Provider) -> None:
    provider.key = "unheeded by the script"
    provider.script.append(Reply(429, {"error": "slow"}, {"Retry-After": "3"}))
    provider.script.append(Reply(200, b"not json", {"content-type": "text/plain"}))
    slow = client.embed("a")
    assert (slow.status_code, slow.json()) == (429, {"error": "slow"})
    assert slow.headers["retry-after"] == "3"
    odd = client.embed("a")
    assert (odd.text, odd.headers["content-type"]) == ("not json", "text/plain")
    assert client.embed("a").status_code == 401
    assert [request.status for request in provider.requests] == [429, 200, 401]


def test_a_script_can_promise_more_than_it_sends(client: Client, provider: Provider) -> None:
    provider.script.append(Reply(200, b"{", {"Content-Length": "100"}))
    with pytest.raises(httpx2.RemoteProtocolError):
        client.embed("a")


def test_reject(client: Client, provider: Provider) -> None:
    provider.reject = lambda text: "poison" in text
    refused = client.embed("fine", "poisonous")
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert client.embed("fine").status_code == 200


def test_limits_on_length(client: Client, provider: Provider) -> None:
    provider.max_tokens = 10
    refused = client.embed("a", "x" * 44)
    assert refused.status_code == 400
    assert message_of(refused).startswith(
        "This model's maximum context length is 10 tokens, however you requested 11 tokens"
    )
    assert client.embed("x" * 43).status_code == 200
    provider.max_tokens_per_request = 2
    refused = client.embed("a", "b", "c")
    assert refused.json()["error"]["code"] == "max_tokens_per_request"


def test_limits_on_size(client: Client, provider: Provider) -> None:
    provider.max_inputs = 2
    assert client.embed("a", "b").status_code == 200
    assert client.embed("a", "b", "c").status_code == 413
    provider.max_inputs, provider.max_body_bytes = None, 1000
    assert client.embed("a" * 900).status_code == 200
    refused = client.embed("a" * 1000)
    assert (refused.status_code, refused.headers["content-type"]) == (413, "text/html")


def test_random_failures_are_the_same_after_a_reset(client: Client, provider: Provider) -> None:
    def statuses() -> list[int]:
        provider.reset()
        provider.fail_rate, provider.fail_status = 0.5, [500, 502, 503, 429]
        return [client.embed("a").status_code for _ in range(60)]

    first = statuses()
    assert set(first) == {200, 500, 502, 503, 429}
    assert first == statuses()
    assert provider.texts_sent["a"] == first.count(200)


def test_mangle(client: Client, provider: Provider) -> None:
    def shuffle(answer: Body) -> object:
        answer["data"].reverse()
        return answer

    provider.mangle = shuffle
    answer = client.embed("a", "b").json()
    assert [item["index"] for item in answer["data"]] == [1, 0]
    provider.mangle = lambda answer: {"error": {"message": "at 200"}}
    assert message_of(client.embed("a")) == "at 200"
    provider.mangle = lambda answer: b"<cut off"
    assert client.embed("a").text == "<cut off"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_mangled_vectors_keep_their_encoding(
    client: Client, provider: Provider, encoding: str
) -> None:
    provider.mangle = mangle_vectors(lambda vector: vector[:3] * np.float32("nan"))
    answer = client.embed("a", fields={"encoding_format": encoding})
    assert isinstance(answer.json()["data"][0]["embedding"], str) == (encoding == "base64")
    assert np.isnan(vectors_in(answer)[0]).tolist() == [True] * 3


def test_errors_in_callbacks_are_kept(client: Client, provider: Provider) -> None:
    provider.mangle = lambda answer: answer["no such key"]
    assert client.embed("a").status_code == 500
    assert [type(error) for error in provider.errors] == [KeyError]
    provider.forget()  # or the fixture would fail this test


def test_latency(client: Client, provider: Provider) -> None:
    provider.latency = 0.1
    assert client.embed("a").elapsed.total_seconds() >= 0.1


def in_threads(count: int, client: Client, statuses: list[int]) -> list[threading.Thread]:
    """Each appends its status when it has one."""

    def ask() -> None:
        statuses.append(client.embed("a").status_code)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_hang(client: Client, provider: Provider) -> None:
    provider.hang = threading.Event()
    statuses: list[int] = []
    threads = in_threads(3, client, statuses)
    provider.wait_for_arrivals(3)
    assert (statuses, provider.in_flight, provider.requests) == ([], 3, ())
    provider.hang.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 3
    assert (provider.in_flight, provider.peak_in_flight) == (0, 3)


def test_reset_lets_go_of_hanging_requests_unrecorded(client: Client, provider: Provider) -> None:
    provider.hang = threading.Event()
    statuses: list[int] = []
    (thread,) = in_threads(1, client, statuses)
    provider.wait_for_arrivals(1)
    provider.reset()
    provider.script.append(Reply(500))
    thread.join()
    assert (statuses, provider.requests, len(provider.script)) == ([200], (), 1)


def test_waiting_for_arrivals_ends(provider: Provider) -> None:
    with pytest.raises(TimeoutError, match="0 requests arrived instead of 1"):
        provider.wait_for_arrivals(1, timeout=0.01)


def test_connections_are_reset_in_the_middle_of_the_body(
    client: Client, provider: Provider
) -> None:
    provider.reset_next = 2
    for _ in range(2):
        with pytest.raises(httpx2.ReadError):
            client.embed("a")
    assert client.embed("a").status_code == 200
    assert [request.status for request in provider.requests] == [0, 0, 200]
    assert provider.texts_sent == {"a": 1}
    provider.reset_rate = 1.0
    with pytest.raises(httpx2.ReadError):
        client.embed("a")


def test_request_bucket(client: Client, provider: Provider) -> None:
    provider.bucket_rpm, provider.burst_seconds = 120, 1
    accepted = [client.embed("a") for _ in range(2)]
    assert [answer.status_code for answer in accepted] == [200, 200]
    assert accepted[0].headers["x-ratelimit-limit-requests"] == "120"
    assert accepted[0].headers["x-ratelimit-remaining-requests"] == "1"
    refused = client.embed("a")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert 0 < int(refused.headers["retry-after-ms"]) <= 500
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


def test_token_bucket(client: Client, provider: Provider) -> None:
    provider.bucket_tpm = 10
    assert client.embed("x" * 32).status_code == 200
    refused = client.embed("x" * 32)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "tokens")
    assert 30 < int(refused.headers["retry-after"]) <= 36
    hopeless = client.embed("x" * 44)
    assert hopeless.status_code == 429
    assert "retry-after" not in hopeless.headers
    provider.forget()
    assert client.embed("x" * 32).status_code == 200


def test_bucket_refills(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tests.provider.time.monotonic", lambda: now[0])
    bucket = _Bucket(60, 2)
    assert bucket.capacity == 2
    bucket.level -= 2
    assert bucket.seconds_until(1) == 1
    now[0] += 1
    assert bucket.seconds_until(1) == 0
    now[0] += 1000
    assert bucket.seconds_until(3) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.12, "120ms"), (1.5, "1.5s"), (360, "6m0s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


def test_connection_is_kept(client: Client, provider: Provider) -> None:
    ports = set()
    for status in (200, 500, 200):
        provider.script.append(Reply(status, "{}"))
        with client.http.stream("POST", f"{provider.url}/embeddings", json={}) as answer:
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            answer.read()
    assert len(ports) == 1


def test_by_hand_in_a_terminal() -> None:
    command = [sys.executable, "-m", "tests.provider", "--key", "k", "--fail-rate", "1"]
    with Terminal([*command, "--fail-status", "503"], cwd=ROOT, columns=60, rows=5) as terminal:
        url = terminal.wait_for(r"^http://127\.0\.0\.1:\d+/v1$").group()
        assert terminal.screen() == [url, "", "", "", ""]
        answer = httpx2.post(
            f"{url}/embeddings",
            json={"model": MODEL, "input": "a"},
            headers={"Authorization": "Bearer k"},
            trust_env=False,
        )
        assert answer.status_code == 503
        terminal.interrupt()
        assert terminal.wait() == 0
        assert terminal.raw.startswith(url.encode())


SCRIPTED = """
import os, sys, time
print(os.get_terminal_size().columns, sys.stdin.isatty(), sys.stdout.isatty())
for number in range(10): print("line", number)
print("\\x1b[31mred\\x1b[0m", end="\\r")
name = input()
print("hello " + name)
time.sleep(60)
"""


def test_terminal_shows_what_a_person_sees() -> None:
    with Terminal([sys.executable, "-c", SCRIPTED], columns=50, rows=4) as terminal:
        terminal.wait_for("^red")
        assert terminal.screen() == ["line 7", "line 8", "line 9", "red"]
        assert terminal.scrolled_off()[0] == "50 True True"
        assert b"\x1b[31mred" in terminal.raw
        terminal.send("world\r")
        terminal.wait_for("hello world")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == -signal.SIGTERM


def test_terminal_says_what_it_saw_instead() -> None:
    with Terminal([sys.executable, "-c", "print('bye'); raise SystemExit(3)"]) as terminal:
        with pytest.raises(EOFError, match="bye"):
            terminal.wait_for("hello")
        assert terminal.wait() == 3
    with Terminal(["sleep", "60"]) as terminal:
        with pytest.raises(TimeoutError):
            terminal.wait_for("hello", timeout=0.05)
        with pytest.raises(TimeoutError):
            terminal.wait(timeout=0.05)
