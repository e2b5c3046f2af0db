"""Vectors of texts that this run has embedded: the same text is not bought twice."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from embedmigrate.engine.model import Row
from embedmigrate.engine.vectors import Vectors

_MOST_BYTES = 8 * 1024 * 1024
"""1,300 vectors of 1,536 dimensions: what repeats often stays, and memory stays flat."""
ENTRY_BYTES = 400
"""What Python adds to each: the array's head, the digest, a place in the table. With eight
dimensions that is most of it: half a million vectors without it took 200 MB."""


class Memory:
    """The vectors used last, by the digests of their rows: one source makes one text.

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

    def keep(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Sound vectors only; shape (len(rows), dimensions)."""
        for row, vector in zip(rows, vectors, strict=True):
            if row.digest not in self._kept:
                self._kept[row.digest] = vector.copy()  # a part would keep the whole reply
                self._bytes += vector.nbytes + ENTRY_BYTES
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes + ENTRY_BYTES


class Question:
    """Rows of a request without those whose text need not be sent.

    Attributes:
        texts: What is left to ask for, each once.
        saved: Texts that need not be sent.
    """

    def __init__(self, memory: Memory, rows: Sequence[Row]) -> None:
        self._digests = [row.digest for row in rows]
        self._known = {
            digest: vector
            for digest in self._digests
            if (vector := memory.recall(digest)) is not None
        }
        asked = {row.digest: row.text for row in rows if row.digest not in self._known}
        self._asked = list(asked)
        self.texts = list(asked.values())
        self.saved = len(rows) - len(asked)

    def answer(self, vectors: Vectors | None = None) -> Vectors:
        """Vectors of all rows in their order, from those of the texts that were sent.

        Args:
            vectors: Shape (len(self.texts), dimensions); None where nothing had to be sent.
        """
        if vectors is None:
            return np.stack([self._known[digest] for digest in self._digests])
        if not self.saved:
            return vectors
        found = self._known | dict(zip(self._asked, vectors, strict=True))
        return np.stack([found[digest] for digest in self._digests])
