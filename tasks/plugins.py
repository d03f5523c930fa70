"""Plugins: user code named in the policy as ``package.module:name``, values from the environment, extra metrics."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.policy_problem import near

if TYPE_CHECKING:
    from tasks.decide.metrics import Custom


class PluginError(ValueError):
    """User code that cannot be used; the text names the policy key, the value and the remedy.

    Attributes:
        place: Where in a flow it went wrong, for the ledger.
        problems: Everything that is wrong, one sentence each.
    """

    place: ClassVar = "policy"

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def resolve(path: str, *, place: str, accepts: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Import what the policy names.

    Args:
        path: ``package.module:name``.
        place: Key of the policy that it comes from, for the error.
        accepts: Keyword arguments that it will be called with.

    Raises:
        PluginError: When it cannot be imported, is no callable or does not take the arguments.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise PluginError(f"{place}: {path!r} is no import path; write it as package.module:name")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # The user's module may raise anything while it is imported.
        remedy = "install the package, or start Backstop where the module can be imported"
        raise PluginError(f"{place}: {path!r} cannot be imported: {type(error).__name__}: {error}; {remedy}") from error
    found = getattr(module, name, None)
    if found is None:
        raise PluginError(
            f"{place}: {path!r}: {module_name} has no {name!r}{near(name, dir(module))}; correct the name"
        )
    if not callable(found):
        raise PluginError(f"{place}: {path!r} is a {type(found).__name__}; name a function or a class")
    _check_signature(found, path, place, accepts)
    return found  # type: ignore[no-any-return]


def _check_signature(found: Callable[..., Any], path: str, place: str, accepts: tuple[str, ...]) -> None:
    signature = signature_of(found)
    if signature is None:
        return
    try:
        signature.bind_partial(**dict.fromkeys(accepts))
    except TypeError as error:
        raise PluginError(
            f"{place}: {path!r} is called with {', '.join(accepts)}, but its signature is {signature}: {error}; "
            "change the arguments in the policy, or let it take them"
        ) from None


def signature_of(found: Callable[..., Any]) -> inspect.Signature | None:
    """The signature, or None for what has none (some callables written in C)."""
    try:
        return inspect.signature(found)
    except ValueError:
        return None


def expand(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``${NAME}`` replaced by the value of that environment variable.

    Raises:
        PluginError: For a variable that is not set or empty; the text is repeated with the name, not with values.
    """

    def value(match: re.Match[str]) -> str:
        found = environment.get(match[1])
        if not found:
            raise PluginError(f"{text!r}: the environment variable {match[1]} is not set; set it to the value meant")
        return found

    return re.sub(r"\$\{([A-Za-z_]\w*)\}", value, text)


def custom_metric(name: str) -> Custom | None:
    """The function behind a metric that is not built in: a scikit-learn scorer, or ``package.module:name``.

    Returns:
        None for a built-in metric.

    Raises:
        PluginError: For a name that is none of the three.
    """
    from tasks.decide.influence import FAMILIES  # noqa: PLC0415  the quiet path has no metric, and no numpy

    if name in FAMILIES:
        return None
    return resolve(name, place="metric") if ":" in name else scorer(name)


def scorer(name: str) -> Custom:
    """A scikit-learn scorer as a plain function of (truth, prediction, probability); more is better.

    Labels are class codes, and the positive class of a binary problem is code 1, as in
    :class:`tasks.records.Scores`.

    Raises:
        PluginError: For a name that scikit-learn does not know.
    """
    import numpy as np  # noqa: PLC0415  see custom_metric()
    from sklearn.metrics import get_scorer, get_scorer_names  # noqa: PLC0415  a built-in metric needs no scikit-learn

    from tasks.decide.influence import FAMILIES  # noqa: PLC0415  see custom_metric()

    names = get_scorer_names()
    if name not in names:
        raise PluginError(
            f"metric {name!r} is unknown{near(name, (*FAMILIES, *names))}; use one of {', '.join(FAMILIES)}, the name "
            "of a scikit-learn scorer, or package.module:name of a function (truth, prediction, probability) -> float"
        )
    judge = get_scorer(name)

    def measure(truth: Any, prediction: Any, probability: Any) -> float:
        rows = np.arange(len(truth)).reshape(-1, 1)
        return float(judge(_answers(prediction, probability), rows, truth))

    return measure


def _answers(prediction: Any, probability: Any) -> Any:
    """A stand-in for the model: scorers ask an estimator, and this one repeats answers that were given before."""
    import numpy as np  # noqa: PLC0415  see custom_metric()
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: PLC0415  see scorer()

    class Answers(BaseEstimator):  # type: ignore[misc]
        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict(self, rows: Any) -> Any:
            return prediction[rows[:, 0]]

    class Classifier(ClassifierMixin, Answers):  # type: ignore[misc]
        classes_ = None if probability is None else np.arange(probability.shape[1])

        def predict_proba(self, rows: Any) -> Any:
            return probability[rows[:, 0]]

    class Regressor(RegressorMixin, Answers):  # type: ignore[misc]
        pass

    return Regressor() if probability is None else Classifier()
