"""Numbers, times and money as a person reads them."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.text import Text

from embedmigrate.engine.states import State
from embedmigrate.secrets import redact

if TYPE_CHECKING:  # `status` starts without the model
    from embedmigrate.engine.model import Progress

_MINUTE = 60
_HOUR = 3600
_REASONS = {
    "provider_rate_limit": "provider rate limit",
    "replica_lag": "a replica is behind",
    "wal_rate": "more WAL than --max-wal-rate",
    "throttle_query": "asked by --throttle-query",
    "asked": "asked by embedmigrate stop",
    "sigint": "Ctrl-C",
    "sigterm": "SIGTERM",
}


def number(value: float) -> str:
    return f"{value:,.0f}"


def percent(ratio: float, digits: int = 2) -> str:
    """Floored, so that 100 % means all of them."""
    scale = 10**digits
    return f"{math.floor(ratio * 100 * scale + 1e-9) / scale:.{digits}f} %"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "--"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02}"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"


def money(usd: float | None) -> str:
    if usd is None:
        return "price not known"
    if 0 < usd < 0.01:  # noqa: PLR2004
        return f"${usd:.4f}"
    return f"${usd:,.2f}"


def tokens(count: int) -> str:
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def state(progress: "Progress") -> str:
    """The state with its reason, as one word is never enough."""
    if progress.state is State.THROTTLED:
        left = f", {progress.wait_seconds:.0f} s" if progress.wait_seconds else ""
        return f"throttled ({reason(progress.reason)}{left})"
    if progress.state is State.STOPPING:
        return f"stopping ({plural(progress.in_flight, 'batch', 'batches')} in flight)"
    return str(progress.state)


def reason(code: str | None) -> str:
    return _REASONS.get(code or "", code or "")


def seconds_since(iso: str, now: float) -> float:
    from datetime import datetime  # noqa: PLC0415

    return max(0.0, now - datetime.fromisoformat(iso).timestamp())


def wait_words(code: str, seconds: float | None, attempt: int, *, asked: bool) -> str:
    if code != "provider_rate_limit":
        return f"holding back: {reason(code)}"
    how = " as asked by Retry-After" if asked else ""
    wait = f"waiting {seconds:.0f} s" if seconds is not None else "waiting"
    return f"{reason(code)} (429): {wait}{how}, attempt {attempt}"


def stop_words(*, aborting: bool, in_flight: int, grace: float) -> str:
    flight = plural(in_flight, "batch", "batches")
    if aborting:
        return f"Aborting {flight} in flight; its rows stay pending."
    return (
        f"Stopping: finishing {flight} in flight (up to {grace:.0f} s). Ctrl-C again to abort it."
    )


def pairs(rows: Iterable[tuple[str, str]], *, indent: int = 2) -> Text:
    """Labels and values in two columns."""
    listed = list(rows)
    width = max((len(label) for label, _ in listed), default=0) + 3
    text = Text()
    for n, (label, value) in enumerate(listed):
        text.append(" " * indent + label.ljust(width), style="bold")
        text.append(redact(value) + ("\n" if n < len(listed) - 1 else ""))
    return text
