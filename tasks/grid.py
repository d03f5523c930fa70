"""Grid: which of many cells a number lies in, in so few steps that none of them is a search.

No step changes an order: a larger number never lies in a cell before that of a smaller one, so that what is told from
the cells is exact, whatever their widths. Widths matter for the time alone: the better the cells tell numbers apart,
the fewer numbers have to be put in their order afterwards. Cells of one width do for most columns; others hold two
crowds with nothing between them, or numbers of very different sizes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.held import Counts, Floats

_TRIMS = (0.0, 1 / 128, 1 / 32)
"""Shares of the numbers at either end that may share the outermost cell: a few far ones would make all cells wide."""
_MOST_CROWDS = 6
_HOPELESS = 0.5
"""Where so many numbers share their cells, more cells of the same kind do not help."""
_HIGH = 1 if sys.byteorder == "little" else 0
"""Which half of a float64 has its sign, its exponent and the first 20 bits of its mantissa."""

_INFINITE = 0x7FF00000
"""That half of infinity; those of NaN are greater, or with a sign less."""


class Room:
    """Memory for one block after the other, so that it stays in the processor's cache."""

    def __init__(self, rows: int) -> None:
        self.wide, self.narrow, self.sum = np.empty(rows), *np.empty((2, rows), dtype=np.float32)
        self.short, self.sign = np.empty((2, rows), dtype=np.int32)
        self.cells, self.places = np.empty((2, rows), dtype=np.int64)
        self.flags, self.more = np.empty((2, rows), dtype=np.bool_)

    def first(self, rows: int) -> Room:
        """The same memory for a smaller block."""
        if rows == self.wide.size:
            return self
        part = Room(0)
        for name, memory in vars(self).items():
            setattr(part, name, memory[:rows])
        return part


class Grid(Protocol):
    """Cells.

    Attributes:
        size: How many.
    """

    @property
    def size(self) -> int:
        """See the attributes."""
        ...

    def cells(self, block: NDArray[np.floating], room: Room) -> Counts:
        """The cell of each number, shape (n,), in the room's memory; that of NaN is the first or the last one."""
        ...


@dataclass(frozen=True, slots=True)
class Even:
    """Cells of one width, or of one width in each of a few stretches.

    Attributes:
        size: How many cells.
        lows: Where each stretch begins.
        scales: Cells per unit in it.
        lengths: Cells in it; what lies between two stretches is in the first cell of the second.
    """

    size: int
    lows: tuple[float, ...]
    scales: tuple[np.float32, ...]
    lengths: tuple[np.float32, ...]

    def cells(self, block: NDArray[np.floating], room: Room) -> Counts:
        """See :class:`Grid`."""
        narrow = room.sum
        for low, scale, length in zip(self.lows, self.scales, self.lengths, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(block, low, out=room.wide)
                np.copyto(narrow, room.wide, casting="same_kind")
                np.multiply(narrow, scale, out=narrow)
            np.fmax(narrow, np.float32(0), out=narrow)
            np.fmin(narrow, length, out=narrow)
            if narrow is not room.sum:
                np.add(room.sum, narrow, out=room.sum)
            narrow = room.narrow
        # In two steps: a processor turns floats into whole numbers of their own size many at a time.
        np.copyto(room.short, room.sum, casting="unsafe")
        np.copyto(room.cells, room.short)
        return room.cells


@dataclass(frozen=True, slots=True)
class Graded:
    """Cells as wide as the numbers in them are far from a centre: read from the exponents and the first bits of floats.

    Attributes:
        size: How many cells.
        centre: Where the cells are smallest.
        least: Distances whose first bits are these or less share a cell, one on each side.
        shift: Bits that do not matter.
        low: What the first cell would be without taking anything off.
    """

    size: int
    centre: float
    least: np.int32
    shift: np.int32
    low: np.int32

    def cells(self, block: NDArray[np.floating], room: Room) -> Counts:
        """See :class:`Grid`."""
        short, sign = room.short, room.sign
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(block, self.centre, out=room.wide)
        np.copyto(short, room.wide.view(np.int32)[_HIGH::2])
        np.right_shift(short, 31, out=sign)
        np.bitwise_and(short, 0x7FFFFFFF, out=short)
        np.subtract(short, self.least, out=short)
        np.maximum(short, 0, out=short)
        np.bitwise_xor(short, sign, out=short)
        np.subtract(short, sign, out=short)  # what was negative is negative again, and there is no other zero
        np.right_shift(short, self.shift, out=short)
        np.subtract(short, self.low, out=short)
        np.maximum(short, 0, out=short)
        np.minimum(short, np.int32(self.size - 1), out=short)
        np.copyto(room.cells, short)
        return room.cells


def best(points: Floats, sizes: tuple[int, ...], enough: float, most: float) -> Grid | None:
    """The first grid that tells numbers well enough apart, or else the one that does it best; None: none of them does.

    Args:
        points: shape (m,), ascending and different, finite, at least two.
        sizes: Cells to try, at least 64.
        enough: See most.
        most: Share of the numbers that may lie in a cell with others.
    """
    found, least = None, most
    room = Room(points.size)
    kinds = [_even, _graded, _crowds]
    for size in sizes:
        for kind in tuple(kinds):
            togethers = []
            for grid in kind(points, size):
                togethers.append(shared(grid, points, room))
                if togethers[-1] < least:
                    found, least = grid, togethers[-1]
                if least <= enough:
                    return found
            if min(togethers, default=1.0) > _HOPELESS:
                kinds.remove(kind)
    return found


def shared(grid: Grid, points: Floats, room: Room) -> float:
    """Share of the points, ascending, that are in a cell with others."""
    cells = grid.cells(points, room)
    alike = np.zeros(points.size + 1, dtype=np.bool_)
    np.equal(cells[1:], cells[:-1], out=alike[1:-1])
    return float(np.count_nonzero(alike[1:] | alike[:-1])) / points.size


def _even(points: Floats, size: int) -> Iterator[Grid]:
    for share in _TRIMS:
        trim = int(points.size * share)
        if points.size < 2 * trim + 2 or (share and not trim):
            return
        grid = _stretches([(float(points[trim]), float(points[-1 - trim]), 1.0)], size)
        if grid is not None:
            yield grid


def _crowds(points: Floats, size: int) -> Iterator[Grid]:
    """A stretch for each crowd, divided where the gaps are widest; far ones need none."""
    with np.errstate(over="ignore"):
        gaps = np.diff(points)
    widest = np.argsort(gaps, kind="stable")[::-1]
    for many in range(2, min(_MOST_CROWDS, points.size) + 1):
        ends = [*sorted(widest[: many - 1].tolist()), points.size - 1]
        starts = [0, *(end + 1 for end in ends[:-1])]
        parts = [
            (float(points[start]), float(points[end]), (end + 1 - start) / points.size)
            for start, end in zip(starts, ends, strict=True)
        ]
        grid = _stretches(parts, size)
        if grid is not None:
            yield grid


def _stretches(parts: list[tuple[float, float, float]], size: int) -> Even | None:
    """From where each begins, where it ends, and its share of the cells."""
    lows, scales, lengths, left = [], [], [], size - 1
    for number, (first, last, share) in enumerate(parts):
        length = left if number == len(parts) - 1 else min(max(8, int(share * size)), left - 8)
        left -= length
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            width = np.float64(last - first) / (length - 3)
            if not width:
                width = np.spacing(abs(first)) * 4
            scale = np.float32(1 / width)
            low = float(first - 1.5 * width)  # so that the first cell is that of what lies before all points
        if not (np.isfinite(low) and np.finfo(np.float32).tiny < scale < np.inf):
            return None
        lows.append(low)
        scales.append(scale)
        lengths.append(np.float32(length))
    return Even(size, tuple(lows), tuple(scales), tuple(lengths))


def _graded(points: Floats, size: int) -> Iterator[Grid]:
    with np.errstate(over="ignore"):
        densest = float(points[np.argmin(np.diff(points))])
    for centre in (0.0, densest):
        with np.errstate(over="ignore"):
            away = points - centre
        sides = _bits(away)
        distances = np.sort(np.abs(sides))
        few = max(1, points.size >> 9)
        least = np.int32(max(0, int(distances[min(few, distances.size - 1)]) - 1))
        ends = [
            int(np.sign(sides[place])) * max(0, abs(int(sides[place])) - int(least))
            for place in (few - 1, points.size - few)
        ]
        shift = 0
        while (ends[1] >> shift) - (ends[0] >> shift) > size - 3:
            shift += 1
        low, high = ((end >> shift) + step for end, step in zip(ends, (-1, 1), strict=True))
        # What is not finite lies in the first or the last cell, and in none with a number that may have a place.
        least_infinite = _INFINITE - int(least)
        if (-least_infinite >> shift) <= low and high <= (least_infinite >> shift):
            yield Graded(high - low + 1, centre, least, np.int32(shift), np.int32(low))


def _bits(away: Floats) -> Counts:
    """The first bits of floats as whole numbers in the same order, shape (m,)."""
    high = np.ascontiguousarray(away).view(np.int32)[_HIGH::2].astype(np.int64)
    return np.where(high < 0, -(high & 0x7FFFFFFF), high)
