"""Selection: the values at a few ranks of many numbers, without putting all of them in their order.

Every number goes into one of at most 65,536 cells (see :mod:`tasks.grid`), which never puts a larger one before a
smaller one; only the numbers of the cells in which a rank lies are put in order, and of those not the ones that are all
alike. That is exact, and takes 6 ns a value where sorting takes 6 to 60, depending on the processor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.grid import Grid, Room, best
from tasks.held import Counts, Floats, Ranked
from tasks.ties import Apart, apart

_CELLS, _FEWER = 1 << 16, 1 << 13
"""As many as two bytes tell apart; and for few numbers, so that the table does not cost more than they do."""
_MANY = 32
"""Ranks, from which on they lie in so many cells that these are to be small."""
_BLOCK, _BLOCKS = 1 << 14, 1 << 18
"""Values whose cells are found at a time, and values that are counted at a time: every count costs a whole table."""
_SAMPLE = 16
"""A value for so many cells is looked at to know where most of them lie, and at most one of so many values."""
_SOME = 8
"""One in so many values is looked at for what the numbers of a cell have in common, if as many seem to be alike."""
_ENOUGH, _SHARED = 0.15, 0.6
"""Share of the sample that may lie in a cell with other values of it: of so many cells, a few hold two by chance."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What stands at some ranks.

    Attributes:
        values: shape (m,).
        below: shape (m,), how many numbers are less than each.
        upto: shape (m,), how many are at most each.
    """

    values: Floats
    below: Counts
    upto: Counts


def at_ranks(values: NDArray[np.floating] | NDArray[np.integer], ranks: Counts) -> Placed:
    """What would stand at these places if the values were in order, m of them.

    Args:
        values: shape (n,), finite, at least one.
        ranks: shape (m,), counted from 0.
    """
    found = apart(values)
    return _among(values, ranks) if found is None else _beside(found, ranks)


def _beside(found: Apart, ranks: Counts) -> Placed:
    """Where most of the values are one."""
    value, rows, others = found.value, found.rows, found.others
    if not others.size:
        return Placed(np.full(ranks.size, value), np.zeros(ranks.size, dtype=np.int64), np.full(ranks.size, rows))
    before = int(np.count_nonzero(others < value))
    tied = (ranks >= before) & (ranks < before + rows)
    placed = at_ranks(others, np.where(ranks < before, ranks, ranks - rows).clip(0, others.size - 1))
    behind = rows * (placed.values > value)
    return Placed(
        np.where(tied, value, placed.values),
        np.where(tied, before, placed.below + behind),
        np.where(tied, before + rows, placed.upto + behind),
    )


def _among(values: NDArray[np.floating] | NDArray[np.integer], ranks: Counts) -> Placed:
    size = _CELLS if values.size > 4 * _CELLS else _FEWER if ranks.size < _MANY else 2 * _FEWER
    looked = values[:: max(1, _SAMPLE * values.size // size, _SAMPLE)].astype(np.float64)
    sample, times = np.unique(looked, return_counts=True)
    grid = best(sample, (size,), _ENOUGH, _SHARED) if sample.size > 1 else None
    if grid is None:
        return _ordered(values, ranks)
    repeated = times > 1
    if full := bool(times[repeated].sum() * _SOME > looked.size):
        often = sample[np.argsort(times, kind="stable")]
    else:
        often = sample[repeated]
    found = _picked(values, ranks, grid, often, full=full)
    return _ordered(values, ranks) if found is None else found


def _ordered(values: NDArray[np.floating] | NDArray[np.integer], ranks: Counts) -> Placed:
    unique = np.unique(ranks)
    if unique.size >= _MANY:  # a place of its own for each of many takes longer than sorting
        ordered = Ranked(np.sort(values), None, 0)
        found = ordered.at(ranks)
        return Placed(found, ordered.below(found), ordered.upto(found))
    found = np.partition(values, unique)[ranks].astype(np.float64)
    different, where = np.unique(found, return_inverse=True)
    below, upto = (
        np.array([np.count_nonzero(compare(values, value)) for value in different], dtype=np.int64)[where]
        for compare in (np.less, np.less_equal)
    )
    return Placed(found, below, upto)


def _picked(
    values: NDArray[np.floating] | NDArray[np.integer], ranks: Counts, grid: Grid, often: Floats, *, full: bool
) -> Placed | None:
    """None where most of the values lie in few cells.

    Args:
        values: See :func:`at_ranks`.
        ranks: See :func:`at_ranks`.
        grid: Of the cells.
        often: shape (k,), values that are many times there, as it seems, the most frequent ones last.
        full: There seem to be many more of these.
    """
    cells, rows = _cells(values, grid)
    upto = np.cumsum(rows)
    places = np.searchsorted(upto, ranks, side="right")
    asked = np.zeros(grid.size, dtype=np.bool_)
    asked[places] = True
    alike = np.full(grid.size, np.nan)
    if full:
        alike[cells[::_SOME]] = values[::_SOME]
    alike[grid.cells(often, Room(often.size))] = often
    alike[~asked] = np.nan
    many = often.size and float(rows[~np.isnan(alike)].sum()) > values.size / 64
    rest, where, number = [np.zeros(0)], [np.zeros(0, dtype=np.uint16)], 0
    for start in range(0, values.size, _BLOCK):
        block, at = values[start : start + _BLOCK], cells[start : start + _BLOCK]
        wanted = np.take(asked, at)
        if many:
            wanted &= block != np.take(alike, at)
        rest.append(block[wanted].astype(np.float64))
        number += rest[-1].size
        if number > values.size // 2:
            return None
        if many:
            where.append(at[wanted])
    picked = np.sort(np.concatenate(rest))
    if not many:
        return _placed(Ranked(picked, None, 0), ranks, places, upto, np.where(asked, rows, 0))
    left = np.bincount(np.concatenate(where), minlength=grid.size)
    tied = np.flatnonzero(~np.isnan(alike) & (rows > left))
    found, weights = np.concatenate((picked, alike[tied])), np.ones(picked.size + tied.size, dtype=np.int64)
    weights[picked.size :] = (rows - left)[tied]
    order = np.argsort(found, kind="stable")
    return _placed(Ranked(found[order], np.cumsum(weights[order]), 0), ranks, places, upto, np.where(asked, rows, 0))


def _placed(picked: Ranked, ranks: Counts, places: Counts, upto: Counts, rows: Counts) -> Placed:
    """From the numbers of the cells that were asked for, in their order.

    Args:
        picked: Those numbers.
        ranks: See :func:`at_ranks`.
        places: shape (m,), the cell in which each rank lies.
        upto: shape (cells,), numbers up to the end of each cell.
        rows: shape (cells,), numbers in each, 0 where it was not asked for.
    """
    skipped = (upto - np.cumsum(rows))[places]  # numbers before each cell that were not picked
    found = picked.at(ranks - skipped)
    return Placed(found, picked.below(found) + skipped, picked.upto(found) + skipped)


def _cells(values: NDArray[np.floating] | NDArray[np.integer], grid: Grid) -> tuple[NDArray[np.uint16], Counts]:
    """The cell of each value, shape (n,), and how many are in each cell."""
    cells, rows = np.empty(values.size, dtype=np.uint16), np.zeros(grid.size, dtype=np.int64)
    memory = Room(min(_BLOCK, values.size))
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64, copy=False)
        found = grid.cells(block, memory.first(block.size))
        np.copyto(cells[start : start + _BLOCK], found, casting="unsafe")
    for start in range(0, values.size, _BLOCKS):
        rows += np.bincount(cells[start : start + _BLOCKS], minlength=grid.size)
    return cells, rows
