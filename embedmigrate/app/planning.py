"""Counts, samples and prices the rows that a run would take, before the first request."""

import json
import math
import statistics
from decimal import Decimal

from embedmigrate.app.opening import Opening
from embedmigrate.app.slowdown import writing_seconds
from embedmigrate.app.values import Counts, Estimate
from embedmigrate.embedders.tokens import Sampled, TokenCounter, token_counter
from embedmigrate.engine.model import Key
from embedmigrate.errors import BudgetError, ConfigError
from embedmigrate.postgres import census
from embedmigrate.postgres.census import Census

_REQUEST_SECONDS = 0.4
"""A guess at one request, for the estimate only; every bound that is known replaces it."""
_USUAL = 8
"""A guess at the requests in flight where the run finds out how many pay."""

_STRIDE = 10


def counter_of(opening: Opening) -> TokenCounter:
    return token_counter(opening.choice.name)


def sampler(opening: Opening, counter: TokenCounter) -> TokenCounter:
    """Counts most texts by their bytes; a budget is kept by numbers that are never too low."""
    if opening.settings.max_cost is not None:
        return counter
    return Sampled(counter, opening.choice.limits.text_tokens)


def counts_of(taken: Census) -> Counts:
    return Counts(
        taken.total,
        taken.without_text,
        taken.eligible,
        taken.embedded,
        taken.missing,
        taken.stale,
        taken.exact,
    )


async def count(opening: Opening) -> Counts:
    return counts_of(await census.take(opening.database, opening.target))


async def select(opening: Opening, counts: Counts, after: Key | None) -> int:
    """Rows that the run would take, within `--limit`."""
    s = opening.settings
    if not s.force:
        rows = counts.missing + counts.stale
    else:
        rows = await census.selected(opening.database, opening.target, after=after, force=True)
    return min(rows, s.limit) if s.limit else rows


async def estimate(opening: Opening, counter: TokenCounter, counts: Counts, rows: int) -> Estimate:
    """Tokens from a sample of the texts; requests, cost and time from the tokens."""
    s, choice = opening.settings, opening.choice
    texts = (
        await census.sample_texts(
            opening.database, opening.target, rows=rows, total=counts.total, force=s.force
        )
        if rows
        else []
    )
    limit = choice.limits.text_tokens
    # In strides: a counter that goes by the first few shall have them from all over the sample.
    sizes = [counter(text) for n in range(_STRIDE) for text in texts[n::_STRIDE]]
    kept = [min(size, limit) if limit else size for size in sizes]
    mean = statistics.fmean(kept) if kept else 0.0
    tokens = round(mean * rows)
    error = 0.0
    if len(kept) > 1 and len(kept) < rows and mean:
        error = 1.96 * statistics.stdev(kept) / math.sqrt(len(kept)) / mean
    per_request = choice.batch_size
    if mean:
        per_request = max(1, min(per_request, int(choice.limits.tokens / mean)))
    requests = math.ceil(rows / per_request)
    usual, bound = _duration(opening, requests, tokens)
    writing = writing_seconds(opening.burden, opening.target.dimensions, rows)
    return Estimate(
        rows=rows,
        tokens=tokens,
        error=error,
        sampled=len(kept),
        counter=counter.name,
        requests=requests,
        seconds=max(usual, writing),
        bound_by="index" if writing > usual else bound,
        cost_usd=choice.cost(tokens),
        price=choice.price,
        seconds_without_index=usual,
    )


def _duration(opening: Opening, requests: int, tokens: int) -> tuple[float, str]:
    s = opening.settings
    workers = _USUAL * max(1, opening.actors) if opening.choice.auto else opening.concurrency
    bounds = {
        "latency": requests * _REQUEST_SECONDS / workers,
        "delay": requests * s.delay / 1000 / workers if s.delay else 0.0,
        "rpm": requests / s.rpm * 60 if s.rpm else 0.0,
        "tpm": tokens / s.tpm * 60 if s.tpm else 0.0,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    return bounds[bound], bound


def check_budget(opening: Opening, planned: Estimate) -> None:
    """Is the estimate within `--max-cost`?

    Raises:
        BudgetError: It is above.
        ConfigError: The price is not known, so that no budget could be kept.
    """
    budget = opening.settings.max_cost
    if budget is None:
        return
    if planned.cost_usd is None:
        raise ConfigError(
            f"--max-cost cannot be kept: the price of {opening.choice.name} is not known",
            code="price_unknown",
            hint="--price USD, per million tokens",
        )
    if planned.cost_usd > budget:
        raise BudgetError(
            f"estimate ${_money(planned.cost_usd)} is above --max-cost {_money(budget)}",
            code="over_budget",
            facts=("Nothing was sent.",),
            hint="raise --max-cost, or take fewer rows with --limit",
            details={"estimated_cost_usd": planned.cost_usd, "max_cost_usd": budget},
        )


def _money(usd: float) -> str:
    """Cents are enough for what is not next to nothing."""
    return f"{usd:.2f}" if usd >= 1 else f"{Decimal(f'{usd:.3g}'):f}"


def parse_key(given: str, columns: int) -> Key:
    """A key as the command line writes it: plain, or a JSON list for a composite one."""
    if columns > 1 and given.lstrip().startswith("["):
        try:
            values = json.loads(given)
        except ValueError:
            values = None
        if isinstance(values, list):
            return tuple(str(value) for value in values)
    return (given,)
