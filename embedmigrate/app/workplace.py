"""The worker of a run with its model and its sink: in this process, or in an actor."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from embedmigrate.app import planning
from embedmigrate.app.opening import Opening
from embedmigrate.config.elsewhere import Portable
from embedmigrate.embedders import open_embedder
from embedmigrate.embedders.tokens import TokenCounter
from embedmigrate.engine.batching import Intake, OnTooLong
from embedmigrate.engine.parts import Rows, cut_off
from embedmigrate.engine.ports import Embedder, Pacer
from embedmigrate.engine.worker import Patience, Worker
from embedmigrate.errors import TargetError
from embedmigrate.executors.messages import Notice, Workplace
from embedmigrate.postgres.sinks import open_sink


@dataclass(frozen=True, slots=True)
class Workshop:
    """Opens a worker in the process where it is called; travels there as a pickle."""

    given: Portable
    run_id: str

    @contextlib.asynccontextmanager
    async def __call__(self, pacer: Pacer, notice: Notice) -> AsyncIterator[Workplace]:
        """Check everything that the driver has checked, from this process's own point of view.

        Raises:
            EmbedMigrateError: What a run here would end with.
        """
        async with Opening(self.given.completed(), run_id=self.run_id) as opening:
            await opening.everything()
            counter = planning.counter_of(opening)
            intake = intake_of(opening, planning.sampler(opening, counter))
            async with open_worker(opening, pacer, counter, intake, notice) as worker:
                yield Workplace(worker, opening.fingerprint())


def intake_of(opening: Opening, counter: TokenCounter) -> Intake:
    policy = OnTooLong(opening.settings.on_too_long)
    return Intake(counter, counter.truncate, counter.exact, policy)


@contextlib.asynccontextmanager
async def open_worker(
    opening: Opening, pacer: Pacer, counter: TokenCounter, intake: Intake, notice: Notice
) -> AsyncIterator[Worker]:
    """Load the model and put it between the pacer and the sink.

    Raises:
        ConfigError: A library or a model is missing.
        TargetError: The model's width is not the column's.
    """
    s, text_tokens = opening.settings, opening.choice.limits.text_tokens
    embedder = open_embedder(
        opening.choice, opening.access, width=opening.target.dimensions, notice=notice
    )
    try:
        check_width(embedder, opening)
        yield Worker(
            embedder,
            open_sink(opening.database, opening.target),
            pacer,
            limits=opening.choice.limits,
            admit=lambda row: intake.admit(row, text_tokens),
            patience=Patience(s.retries, s.max_wait),
            answered=_suspicion(counter, notice) if counter.exact else None,
        )
    finally:
        await embedder.aclose()


def _suspicion(counter: TokenCounter, notice: Notice) -> Callable[[Rows, int, int], None]:
    """Looks whether the provider cuts texts off, until it has been said once."""
    said = False

    def answered(rows: Rows, charged: int, saved: int) -> None:
        nonlocal said
        if not said and (words := cut_off(rows, charged, saved, counter)):
            said = True
            notice("silent_truncation", words)

    return answered


def check_width(embedder: Embedder, opening: Opening) -> None:
    """A model that only shows its width when it is loaded.

    Raises:
        TargetError: It is not the column's.
    """
    t = opening.target
    if embedder.dimensions != t.dimensions:
        raise TargetError(
            "vector dimensions do not match",
            code="dimension_mismatch",
            facts=(
                f"{t.place} is {t.vector_type}({t.dimensions}); "
                f"{opening.choice.name} gives {embedder.dimensions}. Nothing was sent or written.",
            ),
            hint=opening.wider(embedder.dimensions),
        )
