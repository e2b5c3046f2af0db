"""What is known of models and providers: dimensions, prices, limits, and how hard to push."""

from dataclasses import dataclass, replace
from typing import Literal

from embedmigrate.engine.model import Limits
from embedmigrate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Model:
    """Prices are USD per million tokens, as OpenAI published them in 2026."""

    dimensions: int
    price: float
    text_tokens: int
    shortens: bool


MODELS = {
    "text-embedding-3-small": Model(1536, 0.02, 8192, shortens=True),
    "text-embedding-3-large": Model(3072, 0.13, 8192, shortens=True),
    "text-embedding-ada-002": Model(1536, 0.10, 8192, shortens=False),
}
ALIASES = {
    "ada-002": "text-embedding-ada-002",
    "3-small": "text-embedding-3-small",
    "3-large": "text-embedding-3-large",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a provider starts from when the operator says nothing.

    `concurrency` is the ceiling of `auto` for what is paid by the request; a model that runs here
    has as much of the machine with a few as with many.
    """

    model: str | None
    batch_size: int
    concurrency: int
    limits: Limits
    paid: bool = True


# OpenAI takes 2,048 inputs and 300,000 tokens a request; the latter it estimates as a quarter of
# the UTF-8 bytes (timescale/pgai#728), so that the bytes are what has to stay below 1.2 MB.
_OPENAI = Limits(rows=2048, bytes=1_000_000, tokens=300_000)
_LOCAL = Limits(rows=4096, bytes=4_000_000, tokens=4_000_000)

PROFILES = {
    "openai": Profile("text-embedding-3-small", 128, 32, _OPENAI),
    "azure": Profile("text-embedding-3-small", 128, 32, _OPENAI),
    "local": Profile("wordllama", 256, 2, _LOCAL, paid=False),
    "hash": Profile("hash", 256, 4, _LOCAL, paid=False),
}


def known(model: str | None) -> Model | None:
    return MODELS.get(model or "")


@dataclass(frozen=True, slots=True)
class Choice:
    """A model as one run uses it.

    Attributes:
        dimensions: None where only the loaded model knows (a local folder).
        shortened: Whether `dimensions` has to be asked for.
        price: USD per million tokens; None where it is not known.
        concurrency: Requests in flight at most.
        auto: Whether the run finds out how many up to then pay.
    """

    provider: str
    name: str
    dimensions: int | None
    shortened: bool
    price: float | None
    batch_size: int
    concurrency: int
    auto: bool
    limits: Limits

    def cost(self, tokens: float) -> float | None:
        return None if self.price is None else tokens * self.price / 1_000_000


def choose(
    provider: str,
    model: str | None,
    *,
    dimensions: int | None,
    price: float | None,
    batch_size: int | None,
    batch_bytes: int | None,
    concurrency: int | Literal["auto"],
) -> Choice:
    """Fill what the operator left open from the provider's profile and the model's facts.

    Raises:
        ConfigError: The model cannot give the width that is asked for.
    """
    profile = PROFILES[provider]
    name = ALIASES.get(model or "", model) or profile.model or ""
    facts = known(name) if profile.paid else None
    asked = dimensions or (facts.dimensions if facts else 0)
    if facts and asked != facts.dimensions and not (facts.shortens and asked < facts.dimensions):
        raise ConfigError(
            f"{name} gives {facts.dimensions} dimensions, not {dimensions}",
            code="dimension_mismatch",
            hint="leave --dimensions out, or choose text-embedding-3-large",
        )
    most = replace(
        profile.limits,
        rows=batch_size or profile.batch_size,
        bytes=batch_bytes or profile.limits.bytes,
        text_tokens=facts.text_tokens if facts else None,
    )
    width = dimensions or (facts.dimensions if facts else None)
    if price is None:
        price = (facts.price if facts else None) if profile.paid else 0.0
    return Choice(
        provider,
        name,
        256 if name == "wordllama" else width,
        dimensions is not None and profile.paid,
        price,
        min(most.rows, profile.limits.rows),
        profile.concurrency if concurrency == "auto" else concurrency,
        concurrency == "auto" and profile.paid,
        replace(most, rows=min(most.rows, profile.limits.rows)),
    )
