"""What the headers of an answer say: how long to wait, and how much is left."""

import email.utils
import re
import time
from collections.abc import Mapping

from embedmigrate.engine.model import Allowance, Allowances

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+\.?\d*)s)?(?:(\d+\.?\d*)ms)?")


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that the answer asks to wait, in any of the forms in use; None when it does not."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    if (seconds := _number(given)) is not None:
        return seconds
    if given:
        try:
            then = email.utils.parsedate_to_datetime(given).timestamp()
        except ValueError:
            return None
        return max(0.0, then - (time.time() if now is None else now))
    resets = [
        _duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{kind}") == "0"
    ]
    return max((reset for reset in resets if reset is not None), default=None)


def allowances(headers: Mapping[str, str]) -> Allowances:
    """What is left of the provider's limits, as OpenAI, Azure and others write it."""
    return Allowances(_allowance(headers, "requests"), _allowance(headers, "tokens"))


def _allowance(headers: Mapping[str, str], kind: str) -> Allowance | None:
    """None unless all three are there: by itself no one of them says how fast to go."""
    limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
    remaining = _number(headers.get(f"x-ratelimit-remaining-{kind}"))
    given = headers.get(f"x-ratelimit-reset-{kind}", "")
    reset = seconds if (seconds := _number(given)) is not None else _duration(given)
    if not limit or remaining is None or reset is None:
        return None
    return Allowance(limit, min(remaining, limit), reset)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _duration(value: str) -> float | None:
    """`6m0s`, `1.5s`, `20ms` as OpenAI writes them."""
    match = _DURATION.fullmatch(value)
    if not match or not value:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
