"""Counts of the table, shared by all who ask, and never so often that the database feels it."""

import asyncio
import time
from dataclasses import dataclass

from embedmigrate.app.coverage import coverage
from embedmigrate.app.values import Stats
from embedmigrate.web.jobs import Job

MOST_ROWS = 1_000_000
"""Counted exactly up to here."""
FRESH_SECONDS = 3.0
_SHARE = 50
"""A count that took a second is good for so many seconds: 2 % of one session at most."""
_STALE_SECONDS = 300.0
"""A count of up to this age is shown, with its age, while the next one is made."""


@dataclass(frozen=True, slots=True)
class Counted:
    stats: Stats
    at: float
    took: float

    @property
    def age(self) -> float:
        return time.monotonic() - self.at


class Coverage:
    """The last count of one job; a new one is made beside while the old one is still shown."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last: Counted | None = None
        self._counting: asyncio.Task[Counted] | None = None

    @property
    def last(self) -> Counted | None:
        return self._last

    async def get(self, *, run_ended_ago: float | None = None) -> Counted:
        """A count that is a few seconds old, or after a pause a new one.

        Args:
            run_ended_ago: Seconds. A count from before, which the rows of that run are not in,
                is answered only until there is another.

        Raises:
            EmbedMigrateError: The table cannot be counted.
        """
        last = self._last
        before = last and run_ended_ago is not None and last.age + last.took > run_ended_ago
        if last and not before and last.age < max(FRESH_SECONDS, last.took * _SHARE):
            return last
        if self._counting is None:
            self._counting = asyncio.create_task(self._count())
            self._counting.add_done_callback(self._counted)
        if last and last.age < max(_STALE_SECONDS, last.took * _SHARE * 2):
            return last
        return await asyncio.shield(self._counting)

    def _counted(self, task: asyncio.Task[Counted]) -> None:
        self._counting = None
        if not task.cancelled():
            task.exception()  # whoever waits has it; where nobody does, the next one asks again

    async def _count(self) -> Counted:
        began = time.monotonic()
        # In a thread with a loop of its own: nothing that it does may hold up the answers.
        found = await asyncio.to_thread(asyncio.run, coverage(self._job.quick, most=MOST_ROWS))
        now = time.monotonic()
        self._last = Counted(found, now, now - began)
        return self._last
