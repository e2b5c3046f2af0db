"""An HTTP answer that is not 200 → which of the engine's errors it is.

Of the provider's words only its codes are kept: a message may quote the text that was sent.
"""

import re
from collections.abc import Mapping

import orjson

from embedmigrate.embedders.headers import retry_after
from embedmigrate.errors import (
    ProviderError,
    RateLimited,
    RejectedInput,
    RequestTooLarge,
    TransientError,
)

_RETRIED = {408, 409, 425}
_OF_THE_INPUT = {400, 413, 422}
_QUOTA = re.compile(r"insufficient_quota|billing|quota_exceeded|credit")
_TOO_LONG = re.compile(
    r"context.length|maximum.context|too many tokens|(?<!array )too long"
    r"|max(imum)? (input|sequence) length|exceeds? the (model'?s )?(maximum|limit)",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"batch.?size|too many inputs|array too long|maximum.{0,20}(inputs|items)"
    r"|per.request|number of inputs|payload too large|request too large",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    r"(?:is|of|limit:?)\s*(\d+) tokens.*?(?:requested|got|has)\s*(\d+)", re.DOTALL
)


def refusal(status: int, headers: Mapping[str, str], content: bytes, *, who: str) -> ProviderError:
    """The error that the answer means; `who` names provider, model and host for a person."""
    code, words = _error_of(content)
    label = f"HTTP {status}" + (f", {code}" if code else "")
    if (_QUOTA.search(code) and status in {402, 403, 429}) or status == 402:  # noqa: PLR2004
        return ProviderError(
            f"{who} reports no remaining credit ({code or label})",
            code="quota_exhausted",
            facts=("Retrying will not help. What was embedded is saved.",),
            hint="raise the account's limit, then run the same command again",
        )
    if status == 429:  # noqa: PLR2004
        return RateLimited(
            f"{who} rate limit ({label})",
            retry_after=retry_after(headers),
            code="rate_limited",
            status=status,
        )
    if status in _OF_THE_INPUT:
        return _of_the_input(status, code, words)
    if status in _RETRIED or status >= 500:  # noqa: PLR2004
        if headers.get("x-should-retry") == "false":
            return RejectedInput(f"{who} failed ({label})", code="provider_error", status=status)
        wait = retry_after(headers)
        return TransientError(
            f"{who} failed ({label})", retry_after=wait, code="provider_error", status=status
        )
    return _final(status, headers, label, who)


def _final(status: int, headers: Mapping[str, str], label: str, who: str) -> ProviderError:
    if status in {401, 403}:
        return ProviderError(
            f"{who} rejected the API key ({label})",
            code="api_key_rejected",
            hint="check the key, and that it may use this model, with: "
            "embedmigrate generate-all --dry-run --probe",
        )
    if 300 <= status < 400:  # noqa: PLR2004
        host = re.sub(r"^(https?://)?(?:[^/@]*@)?([^/?#]*).*$", r"\2", headers.get("location", "?"))
        return ProviderError(
            f"{who} redirects to {host or 'another path'} ({label}); texts are not sent there",
            code="redirect_refused",
            hint="if that host is right, name it with --base-url",
        )
    if status == 404:  # noqa: PLR2004
        return ProviderError(
            f"{who} does not know the model or the path ({label})",
            code="model_not_found",
            hint="check --model and --base-url (it usually ends in /v1)",
        )
    return ProviderError(
        f"{who} refused the request ({label})",
        code="provider_refused",
        hint="check --base-url and --model with embedmigrate generate-all --dry-run --probe",
    )


def _of_the_input(status: int, code: str, words: str) -> RejectedInput:
    if status == 413 or (_TOO_MANY.search(words) and not _TOO_LONG.search(words)):  # noqa: PLR2004
        return RequestTooLarge("the request is too large", code="request_too_large", status=status)
    if _TOO_LONG.search(words):
        numbers = _NUMBERS.search(words)
        message = (
            f"{numbers[2]} tokens, model limit {numbers[1]}"
            if numbers
            else "longer than the model takes"
        )
        return RejectedInput(message, code="input_too_long", status=status)
    return RejectedInput(
        f"the provider refused the text (HTTP {status}{', ' + code if code else ''})",
        code="input_rejected",
        status=status,
    )


def _error_of(content: bytes) -> tuple[str, str]:
    """A code that is safe to show, and words that are only searched."""
    words = content[:20_000].decode("utf-8", "replace")
    try:
        error = orjson.loads(content).get("error", {})
    except (orjson.JSONDecodeError, AttributeError):
        return "", words
    if not isinstance(error, dict):
        return "", str(error)
    names = [str(name) for name in (error.get("code"), error.get("type")) if name] or [""]
    code = next((name for name in names if _QUOTA.search(name)), names[0])
    return (code if re.fullmatch(r"[\w.-]{1,64}", code) else ""), f"{code} {error.get('message')}"
