"""Pedigree: whether a fitted pipeline is, part by part, one that Backstop makes.

What is done around such a pipeline stands for every row that may come, and a few hundred that are tried cannot show
that: a limit at 3e6 or a step that makes words lower-case is not met by them. So nothing goes unlooked at: the classes
are these and no heirs of theirs, no method is put upon one of them, and the parameters that have a say are Backstop's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_FILL = {
    "missing_values": math.nan,
    "strategy": "median",
    "fill_value": None,
    "add_indicator": True,
    "keep_empty_features": True,
}
_SCALE = {"with_mean": True, "with_std": True}
_AT_NULL = {"strategy": "constant", "fill_value": "(null)", "add_indicator": False, "keep_empty_features": True}
_CODES = {
    "categories": "auto",
    "drop": None,
    "sparse_output": False,
    "dtype": np.float64,
    "handle_unknown": "infrequent_if_exist",
}
"""How rare a level has to be to share a column does not matter here: every one that was seen is looked up."""
_TABLE = {"remainder": "drop", "sparse_threshold": 0, "transformer_weights": None}
_THROUGH = {"func": None, "inverse_func": None, "validate": False, "kw_args": None}
"""What scikit-learn makes of ``"passthrough"``."""
_OUTPUT = "_sklearn_output_config"
"""Where scikit-learn keeps what ``set_output`` was given: the next step may then be given a table with names."""


def is_pipeline(model: Any) -> bool:
    """Whether it is scikit-learn's Pipeline itself: to ask its steps in turn is then what its predict does."""
    from sklearn.pipeline import Pipeline  # noqa: PLC0415  what was loaded has imported it

    return type(model) is Pipeline and not _has_own_methods(model)


def is_class_of(part: Any, package: str) -> bool:
    """Whether it is of a class of scikit-learn's, no method of which was replaced.

    Args:
        part: An estimator.
        package: That the class has to come from; one of somebody's own may do anything.
    """
    return type(part).__module__.startswith(f"{package}.") and not _has_own_methods(part)


def is_backstops(model: Any) -> bool:
    """Whether it is one of Backstop's own preparation (:func:`tasks.estimators.build`) and one more step."""
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415  see is_pipeline()

    if not is_pipeline(model) or [name for name, _ in model.steps][:-1] != ["prepare"]:
        return False
    table = model.steps[0][1]
    if not _is(table, ColumnTransformer, _TABLE):
        return False
    parts = [part for part in table.transformers_ if part[0] != "remainder"]
    named = {"numbers": _are_numbers, "words": _are_words}
    return (
        [name for name, _, _ in parts] in (["numbers"], ["words"], ["numbers", "words"])
        and all(named[name](part) for name, part, _ in parts)
        and all(_are_names(columns) for _, _, columns in parts)
    )


def _are_names(columns: Any) -> bool:
    """One name alone would be a text, of which every letter may be the name of another column."""
    return type(columns) is list and all(type(name) is str for name in columns) and len({*columns}) == len(columns)


def _are_numbers(part: Any) -> bool:
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  see is_pipeline()
    from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: PLC0415  see is_pipeline()

    if _is(part, FunctionTransformer, _THROUGH):
        return True
    return _are_steps(part, {"fill": (SimpleImputer, _FILL), "scale": (StandardScaler, _SCALE)})


def _are_words(part: Any) -> bool:
    from sklearn.impute import SimpleImputer  # noqa: PLC0415  see is_pipeline()
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415  see is_pipeline()

    steps: dict[str, tuple[type, Mapping[str, Any]]] = {
        "nan": (SimpleImputer, {**_AT_NULL, "missing_values": math.nan}),
        "none": (SimpleImputer, {**_AT_NULL, "missing_values": None}),
        "codes": (OneHotEncoder, _CODES),
    }
    return _are_steps(part, steps)


def _are_steps(part: Any, steps: Mapping[str, tuple[type, Mapping[str, Any]]]) -> bool:
    if not is_pipeline(part) or [name for name, _ in part.steps] != list(steps):
        return False
    return all(_is(step, *steps[name]) for name, step in part.steps)


def _is(part: Any, kind: type[Any], parameters: Mapping[str, Any]) -> bool:
    if type(part) is not kind or _has_own_methods(part):
        return False
    if getattr(part, _OUTPUT, {}).get("transform", "default") != "default":
        return False
    given: dict[str, Any] = part.get_params(deep=False)
    return all(name in given and _equal(given[name], value) for name, value in parameters.items())


def _equal(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(given, float) and math.isnan(given)
    return type(given) is type(wanted) and bool(given == wanted)


def _has_own_methods(part: Any) -> bool:
    return any(callable(getattr(type(part), name, None)) for name in vars(part))
