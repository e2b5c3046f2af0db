"""The one redactor: every string that leaves the process passes through `redact`."""

import re
from typing import Any

_MASK = "***"


class Secret:
    """A value that shows itself only when it is asked to, never by being printed."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __reduce__(self) -> str:
        """Where a pickle ends up (a store, a log, another machine) nobody can tell."""
        raise TypeError("a secret does not leave its process")

    def __repr__(self) -> str:
        return f"Secret({_MASK!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self._value

    def __hash__(self) -> int:
        return hash(self._value)


_KNOWN: set[str] = set()
_PATTERNS = (
    # A password may hold "/" or "@" unescaped: mask up to the last "@" before white space.
    (re.compile(r"(://[^\s:/@]*):[^\s]*@"), r"\1:***@"),
    (re.compile(r"(?i)(\w*password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)"), r"\1***"),
    (re.compile(r"(?i)\b(bearer|api-key:?)\s+\S+"), r"\1 ***"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-***"),
)


def remember(secret: str | None) -> None:
    """Mask this very string from now on, wherever it turns up."""
    if secret and len(secret) >= 4:  # noqa: PLR2004  shorter ones would mask ordinary words
        _KNOWN.add(secret)


def redact(text: str) -> str:
    """`text` without known secrets, URL passwords, bearer tokens and API keys."""
    for secret in sorted(_KNOWN, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_within(value: Any) -> Any:
    """`redact` for each string of a JSON value; on its text a mask could swallow a quote."""
    if isinstance(value, dict):
        return {key: redact_within(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_within(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def hint_of(secret: str) -> str:
    """A key as a person may recognise it: `sk-...9xQ2`; short ones are masked whole."""
    return f"{secret[:3]}...{secret[-4:]}" if len(secret) >= 20 else _MASK  # noqa: PLR2004
