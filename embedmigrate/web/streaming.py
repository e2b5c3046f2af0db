"""Server-sent events: the state whenever it has changed, and what the job's process says."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from embedmigrate.web.status import Watch, row_error, status

EVERY_SECONDS = 0.25
PING_SECONDS = 15.0
_PASSED_ON = {"start", "notice", "row_error", "summary", "exit_error"}


class Closing:
    """Told once that the server ends; every stream ends with it."""

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None
        self.now = False

    def announce(self) -> None:
        self.now = True
        if self._event:
            self._event.set()

    async def within(self, seconds: float) -> bool:
        """Wait so long at most."""
        self._event = self._event or asyncio.Event()
        if self.now:
            return True
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def events(watch: Watch, closing: Closing) -> AsyncIterator[bytes]:
    """The state at once, then four times a second at most; a comment while nothing happens."""
    sent, last = "", time.monotonic()
    with watch.listening() as heard:
        while True:
            state = status(watch.look()).model_dump_json(by_alias=True)
            lines = [_line(said) for said in list(heard) if said["message_type"] in _PASSED_ON]
            heard.clear()
            if state != sent:
                lines.append(_event("status", state))
                sent = state
            if lines:
                last = time.monotonic()
                yield "".join(lines).encode()
            elif time.monotonic() - last >= PING_SECONDS:
                last = time.monotonic()
                yield b": still here\n\n"
            if await closing.within(EVERY_SECONDS):
                return


def _line(said: dict[str, Any]) -> str:
    kind = str(said["message_type"])
    if kind == "row_error":
        return _event(kind, row_error(said).model_dump_json(by_alias=True))
    return _event(kind, json.dumps({k: v for k, v in said.items() if k not in _HIDDEN}))


_HIDDEN = {"state_file", "error_report", "target", "next_command"}
"""Paths and expressions are for who sits at the machine."""


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"
