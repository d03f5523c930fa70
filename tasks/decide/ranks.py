"""Ranks: where each value lies among the others, equal values alike. Each sorts once."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats

_FEW, _WRONG = 10_000, 1_000
"""Values up to which sorting their places is fast enough; and how many may be put right one by one."""
_SOME, _NEXT = 1_000, 4
"""Values of a sample; and the how manyth neighbour there tells how close together they lie."""
_DIGIT = 16
"""Bits of a digit: of whole numbers so short numpy finds the order without comparing any."""
_HALF = np.int64(0x3FE) << np.int64(52)
"""The bits of 0.5."""
_MOST = 1 << 22
"""Values whose order is held for those who ask again."""


_Sorted = tuple[NDArray[np.intp], Floats]
_KEPT: ContextVar[dict[tuple[object, ...], tuple[Floats, _Sorted]] | None] = ContextVar("_KEPT", default=None)


@contextmanager
def sorted_once() -> Iterator[None]:
    """Within it a column that is asked about again is not sorted again; nobody may change one meanwhile.

    The first columns are held until its end, each with its order, up to some million values: 16 bytes of each.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


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
    right, ends = np.take(positive, order), _ends(ordered)
    if ends.size == score.size:
        return _of_one_kind(right, order, hits)
    sizes, tied = np.diff(ends, prepend=0), order
    if 2 * ends.size < score.size:
        placement = np.empty(score.size)
    else:
        # Most scores are one of a kind: what lies below each of them is counted without looking for its equals.
        placement = _of_one_kind(right, order, hits)
        groups = np.flatnonzero(sizes > 1)
        ends, sizes = ends[groups], sizes[groups]
        tied = order[_rows(ends, sizes)]
    known = np.cumsum(right)
    upto = known[ends - 1]
    here: NDArray[np.intp] = upto - np.where(ends > sizes, known[ends - sizes - 1], 0)
    below, above = (ends - upto) - (sizes - here) / 2, upto - here / 2
    placement[tied] = np.where(
        np.take(positive, tied), np.repeat(below / (score.size - hits), sizes), np.repeat(1 - above / hits, sizes)
    )
    return placement


def _of_one_kind(right: NDArray[np.bool_], order: NDArray[np.intp], hits: int) -> Floats:
    """The same where no two scores are equal; ``right`` is in the order of the scores."""
    placement = np.empty(order.size)
    hit, miss = np.flatnonzero(right), np.flatnonzero(~right)
    placement[order[hit]] = (hit - np.arange(hits)) / (order.size - hits)
    placement[order[miss]] = 1 - (miss - np.arange(order.size - hits)) / hits
    return placement


def _rows(ends: NDArray[np.intp], sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Places of the rows of some groups, one group after the other."""
    total = np.cumsum(sizes)
    starts: NDArray[np.intp] = np.repeat(ends - total, sizes)
    return starts + np.arange(starts.size)


def _sorted(values: Floats) -> _Sorted:
    """Places of the values from the smallest to the largest, equal ones in any order, and the values in it."""
    kept = _KEPT.get()
    if kept is None:
        return _sort(values)
    where = values.__array_interface__["data"], values.strides, values.shape, values.dtype
    if where in kept:
        return kept[where][1]
    found = _sort(values)
    if values.size + sum(column.size for column, _ in kept.values()) <= _MOST:
        for array in found:
            array.flags.writeable = False
        kept[where] = values, found  # the column too, or another one could come to lie where it was
    return found


def _sort(values: Floats) -> _Sorted:
    """As :func:`_sorted`.

    Each value becomes a whole number of a few digits, and the places are sorted by the lowest digit first and by the
    highest last (a radix sort), in half the time that comparing takes. Two digits are mostly enough, of how far a value
    is between the smallest and the largest; or, where many lie together, of how far its bits are. Where a sample says
    that they are not, there are three or four. Values that these do not tell apart are put right afterwards.
    """
    # A column of a table is read faster once it is one; the digits below are more than float32 has.
    values = np.ascontiguousarray(values, dtype=np.float64)
    if values.size > _FEW:
        if _in_order(values):
            return np.arange(values.size), values[:]  # a view: what is kept is made read-only
        for keys, digits in _keys(values):
            order = _by_digits(keys, digits)
            ordered = np.take(values, order)
            wrong = np.flatnonzero(ordered[1:] < ordered[:-1])
            if wrong.size <= _WRONG:
                _put_right(values, keys, order, ordered, wrong)
                return order, ordered
    order = np.argsort(values)  # not stable, which is slower; also of NaN
    return order, np.take(values, order)


def _in_order(values: Floats) -> bool:
    some = values[:: values.size // _SOME]
    return not np.any(some[1:] < some[:-1]) and bool(np.all(values[1:] >= values[:-1]))


def _keys(values: Floats) -> Iterator[tuple[NDArray[np.int64], int]]:
    """(whole numbers in the order of the values, how many digits they have), the quicker first; none for NaN."""
    low, high = float(values.min()), float(values.max())
    if math.isnan(low) or low == high:
        return
    some = np.sort(values[:: values.size // _SOME])
    step = (2.0 ** (2 * _DIGIT) - 1) / (high - low)
    if 0 < step < math.inf and _together(_apart(some) * step, values.size) <= _WRONG:
        yield ((values - low) * step).astype(np.int64), 2
    least, most = (int(end) for end in whole_numbers(np.array([low, high])))  # of Python's, so their distance is right
    apart = _apart(whole_numbers(some)).view(np.uint64)  # without a sign no distance is too large
    for digits in (2, 3, 4):
        few = max(0, (most - least).bit_length() - digits * _DIGIT)
        if not few or _together(apart / 2.0**few, values.size) <= _WRONG:
            yield (whole_numbers(values) >> few) - (least >> few), digits
        if not few:
            return


def _apart(some: NDArray[Any]) -> NDArray[Any]:
    """Of sorted numbers: how far each is from one of the next."""
    apart: NDArray[Any] = some[_NEXT:] - some[:-_NEXT]
    return apart


def _together(apart: Floats, rows: int) -> float:
    """About how many pairs of different values are less than 1 apart, told by a sample.

    Two of n values with the density f are so near with probability sum(f^2), and f is told by how far the neighbours in
    the sample are apart (Loftsgaarden and Quesenberry 1965).

    Args:
        apart: Of the sample, see :func:`_apart`.
        rows: n.
    """
    density = _NEXT / apart.size / np.maximum(apart[apart > 0], 1)
    return rows * rows / 2 * float(np.sum(density)) / apart.size


def whole_numbers(values: Floats) -> NDArray[np.int64]:
    """A whole number for each, ordered as they are and equal where they are; shape (n,), none of them NaN.

    They tell small numbers apart however small they are; and where all lie between 0 and 1, also those just below 1.
    """
    if values.min() >= 0 and values.max() <= 1:
        # Of a number from 1/2 to 1 the distance to 1 is exact (Sterbenz 1974).
        bits = np.minimum(values, 1 - values).view(np.int64)
        bits &= np.int64(2**63 - 1)  # 0 and -0 are equal
        return np.subtract(2 * _HALF, bits, out=bits, where=values > 0.5)
    # IEEE 754, section 5.10: numbers are ordered as their bits are, negative ones the other way round.
    bits = (values + 0.0).view(np.int64)  # so -0 becomes 0
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))


def _by_digits(keys: NDArray[np.int64], digits: int) -> NDArray[np.intp]:
    """Places of the keys from the smallest to the largest, equal ones in the order in which they came."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for place in range(1, digits):
        digit = (keys >> (_DIGIT * place)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def _put_right(
    values: Floats, keys: NDArray[np.int64], order: NDArray[np.intp], ordered: Floats, wrong: NDArray[np.intp]
) -> None:
    """Sort the values of one key among themselves, wherever one of them is not smaller than the next."""
    for place in wrong:
        key = keys[order[place]]
        start = bisect_left(order, key, hi=place, key=keys.__getitem__)
        stop = bisect_right(order, key, lo=place, key=keys.__getitem__)
        order[start:stop] = order[start:stop][np.argsort(values[order[start:stop]])]
        ordered[start:stop] = values[order[start:stop]]


def _ends(ordered: Floats) -> NDArray[np.intp]:
    """How many of the sorted values are at most as large as the first, the second ... of the different ones."""
    return np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, ordered.size)
