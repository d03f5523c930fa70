"""Leaks: a column that alone knows the target is the target in disguise, or is only known afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.columns import kind_of
from tasks.decide.ranks import midranks

Floats = NDArray[np.float64]

_OLDER = 0.7
_BINS = 64
_ROWS = 100_000
_LEAST = 5
"""Rows of a class among the newer ones below which a ranking is luck."""


def strengths(features: pd.DataFrame, target: pd.Series[Any], *, regression: bool) -> dict[str, float]:
    """How well each column alone tells the target, on rows that were not used to learn it.

    The mean of the target per bin or level, nulls apart, is learned on the older 70 % of the rows and judged on the
    newer 30 %: by the AUC (of each class against the rest, the highest), or by R2 in regression, where a straight line
    is tried too.

    Args:
        features: n rows, oldest first, tidy.
        target: shape (n,), without nulls.
        regression: Whether the target is an amount.

    Returns:
        By column, 0..1; a column is left out where the newer rows are too few to tell.
    """
    step = max(1, len(features) // _ROWS)
    features, target = features.iloc[::step], target.iloc[::step]
    older = int(_OLDER * len(features))
    wanted = _targets(target, older, regression=regression)
    found: dict[str, float] = {}
    for name in features.columns:
        column = features[name]
        bins, size = _bins(column, older)
        judged = [_judge(column, bins, size, truth, older, regression=regression) for truth in wanted]
        if judged:
            found[str(name)] = max(judged)
    return found


def _targets(target: pd.Series[Any], older: int, *, regression: bool) -> list[Floats]:
    """The target as numbers: itself, or one indicator per class with enough rows among the newer ones."""
    if regression:
        return [target.to_numpy(dtype=np.float64)]
    texts = target.astype(str).to_numpy()
    levels, counts = np.unique(texts[older:], return_counts=True)
    enough = [level for level, n in zip(levels, counts, strict=True) if min(n, counts.sum() - n) >= _LEAST]
    return [(texts == level).astype(np.float64) for level in enough]


def _bins(column: pd.Series[Any], older: int) -> tuple[NDArray[np.intp], int]:
    """A bin for each row, learned on the older ones; the last two are for nulls and for levels not seen then."""
    if kind_of(column) == "category":
        levels = pd.Index(pd.unique(column.iloc[:older].dropna()))
        codes = levels.get_indexer(pd.Index(column)) if len(levels) else np.full(len(column), -1)
        size = len(levels)
        codes = np.where(codes < 0, size + 1, codes)
        return np.where(column.isna().to_numpy(), size, codes).astype(np.intp), size + 2
    values = column.to_numpy(dtype=np.float64)
    known = values[:older][np.isfinite(values[:older])]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if known.size else np.empty(0)
    codes = np.searchsorted(edges, values)
    return np.where(np.isnan(values), edges.size + 1, codes).astype(np.intp), int(edges.size) + 3


def _judge(
    column: pd.Series[Any], bins: NDArray[np.intp], size: int, truth: Floats, older: int, *, regression: bool
) -> float:
    counts = np.bincount(bins[:older], minlength=size)
    sums = np.bincount(bins[:older], weights=truth[:older], minlength=size)
    overall = float(truth[:older].mean()) if older else 0.0
    means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    guess, later = means[bins[older:]], truth[older:]
    if not regression:
        return _auc(later, guess)
    line = _line(column.to_numpy(dtype=np.float64), truth, older) if kind_of(column) == "number" else None
    return max(_r2(later, guess), 0.0 if line is None else _r2(later, line))


def _auc(truth: Floats, guess: Floats) -> float:
    """Area under the ROC curve, ties counted half (Mann and Whitney 1947)."""
    positive = truth == 1
    hits = int(positive.sum())
    ranks = midranks(guess)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (truth.size - hits)))


def _r2(truth: Floats, guess: Floats) -> float:
    around = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - guess) ** 2).sum()) / around if around > 0 else 0.0


def _line(values: Floats, truth: Floats, older: int) -> Floats | None:
    """Least squares on the older rows, applied to the newer ones; nulls at the mean."""
    known = np.isfinite(values)
    x, y = values[:older][known[:older]], truth[:older][known[:older]]
    if x.size < 2 or np.ptp(x) == 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    later = np.where(known, values, x.mean())[older:]
    guess: Floats = y.mean() + slope * (later - x.mean())
    return guess
