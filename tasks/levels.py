"""Levels: the different values among many, and which of them each one is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_ODD = np.uint64(0x9E3779B97F4A7C15)
"""By which what is made of a text's characters is multiplied (Knuth 1998, section 6.4: the golden ratio spreads it)."""
_WIDEST = 64
"""Characters up to which going through them takes less than making objects of the texts."""


def levels_of(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    """The different values in the order in which they come, and which of them each one is; -1 for a null.

    Args:
        values: shape (n,), numbers, texts or objects.
    """
    if values.dtype.kind == "U" and (found := _of_texts(values)) is not None:
        return found
    if values.dtype.kind not in "iufbO":
        values = values.astype(object)
    places, levels = pd.factorize(values)
    return list(levels), places


def _of_texts(values: NDArray[np.str_]) -> tuple[list[Any], NDArray[np.intp]] | None:
    """The same of texts of one width, such as scikit-learn's answers, without an object for each of them.

    A number is made of the characters of each, and texts of one number are shown to be equal: None where they are not.
    """
    if not (values.size and values.dtype.isnative and 0 < values.dtype.itemsize <= 4 * _WIDEST):
        return None
    characters = np.ascontiguousarray(values).view(np.uint32).reshape(values.size, -1)
    numbers = np.zeros(values.size, dtype=np.uint64)
    for column in characters.T:
        numbers *= _ODD
        numbers += column
    places, found = pd.factorize(numbers)
    rows = np.empty(len(found), dtype=np.intp)
    rows[places] = np.arange(values.size)
    texts = values[rows]
    return (texts.tolist(), places) if np.array_equal(np.take(texts, places), values) else None
