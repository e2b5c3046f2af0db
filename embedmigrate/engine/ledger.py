"""Out-of-order outcomes → a safe cursor, the counters, the rate and the ETA."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from embedmigrate.engine.model import Key, Outcome, Progress
from embedmigrate.engine.states import State

_WINDOW_SECONDS = 60.0
_ETA_AFTER_SECONDS = 30.0
_ETA_AFTER_RATIO = 0.01
_KEPT_FAILURES = 100


class Ledger:
    """Counts at once; moves the cursor only over a gap-free prefix of finished batches.

    The cursor is the lowest contiguous finished batch, never the highest finished one: with
    several batches in flight the latter loses rows on a crash.
    """

    def __init__(
        self,
        *,
        selected: int,
        already_done: int = 0,
        cursor: Key | None = None,
        cost_of: Callable[[int], float | None] = lambda _tokens: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = Progress(
            rows_selected=selected, rows_already_done=already_done, cursor=cursor
        )
        self._cost_of = cost_of
        self._clock = clock
        self._began = clock()
        self._expected = 0
        self._ahead: dict[int, Outcome] = {}
        self._window: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._tracks_cursor = True
        self.excluded: set[Key] = set()
        self.failures: list[Key] = []
        self.by_code: Counter[str] = Counter()
        self.skipped_by_code: Counter[str] = Counter()

    @property
    def cursor(self) -> Key | None:
        return self._progress.cursor

    @property
    def progress(self) -> Progress:
        """The snapshot of this moment."""
        return replace(
            self._progress,
            elapsed_seconds=self._clock() - self._began,
            rows_per_second=self._rate(),
            eta_seconds=self._eta(),
            cost_usd=self._cost_of(self._progress.tokens),
        )

    def freeze_cursor(self) -> None:
        """From now on batches come from a sweep, which walks behind the cursor: it stays."""
        self._tracks_cursor = False

    def record(self, outcome: Outcome) -> None:
        """Take one outcome, in any order of `seq`; each `seq` once."""
        failed = [f for f in outcome.failed if not f.skipped]
        skipped = [f for f in outcome.failed if f.skipped]
        self.by_code.update(f.code for f in failed)
        self.skipped_by_code.update(f.code for f in skipped)
        self.excluded.update(f.key for f in outcome.failed)
        self.failures += [f.key for f in failed[: _KEPT_FAILURES - len(self.failures)]]
        p = self._progress
        self._progress = replace(
            p,
            rows_stored=p.rows_stored + outcome.stored,
            rows_unchanged=p.rows_unchanged + outcome.unchanged,
            rows_vanished=p.rows_vanished + outcome.vanished,
            rows_failed=p.rows_failed + len(failed),
            rows_skipped=p.rows_skipped + len(skipped),
            tokens=p.tokens + outcome.tokens,
            requests=p.requests + outcome.requests,
            retries=p.retries + outcome.retries,
            texts_reused=p.texts_reused + outcome.reused,
        )
        self._advance(outcome)
        self._sample()

    def _advance(self, outcome: Outcome) -> None:
        self._ahead[outcome.seq] = outcome
        while (ready := self._ahead.get(self._expected)) is not None and ready.finished:
            del self._ahead[self._expected]
            self._expected += 1
            if self._tracks_cursor:
                self._progress = replace(self._progress, cursor=ready.last)

    def show(
        self, state: State, *, reason: str | None = None, wait_seconds: float | None = None
    ) -> None:
        self._progress = replace(
            self._progress, state=state, reason=reason, wait_seconds=wait_seconds
        )

    def flight(self, in_flight: int, concurrency: int) -> None:
        self._progress = replace(self._progress, in_flight=in_flight, concurrency=concurrency)

    def _sample(self) -> None:
        now = self._clock()
        self._window.append((now, self._progress.rows_processed))
        while len(self._window) > 2 and now - self._window[1][0] > _WINDOW_SECONDS:  # noqa: PLR2004
            self._window.popleft()

    def _rate(self) -> float:
        """Rows a second over the last minute; rows of an earlier run never count as speed."""
        then, done = self._window[0]
        seconds = self._clock() - then
        return (self._progress.rows_processed - done) / seconds if seconds > 0 else 0.0

    def _eta(self) -> float | None:
        p = self._progress
        rate = self._rate()
        if self._clock() - self._began < _ETA_AFTER_SECONDS or rate <= 0:
            return None
        if p.rows_processed < p.rows_selected * _ETA_AFTER_RATIO:
            return None
        return max(0, p.rows_selected - p.rows_processed) / rate
