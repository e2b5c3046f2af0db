"""Which columns of a table look like text that is worth embedding, by name, type and width."""

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

_TEXTS = {"text", "varchar", "bpchar", "citext", "json", "jsonb"}
_LIKELY = ("body", "content", "contents", "text", "description", "title", "data", "summary")
_UNLIKELY = frozenset(
    "id uuid guid key ref email mail url uri link href path slug phone status state type kind role"  # noqa: SIM905  a paragraph is easier to look over
    " lang language locale currency country code color ip zone timezone model provider avatar image"
    " icon mime sku version embedding vector created updated deleted by".split()
)
_SECRET = frozenset(
    "password passwd pwd passphrase secret token hash salt digest credential credentials otp pin"  # noqa: SIM905
    " ssn iban cvv apikey signature".split()
)
"""What is never proposed: a provider would get to see it."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class Described(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def width(self) -> int: ...


C = TypeVar("C", bound=Described)


def rank(columns: Iterable[C]) -> list[C]:
    """Those that hold text, the likeliest first: well-known names, then the widest.

    Addresses, codes and their like only where there is nothing else; secrets never.
    """
    texts = [c for c in columns if c.base in _TEXTS and not _words(c.name) & _SECRET]
    telling = [c for c in texts if likely(c) or not _words(c.name) & _UNLIKELY]
    # Sorting is stable: the table's own order decides a tie.
    return sorted(telling or texts, key=lambda c: (_place(c.name), -c.width))


def likely(column: Described) -> bool:
    """Whether the name alone says so."""
    return _place(column.name) < len(_LIKELY)


def _place(name: str) -> int:
    """The whole name counts more than a word of it: `title` before `content_type`."""
    if name.lower() in _LIKELY:
        return _LIKELY.index(name.lower())
    words = _words(name)
    if words & _UNLIKELY:
        return len(_LIKELY)
    return next((n for n, known in enumerate(_LIKELY) if known in words), len(_LIKELY))


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}
