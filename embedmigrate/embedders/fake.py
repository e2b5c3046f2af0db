"""Vectors without a model, for tests and benchmarks: equal texts are equal, others are random."""

from collections.abc import Sequence
from hashlib import sha256, shake_256

from embedmigrate.engine.model import Embedded


class HashEmbedder:
    """The same on every machine and release, which NumPy's generators do not promise."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Unit vectors; a quarter of the UTF-8 bytes stands for the tokens."""
        import numpy as np  # noqa: PLC0415

        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        content = b"".join(self._bytes(text) for text in encoded)
        # Half a step off zero: no component, and so no vector, can vanish.
        vectors = np.frombuffer(content, "<i2").astype(np.float32) + np.float32(0.5)
        vectors = vectors.reshape(len(texts), self.dimensions)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embedded(vectors, sum(-(-len(text) // 4) for text in encoded))

    async def aclose(self) -> None:
        pass

    def _bytes(self, text: bytes) -> bytes:
        return shake_256(sha256(text).digest()).digest(2 * self.dimensions)
