"""Cells: rows of the same label and the same answer, counted together, and what a sample of such rows tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide.intervals import Floats

Codes = NDArray[np.intp]
_BYTE, _FEW = 256, 32
"""Codes that a byte holds; and up to how many of them it is faster to look for each than to count them all at once."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows by label and answer. A metric of right and wrong answers needs to know no more of a row than its cell.

    Attributes:
        truth: shape (m,), class code of the label.
        prediction: shape (m,), class code of the answer.
        count: shape (m,), how many rows are in the cell.
        of: shape (n,), the cell of each row.
        classes: How many there are.
    """

    truth: Codes
    prediction: Codes
    count: Floats
    of: Codes
    classes: int

    def share(self, codes: Codes, weights: Floats | float = 1.0) -> Floats:
        """Shape (classes,): the rows' weights by class code, as a share of all rows."""
        return np.bincount(codes, weights=self.count * weights, minlength=self.classes) / self.of.size


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


def joined(first: Codes, second: Codes, firsts: int, seconds: int) -> Codes:
    """One code for two: ``first * seconds + second``, in single bytes where they are enough.

    Args:
        first: shape (n,), 0 to ``firsts`` - 1.
        second: shape (n,), 0 to ``seconds`` - 1.
        firsts: How many codes the first has.
        seconds: How many the second has.
    """
    kind: type[Any] = np.uint8 if firsts * seconds <= _BYTE and seconds < _BYTE else np.intp
    both: Codes = first.astype(kind)
    both *= kind(seconds)
    both += second.astype(kind, copy=False)
    return both


def counted(codes: Codes, most: int) -> Codes:
    """How often each code from 0 to ``most`` - 1 occurs, shape (most,)."""
    if codes.dtype == np.uint8 and most <= _FEW:
        return np.array([np.count_nonzero(codes == code) for code in range(most)], dtype=np.intp)
    return np.bincount(codes, minlength=most)
