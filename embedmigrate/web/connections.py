"""Connections that are slow on purpose: they get a deadline, and give way when there are many."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
HEAD_SECONDS = 10.0
"""For a request's head, from the first byte; idle between requests a connection has as long."""


class Deadlined(H11Protocol):
    """Uvicorn waits for a request's head for ever: https://www.uvicorn.org/settings/#timeouts.

    A connection without a request in work is dropped after `HEAD_SECONDS`, and the one that has
    waited longest is dropped when there are too many.
    """

    _timer: asyncio.TimerHandle | None = None
    _since: float = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [c for c in self.connections if isinstance(c, Deadlined) and not c.busy]
            if oldest := min(waiting, key=lambda c: c.waiting_since, default=None):
                oldest.drop()

    @property
    def busy(self) -> bool:
        """A request is in work: its head has come, and its answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waiting_since(self) -> float:
        return self._since

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.busy:
            self._cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self.busy:
            self._wait()

    def drop(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self._cancel()
        self._since = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        if not self.busy:
            self.drop()

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Tells the open streams to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, which sends the signal again afterwards: the end would be an error."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_exit()
        await super().shutdown(sockets)
