"""Agreement: how alike two models rank the same rows (Spearman 1904), as exactly as the question needs it.

Sorting millions of scores costs more than many a model takes to give them. So of many rows each score is first put into
one of 65,536 cells, which follow each other as the scores do, and all scores of a cell get the mean of their ranks. As
vectors such ranks are the projection of the exact ones, so the angle between the two is known from the counts; and the
coefficient is the cosine of an angle too, which is then off by no more than the angles of the two models together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats
from tasks.decide.ranks import midranks, whole_numbers

_FEW = 50_000
"""Rows up to which the ranks are exact at once."""
_CELLS = 1 << 16
_SOME, _NEAR = 500, 1 / 64
"""Numbers that are looked at to choose the cells; and the share of their range that half of them fill at least."""
_OFF = 1e-3
"""Radians by which a model's ranks by cell may be off; a correlation of 0.8 is then known to within 0.0012."""
_BLOCK = 8
"""Columns that are copied out of a matrix together: a line of the processor's cache has as many numbers of a row."""
_ROWS = 4096
"""Rows that are copied together, so that such a line is still there when the next number of it is asked for."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A rank correlation, and where the exact one is for certain.

    Attributes:
        value: By cell; where ``low`` and ``high`` are equal, the exact one.
        low: No more than the exact one.
        high: No less than the exact one.
    """

    value: float
    low: float
    high: float


class _Coarse(NamedTuple):
    """The ranks of n numbers by cell.

    Attributes:
        each: shape (n,), mean rank of the cell of each, less the mean of all ranks.
        norm: Euclidean, of ``each``.
        off: Angle in radians between these ranks and the exact ones; no more than that.
    """

    each: Floats
    norm: float
    off: float


def spearman(first: Floats, second: Floats) -> float:
    """Exact rank correlation of two columns of shape (n,), neither of which is constant; equal values share a rank."""
    a, b = midranks(first), midranks(second)
    a, b = a - a.mean(), b - b.mean()
    # Not a @ b: of many rows its last digits hang on how many threads there are, and a verdict is to be reached again.
    return float(np.clip(np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)), -1, 1))


def moving(scores: Floats) -> NDArray[np.bool_]:
    """Shape (columns,): which columns of a matrix of shape (n, columns) hold values that differ."""
    # Two of them mostly do among the first rows; where they do not, all are looked at.
    found: NDArray[np.bool_] = np.any(scores[:_BLOCK] != scores[0], axis=0)
    for column in np.flatnonzero(~found):
        found[column] = np.any(scores[:, column] != scores[0, column])
    return found


def least(first: Floats, second: Floats, same: Callable[[float, float], bool]) -> float:
    """The least rank correlation of the columns that belong together, none of them constant.

    Args:
        first: shape (n, columns).
        second: The same of the other model.
        same: Whether it makes no difference which of two coefficients it is, or any between them. Where it would make
            one, the exact coefficient is told, otherwise that by cell.
    """
    found = [_agreement(a, b) for a, b in _pairs(first, second)]
    low, high = min(one.low for one in found), min(one.high for one in found)
    if low == high or same(low, high):
        return min(one.value for one in found)
    columns = [place for place, one in enumerate(found) if one.low <= high]
    return min(spearman(first[:, place], second[:, place]) for place in columns)


def of_counts(both: int, first: int, second: int, rows: int) -> float:
    """Rank correlation of two columns of zeros and ones (which is phi; Yule 1912), neither of them constant.

    Args:
        both: Rows with a one in both columns.
        first: Ones of the first column.
        second: Ones of the second column.
        rows: Of each.
    """
    # Whole numbers of Python's, which have no largest one.
    top, bottom = rows * both - first * second, first * (rows - first) * second * (rows - second)
    return max(-1.0, min(1.0, top / math.sqrt(bottom)))


def _pairs(first: Floats, second: Floats) -> Iterator[tuple[Floats, Floats]]:
    """The columns that belong together."""
    columns = first.shape[1]
    if columns == 1:
        yield first[:, 0], second[:, 0]
        return
    for start in range(0, columns, _BLOCK):
        block = slice(start, start + _BLOCK)
        yield from zip(_turned(first[:, block]), _turned(second[:, block]), strict=True)


def _turned(matrix: Floats) -> Floats:
    """The columns one after the other, in memory of their own: whose order is held may not be written over."""
    turned = np.empty(matrix.shape[::-1])
    for start in range(0, len(matrix), _ROWS):
        part = slice(start, start + _ROWS)
        turned[:, part] = matrix[part].T
    return turned


def _agreement(first: Floats, second: Floats) -> Agreement:
    ours = _coarse(first) if first.size > _FEW else None
    theirs = None if ours is None else _coarse(second)
    if ours is None or theirs is None:
        exact = spearman(first, second)
        return Agreement(exact, exact, exact)
    value = float(np.clip(np.sum(ours.each * theirs.each) / (ours.norm * theirs.norm), -1, 1))
    angle, off = math.acos(value), ours.off + theirs.off
    if not off:
        return Agreement(value, value, value)
    return Agreement(value, math.cos(min(math.pi, angle + off)), math.cos(max(0.0, angle - off)))


def _coarse(values: Floats) -> _Coarse | None:
    """None where the numbers lie so that no cells tell enough of them apart."""
    values = np.ascontiguousarray(values, dtype=np.float64)
    for cells in _lattices(values):
        count = np.bincount(cells, minlength=_CELLS)
        held = count.astype(np.float64)
        cubes = held * held * held
        within = by_cell = float(np.sum(cubes))
        if _angle(within, by_cell, values.size) > _OFF:
            # Numbers that are equal belong into one cell, and their ranks are exact.
            mixed = _mixed(values, cells, count.size)
            within = float(np.sum(cubes[mixed])) + float(np.sum(count[~mixed]))
        if (off := _angle(within, by_cell, values.size)) <= _OFF:
            rank = np.cumsum(count) - (count + values.size) / 2  # (first + last) / 2 of a cell, less (n + 1) / 2
            return _Coarse(np.take(rank, cells), math.sqrt(float(np.sum(count * rank * rank))), off)
    return None


def _angle(within: float, by_cell: float, rows: int) -> float:
    """Between ranks by cell and exact ones, at most.

    Ranks 1 to n vary by (n^3 - n) / 12 in all; within a cell of c rows it is (c^3 - c) / 12.

    Args:
        within: Sum of the cubes of the rows of the cells, of those with equal numbers of the rows alone.
        by_cell: Sum of the cubes of the rows of all cells.
        rows: n.
    """
    return math.atan2(math.sqrt(max(0.0, within - rows)), math.sqrt(max(0.0, float(rows) ** 3 - by_cell)))


def _mixed(values: Floats, cells: NDArray[np.intp], most: int) -> NDArray[np.bool_]:
    """Which of so many cells hold numbers that differ."""
    one, mixed = np.empty(most), np.zeros(most, dtype=np.bool_)
    one[cells] = values
    mixed[cells[np.take(one, cells) != values]] = True
    return mixed


def _lattices(values: Floats) -> Iterator[NDArray[np.intp]]:
    """The cell of each number, in the order of the numbers: of equal width, and of equal ratio; the likelier first."""
    low, high = float(values.min()), float(values.max())
    some = np.sort(values[:: values.size // _SOME])
    lower, upper = some[some.size // 4], some[3 * some.size // 4]
    # Where half of the numbers share few cells of equal width though they differ, ratios tell more.
    near = 0 < upper - lower < (high - low) * _NEAR
    for kind in (_by_ratio, _by_width) if near else (_by_width, _by_ratio):
        if (cells := kind(values, low, high)) is not None:
            yield cells


def _by_width(values: Floats, low: float, high: float) -> NDArray[np.intp] | None:
    step = (_CELLS - 1) / (high - low) if high > low else 0.0
    return ((values - low) * step).astype(np.uint16).astype(np.intp) if 0 < step < math.inf else None


def _by_ratio(values: Floats, low: float, high: float) -> NDArray[np.intp]:
    whole = whole_numbers(values)
    ends = whole_numbers(np.array([low, high]))
    least, most = int(ends[0]), int(ends[1])  # of Python's: the distance may be more than 64 bits hold
    digits = max(0, (most - least).bit_length() - (_CELLS - 1).bit_length())
    whole >>= digits
    whole -= least >> digits
    return whole
