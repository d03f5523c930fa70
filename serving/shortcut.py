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
from serving.preparation import Prepared, ending, same

Row = Mapping[str, Any]

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
    if prepare is None or (end := ending(model, _LINEAR, "sklearn.linear_model")) is None:
        return None
    last, method = end
    made: Callable[[Row], list[float]]
    try:
        weights = np.atleast_2d(np.asarray(last.coef_, dtype=np.float64))
        if len(weights) != 1:
            return None
        decide = prepare.weighed(weights[0], float(np.ravel(last.intercept_)[0]))
        made = _Two(decide) if method == "predict_proba" else _One(decide)
        tried = prepare.trial_rows()
        right = same(np.array([made(row) for row in tried]), getattr(model, method)(contract.frame(tried)))
    except Exception:  # noqa: BLE001  any model may come here, and the model itself is always there
        return None
    return made if right else None


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
