"""Cells: rows of the same label and the same answers, counted together, and what a sample of such rows tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats

Codes = NDArray[np.intp]
_FEW = 32
"""Up to how many codes in single bytes it is faster to look for each than to count them all at once."""
_NARROW: tuple[type[np.unsignedinteger[Any]], ...] = (np.uint8, np.uint16, np.uint32)
_TABLE, _EMPTY = 1 << 16, 16
"""So many codes, or so many for each row, are worth a table in which most places stay empty."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows by label and answer. A metric of right and wrong answers needs to know no more of a row than its cell.

    Attributes:
        truth: shape (m,), class code of the label.
        prediction: shape (m,), class code of the answer.
        count: shape (m,), how many rows are in the cell.
        rows: n, all of them.
        classes: How many there are.
    """

    truth: Codes
    prediction: Codes
    count: Floats
    rows: int
    classes: int

    def share(self, codes: Codes, weights: Floats | float = 1.0) -> Floats:
        """Shape (classes,): the rows' weights by class code, as a share of all rows."""
        return np.bincount(codes, weights=self.count * weights, minlength=self.classes) / self.rows


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows by label and the answers of two models, which is all that the difference of two such metrics needs to know.

    Attributes:
        first: The rows by label and the answer of the one.
        second: The same of the other.
        places: shape (2, m), in which of these cells the rows of each pair are.
        count: shape (m,), how many rows each pair has.
    """

    first: Cells
    second: Cells
    places: Codes
    count: Floats


@dataclass(frozen=True, slots=True)
class Sample:
    """Numbers that were drawn, equal ones together.

    Attributes:
        values: shape (m,).
        count: shape (m,), how often each was drawn; None: each once.
    """

    values: Floats
    count: Floats | None = None

    @property
    def size(self) -> int:
        """How many were drawn."""
        return self.values.size if self.count is None else int(self.count.sum())

    def mean(self, values: Floats) -> float:
        """Of something of the numbers, shape (m,)."""
        if self.count is None:
            return float(np.mean(values))
        return float(np.sum(values * self.count)) / self.size

    def error(self) -> float:
        """Standard error of their mean."""
        around = self.values - self.mean(self.values)
        return math.sqrt(self.mean(around * around) / (self.size - 1))

    def skewness(self) -> float:
        """Of their mean: their own over sqrt(n). Zero where they do not differ."""
        around = self.values - self.mean(self.values)
        squares = around * around
        spread = self.mean(squares)
        return (
            0.0
            if spread < 1e-24
            else self.mean(np.multiply(squares, around, out=squares)) / spread**1.5 / math.sqrt(self.size)
        )

    def tail(self) -> tuple[float, float]:
        """What hangs on the few largest of amounts: the skewness of their mean, and the degrees of its error.

        The degrees are ``2 n / (kurtosis - 1)``, those of the chi-square whose variance that of the squares is
        (Satterthwaite 1946): n - 1 at most, about n of normal values, two where a single one is all there is.
        """
        most = self.size - 1.0
        around = self.values - self.mean(self.values)
        squares = around * around
        spread = math.sqrt(self.mean(squares))
        if not spread:
            return 0.0, most
        around /= spread
        np.multiply(around, around, out=squares)
        around *= squares
        skew = self.mean(around) / math.sqrt(self.size)
        squares *= squares
        excess = self.mean(squares) - 1
        return skew, max(1.0, 2 * self.size / excess) if excess * most > 2 * self.size else most


def cells(truth: Codes, answers: Codes, classes: int) -> Cells:
    """Rows counted by label and answer.

    Args:
        truth: shape (n,), class codes of the labels.
        answers: shape (n,), class codes of the answers.
        classes: How many there are.
    """
    held, count = _counted(_joined((truth, answers), classes), classes**2)
    return Cells(held // classes, held % classes, count.astype(np.float64), truth.size, classes)


def pairs(truth: Codes, first: Codes, second: Codes, classes: int) -> Pairs:
    """Rows counted once by label and the answers of two models.

    Args:
        truth: shape (n,), class codes of the labels.
        first: shape (n,), class codes of the one's answers.
        second: shape (n,), class codes of the other's.
        classes: How many there are.
    """
    if classes**3 <= np.iinfo(np.intp).max:
        held, counts = _counted(_joined((truth, first, second), classes), classes**3)
        one = held // classes
        other = one // classes * classes + (held - one * classes)
    else:
        (labels, *two), counts = np.unique(np.stack((truth, first, second)), axis=1, return_counts=True)
        one, other = (labels * classes + answers for answers in two)
    count = counts.astype(np.float64)

    def by(both: Codes) -> tuple[Cells, Codes]:
        if _is_table(classes**2, both.size):
            of: Codes = both  # cells without rows weigh nothing
            found = np.arange(classes**2)
        else:
            found, of = np.unique(both, return_inverse=True)
        rows = np.bincount(of, weights=count, minlength=found.size).astype(np.float64, copy=False)
        return Cells(found // classes, found % classes, rows, truth.size, classes), of

    (mine, of_mine), (theirs, of_theirs) = by(one), by(other)
    return Pairs(mine, theirs, np.stack((of_mine, of_theirs)), count)


def _joined(codes: tuple[Codes, ...], classes: int) -> Codes:
    """One code for several, as digits of a number, shape (n,), in as few bytes as are enough for it."""
    most = classes ** len(codes)
    kind: type[Any] = next((kind for kind in _NARROW if most <= np.iinfo(kind).max), np.intp)
    both: Codes = codes[0].astype(kind)
    for one in codes[1:]:
        both *= kind(classes)
        both += one.astype(kind, copy=False)
    return both


def _counted(codes: Codes, most: int) -> tuple[Codes, Codes]:
    """The codes that occur, of those from 0 to ``most`` - 1, ascending, and how often each does."""
    if not _is_table(most, codes.size):
        held, count = np.unique(codes, return_counts=True)
        return held.astype(np.intp), count
    if codes.dtype == np.uint8 and most <= _FEW:
        count = np.array([np.count_nonzero(codes == code) for code in range(most)], dtype=np.intp)
    else:
        count = np.bincount(codes, minlength=most)
    held = np.flatnonzero(count)
    return held, count[held]


def _is_table(most: int, rows: int) -> bool:
    """Whether it takes less to have a place for every code than to put those that occur in their order."""
    return most <= max(_TABLE, _EMPTY * rows)
