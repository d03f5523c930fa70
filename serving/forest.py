"""Forest: the trees of one asked in turn, without what scikit-learn does around each of them.

For a few rows that is fourteen fifteenths of the time of its predict: settings and filters of warnings are set anew for
every tree. The trees are scikit-learn's own; the numbers that come out are the model's, or this is not used: it is held
against the whole pipeline when a version is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract
from serving.pedigree import is_class_of
from serving.preparation import Prepared, ending, same

Floats = NDArray[np.float64]

MOST = 256
"""Rows at once, up to which it pays: for more of them the trees themselves take the time."""
_FORESTS = {
    "RandomForestClassifier": "predict_proba",
    "ExtraTreesClassifier": "predict_proba",
    "RandomForestRegressor": "predict",
    "ExtraTreesRegressor": "predict",
}


@dataclass(frozen=True, slots=True)
class Forest:
    """A fitted forest with one output.

    Attributes:
        trees: What each of them gives for float32 of shape (rows, features): shape (rows, outputs).
        outputs: The classes, or 1 in regression.
    """

    trees: tuple[Callable[[NDArray[np.float32]], Floats], ...]
    outputs: int

    def __call__(self, features: Floats) -> Floats | None:
        """The mean of the trees, shape (rows, outputs); None where the model has to be asked.

        Args:
            features: shape (rows, features), prepared.
        """
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and the model says so
            narrow = np.ascontiguousarray(features, dtype=np.float32)
        if np.isinf(narrow).any():
            return None
        total = np.zeros((len(narrow), self.outputs))
        for tree in self.trees:
            total += tree(narrow).reshape(total.shape)
        total /= len(self.trees)
        return total


def forest_of(model: Any, prepare: Prepared | None, contract: Contract) -> Forest | None:
    """The forest that ends a pipeline of Backstop's making.

    None where the pipeline is another one or ends in something else, or where the two differ on any row that was tried,
    see :meth:`serving.preparation.Prepared.trial_rows`.

    Args:
        model: A fitted pipeline.
        prepare: Its first step, where that can be done without a table.
        contract: What it takes.
    """
    if prepare is None or (end := ending(model, _FORESTS, "sklearn.ensemble")) is None:
        return None
    last, method = end
    try:
        outputs = len(last.classes_) if method == "predict_proba" else 1
        if outputs == 1 and method == "predict_proba":
            return None  # nobody could tell the one probability from the number of a regression
        if not all(is_class_of(one, "sklearn.tree") for one in last.estimators_):
            return None  # a tree of somebody's own may do more than its nodes say
        made = Forest(tuple(one.tree_.predict for one in last.estimators_), outputs)
        tried = prepare.trial_rows()
        found = made(prepare(tried))
        right = found is not None and same(found, getattr(model, method)(contract.frame(tried)))
    except Exception:  # noqa: BLE001  any model may come here, and the model itself is always there
        return None
    return made if right else None
