"""Shortcut: a linear model of few rows without numpy, whose every call costs more than the ten products of a row.

The numbers that come out are the model's, or this is not used: it is held against the whole pipeline when a version is
loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.contract import Contract
from serving.preparation import Prepared

Row = Mapping[str, Any]

_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
"""What another order of adding may make of a number; a stored example may differ by a thousand times as much."""
_LINEAR = {"LogisticRegression": "predict_proba", "LinearRegression": "predict", "Ridge": "predict"}


def shortcut(model: Any, prepare: Prepared | None, contract: Contract) -> Callable[[Row], list[float]] | None:
    """A function of one checked row: the probabilities of the two classes, or the one number of a regression.

    None where the model is no pipeline of Backstop's making that ends in a linear model of scikit-learn's with one
    output, or where the two differ on any row that was tried: those of :meth:`serving.preparation.Prepared.trial_rows`,
    and rows in the middle of what was trained on.

    Args:
        model: A fitted pipeline.
        prepare: Its first step, where that can be done without a table.
        contract: What it takes.
    """
    if prepare is None:
        return None
    last = model[-1]
    method = _LINEAR.get(type(last).__name__)
    if method is None or not type(last).__module__.startswith("sklearn.linear_model."):
        return None
    made: Callable[[Row], list[float]]
    try:
        weights = np.atleast_2d(np.asarray(last.coef_, dtype=np.float64))
        if len(weights) != 1:
            return None
        decide = prepare.weighed(weights[0], float(np.ravel(last.intercept_)[0]))
        made = _Two(decide) if method == "predict_proba" else _One(decide)
        tried = prepare.trial_rows()
        expected = np.asarray(getattr(model, method)(contract.frame(tried))).reshape(len(tried), -1)
        found = np.array([made(row) for row in tried])
    except Exception:  # noqa: BLE001  any model may come here, and the model itself is always there
        return None
    same = found.shape == expected.shape and np.allclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE)
    return made if same else None


@dataclass(frozen=True, slots=True)
class _One:
    """The number itself."""

    decide: Callable[[Row], float]

    def __call__(self, row: Row) -> list[float]:
        return [self.decide(row)]


@dataclass(frozen=True, slots=True)
class _Two:
    """The probabilities of two classes; no exponent overflows."""

    decide: Callable[[Row], float]

    def __call__(self, row: Row) -> list[float]:
        decision = self.decide(row)
        small = math.exp(-abs(decision))
        near, far = 1 / (1 + small), small / (1 + small)
        return [far, near] if decision >= 0 else [near, far]
