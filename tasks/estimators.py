"""Estimators: the user's estimator, with the preparation of the columns inside the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tasks.columns import kind_of
from tasks.plugins import resolve, signature_of
from tasks.policy import Training

STEP = "model"
"""Name of the user's estimator in the pipeline."""

_NULL = "(null)"


class TrainingError(RuntimeError):
    """A model could not be made; its text names the estimator, the parameters and the remedy."""


def build(training: Training, features: pd.DataFrame) -> Any:
    """An unfitted model: the estimator, behind the preparation of these columns.

    The pipeline is the model, so what is done to the columns in training is done to them in serving. A category that
    was not there in training, a null where there never was one and a column of nothing but nulls do not make it fail.

    Args:
        training: See the policy.
        features: Rows to be fitted, tidy.

    Raises:
        PluginError: When the estimator cannot be imported or does not take the parameters.
        TrainingError: When making it raises, or it is no estimator.
    """
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  costs seconds, and only training needs it

    estimator = _estimator(training)
    if training.preprocess == "none":
        return estimator
    return Pipeline([("prepare", _preparation(features, takes_nulls=_takes_nulls(estimator))), (STEP, estimator)])


def _estimator(training: Training) -> Any:
    path = str(training.estimator)
    factory = resolve(path, place="training.estimator", accepts=tuple(training.params))
    try:
        estimator = factory(**{**seed_for(factory, training), **training.params})
    except Exception as error:
        # The user's code may raise anything.
        raise failed(path, training.params, error) from error
    if not callable(getattr(estimator, "fit", None)):
        raise TrainingError(
            f"training.estimator: {path} made a {type(estimator).__name__} without fit; "
            "name a scikit-learn estimator, or use `trainer` for a function that fits"
        )
    return estimator


def seed_for(function: Callable[..., Any], training: Training) -> dict[str, int]:
    """``random_state``, when the function takes one by that name."""
    signature = signature_of(function)
    known = signature is not None and "random_state" in signature.parameters
    return {"random_state": training.seed} if known else {}


def failed(path: str, params: dict[str, Any], error: Exception) -> TrainingError:
    """The error for an estimator or trainer that raised."""
    settings = ", ".join(f"{name}={value!r}" for name, value in params.items()) or "no parameters"
    text = inspect.cleandoc(str(error))[:600]
    return TrainingError(
        f"training: {path} with {settings} raised {type(error).__name__}: {text}; "
        "correct training.params or the estimator, or the rows that it names"
    )


def learner(model: Any) -> Callable[[pd.DataFrame], tuple[Any, Any]]:
    """How a model learns a batch: what its last estimator is given for some rows, and that estimator.

    The steps before it are applied as they are. A scaler that went on counting would change what every weight means
    without a single label saying so.

    Args:
        model: Fitted, or not.

    Raises:
        TrainingError: When the last estimator has no ``partial_fit``.
    """
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  see build()

    if isinstance(model, Pipeline):
        before, rest = model[:-1], learner(model.steps[-1][1])
        return lambda rows: rest(before.transform(rows) if before.steps else rows)
    if not callable(getattr(model, "partial_fit", None)):
        raise TrainingError(
            f"training: {type(model).__name__} has no partial_fit, so it cannot learn from feedback; take an estimator "
            "that has one, such as sklearn.linear_model:SGDClassifier, or write `learn: off`"
        )
    return lambda rows: (rows, model)


def check_learner(training: Training) -> None:
    """See that what the policy trains can learn from feedback; of a trainer's model that is seen when it learns.

    Raises:
        PluginError: When the estimator cannot be imported.
        TrainingError: When it cannot learn from feedback.
    """
    if training.estimator is not None:
        learner(_estimator(training))


def _takes_nulls(estimator: Any) -> bool:
    from sklearn.utils import get_tags  # noqa: PLC0415  see build()

    try:
        return bool(get_tags(estimator).input_tags.allow_nan)
    except (AttributeError, TypeError):  # an estimator that is none of scikit-learn's
        return False


def _preparation(features: pd.DataFrame, *, takes_nulls: bool) -> Any:
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415  see build()

    numbers = [name for name in features.columns if kind_of(features[name]) == "number"]
    words = [name for name in features.columns if kind_of(features[name]) == "category"]
    parts = [("numbers", "passthrough" if takes_nulls else _filled(), numbers), ("words", _coded(), words)]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)


def _filled() -> Any:
    """Nulls at the median, marked as such, and all on one scale: for estimators that count distances."""
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  see build()
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  see build()
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415  see build()

    fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return Pipeline([("fill", fill), ("scale", StandardScaler())])


def _coded() -> Any:
    """One column per level. A null is a level, whether it comes as None or as NaN; rare and new levels share one."""
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  see build()
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  see build()
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415  see build()

    fill = {"strategy": "constant", "fill_value": _NULL, "keep_empty_features": True}
    return Pipeline(
        [
            ("nan", SimpleImputer(missing_values=np.nan, **fill)),
            ("none", SimpleImputer(missing_values=None, **fill)),
            (
                "codes",
                OneHotEncoder(
                    handle_unknown="infrequent_if_exist", min_frequency=5, max_categories=200, sparse_output=False
                ),
            ),
        ]
    )
