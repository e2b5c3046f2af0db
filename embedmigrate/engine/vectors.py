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
    # The sum of squares is finite exactly when every component is: in double precision, in which
    # neither overflows. In single precision it is a quarter of the work, and only ever too strict.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    judged: NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    if not judged.all():
        doubles = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64, casting="unsafe")
        judged = np.isfinite(doubles) & (doubles > 0)
    return judged
