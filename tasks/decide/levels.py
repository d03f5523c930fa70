"""Levels: what a sample tells of the categories of other rows, those among them that it does not name.

A profile names the most frequent levels of one sample. Some of them owe it to chance: in other rows of the same
distribution they are rarer, and levels that are not named, or were never seen, are more frequent. How much, each row
tells when it is left out: the share of the rows whose level would not be named without them is the share of other rows
whose level is not named (Good 1953, who does so for species that were never seen).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.decide.intervals import Floats, newcombe, normal_quantile

if TYPE_CHECKING:
    from tasks.records import ColumnProfile


_FEW = 4
"""A level with so few rows is compared together with those that are not named: left out once, it is hardly there."""


def outside(levels: Sequence[tuple[str, int]], first: tuple[str, int], others: int) -> tuple[int, int] | None:
    """How many rows are to be expected outside of the named levels, in another sample as large as this one.

    Args:
        levels: The named ones, with how many rows hold each.
        first: The most frequent one that is not named, the first in the alphabet among equals; of no rows where all
            are named.
        others: Rows that hold none of the named ones.

    Returns:
        The rows, and the sum of squares whose root says how far off that may be, besides what chance does to that many
        rows. None where all levels are named, each of them more than once.

    With c rows of the border, r rows of a level are counted where r <= c + 1, and its share of other rows is outside
    where r <= c. The variance of what is between the two is expected to be the sum of r over the former, which is what
    chance does to so many rows, and of r (r - 1) over the levels with r = c + 2. Where all are named, c is 0, and that
    is the n1 + 2 n2 of Robbins (1968) and Esty (1983). Elsewhere the border itself is left to chance: c + 1 rows more.
    """
    name, most = first
    border = [rows for level, rows in levels if rows == most or (rows == most + 1 and level > name)]
    if not border and not others:
        return None
    beyond = [rows for level, rows in levels if rows == (most + 2 if level > name else most + 1)]
    return others + sum(border), sum(rows * (rows - 1) for rows in beyond) + (most + 1) ** 2


def paired(reference: ColumnProfile, recent: ColumnProfile) -> tuple[Floats, Floats]:
    """The counts of both sides, the reference's as other rows of the same distribution would have them.

    Args:
        reference: Of a column.
        recent: In its bins.

    Returns:
        Two arrays of shape (bins,): the counts as they are where every level is named that there is.
    """
    before, after = np.asarray(reference.counts, dtype=np.float64), np.asarray(recent.counts, dtype=np.float64)
    if reference.outside is None:
        return before, after
    named, rare = before[:-1], before[:-1] <= _FEW
    elsewhere = float(reference.outside[0])
    if rare.any():
        elsewhere = before[-1] + named[named <= _FEW + 1].sum()
    kept, rest = named[~rare], before[-1] + named[rare].sum()
    # What is expected elsewhere is taken from all named levels alike, however many rows they have: absolute discounting
    # (Ney and others 1994).
    less = (elsewhere - rest) / max(kept.size, 1)
    return (
        np.append(np.maximum(kept - less, 0.0), elsewhere),
        np.append(after[:-1][~rare], after[-1] + after[:-1][rare].sum()),
    )


def expected(reference: ColumnProfile) -> float:
    """The share of new rows that hold none of the named levels, where nothing changes; 0..1."""
    rows = reference.counts[-1] if reference.outside is None else reference.outside[0]
    return rows / reference.present


def more(rows: int, new: int, reference: ColumnProfile, confidence: float) -> float:
    """By how much the share of rows outside of the named levels is shown to have grown: the lower bound.

    Args:
        rows: New ones outside.
        new: All new ones.
        reference: Of the column, with at least one value.
        confidence: One-sided.
    """
    known = reference.counts[-1] if reference.outside is None else reference.outside[0]
    low, _ = newcombe(rows, new, known, reference.present, confidence)
    gap = rows / new - known / reference.present
    off = 0.0 if reference.outside is None else math.sqrt(reference.outside[1]) / reference.present
    return gap - math.hypot(gap - low, normal_quantile(confidence) * off)
