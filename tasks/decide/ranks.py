"""Ranks: where each value lies among the others, equal values alike. Each sorts once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats

_FEW, _WRONG = 10_000, 1_000
"""Values up to which sorting their places is fast enough; and how many may be put right one by one."""


def midranks(values: Floats) -> Floats:
    """Ranks 1..n; equal values share the mean of theirs. Shape (n,)."""
    order, ordered = _sorted(values)
    ends = _ends(ordered)
    sizes = np.diff(ends, prepend=0)
    ranks = np.empty(values.size)
    ranks[order] = np.repeat(ends - (sizes - 1) / 2, sizes)
    return ranks


def placements(positive: NDArray[np.bool_], score: Floats, hits: int) -> Floats:
    """The share of the other class that each row is on the right side of, equal scores counted half; shape (n,).

    Args:
        positive: shape (n,).
        score: shape (n,), of the positive class.
        hits: How many are positive; not none, and not all.
    """
    order, ordered = _sorted(score)
    right = np.take(positive, order)
    ends = _ends(ordered)
    placement = np.empty(score.size)
    if ends.size == score.size:
        hit, miss = np.flatnonzero(right), np.flatnonzero(~right)
        placement[order[hit]] = (hit - np.arange(hits)) / (score.size - hits)
        placement[order[miss]] = 1 - (miss - np.arange(score.size - hits)) / hits
        return placement
    sizes, upto = np.diff(ends, prepend=0), np.cumsum(right)[ends - 1]
    here = np.diff(upto, prepend=0)
    below, above = (ends - upto) - (sizes - here) / 2, upto - here / 2
    placement[order] = np.where(
        right, np.repeat(below / (score.size - hits), sizes), np.repeat(1 - above / hits, sizes)
    )
    return placement


def _sorted(values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Places of the values from the smallest to the largest, equal ones in any order, and the values in it.

    Whole numbers are sorted three times as fast as places are: each value becomes 31 bits of how far it is between the
    smallest and the largest, with its place behind them. Values that are so near to each other that these bits are the
    same are put right afterwards; where there are many of those, the places are sorted after all.
    """
    # A column of a table is read faster once it is one; the 31 bits below are more than float32 has.
    values = np.ascontiguousarray(values, dtype=np.float64)
    low, high = float(values.min(initial=math.inf)), float(values.max(initial=-math.inf))
    step = (2.0**31 - 1) / (high - low) if high > low else math.inf
    if _FEW < values.size < 2**32 and 0 < step < math.inf and math.isfinite(high - low):
        keys = ((values - low) * step).astype(np.int64) << 32
        keys |= np.arange(values.size)
        keys.sort()
        order = keys & (2**32 - 1)
        ordered = np.take(values, order)
        wrong = np.flatnonzero(ordered[1:] < ordered[:-1])
        if wrong.size <= _WRONG:
            keys >>= 32
            for place in wrong:
                start, stop = np.searchsorted(keys, keys[place]), np.searchsorted(keys, keys[place], side="right")
                order[start:stop] = order[start:stop][np.argsort(values[order[start:stop]])]
                ordered[start:stop] = values[order[start:stop]]
            return order, ordered
    order = np.argsort(values)  # not stable, which is slower
    return order, np.take(values, order)


def _ends(ordered: Floats) -> NDArray[np.intp]:
    """How many of the sorted values are at most as large as the first, the second ... of the different ones."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, ordered.size)
