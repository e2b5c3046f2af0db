"""Vectors of texts that this run has embedded: the same text is not bought twice."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from embedmigrate.engine.vectors import Vectors, sound

_MOST_BYTES = 16 * 1024 * 1024
"""2,500 vectors of 1,536 dimensions: what repeats often stays, and memory stays flat."""
ENTRY_BYTES = 400
"""What Python adds to each: the array's head, the digest, a place in the table. With eight
dimensions that is most of it: half a million vectors without it took 200 MB."""


class Memory:
    """The vectors used last, by the SHA-256 of their texts.

    Texts that are on their way in several batches at once are not known yet: each of these may
    send them.

    Args:
        most_bytes: Of vectors, with what Python adds.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()

    def recall(self, digest: bytes) -> Vectors | None:
        """Shape (dimensions,)."""
        vector = self._kept.get(digest)
        if vector is not None:
            self._kept.move_to_end(digest)
        return vector

    def keep(self, digest: bytes, vector: Vectors) -> None:
        if digest in self._kept:
            return
        self._kept[digest] = vector.copy()  # a part of a reply would keep the whole of it
        self._bytes += vector.nbytes + ENTRY_BYTES
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes + ENTRY_BYTES


class Question:
    """Texts of a request without those that need not be sent.

    Attributes:
        texts: What is left to ask for, each once.
        saved: Texts that need not be sent.
    """

    def __init__(self, memory: Memory, texts: Sequence[str]) -> None:
        self._memory = memory
        self._digests = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest() for t in texts]
        self._known = {
            digest: vector
            for digest in self._digests
            if (vector := memory.recall(digest)) is not None
        }
        pairs = zip(self._digests, texts, strict=True)
        asked = {digest: text for digest, text in pairs if digest not in self._known}
        self._asked = list(asked)
        self.texts = list(asked.values())
        self.saved = len(texts) - len(asked)

    def answer(self, vectors: Vectors | None = None) -> Vectors:
        """Vectors of all texts in their order, from those of the ones that were sent.

        Args:
            vectors: Shape (len(self.texts), dimensions); None where nothing had to be sent.
        """
        if vectors is None:
            return np.stack([self._known[digest] for digest in self._digests])
        for digest, vector, good in zip(self._asked, vectors, sound(vectors), strict=True):
            if good:
                self._memory.keep(digest, vector)
        if not self.saved:
            return vectors
        found = self._known | dict(zip(self._asked, vectors, strict=True))
        return np.stack([found[digest] for digest in self._digests])
