"""Arrays of vectors: their one type, and which of them may be stored."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""Shape (rows, dimensions); a vector is never a list of Python floats."""


def sound(vectors: Vectors) -> NDArray[np.bool_]:
    """Per row: every component finite, and not all of them zero.

    A zero vector is worse than none: its cosine distance is NaN and an index leaves it out.
    """
    # One pass in double precision: the sum of squares is finite exactly when every component is.
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="unsafe")
    judged: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return judged
