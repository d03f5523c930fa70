"""Argmax: models of which it is known that predict gives the class with the largest probability."""

from __future__ import annotations

import sys
from typing import Any

_OWN = frozenset(
    {
        *("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "MLPClassifier", "KNeighborsClassifier"),
        *("DecisionTreeClassifier", "ExtraTreeClassifier", "RandomForestClassifier", "ExtraTreesClassifier"),
        *("GradientBoostingClassifier", "HistGradientBoostingClassifier", "AdaBoostClassifier", "BaggingClassifier"),
        *("GaussianNB", "BernoulliNB", "MultinomialNB", "ComplementNB", "CategoricalNB"),
        *("LinearDiscriminantAnalysis", "QuadraticDiscriminantAnalysis", "CalibratedClassifierCV"),
    }
)
"""By scikit-learn's source: predict is the largest of the probabilities, or of what they rise with."""
_INNER = {
    "Pipeline": lambda model: model.steps[-1][1],
    "StackingClassifier": lambda model: model.final_estimator_,
    **dict.fromkeys(
        ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"),
        lambda model: model.best_estimator_,
    ),
}
"""Those that pass both questions on to a model that they hold."""


def is_known(model: Any) -> bool:
    """Whether predict is known to be the class with the largest probability, but for ties within rounding.

    Of scikit-learn's own classes alone: a subclass may answer otherwise, and so may a threshold that was tuned, an SVC
    (whose probabilities are fitted beside its answers, Platt 1999), a model of which any method was replaced (one of
    the two may go through it and the other not) or neighbours with weights of somebody's own, which may be negative.

    Args:
        model: Fitted, with predict_proba.
    """
    kind = type(model)
    home = sys.modules.get(kind.__module__) if kind.__module__.startswith("sklearn.") else None
    if getattr(home, kind.__name__, None) is not kind or callable(getattr(model, "weights", None)):
        return False
    if any(callable(getattr(kind, name, None)) for name in vars(model)):
        return False
    if kind.__name__ == "VotingClassifier":
        return bool(model.voting == "soft")
    inner = _INNER.get(kind.__name__)
    return kind.__name__ in _OWN if inner is None else is_known(inner(model))
