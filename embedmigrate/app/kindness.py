"""A run that leaves the database room: it looks at the load, and holds its requests back."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from embedmigrate.errors import EmbedMigrateError
from embedmigrate.postgres.load import Load

EVERY_SECONDS = 1.0


class Pausing(Protocol):
    """The governor, as far as it matters here."""

    def pause(self, seconds: float, reason: str) -> None: ...


async def keep_within(load: Load, governor: Pausing, held: Callable[[str], None]) -> None:
    """Until it is cancelled; while the load cannot be looked at, nothing is held back.

    Args:
        load: Looks at the server.
        governor: Is told to pause; it says why only when it was not waiting already.
        held: Is told the reason at each look.
    """
    while True:
        try:
            strain = await load.strain()
        except EmbedMigrateError:  # the run itself meets the outage, and waits or ends for it
            strain = None
        if strain:
            governor.pause(strain.seconds, strain.reason)
            held(strain.reason)
        await asyncio.sleep(EVERY_SECONDS)
