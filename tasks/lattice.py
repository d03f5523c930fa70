"""Lattice: how many numbers lie below and at each of many points, by a table of small cells instead of an order.

Sorting is what costs most where the Kolmogorov-Smirnov distance is asked for, and by how much depends on the processor:
numpy's sort takes 6 to 60 ns a value, this some 8. It is as exact. A cell is found by rounding, which never puts a
larger number before a smaller one; a cell that has one point in it has its numbers held against that point; and only
the numbers of a cell that has several, or lies at an end, are put in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.held import Counts, Floats

_CELLS = (1 << 14, 1 << 16)
"""The first number that divides the points well enough: a small table stays in the processor's cache."""
_ENOUGH = 0.02
_BLOCK = 1 << 15
_TRIMS = (0, 8, 32)
"""Points at either end that may share the outermost cell, so that a few far numbers do not make all cells wide."""
_SHARED = 0.2
"""Share of the points that may lie in a cell with others; above it so many numbers are sorted that all may as well."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Cells of one width, and the points in them.

    Attributes:
        points: shape (m,), ascending and different.
        low: Where the first cell begins.
        scale: Cells per unit.
        place: shape (cells,), twice the points in the cells before each, which is where a number lies before the next
            point; one more is on it, two more behind it. 2m + 1: the numbers of the cell are put in order.
        point: shape (cells,), the single point of each; NaN where there is none or several.
    """

    points: Floats
    low: float
    scale: np.float32
    place: Counts
    point: Floats

    def below_and_upto(self, values: NDArray[np.floating] | NDArray[np.integer]) -> tuple[Counts, Counts]:
        """Rows that hold less than each point, and at most each point, both shape (m,).

        Args:
            values: shape (n,), whole numbers up to 2**53, or float.
        """
        apart = 2 * self.points.size + 1
        counts, room, rest = np.zeros(apart + 1, dtype=np.int64), _Room(min(_BLOCK, values.size)), [np.zeros(0)]
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK].astype(np.float64, copy=False)
            cells = room.cells(block, self.low, self.scale, self.place.size)
            places = np.take(self.place, cells, out=room.places[: block.size], mode="clip")
            point = np.take(self.point, cells, out=room.wide[: block.size], mode="clip")
            flags = room.flags[: block.size]
            places += np.greater_equal(block, point, out=flags)
            places += np.greater(block, point, out=flags)
            found = np.bincount(places, minlength=counts.size)
            counts += found
            if found[apart]:
                far = block[places == apart]
                rest.append(far[~np.isnan(far)])
        upto, ordered = np.cumsum(counts[:apart]), np.sort(np.concatenate(rest))
        return (
            upto[0:-1:2] + np.searchsorted(ordered, self.points, side="left"),
            upto[1::2] + np.searchsorted(ordered, self.points, side="right"),
        )


def lattice(points: Floats) -> Lattice | None:
    """A lattice for points, or None where too many of them lie too near each other, as seen from the whole.

    Args:
        points: shape (m,), ascending and different, none of them NaN or infinite.
    """
    best, least = None, _SHARED
    for cells in _CELLS:
        for trim in _TRIMS:
            made = _trimmed(points, trim, cells)
            if made is not None and (shared := _shared(made)) < least:
                best, least = made, shared
        if least <= _ENOUGH:
            break
    return best


def _shared(made: Lattice) -> float:
    return 1 - np.count_nonzero(~np.isnan(made.point)) / made.points.size


def _trimmed(points: Floats, trim: int, size: int) -> Lattice | None:
    if points.size < 2 * trim + 2:
        return None
    first, last = float(points[trim]), float(points[-1 - trim])
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        width = np.float64(last - first) / (size - 4)
        scale = np.float32(1 / width)
        low = float(first - 1.5 * width)  # so that the first cell is that of what lies before all points
    if not (np.isfinite(low) and np.finfo(np.float32).tiny < scale < np.inf):
        return None
    cells = _Room(points.size).cells(points, low, scale, size)
    held = np.bincount(cells, minlength=size)
    place, point = 2 * (np.cumsum(held) - held), np.full(size, np.nan)
    point[cells] = points
    apart = held > 1
    apart[[0, -1]] = True
    place[apart], point[apart] = 2 * points.size + 1, np.nan
    return Lattice(points, low, scale, place, point)


class _Room:
    """Memory for one block after the other, so that it stays in the processor's cache."""

    def __init__(self, rows: int) -> None:
        self.wide, self._narrow = np.empty(rows), np.empty(rows, dtype=np.float32)
        self._short, self._cells = np.empty(rows, dtype=np.int32), np.empty(rows, dtype=np.int64)
        self.places, self.flags = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.bool_)

    def cells(self, block: Floats, low: float, scale: np.float32, size: int) -> Counts:
        """Which of so many cells each number is in, shape (n,); 0 for NaN. No step changes an order."""
        wide, narrow, short, cells = self.wide, self._narrow, self._short, self._cells
        if block.size < cells.size:
            rows = slice(block.size)
            wide, narrow, short, cells = wide[rows], narrow[rows], short[rows], cells[rows]
        with np.errstate(over="ignore"):
            np.subtract(block, low, out=wide)
            np.copyto(narrow, wide, casting="same_kind")
            np.multiply(narrow, scale, out=narrow)
        np.fmax(narrow, np.float32(0), out=narrow)
        np.fmin(narrow, np.float32(size - 1), out=narrow)
        # In two steps: a processor turns floats into whole numbers of their own size many at a time.
        np.copyto(short, narrow, casting="unsafe")
        np.copyto(cells, short)
        return cells
