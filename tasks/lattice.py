"""Lattice: how many numbers lie below and at each of many points, by a table of small cells instead of an order.

Sorting is what costs most where the Kolmogorov-Smirnov distance is asked for, and by how much depends on the processor:
numpy's sort takes 6 to 60 ns a value, this some 8. It is as exact. A cell (see :mod:`tasks.grid`) never puts a larger
number before a smaller one; a cell that has one point in it has its numbers held against that point; and only the
numbers of a cell that has several, or lies at an end, are put in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.grid import Grid, Room, best
from tasks.held import Counts, Floats

_CELLS = (1 << 14, 1 << 16)
"""The first number that divides the points well enough: a small table stays in the processor's cache."""
_ENOUGH = 0.02
_BLOCK = 1 << 14
_SHARED = 0.2
"""Share of the points that may lie in a cell with others; above it so many numbers are sorted that all may as well."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Cells, and the points in them.

    Attributes:
        points: shape (m,), ascending and different.
        grid: Which cell a number is in.
        place: shape (cells,), twice the points in the cells before each, which is where a number lies before the next
            point; one more is on it, two more behind it. 2m + 1: the numbers of the cell are put in order.
        point: shape (cells,), the single point of each; NaN where there is none or several.
    """

    points: Floats
    grid: Grid
    place: Counts
    point: Floats

    def below_and_upto(self, values: NDArray[np.floating] | NDArray[np.integer]) -> tuple[Counts, Counts]:
        """Rows that hold less than each point, and at most each point, both shape (m,).

        Args:
            values: shape (n,), whole numbers up to 2**53, or float.
        """
        apart = 2 * self.points.size + 1
        counts, rest, lowest = np.zeros(apart + 1, dtype=np.int64), [np.zeros(0)], 0
        memory = Room(min(_BLOCK, values.size))
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK].astype(np.float64, copy=False)
            room = memory.first(block.size)
            cells = self.grid.cells(block, room)
            places = np.take(self.place, cells, out=room.places, mode="clip")
            point = np.take(self.point, cells, out=room.wide, mode="clip")
            # Added to each other first, as bytes: adding them to the places costs more.
            np.greater_equal(block, point, out=room.flags)
            np.greater(block, point, out=room.more)
            places += np.add(room.flags.view(np.int8), room.more.view(np.int8), out=room.flags.view(np.int8))
            found = np.bincount(places, minlength=counts.size)
            counts += found
            if found[apart]:
                far = block[np.equal(places, apart, out=room.flags)]
                finite = np.isfinite(far)
                if not finite.all():  # what is infinite has its place, and NaN has none
                    lowest += int(np.count_nonzero(far == -np.inf))
                    far = far[finite]
                rest.append(far)
        upto, ordered = lowest + np.cumsum(counts[:apart]), np.sort(np.concatenate(rest))
        return (
            upto[0:-1:2] + np.searchsorted(ordered, self.points, side="left"),
            upto[1::2] + np.searchsorted(ordered, self.points, side="right"),
        )


def lattice(points: Floats) -> Lattice | None:
    """A lattice for points, or None where no grid tells enough of them apart.

    Args:
        points: shape (m,), ascending and different, none of them NaN or infinite.
    """
    grid = best(points, _CELLS, _ENOUGH, _SHARED) if points.size > 1 else None
    if grid is None:
        return None
    cells = grid.cells(points, Room(points.size))
    held = np.bincount(cells, minlength=grid.size)
    place, point = 2 * (np.cumsum(held) - held), np.full(grid.size, np.nan)
    point[cells] = points
    apart = held > 1
    apart[[0, -1]] = True
    place[apart], point[apart] = 2 * points.size + 1, np.nan
    return Lattice(points, grid, place, point)
