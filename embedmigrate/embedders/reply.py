"""The bytes of an embeddings reply → checked float32 vectors in the order of the texts.

Nothing is taken on trust: servers have answered 200 with an error, with HTML, with fewer vectors,
in another order and with null components (openai-python#2369, ollama#6187, #5713).
"""

import binascii
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pybase64

from embedmigrate.engine.model import Embedded
from embedmigrate.errors import BadReply

if TYPE_CHECKING:
    from embedmigrate.engine.vectors import Vectors


def parse(content: bytes | bytearray, texts: int) -> tuple[Embedded, bool]:
    """The vectors, shape (texts, width), and whether the reply numbered them by `index`.

    A vector that is not a plain list of numbers becomes NaN in its row, for the caller to judge.

    Raises:
        BadReply: Not a set of embeddings that fits the request.
    """
    try:
        reply = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _bad("the reply is not JSON") from None
    if not isinstance(reply, dict) or reply.get("error"):
        raise _bad("the reply is an error in spite of its status")
    items = reply.get("data")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _bad("the reply holds no list of embeddings")
    if len(items) != texts:
        raise _bad(f"{len(items)} embeddings for {texts} texts")
    ordered, numbered = _in_order(items)
    return Embedded(_vectors(ordered), _tokens(reply)), numbered


def _bad(message: str) -> BadReply:
    return BadReply(message, code="bad_reply")


def _in_order(items: list[dict[str, Any]]) -> tuple[list[Any], bool]:
    indexes = [item.get("index") for item in items]
    embeddings = [item.get("embedding") for item in items]
    if all(index is None for index in indexes):
        return embeddings, False
    if indexes == list(range(len(items))) and all(type(index) is int for index in indexes):
        return embeddings, True
    ordered: list[Any] = [None] * len(items)
    seen = set[int]()
    for index, embedding in zip(indexes, embeddings, strict=True):
        if type(index) is not int or not 0 <= index < len(items) or index in seen:
            raise _bad("the embeddings' indexes are not those of the texts")
        seen.add(index)
        ordered[index] = embedding
    return ordered, True


def _vectors(embeddings: list[Any]) -> "Vectors":
    if all(isinstance(e, str) for e in embeddings):
        rows = [_decoded(e) for e in embeddings]
    else:
        rows = [_listed(e) for e in embeddings]
    width = max((row.size for row in rows), default=0)
    if width == 0:
        raise _bad("the embeddings are empty")
    for n, row in enumerate(rows):
        if row.size == 0:
            rows[n] = np.full(width, np.nan, dtype=np.float32)
        elif row.size != width:
            raise _bad("the embeddings differ in width")
    vectors: Vectors = np.stack(rows)
    return vectors


def _decoded(embedding: str) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    try:
        raw = pybase64.b64decode(embedding, validate=True)
        return np.frombuffer(raw, dtype="<f4")
    except (binascii.Error, ValueError):
        return np.empty(0, dtype=np.float32)


def _listed(embedding: Any) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Empty where it is not a list of numbers: strings and null would be cast in silence."""
    if isinstance(embedding, str):
        return _decoded(embedding)
    try:
        plain = np.array(embedding)
    except ValueError:
        return np.empty(0, dtype=np.float32)
    if plain.ndim != 1 or plain.dtype.kind not in "fiu":
        return np.empty(0, dtype=np.float32)
    with np.errstate(over="ignore"):
        return plain.astype(np.float32)


def _tokens(reply: dict[str, Any]) -> int:
    usage = reply.get("usage")
    tokens = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else 0
    return tokens if isinstance(tokens, int) and tokens > 0 else 0
