"""What a run shares with those beside it in the process; alone, all of it is its own."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedmigrate.app.opening import Opening
from embedmigrate.app.signals import Signals
from embedmigrate.app.values import Estimate
from embedmigrate.engine.account import Account
from embedmigrate.errors import ConfigError, Exit


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run is about to do.

    Attributes:
        overwrites: Vectors that are there and about which the operator is to be asked.
    """

    estimate: Estimate
    overwrites: int = 0


class Watchdog:
    """Ends the process when none of its runs is left that does not hang.

    Args:
        patience: Seconds that somebody has meanwhile to say how all of them ended.
    """

    def __init__(self, patience: float = 0.0) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._alive = set[str]()
        self._overdue = set[str]()

    @contextlib.contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        with self._lock:
            self._alive.add(run_id)
        try:
            yield
        finally:
            with self._lock:
                self._alive.discard(run_id)

    def overdue(self, run_id: str, code: Exit) -> None:
        """A run's time is up, and its last words are saved. Called from a thread."""
        with self._lock:
            self._overdue.add(run_id)
            if self._alive <= self._overdue:
                end = threading.Timer(self._patience, os._exit, (int(code),))
                end.daemon = True
                end.start()

    def hangs(self, run_id: str) -> bool:
        return run_id in self._overdue


class Company:
    """A run by itself."""

    connections = 3

    def __init__(self, signals: Signals, watchdog: Watchdog) -> None:
        self.signals = signals
        self.watchdog = watchdog

    def account(self, opening: Opening) -> Account:
        """That of the run's provider."""
        s, choice = opening.settings, opening.choice
        return Account(opening.concurrency, auto=choice.auto, rpm=s.rpm, tpm=s.tpm)

    def late(self) -> None:
        """The run has to wait for another one: those beside it need not wait for it."""

    async def agree(self, wish: Wish, confirm: Callable[[str], bool]) -> None:
        """Everything is checked, and nothing is sent yet.

        Raises:
            ConfigError: The operator would rather not.
        """
        if wish.overwrites:
            ask(confirm, f"{wish.overwrites:,} vectors", wish.estimate.cost_usd)


def ask(confirm: Callable[[str], bool], what: str, cost_usd: float | None) -> None:
    """May it be overwritten?

    Raises:
        ConfigError: No.
    """
    cost = f", about ${cost_usd:.2f}" if cost_usd is not None else ""
    if not confirm(f"Overwrite {what}{cost}?"):
        raise declined()


def declined() -> ConfigError:
    return ConfigError("nothing was done", code="declined", hint="--yes answers beforehand")
