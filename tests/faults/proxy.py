"""A TCP proxy on loopback that does to connections what networks do: eight toxics and two cuts.

The toxics are those of Toxiproxy (https://github.com/Shopify/toxiproxy). They are switched while
connections are open, and hold for open and new ones alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

Toxic = Literal[
    "latency",
    "bandwidth",
    "slow_close",
    "timeout",
    "reset_peer",
    "slicer",
    "limit_data",
    "down",
]
TOXICS: tuple[Toxic, ...] = (
    "latency",
    "bandwidth",
    "slow_close",
    "timeout",
    "reset_peer",
    "slicer",
    "limit_data",
    "down",
)
TICK = 0.05
CHUNK = 65536
SO_ATTACH_FILTER = 26
DROP = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A classic BPF program, `return 0`: the kernel drops every segment unseen and unacknowledged."""


@dataclass(frozen=True)
class Setting:
    """How strong the toxics are."""

    latency: float = 0.3
    jitter: float = 0.2
    bytes_per_second: int = 20_000
    slow_close: float = 1.0
    reset_after: float = 0.2
    slice_bytes: int = 64
    slice_delay: float = 0.005
    limit_bytes: int = 700
    unacknowledged: bool = False
    """Whether in a black hole the kernel keeps silent as well, as if a cable was cut; else only
    the peer does, as if it hung. What nobody acknowledges nobody is seen to end either."""


@dataclass
class Pending:
    """A request over HTTP that has no whole answer yet; without `began` there is none."""

    began: float | None = None
    head: bytes = b""
    left: int | None = None


class RequestClock:
    """How long each request over HTTP took as the client saw it: until its answer's last byte, or
    until it gave up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def sent(self, link: Link) -> None:
        if link.request.began is None:
            link.request = Pending(time.monotonic())

    def heard(self, link: Link, piece: bytes) -> None:
        r = link.request
        if r.left is None:
            r.head += piece
            head, end, rest = r.head.partition(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: *(\d+)", head)
            if not end or not found:
                return
            r.left = int(found[1]) - len(rest)
        else:
            r.left -= len(piece)
        if r.left <= 0:
            self.over(link)

    def over(self, link: Link) -> None:
        began, link.request.began = link.request.began, None
        if began is not None:
            self.seconds.append(time.monotonic() - began)


class Link:
    """One client, and the connection to the server that was opened for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.hole = False
        self.passed = 0
        """Bytes from the server since the toxic was switched on."""
        self.writes = False
        """Whether an UPDATE has passed since the last COMMIT."""
        self.muted = False
        """Whether what the server says is thrown away."""
        self.answered = threading.Event()
        """The server has said something since it was muted."""
        self.request = Pending()
        self.lock = threading.Lock()
        self.open = True

    def drop(self, *, unacknowledged: bool) -> None:
        """A black hole from now on, whatever becomes of the toxic."""
        self.hole = True
        if unacknowledged:
            with contextlib.suppress(OSError):
                program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(DROP))
                self.client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def cut(self, *, reset: bool) -> None:
        """Both connections, once; with RST, or with FIN as a server does that ends."""
        with self.lock:
            if not self.open:
                return
            self.open = False
            for end in (self.client, self.server):
                with contextlib.suppress(OSError):
                    if reset:
                        linger = struct.pack("ii", 1, 0)
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    else:
                        end.shutdown(socket.SHUT_RDWR)
                    end.close()


class Proxy:
    """Forwards to `upstream` from its creation on; `watch` sees all that clients send.

    Args:
        upstream: Host and port.
        watch: Told of each chunk that a client sends before it is forwarded; it may return what
            is to be done afterwards.
        clock: Told of what passes, for HTTP.
        setting: How strong the toxics are.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        *,
        watch: Callable[[Link, bytes], Callable[[], object] | None] | None = None,
        clock: RequestClock | None = None,
        setting: Setting | None = None,
        seed: int = 0,
    ) -> None:
        self.upstream = upstream
        self.setting = setting or Setting()
        self.toxic: Toxic | None = None
        self.accepted = 0
        self._watch = watch
        self._clock = clock
        self._chance = random.Random(seed)
        self._links = set[Link]()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._since = 0.0
        self._listener: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.settimeout(TICK)
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self.cut_all()
        for thread in list(self._threads):
            thread.join()
        if self._listener is not None:
            self._listener.close()

    @contextlib.contextmanager
    def suffering(self, toxic: Toxic) -> Iterator[None]:
        """The toxic holds inside of the block."""
        with self._lock:
            self._since, self.toxic = time.monotonic(), toxic
            for link in self._links:
                link.passed = 0
        if toxic == "down":
            self.cut_all()
        if toxic == "timeout":
            self.drop_all()
        try:
            yield
        finally:
            with self._lock:
                self.toxic = None

    def drop_all(self) -> int:
        """All open connections become black holes for ever; new ones are well."""
        with self._lock:
            links = [link for link in self._links if not link.hole]
        for link in links:
            link.drop(unacknowledged=self.setting.unacknowledged)
        return len(links)

    def cut_all(self, *, reset: bool = True) -> None:
        with self._lock:
            links = list(self._links)
        for link in links:
            link.cut(reset=reset)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._stop.is_set():
            if self.toxic == "down" and self._listener is not None:
                self._listener.close()
                self._listener = None
            if self.toxic != "down" and self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
                self._listener.settimeout(TICK)
            if self._listener is None:
                time.sleep(TICK / 5)
                continue
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self.upstream, timeout=10)
        except OSError:
            client.close()
            return
        link = Link(client, server)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(TICK)
        with self._lock:
            self.accepted += 1
            self._links.add(link)
        if self.toxic == "timeout":
            link.drop(unacknowledged=self.setting.unacknowledged)
        self._spawn(self._pump, link, link.client, link.server)
        self._pump(link, link.server, link.client)
        with self._lock:
            self._links.discard(link)
        if self._clock:
            self._clock.over(link)

    def _pump(self, link: Link, source: socket.socket, target: socket.socket) -> None:
        """One direction, until either side has gone."""
        to_client = target is link.client
        try:
            while link.open and not self._stop.is_set():
                self._after_a_time(link)
                try:
                    chunk = source.recv(CHUNK)
                except TimeoutError:
                    continue
                if not chunk:
                    break
                if self._clock and not to_client:
                    self._clock.sent(link)
                afterwards = None
                if self._watch and not to_client:
                    afterwards = self._watch(link, chunk)
                self._forward(link, chunk, target, to_client=to_client)
                if afterwards:
                    afterwards()
        except OSError:
            link.cut(reset=True)
            return
        if self._clock and not to_client:
            self._clock.over(link)
        if self.toxic == "slow_close":
            self._stop.wait(self.setting.slow_close)
        link.cut(reset=False)

    def _after_a_time(self, link: Link) -> None:
        over = time.monotonic() - self._since
        if self.toxic == "reset_peer" and over > self.setting.reset_after:
            link.cut(reset=True)

    def _forward(self, link: Link, chunk: bytes, target: socket.socket, *, to_client: bool) -> None:
        s = self.setting
        if to_client and link.muted:
            link.answered.set()
        if link.hole or (to_client and link.muted):
            return
        match self.toxic:
            case "latency":
                self._stop.wait(s.latency + self._chance.uniform(-s.jitter, s.jitter))
            case "limit_data" if to_client:
                chunk = chunk[: max(0, s.limit_bytes - link.passed)]
                link.passed += len(chunk)
        for piece in self._pieces(chunk):
            if link.hole or not link.open:
                return
            self._send(link, target, piece)
            if to_client and self._clock:
                self._clock.heard(link, piece)
        if self.toxic == "limit_data" and link.passed >= s.limit_bytes:
            link.cut(reset=False)

    def _pieces(self, chunk: bytes) -> Iterator[bytes]:
        """The toxic may be switched off in the middle of a chunk."""
        s, at = self.setting, 0
        while at < len(chunk):
            size = len(chunk) - at
            if self.toxic == "slicer":
                size = self._chance.randint(1, 2 * s.slice_bytes)
                self._stop.wait(s.slice_delay)
            if self.toxic == "bandwidth":
                size = int(s.bytes_per_second * TICK)
                self._stop.wait(min(size, len(chunk) - at) / s.bytes_per_second)
            yield chunk[at : at + size]
            at += size

    def _send(self, link: Link, target: socket.socket, piece: bytes) -> None:
        view = memoryview(piece)
        while view and link.open and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                view = view[target.send(view) :]


def _writes(chunk: bytes) -> bool:
    return b"UPDATE " in chunk or b"COPY " in chunk


class CommitCutter:
    """For `Proxy(watch=)`: cuts after a COMMIT was forwarded, and before its reply is.

    Half of the cuts wait until the server has answered, so that the rows are surely stored; the
    others come at once. Only transactions that write are cut, each with the chance `rate`.
    """

    def __init__(self, rounds: int, seed: int, rate: float = 0.5) -> None:
        self.cuts = 0
        self.answered = 0
        """Cuts of which it is known that the server had committed."""
        self._rounds = rounds
        self._rate = rate
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, link: Link, chunk: bytes) -> Callable[[], object] | None:
        link.writes = link.writes or _writes(chunk)
        if b"COMMIT\x00" not in chunk or not link.writes:
            return None
        link.writes = False
        with self._lock:
            if self.cuts >= self._rounds or self._chance.random() >= self._rate:
                return None
            self.cuts += 1
            patient = self._chance.random() < 0.5
        link.muted = True

        def cut() -> None:
            if patient:
                self.answered += link.answered.wait(5)
            link.cut(reset=True)

        return cut


class CommitSwallower:
    """For `Proxy(watch=)`: once `armed`, the next COMMIT of a write and all after it is lost.

    The session at the server is left in the middle of its transaction, with its locks.
    """

    def __init__(self) -> None:
        self.armed = threading.Event()

    def __call__(self, link: Link, chunk: bytes) -> None:
        link.writes = link.writes or _writes(chunk)
        if b"COMMIT\x00" in chunk and link.writes:
            link.writes = False
            if self.armed.is_set():
                self.armed.clear()
                link.drop(unacknowledged=True)
