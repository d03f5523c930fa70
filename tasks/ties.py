"""Ties: numbers that are many times in a column, which are counted and need no order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.held import Counts, Floats, Ranked, ranked_levels

_LOOK, _FEW = 64, 4
"""Values that are looked at, and how many different ones may be among them: each costs a pass over the block."""
_SAMPLE = 512
_BLOCK, _BLOCKS = 1 << 15, 1 << 18
_HALVES = 1 << 16
"""Different numbers that two bytes can hold."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Numbers without the one that most of them are.

    Attributes:
        value: That one.
        rows: How many are it.
        others: shape (k,), those that are not, in their order of before.
    """

    value: float
    rows: int
    others: NDArray[np.floating] | NDArray[np.integer]


def apart(values: NDArray[np.floating] | NDArray[np.integer]) -> Apart | None:
    """The numbers that are not the one that fills half of the rows or more; None where none seems to.

    Args:
        values: shape (n,), float or integer; NaN is another number than all.
    """
    if not values.size:
        return None
    looked = np.sort(values[:: max(1, values.size // _SAMPLE)])
    middle = looked[looked.size // 2]  # what fills half of them lies in the middle of their order
    if np.count_nonzero(looked == middle) * 2 < looked.size:
        return None
    others = values[values != middle]
    return Apart(float(middle), int(values.size - others.size), others)


def few(values: NDArray[np.floating] | NDArray[np.integer]) -> Ranked | None:
    """All numbers in their order, where they are but a few different ones; None where they are more.

    Args:
        values: shape (n,), float or integer; NaN is a null.
    """
    if values.dtype == np.float16:
        return _halves(values) if values.size * 8 > _HALVES else None
    if not values.size:
        return None
    known = np.unique(values[:: max(1, values.size // _LOOK)])
    known = known[known == known]  # noqa: PLR0124  NaN is a null
    if not 0 < known.size <= _FEW:
        return None
    rows, nulls, room = [0] * known.size, 0, np.empty(_BLOCK, dtype=np.bool_)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        found, left = room[: block.size], block.size
        for number in range(known.size):
            np.equal(block, known[number, ...], out=found)
            seen = int(np.count_nonzero(found))
            rows[number] += seen
            left -= seen
        if left:
            np.not_equal(block, block, out=found)
            if left != np.count_nonzero(found):
                return None
            nulls += left
    return ranked_levels(known.astype(np.float64), np.array(rows, dtype=np.int64), nulls)


def _halves(values: NDArray[Any]) -> Ranked:
    """Numbers of two bytes, counted by these."""
    rows: Counts = np.zeros(_HALVES, dtype=np.int64)
    bits = values.view(np.uint16)
    for start in range(0, bits.size, _BLOCKS):
        rows += np.bincount(bits[start : start + _BLOCKS], minlength=_HALVES)
    seen = np.flatnonzero(rows)
    known: Floats = seen.astype(np.uint16).view(np.float16).astype(np.float64)
    null = np.isnan(known)
    return ranked_levels(known[~null], rows[seen[~null]], int(rows[seen[null]].sum()))
