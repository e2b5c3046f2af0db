"""A batch while it is settled: the parts that travel together, and what has become of them."""

from dataclasses import dataclass, field
from typing import TypeAlias

from embedmigrate.engine.model import Batch, CountTokens, Failure, Outcome, Row, Written
from embedmigrate.errors import EmbedMigrateError

Rows: TypeAlias = tuple[Row, ...]


_LONG = 400
"""Tokens from which on servers have cut texts off: at 512, and declaring more (ollama#14259)."""
_UNLIKELY = 1.2


def cut_off(rows: Rows, charged: int, saved: int, count: CountTokens) -> str | None:
    """What to tell where far fewer tokens were charged than an exact `count` has, else None.

    Nothing can be told where texts were `saved`: the rows' tokens were not all sent.
    """
    long = any(row.tokens > _LONG for row in rows)
    if saved or not charged or not long:
        return None
    # The rows' own numbers may be estimates: enough for a suspicion, and not to accuse anybody.
    if sum(row.tokens for row in rows) <= charged * _UNLIKELY:
        return None
    counted = sum(count(row.text) for row in rows)
    if counted <= charged * _UNLIKELY:
        return None
    return f"the provider charged {charged} tokens for {counted}: it may cut long texts off"


@dataclass(slots=True)
class Tally:
    """What has become of a batch so far; survives an error in the middle."""

    stored: int = 0
    unchanged: int = 0
    vanished: int = 0
    failed: list[Failure] = field(default_factory=list)
    tokens: int = 0
    requests: int = 0
    retries: int = 0
    reused: int = 0

    def add(self, written: Written) -> None:
        self.stored += written.stored
        self.unchanged += written.unchanged
        self.vanished += written.vanished
        self.failed += written.refused

    def outcome(
        self, batch: Batch, *, finished: bool, error: EmbedMigrateError | None = None
    ) -> Outcome:
        return Outcome(
            batch.seq,
            batch.last,
            finished,
            self.stored,
            self.unchanged,
            self.vanished,
            tuple(self.failed),
            self.tokens,
            self.requests,
            self.retries,
            self.reused,
            error,
        )


class Outgrown(Exception):  # noqa: N818  a signal to the worker
    """The limit of a request sank while the part waited for its turn: it has to be halved."""


@dataclass(slots=True)
class Part:
    """Rows that travel together, and how often they may be asked for.

    `since` is when they, or the larger part that they were in, were sent in vain: whoever got an
    answer after it shows that the provider lives. A success before it says nothing: it may have
    been the last one before an outage.
    """

    rows: Rows
    attempts: int
    rereads: int = 0
    alone: bool = False
    since: float | None = None

    def halves(self, attempts: int) -> "list[Part]":
        """The second half first: the list is a stack."""
        middle = (len(self.rows) + 1) // 2
        return [
            Part(self.rows[middle:], attempts, self.rereads, since=self.since),
            Part(self.rows[:middle], attempts, self.rereads, since=self.since),
        ]
