"""Ranks: where each value lies among the others, equal values alike. Each sorts once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats


def midranks(values: Floats) -> Floats:
    """Ranks 1..n; equal values share the mean of theirs. Shape (n,)."""
    values = np.ascontiguousarray(values)  # a column of a table is read faster once it is one
    order = np.argsort(values)  # not stable, which is slower: equal values have one rank in any order
    ends = _ends(values[order])
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
    score = np.ascontiguousarray(score)
    order = np.argsort(score)
    right = positive[order]
    ends = _ends(score[order])
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


def _ends(ordered: Floats) -> NDArray[np.intp]:
    """How many of the sorted values are at most as large as the first, the second ... of the different ones."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, ordered.size)
