"""Domain: a classifier that is asked to tell recent inputs from those of the training, on rows that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import leaning
from tasks import profile as profiles
from tasks.data import Dataset
from tasks.decide.influence import Unmeasurable
from tasks.decide.metrics import measure
from tasks.estimators import build
from tasks.policy import MultivariateTrigger, Training
from tasks.records import Domain, Scores

CLASSES = ("then", "now")
_FOLDS = 4
_MODEL = Training(
    estimator="sklearn.ensemble:HistGradientBoostingClassifier",
    params={"max_iter": 40, "max_leaf_nodes": 8, "learning_rate": 0.2, "early_stopping": False},
)
"""Small trees, and few: what it takes many to find is no drift that anybody would act on."""


def compared(then: Dataset, now: Dataset, rules: MultivariateTrigger, *, seed: int) -> Domain:
    """Ask it, in folds: every row is judged by a classifier that was fitted on the others.

    Args:
        then: Rows that the Production version was made of.
        now: Recent rows.
        rules: Of the policy.
        seed: Of the folds.

    Raises:
        Unmeasurable: When a side has too few rows, or no column in common.
    """
    before, after = (_newest(one.features, rules.rows) for one in (then, now))
    shared = [name for name in before.columns if name in after.columns and _same_kind(before[name], after[name])]
    if min(len(before), len(after)) < rules.min_rows:
        told = f"{len(before):,} rows of the training are still in the lookback window, and {len(after):,} recent ones"
        raise Unmeasurable(f"{told} are there; {rules.min_rows:,} of each are needed")
    if not shared:
        raise Unmeasurable("no column of the training is there with the same type")
    features = pd.concat([before[shared], after[shared]], ignore_index=True)
    truth = np.repeat([0, 1], [len(before), len(after)])
    said, model, held = _cross_fitted(features, truth, seed)
    scores = Scores(
        truth=truth,
        prediction=(said > 0.5).astype(np.intp),
        probability=np.column_stack((1 - said, said)),
        classes=CLASSES,
    )
    leading = _leading(features.iloc[held].reset_index(drop=True), model, seed)
    return Domain(auc=measure("roc_auc", scores), reference=len(before), recent=len(after), leading=leading)


def _newest(features: pd.DataFrame, most: int) -> pd.DataFrame:
    return features.iloc[max(0, len(features) - most) :]


def _same_kind(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether both can be read by one model; what changed its type is told by ``upstream`` and by ``drift``."""
    return bool(one.dtype == other.dtype)


def _cross_fitted(
    features: pd.DataFrame, truth: NDArray[np.intp], seed: int
) -> tuple[NDArray[np.float64], Any, NDArray[np.intp]]:
    """What was said of each row, the last model, and the rows that it was not fitted on."""
    fold = np.empty(truth.size, dtype=np.intp)
    draw = np.random.default_rng(seed)
    for side in (0, 1):  # each fold has its share of both
        rows = np.flatnonzero(truth == side)
        fold[draw.permutation(rows)] = np.arange(rows.size) % _FOLDS
    said = np.empty(truth.size)
    for number in range(_FOLDS):
        model, rest = build(_MODEL, features), np.flatnonzero(fold != number)
        model.fit(features.iloc[rest], np.asarray(CLASSES)[truth[rest]])
        held = np.flatnonzero(fold == number)
        now = list(model.classes_).index("now")
        said[held] = model.predict_proba(features.iloc[held])[:, now]
    return said, model, held


def _leading(features: pd.DataFrame, model: Any, seed: int, most: int = 3) -> tuple[str, ...]:
    """The columns that it leaned on most."""
    rows = Dataset(
        features=features,
        target=pd.Series([None] * len(features), dtype=object),
        time=pd.DatetimeIndex([pd.NaT] * len(features)),
    )
    columns = leaning.measured(profiles.describe(features), model, rows, classes=CLASSES, seed=seed)
    known = [(column.score, column.name) for column in columns if column.score]
    return tuple(name for _, name in sorted(known, key=lambda one: -one[0])[:most])
