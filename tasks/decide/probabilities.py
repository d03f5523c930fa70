"""Probabilities: which numbers are some."""

from __future__ import annotations

import numpy as np

from tasks.decide.intervals import Floats

_ROUNDING, _OFF = 1e-6, 1e-3
"""How far a probability may be outside 0..1, and the sum of a row from 1: floats of four bytes are not exact."""


def strays(probability: Floats, *, whole: bool = True) -> str:
    """Why the probabilities of some rows are none, with a value and the number of rows; empty where all of them are.

    Args:
        probability: Shape (n, k), finite.
        whole: Whether each row must sum to 1. That of a model which knows a class that was left out sums to less.
    """
    if not probability.size:
        return ""
    sums = probability.sum(axis=1) if probability.shape[1] != 2 else probability[:, 0] + probability[:, 1]
    outside = max(-float(probability.min()), float(probability.max()) - 1)
    off = max(float(sums.max()) - 1, 1 - float(sums.min()) if whole else 0.0)
    if outside <= _ROUNDING and off <= _OFF:
        return ""
    low, high = probability.min(axis=1), probability.max(axis=1)
    strange = np.maximum(-low, high - 1) > _ROUNDING
    told = "are below 0 or above 1"
    if not strange.any():
        strange, told = (sums > 1 + _OFF) | ((sums < 1 - _OFF) & whole), "do not sum to 1"
    shown = probability[int(np.argmax(strange))][:4]
    values = ", ".join(f"{value:.4g}" for value in shown) + (", ..." if probability.shape[1] > shown.size else "")
    return (
        f"the probabilities of {int(np.count_nonzero(strange)):,} of {len(sums):,} rows {told}, such as {values}; "
        "they are no probabilities: look at the model's predict_proba, or take a model without one"
    )
