"""Leaning: how much a model's answers hang on each column, measured once, when it is trained.

A column is shuffled among the rows, and what counts is how far the answers move (permutation importance, Breiman 2001,
section 10, of the answers instead of the errors): no label is needed, and no estimator's own idea of importance, which
favours columns with many values (Strobl and others 2007).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import Dataset
from tasks.records import ColumnProfile, Scores
from tasks.scoring import score

Floats = NDArray[np.float64]

_ROWS = 1000
"""Of the holdout, spread over it; the order of the columns needs no more."""
_CELLS = 2_000_000
"""Values that the model is given at once: the rows several times, each time with another column shuffled."""
_SECONDS = 20.0
"""A model so slow that its columns take longer in all has none of them measured."""


def measured(
    columns: Sequence[ColumnProfile], model: Any, rows: Dataset, *, classes: tuple[str, ...], seed: int
) -> tuple[ColumnProfile, ...]:
    """The columns with :attr:`ColumnProfile.score`: 0 is a column that the model does not look at.

    1 is one whose shuffling moves the answers as far as they lie apart. All columns are measured or none is, so that
    they can be put into an order.

    Args:
        columns: Of the profile.
        model: Fitted.
        rows: That it was not fitted on.
        classes: From :func:`tasks.scoring.classes_of`; empty in regression.
        seed: Of the shuffling.
    """
    if not columns or len(rows) < 2:
        return tuple(columns)
    some = rows.take(np.unique(np.linspace(0, len(rows) - 1, _ROWS).astype(np.intp)))
    try:
        found = _moves([column.name for column in columns], model, some, classes, seed)
    except Exception:  # noqa: BLE001  the model is the user's; without a measure the columns keep their order by effect
        return tuple(columns)
    return tuple(replace(column, score=None if found is None else found[column.name]) for column in columns)


def _moves(names: list[str], model: Any, rows: Dataset, classes: tuple[str, ...], seed: int) -> dict[str, float] | None:
    """By column how far its shuffling moves the answers, as a share of how far they lie apart; None: too slow."""
    draw = np.random.default_rng(seed)
    begun = time.perf_counter()
    before = score(model, rows, classes=classes)
    apart = _distance(before, _part(before, draw.permutation(len(rows))))
    if (time.perf_counter() - begun) * len(names) > _SECONDS:
        return None
    found: dict[str, float] = {}
    step = max(1, _CELLS // rows.features.size)
    for start in range(0, len(names), step):
        some = names[start : start + step]
        orders = [draw.permutation(len(rows)) for _ in some]
        after = score(model, _stacked(rows, some, orders), classes=classes)
        for number, name in enumerate(some):
            own = slice(number * len(rows), (number + 1) * len(rows))
            found[name] = min(1.0, _distance(before, _part(after, own)) / apart) if apart > 0 else 0.0
    return found


def _stacked(rows: Dataset, names: list[str], orders: list[NDArray[np.intp]]) -> Dataset:
    """The rows once for each name, with its column shuffled: a forest costs as much for a few rows as for thousands."""
    every = np.tile(np.arange(len(rows), dtype=np.intp), len(names))
    stacked = rows.take(every)
    features = stacked.features
    for number, (name, order) in enumerate(zip(names, orders, strict=True)):
        places = every.copy()
        places[number * len(rows) : (number + 1) * len(rows)] = order
        features[name] = rows.features[name].array.take(places)
    return stacked


def _part(scores: Scores, rows: NDArray[np.intp] | slice) -> Scores:
    probability = None if scores.probability is None else scores.probability[rows]
    return replace(scores, prediction=scores.prediction[rows], probability=probability)


def _distance(one: Scores, other: Scores) -> float:
    """Mean over the rows: of the probability that moved, of the answers that changed, or of their difference."""
    if one.probability is not None and other.probability is not None:
        return float(np.abs(one.probability - other.probability).sum(axis=1).mean() / 2)
    if one.classes:
        return float((one.prediction != other.prediction).mean())
    return float(np.abs(one.prediction - other.prediction).mean())
