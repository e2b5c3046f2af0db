"""An embeddings server on loopback, fast enough to measure clients with.

`python -m tests.benchmarks.provider` prints its address and serves until it is ended. Vectors are
made before the first request and do not depend on the texts: `tests/provider.py` is the one whose
vectors can be checked. `GET /count` says what it has served.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from functools import partial
from typing import Any

import numpy as np
import orjson

from tests.benchmarks.bucket import Quota

_DISTINCT = 256
"""Different vectors; a reply with more repeats them."""
STEP = 0.25
"""Seconds of one point in the curve of what was served."""
_BYTES_A_TOKEN = 4
_MOST_HEADER = 64 * 1024
_KINDS = {200: b"200 OK", 404: b"404 Not Found", 429: b"429 Too Many Requests"}


class Answers:
    """Replies by number of vectors and encoding, made once each."""

    def __init__(self, width: int, *, only_float: bool) -> None:
        vectors = np.random.default_rng(7).standard_normal((_DISTINCT, width)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._only_float = only_float
        self._base64 = [b'"' + base64.b64encode(v.tobytes()) + b'"' for v in vectors]
        self._float = [orjson.dumps(v.tolist()) for v in vectors.astype("<f4").astype(float)]
        self._made: dict[tuple[int, bool], bytes] = {}

    def get(self, texts: int, tokens: int, *, as_base64: bool) -> tuple[bytes, bytes]:
        """A reply in two pieces, of which only the first depends on the tokens."""
        key = (texts, as_base64 and not self._only_float)
        if key not in self._made:
            vectors = self._base64 if key[1] else self._float
            items = (
                b'{"object":"embedding","index":%d,"embedding":%b}' % (n, vectors[n % _DISTINCT])
                for n in range(texts)
            )
            self._made[key] = b'"data":[' + b",".join(items) + b"]}"
        head = b'{"object":"list","model":"m","usage":{"prompt_tokens":%d,"total_tokens":%d},'
        return head % (tokens, tokens), self._made[key]


class Counts:
    """What was asked and served since the start."""

    def __init__(self) -> None:
        self.requests = self.refused = self.vectors = self.tokens = 0
        self.served: dict[int, int] = {}

    def serve(self, vectors: int, tokens: int, now: float) -> None:
        self.vectors += vectors
        self.tokens += tokens
        step = int(now / STEP)
        self.served[step] = self.served.get(step, 0) + vectors

    def json(self) -> bytes:
        """Vectors by step of the machine's monotonic clock, and the sums."""
        return orjson.dumps(vars(self), option=orjson.OPT_NON_STR_KEYS)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with `content-length`, one request after the other."""

    def __init__(self, answers: Answers, counts: Counts, quota: Quota, latency: float) -> None:
        self._answers = answers
        self._counts = counts
        self._quota = quota
        self._latency = latency
        self._buffer = bytearray()
        self._body_at = self._end = 0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._end:
            self._body_at = self._buffer.find(b"\r\n\r\n", 0, _MOST_HEADER) + 4
            if self._body_at < 4:
                return
            self._end = self._body_at + self._content_length()
        if len(self._buffer) >= self._end:
            path = bytes(self._buffer[: self._buffer.index(b"\r")]).split(b" ")[1]
            body = bytes(self._buffer[self._body_at : self._end])
            del self._buffer[: self._end]
            self._end = 0
            self._serve(path, body)

    def _content_length(self) -> int:
        header = bytes(self._buffer[: self._body_at]).lower()
        _, found, rest = header.partition(b"\r\ncontent-length:")
        return int(rest.partition(b"\r")[0]) if found else 0

    def _serve(self, path: bytes, body: bytes) -> None:
        if path == b"/count":
            self._send(200, {}, self._counts.json())
        elif path != b"/v1/embeddings":
            self._send(404, {}, b'{"error":{"message":"only /v1/embeddings"}}')
        else:
            self._embed(orjson.loads(body))

    def _embed(self, asked: dict[str, Any]) -> None:
        given = asked["input"]
        texts = given if isinstance(given, list) else [given]
        # Some clients send tokens instead of text.
        sizes = (len(t) if isinstance(t, str) else _BYTES_A_TOKEN * len(t) for t in texts)
        tokens = max(1, sum(sizes) // _BYTES_A_TOKEN)
        self._counts.requests += 1
        wait, headers = self._quota.take(tokens, asyncio.get_running_loop().time())
        if wait:
            self._counts.refused += 1
            error = {"message": "Rate limit reached", "type": "requests", "code": None}
            self._send(429, headers, orjson.dumps({"error": error}))
            return
        self._counts.serve(len(texts), tokens, asyncio.get_running_loop().time())
        as_base64 = asked.get("encoding_format") == "base64"
        pieces = self._answers.get(len(texts), tokens, as_base64=as_base64)
        send = partial(self._send, 200, headers, *pieces)
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, send)
        else:
            send()

    def _send(self, status: int, headers: dict[str, str], *pieces: bytes) -> None:
        if self._transport.is_closing():
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        start = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (
            _KINDS[status],
            sum(map(len, pieces)),
            lines.encode(),
        )
        self._transport.writelines((start, *pieces))


async def serve(given: argparse.Namespace) -> None:
    answers = Answers(given.width, only_float=given.server == "float")
    counts, quota = Counts(), Quota(given.rpm, given.tpm, given.burst)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answers, counts, quota, given.latency / 1000), "127.0.0.1", 0
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.provider")
    parser.add_argument("--latency", type=float, default=0, help="milliseconds before each answer")
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--server", choices=["base64", "float"], default="base64")
    parser.add_argument("--rpm", type=float, default=0, help="requests a minute; 0: any number")
    parser.add_argument("--tpm", type=float, default=0, help="tokens a minute; 0: any number")
    parser.add_argument("--burst", type=float, default=60, help="seconds of quota to save up")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
