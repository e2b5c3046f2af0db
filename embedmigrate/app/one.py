"""`generate-one`: the same worker with a batch of one."""

import time

from embedmigrate.app import planning
from embedmigrate.app.opening import Opening
from embedmigrate.app.records import error_line
from embedmigrate.app.values import OneRow
from embedmigrate.app.workplace import check_width
from embedmigrate.config import Loaded
from embedmigrate.embedders import open_embedder
from embedmigrate.engine.account import Account
from embedmigrate.engine.batching import Intake, OnTooLong
from embedmigrate.engine.model import Batch, Failure, Key, Outcome, Row
from embedmigrate.engine.pacing import Governor
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import Exit, TargetError
from embedmigrate.postgres import census
from embedmigrate.postgres.sinks import open_sink
from embedmigrate.postgres.source import find


async def generate_one(loaded: Loaded, given: list[str]) -> OneRow:
    """Embed the row of one key; its write is guarded like every other, so no lock is needed.

    Args:
        loaded: The settings.
        given: The key's values, in the order of its columns.

    Raises:
        TargetError: There is no such row.
    """
    began = time.monotonic()
    async with Opening(loaded, connections=1) as opening:
        await opening.everything()
        columns = len(opening.target.key)
        key = planning.parse_key(given[0], columns) if len(given) == 1 else tuple(given)
        await census.check_key(opening.database, opening.target, key, "the key")
        found = await find(opening.database, opening.target, [key])
        if not found:
            raise TargetError(
                f"{opening.target.name} has no row with key {', '.join(key)}",
                code="row_not_found",
                hint="keys are compared as the database prints them",
            )
        only = found[0]
        if not only.eligible:
            return OneRow(key, "skipped", 0, 0.0, time.monotonic() - began)
        if not only.pending and not opening.settings.force:
            return OneRow(key, "unchanged", 0, 0.0, time.monotonic() - began)
        outcome = await _embed(opening, only.row)
        return _judged(opening, key, outcome, time.monotonic() - began)


async def _embed(opening: Opening, row: Row) -> Outcome:
    s = opening.settings
    counter = planning.counter_of(opening)
    intake = Intake(counter, counter.truncate, counter.exact, OnTooLong(s.on_too_long))
    limit = opening.choice.limits.text_tokens
    admitted = intake.admit(row, limit)
    rows = (admitted,) if isinstance(admitted, Row) else ()
    refused = (admitted,) if isinstance(admitted, Failure) else ()
    embedder = open_embedder(
        opening.choice,
        opening.access,
        width=opening.target.dimensions,
        notice=lambda _code, _message: None,
    )
    try:
        check_width(embedder, opening)
        worker = Worker(
            embedder,
            open_sink(opening.database, opening.target),
            Governor(Account(1), report=lambda _event: None),
            limits=opening.choice.limits,
            admit=lambda changed: intake.admit(changed, limit),
            patience=Patience(s.retries, s.max_wait),
        )
        return await worker(Batch(0, rows, row.key, refused, force=s.force))
    finally:
        await embedder.aclose()


def _judged(opening: Opening, key: Key, outcome: Outcome, seconds: float) -> OneRow:
    if outcome.error:
        raise outcome.error
    cost = opening.choice.cost(outcome.tokens)
    if not outcome.failed:
        result = "embedded" if outcome.stored else "unchanged"
        return OneRow(key, result, outcome.tokens, cost, seconds)
    failure = outcome.failed[0]
    line = error_line(failure, "")
    result, code = ("skipped", Exit.OK) if failure.skipped else ("failed", Exit.PARTIAL)
    return OneRow(key, result, outcome.tokens, cost, seconds, line, code)
