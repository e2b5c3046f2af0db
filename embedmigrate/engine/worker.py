"""One batch → one outcome: embed, check, retry, halve, store."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from embedmigrate.engine.memory import Memory, Question
from embedmigrate.engine.model import (
    Batch,
    Embedded,
    Failure,
    Limits,
    Outcome,
    Row,
)
from embedmigrate.engine.pacing import Abandoned
from embedmigrate.engine.parts import Outgrown, Part, Rows, Tally
from embedmigrate.engine.ports import Embedder, Pacer, Sink
from embedmigrate.engine.vectors import Vectors, sound
from embedmigrate.errors import (
    BadReply,
    EmbedMigrateError,
    ProviderError,
    RateLimited,
    RejectedInput,
    RequestTooLarge,
    TargetError,
    TransientError,
)

_BACKOFF_FIRST = 0.5
_BACKOFF_MOST = 30.0
_BAD_REPLIES = 3
_ALONE = 3
"""Tries of a text that stands alone, before its row is given up for a server's error."""
_MOST_REREADS = 5
_HOPELESS = 20
"""Rows refused one after the other, with none ever stored, after which the provider is at fault."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to believe that an error passes by itself.

    Attributes:
        attempts: Requests for the same texts before the texts are suspected.
        seconds: How long the provider may stay away before the run gives up.
    """

    attempts: int = 8
    seconds: float = 600.0


class Worker:
    """Turns batches into outcomes; one worker serves any number of batches at once.

    Three kinds of error decide everything: one that may pass is waited for; a refused text is
    isolated by halving, and the good halves are stored at once and never bought again; anything
    else ends the run.
    """

    def __init__(
        self,
        embedder: Embedder,
        sink: Sink,
        governor: Pacer,
        *,
        limits: Limits,
        admit: Callable[[Row], Row | Failure],
        patience: Patience,
        jitter: Callable[[], float] = random.random,
        answered: Callable[[Rows, int, int], None] | None = None,
    ) -> None:
        self.limits = limits
        self._embedder = embedder
        self._sink = sink
        self._governor = governor
        self._admit = admit
        self._patience = patience
        self._jitter = jitter
        self._answered = answered
        self._memory = Memory()
        self._ever_stored = False
        self._refused_in_a_row = 0
        self._most_rows = limits.rows

    async def __call__(self, batch: Batch) -> Outcome:
        tally = Tally(failed=list(batch.refused))
        try:
            await self._settle(batch, tally)
        except Abandoned:
            return tally.outcome(batch, finished=False)
        except EmbedMigrateError as error:
            return tally.outcome(batch, finished=False, error=error)
        return tally.outcome(batch, finished=True)

    async def _settle(self, batch: Batch, tally: Tally) -> None:
        began = self._governor.now()
        fruitless = 0
        work = [Part(batch.rows, self._patience.attempts)] if batch.rows else []
        while work:
            part = work.pop()
            if len(part.rows) > self.limits.rows:
                work += part.halves(part.attempts)
                continue
            try:
                embedded = await self._ask(part, tally)
            except Outgrown:
                work.append(part)
            except RejectedInput as error:
                work += self._isolate(part, error, tally)
            except RateLimited:
                raise
            except TransientError as error:
                if self._lives(part, error) or (part.attempts > 1 and len(part.rows) > 1):
                    work += self._suspect(part, error, tally)
                else:
                    fruitless += 1
                    await self._sit_out(error, began, others=fruitless <= len(work))
                    work.insert(0, part)  # the others first: an answer to them tells more
            else:
                fruitless = 0
                work += await self._store(part, embedded, tally, force=batch.force)

    async def _ask(self, part: Part, tally: Tally) -> Embedded:
        """One request, repeated while its error may pass; the reply is checked for its shape."""
        began = self._governor.now()
        question = Question(self._memory, part.rows)
        if not question.texts:
            tally.reused += question.saved
            return Embedded(question.answer(), 0)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=lambda state: self._give_up(state, part.attempts, began),
            wait=lambda state: self._wait(state, began),
            sleep=self._governor.sleep,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                tally.retries += attempt.retry_state.attempt_number > 1
                async with self._governor.request(sum(row.tokens for row in part.rows)) as turn:
                    if len(part.rows) > self.limits.rows:
                        raise Outgrown
                    tally.requests += 1
                    if part.attempts > _ALONE or part.since is None:
                        part.since = self._governor.now()
                    embedded = await self._embedder.embed(question.texts)
                tally.tokens += embedded.tokens
                self._check_shape(embedded.vectors, len(question.texts))
                self._governor.succeeded(turn, embedded.left)
                if self._answered:
                    self._answered(part.rows, embedded.tokens, question.saved)
                tally.reused += question.saved
                return replace(embedded, vectors=question.answer(embedded.vectors))
        raise AssertionError("tenacity re-raises the last error")

    def _give_up(self, state: RetryCallState, attempts: int, began: float) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, BadReply):
            return state.attempt_number >= min(attempts, _BAD_REPLIES)
        idle = self._idle(began)
        if isinstance(error, RateLimited):
            return max(idle, error.retry_after or 0.0) > self._patience.seconds
        return state.attempt_number >= attempts or idle >= self._patience.seconds

    def _idle(self, began: float) -> float:
        """Seconds that the provider has stayed away, as seen by work that began then."""
        return self._governor.now() - max(began, self._governor.last_success)

    def _wait(self, state: RetryCallState, began: float) -> float:
        """Full-jitter exponential backoff (Brooker, 2015); a 429 makes all workers wait instead."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        number = state.attempt_number
        ceiling = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** min(number, 10))
        # No wait at all is as good as none asked for: a date in the past is a clock's error.
        seconds = asked or ceiling * (0.5 + self._jitter() / 2)
        if isinstance(error, RateLimited):
            if seconds <= self._patience.seconds:
                self._governor.limited(seconds, attempt=number, asked=bool(asked))
            return 0.0
        # The last try is when our patience ends, not long after it.
        return min(seconds, max(0.0, self._patience.seconds - self._idle(began)))

    def _check_shape(self, vectors: Vectors, rows: int) -> None:
        if vectors.shape[0] != rows:
            raise BadReply(f"{vectors.shape[0]} vectors for {rows} texts", code="bad_reply")
        if vectors.shape[1] != self._embedder.dimensions:
            raise TargetError(
                f"the provider returned vectors of {vectors.shape[1]} dimensions, "
                f"{self._embedder.dimensions} were expected; none of them was stored",
                code="dimension_mismatch",
                hint="check --model and --dimensions; not every server honours a shortened width",
            )

    def _lives(self, part: Part, error: TransientError) -> bool:
        """Whether the provider shows itself to be well while it fails this part."""
        if part.alone and isinstance(error, BadReply):
            return True  # it numbered and shaped the others' vectors well
        return part.since is not None and self._governor.alive_since(part.since)

    def _isolate(self, part: Part, error: RejectedInput, tally: Tally) -> list[Part]:
        if len(part.rows) == 1:
            if isinstance(error, RequestTooLarge):
                self.limits = replace(self.limits, rows=self._most_rows)  # it was not the number
            self._fail(part.rows[0], error.code, error.message, tally, http_status=error.status)
            return []
        if isinstance(error, RequestTooLarge):
            size = sum(len(row.text.encode("utf-8", "replace")) for row in part.rows)
            self.limits = replace(
                self.limits,
                rows=min(self.limits.rows, (len(part.rows) + 1) // 2),
                bytes=min(self.limits.bytes, size // 2 + 1),
            )
        return part.halves(part.attempts)

    def _suspect(self, part: Part, error: TransientError, tally: Tally) -> list[Part]:
        """The texts and not the provider: others get answers, or smaller requests may."""
        if len(part.rows) > 1:
            return part.halves(1)
        if part.attempts < min(_ALONE, self._patience.attempts):
            return [replace(part, attempts=min(_ALONE, self._patience.attempts))]
        self._fail(
            part.rows[0],
            error.code,
            error.message,
            tally,
            http_status=error.status,
            tries=part.attempts,
        )
        return []

    async def _sit_out(self, error: TransientError, began: float, *, others: bool) -> None:
        """Wait for the provider to come back; at once where others are to be asked first.

        Raises:
            TransientError: It stayed away for longer than we wait, or answers nonsense.
        """
        waited = self._idle(began)
        if isinstance(error, BadReply) and others:
            return
        if isinstance(error, BadReply) or waited >= self._patience.seconds:
            raise error
        await self._governor.sleep(min(_BACKOFF_MOST, self._patience.seconds - waited))

    def _fail(
        self,
        row: Row,
        code: str,
        message: str,
        tally: Tally,
        *,
        http_status: int | None = None,
        tries: int = 1,
    ) -> None:
        tally.failed.append(
            Failure(row.key, code, message, http_status, tries, code != "input_too_long")
        )
        if code != "input_too_long":
            self._refused_in_a_row += 1
        if not self._ever_stored and self._refused_in_a_row >= _HOPELESS:
            raise ProviderError(
                f"the provider refused each of the first {self._refused_in_a_row} texts: {message}",
                code="provider_refuses_everything",
                hint="embedmigrate generate-all --dry-run --probe",
            )

    async def _store(
        self, part: Part, embedded: Embedded, tally: Tally, *, force: bool
    ) -> list[Part]:
        """Write the sound vectors; what is left: unsound ones to ask again, rows that changed."""
        fit = sound(embedded.vectors)
        rows, vectors, again = part.rows, embedded.vectors, list[Part]()
        if not fit.all():
            unsound = [row for row, good in zip(rows, fit, strict=True) if not good]
            if part.alone:
                message = "the vector is all zero or not finite"
                self._fail(unsound[0], "bad_vector", message, tally, tries=2)
            else:
                tries = min(_ALONE, self._patience.attempts)
                again = [Part((row,), tries, part.rereads, alone=True) for row in unsound]
            rows = tuple(row for row, good in zip(rows, fit, strict=True) if good)
            vectors = vectors[fit]
        if not rows:
            return again
        self._memory.keep(rows, vectors)
        with self._governor.writing():
            written = await self._sink.write(rows, vectors, force=force)
        tally.add(written)
        self._ever_stored = self._ever_stored or written.stored > 0
        self._refused_in_a_row = 0
        return again + self._changed(written.changed, part, tally)

    def _changed(self, rows: Sequence[Row], part: Part, tally: Tally) -> list[Part]:
        if part.rereads >= _MOST_REREADS:
            message = f"its text changed {_MOST_REREADS + 1} times while it was embedded"
            tally.failed += [
                Failure(r.key, "row_keeps_changing", message, retryable=True) for r in rows
            ]
            return []
        admitted = [self._admit(row) for row in rows]
        tally.failed += [a for a in admitted if isinstance(a, Failure)]
        ready = tuple(a for a in admitted if isinstance(a, Row))
        return [Part(ready, self._patience.attempts, part.rereads + 1)] if ready else []
