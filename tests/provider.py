"""A programmable embeddings provider that speaks OpenAI's protocol over real sockets.

By hand: `python -m tests.provider --port 8080 --latency 0.05` prints its URL and serves.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import math
import os
import random
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

NATIVE_WIDTHS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
DEFAULT_WIDTH = 1536
MOST_INPUTS = 2048
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/embeddings")
DEFAULT_FAILURES = (500, 503, 429)
LET_GO = 0.02

Vector = NDArray[np.float32]
Body = dict[str, Any]


def vector_of(text: str, dimensions: int) -> Vector:
    """A unit vector that depends on nothing else; a narrower one is a prefix, rescaled."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    vector = generator.standard_normal(dimensions, dtype=np.float32)
    vector /= np.sqrt(vector.dot(vector))
    return vector


def base64_of(vector: Vector) -> str:
    """Little-endian whatever the machine."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def vector_from(embedding: str | Sequence[float]) -> Vector:
    """Reads either of the two encodings that an answer can have."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4").astype(np.float32)
    return np.asarray(embedding, dtype=np.float32)


def mangle_vectors(change: Callable[[Vector], Vector]) -> Callable[[Body], object]:
    """For `Provider.mangle`: changes each vector and keeps the encoding the client asked for."""

    def mangle(answer: Body) -> object:
        for item in answer["data"]:
            old = item["embedding"]
            new = change(vector_from(old))
            item["embedding"] = base64_of(new) if isinstance(old, str) else new.tolist()
        return answer

    return mangle


def tokens_in(text: str) -> int:
    """The provider's idea of a token is four bytes."""
    return len(text.encode("utf-8", "surrogatepass")) // 4


def tokens_of(texts: Sequence[str]) -> int:
    """What usage reports: no text is free."""
    return sum(max(1, tokens_in(text)) for text in texts)


@lru_cache(maxsize=4096)
def _base64_fragment(text: str, width: int) -> str:
    return f'"{base64_of(vector_of(text, width))}"'


@lru_cache(maxsize=1024)
def _float_fragment(text: str, width: int) -> str:
    # Far faster than json, and just as exact for float32.
    return orjson.dumps(vector_of(text, width), option=orjson.OPT_SERIALIZE_NUMPY).decode()


@dataclass(frozen=True)
class Reply:
    """A body that is neither bytes nor str is sent as JSON."""

    status: int = 200
    body: object = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def payload(self) -> bytes:
        """The bytes after the headers."""
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body).encode()

    def headers_for(self, payload: bytes) -> dict[str, str]:
        """With the ones that every answer has, unless the reply brings its own."""
        given = {name.lower(): value for name, value in self.headers.items()}
        defaults = {"content-type": "application/json", "content-length": str(len(payload))}
        return {**defaults, **given}


@dataclass(frozen=True)
class Request:
    """Status 0 means that the client was not given a whole answer."""

    at: float
    texts: tuple[str, ...]
    headers: dict[str, str]
    body: Body
    status: int
    path: str = ""
    client: int = 0
    """The port at the client's end, which says which of its processes has sent it."""


@dataclass(frozen=True)
class _Call:
    """A request as it came in; `body` is {} and `texts` are few if it makes no sense."""

    at: float
    method: str
    target: str
    headers: dict[str, str]
    raw: bytes
    client: int = 0

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def deployment(self) -> str | None:
        found = DEPLOYMENT.fullmatch(self.path)
        return found.group(1) if found else None

    @property
    def has_api_version(self) -> bool:
        return "api-version" in parse_qs(urlsplit(self.target).query)


@dataclass(frozen=True)
class _Question:
    """The call's body, as far as it could be understood."""

    call: _Call
    body: Body
    texts: tuple[str, ...]

    @classmethod
    def of(cls, call: _Call) -> _Question:
        try:
            body = json.loads(call.raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return cls(call, {}, ())
        given = body.get("input")
        inputs = given if isinstance(given, list) else [given]
        return cls(call, body, tuple(text for text in inputs if isinstance(text, str)))

    @property
    def model(self) -> str:
        return self.call.deployment or str(self.body.get("model", ""))


def openai_error(
    message: str,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> Body:
    """The body of every error that OpenAI sends."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


WRONG_KEY = openai_error(
    "Incorrect API key provided. You can find your API key at"
    " https://platform.openai.com/account/api-keys.",
    code="invalid_api_key",
)
WRONG_AZURE_KEY = {
    "error": {
        "code": "401",
        "message": "Access denied due to invalid subscription key or wrong API endpoint."
        " Make sure to provide a valid key for an active subscription and use a correct"
        " regional API endpoint for your resource.",
    }
}
AZURE_NOT_FOUND = {"error": {"code": "404", "message": "Resource not found"}}
INVALID_INPUT = openai_error(
    "'$.input' is invalid. Please check the API reference:"
    " https://platform.openai.com/docs/api-reference."
)
ENTITY_TOO_LARGE = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n"
    "<body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n</body>\r\n</html>\r\n"
)
FAILURES: dict[int, object] = {
    429: openai_error("Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    500: openai_error(
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
    ),
    503: openai_error("The engine is currently overloaded, please try again later", "server_error"),
}
HTML = {"content-type": "text/html"}


def _failure(status: int) -> Reply:
    """Statuses without an error of OpenAI's come from a gateway, in HTML."""
    if status in FAILURES:
        return Reply(status, FAILURES[status])
    return Reply(status, f"<html><body><h1>{status}</h1></body></html>\r\n", HTML)


def _malformed(question: _Question) -> Reply | None:
    """What OpenAI answers to a request that it does not accept whatever its limits."""
    body = question.body
    if not body:
        return Reply(400, openai_error("We could not parse the JSON body of your request."))
    if not question.model:
        return Reply(400, openai_error("you must provide a model parameter"))
    if not _is_valid_input(body.get("input")):
        return Reply(400, INVALID_INPUT)
    if body.get("encoding_format", "float") not in ("float", "base64"):
        message = f"'{body['encoding_format']}' is not one of ['float', 'base64']"
        return Reply(400, openai_error(message + " - 'encoding_format'"))
    return _bad_dimensions(question)


def _is_valid_input(given: object) -> bool:
    inputs = given if isinstance(given, list) else [given]
    return 1 <= len(inputs) <= MOST_INPUTS and all(
        isinstance(text, str) and text for text in inputs
    )


def _bad_dimensions(question: _Question) -> Reply | None:
    dimensions = question.body.get("dimensions")
    if dimensions is None:
        return None
    if question.model == "text-embedding-ada-002":
        return Reply(400, openai_error("This model does not support specifying dimensions."))
    most = NATIVE_WIDTHS.get(question.model, math.inf)
    if type(dimensions) is not int or not 1 <= dimensions <= most:
        message = f"Invalid value for 'dimensions' = {dimensions}."
        return Reply(400, openai_error(message, param="dimensions"))
    return None


class _Bucket:
    """A token bucket that starts full; its owner does the locking."""

    def __init__(self, per_minute: float, burst_seconds: float) -> None:
        self.made_from = (per_minute, burst_seconds)
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * burst_seconds)
        self.level = self.capacity
        self._filled_at = time.monotonic()

    def seconds_until(self, amount: float) -> float:
        """Also fills in what has flowed since the last call."""
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self._filled_at) * self.rate)
        self._filled_at = now
        return max(0.0, (amount - self.level) / self.rate)

    def headers(self, kind: str) -> dict[str, str]:
        """OpenAI's x-ratelimit-* for requests or for tokens."""
        return {
            f"x-ratelimit-limit-{kind}": f"{self.made_from[0]:.0f}",
            f"x-ratelimit-remaining-{kind}": f"{max(0, math.floor(self.level))}",
            f"x-ratelimit-reset-{kind}": _duration(self.seconds_until(self.capacity)),
        }


def _duration(seconds: float) -> str:
    """As Go writes it, which is what OpenAI sends: 6m0s, 1.5s, 120ms."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


class _Era:
    """What happened between two calls of `reset`; late requests write into their own era."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.requests: list[Request] = []
        self.texts_sent: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self.buckets: dict[str, _Bucket] = {}
        self.arrived = 0
        self.in_flight = 0
        self.peak_in_flight = 0


class Provider:
    """Serves from its creation on; all attributes can be set while requests are under way."""

    latency: float
    key: str | None
    dimensions: int
    script: deque[Reply]
    intercept: Callable[[tuple[str, ...]], Reply | None] | None
    reject: Callable[[str], bool] | None
    max_tokens: int | None
    max_tokens_per_request: int | None
    max_inputs: int | None
    max_body_bytes: int | None
    fail_rate: float
    fail_status: list[int]
    random: random.Random
    mangle: Callable[[Body], object] | None
    hang: threading.Event | None
    reset_rate: float
    reset_next: int
    bucket_rpm: float | None
    bucket_tpm: float | None
    burst_seconds: float
    recording: bool

    def __init__(self, port: int = 0) -> None:
        self._changed = threading.Condition()
        self._era = _Era()
        self.reset()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="provider", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The free one that was found if none was asked for."""
        return int(self._server.server_address[1])

    @property
    def origin(self) -> str:
        """The base of Azure's URLs."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"{self.origin}/v1"

    def reset(self) -> None:
        """Forgets faults and records; requests that wait are let go, and are not recorded."""
        self.latency = 0.0
        self.key = None
        self.dimensions = DEFAULT_WIDTH
        self.script = deque()
        self.intercept = None
        self.reject = None
        self.max_tokens = None
        self.max_tokens_per_request = None
        self.max_inputs = None
        self.max_body_bytes = None
        self.fail_rate = 0.0
        self.fail_status = list(DEFAULT_FAILURES)
        self.random = random.Random(0)
        self.mangle = None
        self.hang = None
        self.reset_rate = 0.0
        self.reset_next = 0
        self.bucket_rpm = None
        self.bucket_tpm = None
        self.burst_seconds = 60.0
        self.recording = True
        self.forget()

    def forget(self) -> None:
        """Empties the records and refills the buckets, and leaves the faults as they are."""
        with self._changed:
            self._era.over.set()
            self._era = _Era()

    def sever(self) -> None:
        """Cuts all connections, so that nobody from an earlier test is still being served."""
        self._server.sever()

    def stop(self) -> None:
        """Returns when all threads have ended."""
        with self._changed:
            self._era.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.sever()
        self._server.server_close()

    @property
    def requests(self) -> tuple[Request, ...]:
        """In the order in which they were answered; a copy, which `forget` does not empty."""
        with self._changed:
            return tuple(self._era.requests)

    @property
    def texts_sent(self) -> Counter[str]:
        """How often each text was in a request that was answered with 200."""
        with self._changed:
            return Counter(self._era.texts_sent)

    @property
    def errors(self) -> list[Exception]:
        """What `mangle`, `intercept` and `reject` have raised; the clients got a 500."""
        with self._changed:
            return list(self._era.errors)

    @property
    def arrived(self) -> int:
        """Requests that have come in, answered or not."""
        return self._era.arrived

    @property
    def in_flight(self) -> int:
        """Requests that have come in and have no answer yet."""
        return self._era.in_flight

    @property
    def peak_in_flight(self) -> int:
        """Never more than the client really has open at once."""
        return self._era.peak_in_flight

    def wait_for_arrivals(self, count: int, timeout: float = 10) -> None:
        """Returns when that many requests have come in since the reset, answered or not."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._era.arrived >= count, timeout):
                raise TimeoutError(f"{self._era.arrived} requests arrived instead of {count}")

    def serve(self, call: _Call) -> tuple[Reply, bool]:
        """The answer, and whether to cut the connection in the middle of it."""
        question = _Question.of(call)
        with self._under_way() as era:
            self._wait(era)
            reply = self._safe_reply(question, era)
            cut = reply.status == 200 and call.method == "POST" and self._cuts(era)
            self._record(era, question, 0 if cut else reply.status)
        return reply, cut

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[_Era]:
        with self._changed:
            era = self._era
            era.arrived += 1
            era.in_flight += 1
            era.peak_in_flight = max(era.peak_in_flight, era.in_flight)
            self._changed.notify_all()
        try:
            yield era
        finally:
            with self._changed:
                era.in_flight -= 1

    def _wait(self, era: _Era) -> None:
        if self.latency:
            era.over.wait(self.latency)
        hang = self.hang
        while hang is not None and not era.over.is_set() and not hang.wait(LET_GO):
            pass

    def _cuts(self, era: _Era) -> bool:
        with self._changed:
            if era.over.is_set():
                return False
            if self.reset_next > 0:
                self.reset_next -= 1
                return True
            return self._happens(self.reset_rate)

    def _happens(self, rate: float) -> bool:
        """Draws nothing from the generator for a fault that is off."""
        return rate > 0 and self.random.random() < rate

    def _record(self, era: _Era, question: _Question, status: int) -> None:
        if not self.recording:
            return
        call = question.call
        request = Request(
            call.at, question.texts, call.headers, question.body, status, call.target, call.client
        )
        with self._changed:
            era.requests.append(request)
            if status == 200:
                era.texts_sent.update(question.texts)

    def _safe_reply(self, question: _Question, era: _Era) -> Reply:
        try:
            return self._reply(question, era)
        except Exception as error:  # noqa: BLE001 - a test's callback can raise anything
            with self._changed:
                era.errors.append(error)
            return _failure(500)

    def _reply(self, question: _Question, era: _Era) -> Reply:
        if question.call.method == "GET":
            return self._reply_to_get(question)
        if era.over.is_set():
            # Its test is over: it must not use up what the next test has set.
            return _malformed(question) or self._embed(question, {})
        checks = (
            self._scripted,
            self._intercepted,
            self._misdirected,
            self._unauthorised,
            self._too_large,
            _malformed,
            self._failing,
            self._throttled,
            self._too_long,
            self._rejected,
        )
        for check in checks:
            reply = check(question)
            if reply is not None:
                return reply
        return self._mangled(self._embed(question, self._rate_headers()))

    def _reply_to_get(self, question: _Question) -> Reply:
        if question.call.path != "/v1/models":
            return _unknown_url(question.call)
        return self._unauthorised(question) or Reply(200, _models())

    def _scripted(self, question: _Question) -> Reply | None:
        try:
            return self.script.popleft()
        except IndexError:
            return None

    def _intercepted(self, question: _Question) -> Reply | None:
        intercept = self.intercept
        return None if intercept is None else intercept(question.texts)

    def _misdirected(self, question: _Question) -> Reply | None:
        call = question.call
        if call.deployment is not None:
            return None if call.has_api_version else Reply(404, AZURE_NOT_FOUND)
        return None if call.path == "/v1/embeddings" else _unknown_url(call)

    def _unauthorised(self, question: _Question) -> Reply | None:
        if self.key is None:
            return None
        headers = question.call.headers
        if question.call.deployment is not None:
            right = headers.get("api-key") == self.key
            return None if right else Reply(401, WRONG_AZURE_KEY)
        right = headers.get("authorization") == f"Bearer {self.key}"
        return None if right else Reply(401, WRONG_KEY)

    def _too_large(self, question: _Question) -> Reply | None:
        if self.max_body_bytes is not None and len(question.call.raw) > self.max_body_bytes:
            return Reply(413, ENTITY_TOO_LARGE, HTML)
        count = len(question.texts)
        if self.max_inputs is None or count <= self.max_inputs:
            return None
        message = f"batch size {count} > maximum allowed batch size {self.max_inputs}"
        return Reply(413, openai_error(message, "Validation"))

    def _failing(self, question: _Question) -> Reply | None:
        with self._changed:
            if not self._happens(self.fail_rate):
                return None
            return _failure(self.random.choice(self.fail_status))

    def _too_long(self, question: _Question) -> Reply | None:
        total = tokens_of(question.texts)
        most = self.max_tokens_per_request
        if most is not None and total > most:
            kind = "max_tokens_per_request"
            message = f"Requested {total} tokens, max {most} tokens per request"
            return Reply(400, openai_error(message, kind, kind))
        longest = max(map(tokens_in, question.texts))
        if self.max_tokens is None or longest <= self.max_tokens:
            return None
        message = (
            f"This model's maximum context length is {self.max_tokens} tokens, however you"
            f" requested {longest} tokens ({longest} in your prompt; 0 for the completion)."
            " Please reduce your prompt; or completion length."
        )
        return Reply(400, openai_error(message))

    def _rejected(self, question: _Question) -> Reply | None:
        reject = self.reject
        if reject is None or not any(map(reject, question.texts)):
            return None
        return Reply(400, INVALID_INPUT)

    def _throttled(self, question: _Question) -> Reply | None:
        """Takes from both buckets or from none."""
        with self._changed:
            buckets = self._buckets()
            wanted = {"requests": 1.0, "tokens": float(tokens_of(question.texts))}
            waits = {kind: each.seconds_until(wanted[kind]) for kind, each in buckets.items()}
            if not any(waits.values()):
                for kind, bucket in buckets.items():
                    bucket.level -= wanted[kind]
                return None
            kind = max(waits, key=lambda each: waits[each])
            return _too_fast(kind, buckets, wanted[kind], waits[kind])

    def _buckets(self) -> dict[str, _Bucket]:
        """Made anew, and full, when the limit is not what it was; the caller has the lock."""
        kept = self._era.buckets
        for kind, limit in (("requests", self.bucket_rpm), ("tokens", self.bucket_tpm)):
            if limit is None:
                kept.pop(kind, None)
            elif kind not in kept or kept[kind].made_from != (limit, self.burst_seconds):
                kept[kind] = _Bucket(limit, self.burst_seconds)
        return kept

    def _rate_headers(self) -> dict[str, str]:
        with self._changed:
            return _bucket_headers(self._buckets())

    def _embed(self, question: _Question, headers: Mapping[str, str]) -> Reply:
        width = question.body.get("dimensions") or self._width(question.model)
        fragment = (
            _base64_fragment
            if question.body.get("encoding_format") == "base64"
            else _float_fragment
        )
        data = ",".join(
            f'{{"object":"embedding","index":{index},"embedding":{fragment(text, width)}}}'
            for index, text in enumerate(question.texts)
        )
        tokens = tokens_of(question.texts)
        body = (
            f'{{"object":"list","data":[{data}],"model":{json.dumps(question.model)},'
            f'"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}'
        )
        return Reply(200, body, headers)

    def _width(self, model: str) -> int:
        return NATIVE_WIDTHS.get(model, self.dimensions)

    def _mangled(self, reply: Reply) -> Reply:
        mangle = self.mangle
        if mangle is None:
            return reply
        changed = mangle(json.loads(reply.payload()))
        raw = changed if isinstance(changed, bytes) else json.dumps(changed)
        return Reply(reply.status, raw, reply.headers)


def _bucket_headers(buckets: Mapping[str, _Bucket]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for kind, bucket in buckets.items():
        headers |= bucket.headers(kind)
    return headers


def _too_fast(kind: str, buckets: Mapping[str, _Bucket], wanted: float, wait: float) -> Reply:
    """No waiting helps a request that the full bucket cannot hold, so it is not told to wait."""
    headers = _bucket_headers(buckets)
    if wanted > buckets[kind].capacity:
        message = f"Request too large: limit {buckets[kind].capacity:.0f}, requested {wanted:.0f}."
    else:
        message = f"Rate limit reached on {kind}. Please try again in {_duration(wait)}."
        headers["retry-after"] = str(math.ceil(wait))
        headers["retry-after-ms"] = str(math.ceil(wait * 1000))
    return Reply(429, openai_error(message, kind, "rate_limit_exceeded"), headers)


def _unknown_url(call: _Call) -> Reply:
    return Reply(404, openai_error(f"Invalid URL ({call.method} {call.path})"))


def _models() -> Body:
    models = [
        {"id": name, "object": "model", "created": 1705948997, "owned_by": "system"}
        for name in NATIVE_WIDTHS
    ]
    return {"object": "list", "data": models}


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that it can cut them; its threads are joined when it closes."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], provider: Provider) -> None:
        self.provider = provider
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._connections_lock:
            self._connections.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().close_request(request)

    def sever(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One for each connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        """Clients are free to go away at any time."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
        """Tests look at `Provider.requests` instead."""

    def _respond(self) -> None:
        at = time.monotonic()
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = _Call(at, self.command, self.path, headers, raw, int(self.client_address[1]))
        reply, cut = self.server.provider.serve(call)
        self._send(reply, cut)

    def _send(self, reply: Reply, cut: bool) -> None:
        payload = reply.payload()
        headers = reply.headers_for(payload)
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.wfile.write(payload[: len(payload) // 2])
            self._abort()
            return
        self.wfile.write(payload)
        if headers["content-length"] != str(len(payload)):
            self.close_connection = True

    def _abort(self) -> None:
        """Closing with a linger time of zero makes the kernel send RST instead of FIN."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # The handler's file objects would keep the socket open after a mere close().
        os.close(self.connection.detach())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("latency", "fail-rate", "reset-rate", "rpm", "tpm", "burst-seconds"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("dimensions", "max-inputs", "max-tokens", "max-tokens-per-request"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--max-body-bytes", type=int)
    parser.add_argument("--fail-status", type=int, action="append")
    return parser


ATTRIBUTE_OF_OPTION = {"rpm": "bucket_rpm", "tpm": "bucket_tpm"}


def _configure(provider: Provider, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in ("port", "seed") and value is not None:
            setattr(provider, ATTRIBUTE_OF_OPTION.get(name, name), value)
    provider.random = random.Random(options["seed"])
    # A server that runs for days would otherwise keep every text in memory.
    provider.recording = False


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    options = _parser().parse_args()
    signals = {signal.SIGTERM, signal.SIGINT}
    # Blocked before there are threads, so that none of them gets the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with Provider(options.port) as provider:
        _configure(provider, vars(options))
        print(provider.url, flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
