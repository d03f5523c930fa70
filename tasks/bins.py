"""Bins: numbers counted between edges, and beside the steps of a distribution."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.held import Counts, Floats, Plain, Ranked, alike, ranked, whole
from tasks.lattice import lattice
from tasks.records import Steps
from tasks.selection import Placed, at_ranks
from tasks.ties import apart, few

_BLOCK = 1 << 15
"""Rows counted at a time: they stay in the processor's cache while they are held against every edge."""

_FEW = 1 << 14
"""Rows that are sorted sooner than a table is made for them; for a reference with steps, four times as many."""

_SAMPLE, _SLOW, _QUICK = 1 << 15, 20e-9, 10e-9
"""Values that are sorted to see how long it takes; seconds a value beyond which a lattice takes less, and up to which
even nine deciles are found sooner by sorting."""

_MOST = float(np.finfo(np.float64).max)

STEPS = 1024
"""Between two of them lies less than a thousandth of the reference, so no distance is missed by more than that."""

_DECILES, _THOUSANDTHS = np.arange(1, 10) / 10, np.arange(STEPS + 1) / STEPS


@dataclass(slots=True)
class Filled:
    """Numbers counted in bins.

    Attributes:
        counts: shape (k + 1,).
        nulls: Rows without a value.
        low: The smallest finite value, or infinity.
        high: The largest one, or minus infinity.
        infinite: How many of the numbers are.
    """

    counts: Counts
    nulls: int
    low: float = math.inf
    high: float = -math.inf
    infinite: int = 0


@dataclass(frozen=True, slots=True)
class Outline:
    """A reference, and between which numbers it is counted.

    Attributes:
        edges: See :func:`edges_of`.
        filled: The reference counted between them.
        steps: See :func:`steps_of`; None: not asked for.
    """

    edges: tuple[float, ...]
    filled: Filled
    steps: Steps | None

    @property
    def points(self) -> tuple[float, ...] | None:
        """Where the steps are."""
        return None if self.steps is None else self.steps.at


def outline(values: NDArray[Any], *, ks: bool) -> Outline | None:
    """What the order of the numbers would tell, found without it; None where ordering them is quicker.

    Args:
        values: shape (n,), float or integer; NaN is a null. Whole numbers that can be counted one by one have been
            (see :func:`tasks.held.whole`).
        ks: Steps are wanted too.
    """
    if (order := few(values)) is not None:
        edges = edges_of(order)
        return Outline(edges, in_order(order, edges), steps_of(order) if ks else None) if edges else None
    if values.size < (4 * _FEW if ks else _FEW) or not _sorts_slowly(_SLOW if ks else _QUICK):
        return None
    finite, ends = values, [0, 0]
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        finite = values[np.isfinite(values)]
        ends = [int(np.count_nonzero(values == end)) for end in (-np.inf, np.inf)]
        if not finite.size or finite.size < _FEW:
            return None
        low, high = finite.min(), finite.max()
    ranks = _ranks(finite.size, _DECILES)
    placed = at_ranks(finite, np.concatenate((ranks, _ranks(finite.size, _THOUSANDTHS))) if ks else ranks)
    edges = _edges(placed.values[: ranks.size], float(low))
    # Nothing lies between a value and the edge just below it.
    known = np.concatenate((placed.values[: ranks.size], _beneath(placed.values[: ranks.size])))
    rows = np.concatenate((placed.upto[: ranks.size], placed.below[: ranks.size]))
    known, first = np.unique(known, return_index=True)
    upto = rows[first][np.searchsorted(known, edges)] + ends[0]
    present = finite.size + sum(ends)
    counts = np.diff(upto, prepend=0, append=present)
    filled = Filled(counts, int(values.size) - present, float(low), float(high), infinite=sum(ends))
    return Outline(edges, filled, _stepped(placed, ranks.size, ends, finite.size) if ks else None)


def _stepped(placed: Placed, first: int, ends: list[int], finite: int) -> Steps:
    """The steps of a reference from what stands at its ranks.

    Args:
        placed: m of the finite values, of the places from ``first`` on the lowest and the highest among them.
        first: The place of the first one that is a step.
        ends: Rows that hold minus infinity, and infinity.
        finite: Rows that hold neither.
    """
    known, where = np.unique(placed.values[first:], return_index=True)
    points = _points(known, ends[0] > 0, ends[1] > 0)
    below, upto = placed.below[first:][where], placed.upto[first:][where]
    if points[0] != known[0]:
        below, upto = np.append(0, below), np.append(0, upto)
    if points[-1] != known[-1]:
        below, upto = np.append(below, finite), np.append(upto, finite)
    return Steps(at=points, below=tuple((below + ends[0]).tolist()), upto=tuple((upto + ends[0]).tolist()))


def edges_of(values: Ranked) -> tuple[float, ...]:
    """The deciles of the finite values, and a bin of its own for a value that fills a decile or more."""
    finite = _finite(values)
    return _edges(_quantiles(finite, _DECILES), float(finite.values[0])) if finite.present else ()


def steps_of(values: Ranked) -> Steps:
    """The distribution function of the reference at 1,024 of its quantiles, and just before each."""
    finite = _finite(values)
    points = _quantiles(finite, _THOUSANDTHS) if finite.present else np.zeros(0)
    held = values.values
    return steps_at(values, _points(points, bool(np.isneginf(held[:1]).any()), bool(np.isposinf(held[-1:]).any())))


def _edges(deciles: Floats, lowest: float) -> tuple[float, ...]:
    # Edges are values of the data themselves, so that a repeated value never lies astride of one.
    unique, times = np.unique(deciles, return_counts=True)
    heavy = unique[(times > 1) | (unique == lowest)]
    below = _beneath(heavy)
    return _without_minus(np.union1d(unique, below[np.isfinite(below)]))


def _beneath(values: Floats) -> Floats:
    with np.errstate(over="ignore"):  # beneath the lowest of all is minus infinity
        below: Floats = np.nextafter(values, -np.inf)
    return below


def _points(quantiles: Floats, lowest: bool, highest: bool) -> tuple[float, ...]:
    """Where the reference holds infinities, others may have values between them and its last finite one."""
    ends = [-_MOST] * lowest + [_MOST] * highest
    return _without_minus(np.unique([*quantiles, *ends]))


def _without_minus(values: Floats) -> tuple[float, ...]:
    """Which of both zeros stands first among equals depends on how they were found, and both are told as one."""
    return tuple((values + 0.0).tolist())


def steps_at(values: Ranked, points: tuple[float, ...]) -> Steps:
    """The distribution function of other rows at the same points."""
    at = np.asarray(points, dtype=np.float64)
    below, upto = values.below_and_upto(at)
    return Steps(at=points, below=tuple(below.tolist()), upto=tuple(upto.tolist()))


def _finite(values: Ranked) -> Ranked:
    bounds = alike(np.array([-np.inf, np.inf]), values.values.dtype)
    first = np.searchsorted(values.values, bounds[0], side="right")
    last = np.searchsorted(values.values, bounds[1], side="left")
    ends = values.ends
    if ends is not None:
        ends = ends[first:last] - (ends[first - 1] if first else 0)
    return Ranked(values.values[first:last], ends, 0)


def _quantiles(finite: Ranked, shares: Floats) -> Floats:
    """Those of numpy's ``inverted_cdf``: values that occur, and never one between two."""
    return finite.at(_ranks(finite.present, shares))


def _ranks(size: int, shares: Floats) -> Counts:
    return np.ceil(size * shares - 1).clip(0).astype(np.int64)


def fill(values: Plain | Ranked, edges: Sequence[float]) -> Filled:
    """Count numbers between edges; a number that is an edge belongs to the bin below it."""
    order = values if isinstance(values, Ranked) else whole(values.values)
    return _block_by_block(values.values, edges) if order is None else in_order(order, edges)


def fill_and_step(values: Plain | Ranked, edges: Sequence[float], points: tuple[float, ...]) -> tuple[Filled, Steps]:
    """The same, and the distribution function of the numbers at points (see :func:`steps_at`)."""
    order = values if isinstance(values, Ranked) else whole(values.values)
    if order is None:
        order = few(values.values)
    if order is None:
        worth_it = values.values.size >= _FEW and _sorts_slowly()
        found = _on_lattice(values.values, edges, points) if worth_it else None
        if found is not None:
            return found
        order = ranked(values.values)  # in their order everything else costs nothing
    return in_order(order, edges), steps_at(order, points)


def _sorts_slowly(limit: float = _SLOW) -> bool:
    """Whether this processor takes longer to sort than so many seconds a value; the other ways tell the same."""
    return _sorting() > limit


@cache
def _sorting() -> float:
    """Seconds a value that sorting takes here.

    numpy has several ways to sort, from 6 to 60 ns a value, and no way to ask which one it takes.
    """
    values = np.random.default_rng(0).random(_SAMPLE)
    took = []
    for _ in range(3):
        begun = time.thread_time()
        np.sort(values)
        took.append(time.thread_time() - begun)
    return min(took) / _SAMPLE


def _on_lattice(values: NDArray[Any], edges: Sequence[float], points: tuple[float, ...]) -> tuple[Filled, Steps] | None:
    """None where these points take an order of all numbers."""
    limits, at = np.asarray(edges, dtype=np.float64), np.asarray(points, dtype=np.float64)
    # The edge just below a value that fills a bin would share its cell; nothing lies between the two.
    with np.errstate(over="ignore"):
        above = np.nextafter(limits, np.inf)
    beneath = np.isin(above, limits)
    every = np.unique(np.concatenate((limits[~beneath], above[beneath], at)))
    made = lattice(every)
    if made is None:
        return None
    common = apart(values)
    below, upto = made.below_and_upto(values if common is None else common.others)
    if common is not None:
        below, upto = below + common.rows * (every > common.value), upto + common.rows * (every >= common.value)
    filled, room = Filled(np.zeros(0, dtype=np.int64), 0), np.empty(_BLOCK, dtype=np.bool_)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        _look(block, room[: block.size], filled)
    places = np.searchsorted(every, np.where(beneath, above, limits))
    bins = np.where(beneath, below[places], upto[places])
    filled.counts = np.diff(bins, prepend=0, append=values.size - filled.nulls).astype(np.int64)
    places = np.searchsorted(every, at)
    return filled, Steps(at=points, below=tuple(below[places].tolist()), upto=tuple(upto[places].tolist()))


def in_order(values: Ranked, edges: Sequence[float]) -> Filled:
    """Count numbers in their order between edges, see :func:`fill`."""
    upto, finite = values.upto(np.asarray(edges, dtype=np.float64)), _finite(values)
    filled = Filled(np.diff(upto, prepend=0, append=values.present), values.nulls)
    filled.infinite = values.present - finite.present
    if finite.present:
        filled.low, filled.high = float(finite.values[0]), float(finite.values[-1])
    return filled


def _block_by_block(values: NDArray[Any], edges: Sequence[float]) -> Filled:
    """Counting ``x <= edge`` edge by edge is several times faster than a search per value; NaN is <= nothing."""
    limits = alike(np.asarray(edges, dtype=np.float64), values.dtype)
    # Arrays without a dimension: a number would be made into one again for every block.
    each = [limits[number, ...] for number in range(limits.size)]
    upto, room = [0] * len(each), np.empty(_BLOCK, dtype=np.bool_)
    filled = Filled(np.zeros(0, dtype=np.int64), 0)
    for start in range(0, values.size, _BLOCK):
        block = np.ascontiguousarray(values[start : start + _BLOCK], dtype=limits.dtype)
        found = room[: block.size]
        for number, limit in enumerate(each):
            np.less_equal(block, limit, found)
            upto[number] += int(np.count_nonzero(found))
        _look(block, found, filled)
    filled.counts = np.diff(upto, prepend=0, append=values.size - filled.nulls).astype(np.int64)
    return filled


def _look(block: NDArray[Any], found: NDArray[np.bool_], filled: Filled) -> None:
    """Nulls and range of a block, without looking for nulls and infinities where there are none."""
    low, high = np.minimum.reduce(block), np.fmax.reduce(block)
    if math.isnan(low):
        np.less_equal(block, np.inf, out=found)
        filled.nulls += int(block.size - np.count_nonzero(found))
        low = np.fmin.reduce(block)
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = block[np.isfinite(block)]
        filled.infinite += int(np.count_nonzero(np.isinf(block)))
        low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    filled.low, filled.high = min(filled.low, float(low)), max(filled.high, float(high))
