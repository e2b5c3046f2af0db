"""A row's source → the text that is embedded; what counts as blank, in SQL and in Python alike."""

import json
from collections.abc import Iterator
from typing import Any

BLANK = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
    # Not white space by Unicode's definition, yet nothing to embed either: zero-width marks.
    "\u200b\u200c\u200d\u2060\ufeff"
)
"""Every character of `str.isspace`, and the invisible ones; a text of only these is blank."""


def blank(text: str) -> bool:
    return not text.strip(BLANK)


def readable(document: str) -> str:
    """A JSON document as lines `path: value`, in its own key order; numbers keep their spelling.

    Lists of plain values are joined by commas, empty values are dropped; the same on every run.
    """
    return "\n".join(_lines(json.loads(document, parse_float=str, parse_int=str), ""))


def _lines(value: Any, path: str) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _lines(inner, f"{path} {key}".strip())
        case list():
            plain = [_plain(item) for item in value if not isinstance(item, dict | list)]
            if joined := ", ".join(text for text in plain if text):
                yield _line(path, joined)
            for item in value:
                if isinstance(item, dict | list):
                    yield from _lines(item, path)
        case _:
            if text := _plain(value):
                yield _line(path, text)


def _line(path: str, text: str) -> str:
    return f"{path}: {text}" if path else text


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip(BLANK)
