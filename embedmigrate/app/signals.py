"""SIGINT, SIGTERM and SIGHUP, heard once and passed on to every run of the process."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from embedmigrate.engine.states import StopReason

_REASONS = {
    signal.SIGINT: StopReason.SIGINT,
    signal.SIGTERM: StopReason.SIGTERM,
    signal.SIGHUP: StopReason.SIGTERM,
}


class Signals:
    """Has handlers for as long as anybody listens.

    An inherited "ignore" (nohup, a background job of a script) is respected.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[StopReason], None]] = []
        self._heard: list[StopReason] = []
        self._taken: list[signal.Signals] = []

    @contextlib.contextmanager
    def told(self, listener: Callable[[StopReason], None]) -> Iterator[None]:
        """Tell it of each signal, and at once of those that others have heard before it came."""
        if not self._listeners:
            self._install()
        self._listeners.append(listener)
        for reason in self._heard:
            listener(reason)
        try:
            yield
        finally:
            self._listeners.remove(listener)
            if not self._listeners:
                self._remove()

    def _install(self) -> None:
        loop = asyncio.get_running_loop()
        self._taken = [s for s in _REASONS if signal.getsignal(s) is not signal.SIG_IGN]
        for number in self._taken:
            loop.add_signal_handler(number, self._hear, _REASONS[number])

    def _remove(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._taken:
            loop.remove_signal_handler(number)

    def _hear(self, reason: StopReason) -> None:
        self._heard.append(reason)
        for listener in tuple(self._listeners):
            listener(reason)
