"""Scoring: one model's answers on one set of rows, asked for once; how fast it is."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tasks import argmax
from tasks.columns import text_of, tidy
from tasks.compute import each, pieces
from tasks.data import Dataset
from tasks.decide.intervals import quantile_bounds
from tasks.levels import levels_of
from tasks.policy import LatencyCheck, Policy
from tasks.records import Scores

if TYPE_CHECKING:
    from tasks.requests import Recorded

Floats = NDArray[np.float64]

_ROUNDS = 3
"""Times that the calls are measured at most."""
_LIFTED = 1000
"""Different rows that a round asks at most."""
_TIE = 1e-6
"""Distance of the two largest probabilities within which rounding may decide which one predict takes."""
_BLOCK = 4096
"""Rows of many probabilities that are looked at together: they fit into the processor's cache."""
_PLAIN = (str, bool, int, float, np.bool_, np.integer, np.floating, type(None), type(pd.NA), type(pd.NaT))
"""What an answer may be: whatever else it is, it could be neither judged nor served."""
_BESIDE = frozenset({"alembic", "mlflow", "prefect", "pydantic", "requests", "sqlalchemy", "urllib3"})
"""Packages that are loaded where a model is judged, and need not be where it answers."""


def classes_of(model: Any, dataset: Dataset, policy: Policy) -> tuple[str, ...]:
    """The labels of the model and of the rows together, as text; empty in regression.

    Numbers come in the order of their size, words in that of the alphabet. In a binary problem the positive class is
    the second: ``data.positive``, or the last of the model's own.

    Raises:
        ValueError: When neither the model nor the rows tell any class.
    """
    if policy.problem == "regression":
        return ()
    own = _ordered(getattr(model, "classes_", ()))
    labels = _ordered([*own, *dataset.labels[0]])
    if not labels:
        raise ValueError(f"the model of {policy.model} has no classes_ and no row has a label; its classes are unknown")
    if policy.problem != "binary":
        return labels
    positive = policy.data.positive or (own or labels)[-1]
    others = [label for label in labels if label != positive]
    return (*others[:1], positive, *others[1:])


def known_to(model: Any, learned: Dataset, policy: Policy) -> tuple[str, ...]:
    """The classes that a model can answer, as text: its own, or where it tells none, those of what it learned from.

    Args:
        model: Fitted.
        learned: The rows it was fitted on.
        policy: Of the model.

    Returns:
        Empty in regression.
    """
    if policy.problem == "regression":
        return ()
    return _ordered(getattr(model, "classes_", ())) or _ordered(learned.labels[0])


def _ordered(labels: Sequence[Any]) -> tuple[str, ...]:
    texts = {text for label in labels if (text := text_of(label)) is not None}
    try:
        return tuple(sorted(texts, key=float))
    except ValueError:
        return tuple(sorted(texts))


def score(model: Any, dataset: Dataset, *, classes: tuple[str, ...], beside: Scores | None = None) -> Scores:
    """The model's answers, in one pass over the rows.

    The answers are those of ``predict``, always. Where it is known to give the class with the largest probability, that
    class is taken, and ``predict`` is asked for ties only; any other model with probabilities answers every row twice:
    with a threshold that was tuned, what no sample of the rows shows may be what decides.

    Args:
        model: Fitted.
        dataset: n rows.
        classes: From :func:`classes_of`; empty in regression.
        beside: Another model's answers to the very same rows, which have told the labels already.

    Returns:
        Of n rows. Where there is no label, ``truth`` is -1, and NaN in regression. An answer that is null or NaN is
        -1, and NaN in regression, so that no metric can be taken of it.

    Raises:
        ValueError: When the model gives another number of answers than rows, or a class that is not among ``classes``;
            or when ``beside`` has other classes or another number of rows.
    """
    if beside is not None and (beside.classes != classes or len(beside.truth) != len(dataset)):
        raise ValueError(
            f"{len(beside.truth)} answers with the classes {beside.classes} are not beside {len(dataset)} rows with "
            f"the classes {classes}; score both models on the same rows"
        )
    if not classes:
        truth = _values(dataset.target) if beside is None else beside.truth
        return Scores(truth=truth, prediction=_predicted(model, dataset.features).astype(np.float64))
    truth = _known(*dataset.labels, classes, "the labels") if beside is None else beside.truth
    if not len(dataset):
        return Scores(truth=truth, prediction=truth, classes=classes)
    if not hasattr(model, "predict_proba"):
        answers = _predicted(model, dataset.features)
        return Scores(truth=truth, prediction=_codes(answers, classes, "the predictions"), classes=classes)
    raw = _asked(model, dataset.features, "predict_proba").astype(np.float64)
    own = [str(text_of(label)) for label in model.classes_]
    codes = _codes(own, classes, "the model's classes", strict=False)
    probability = _reordered(raw, codes, classes)
    if argmax.is_known(model):
        prediction = _likeliest(raw, codes)
        rows = _tied(raw)
        prediction[rows] = _codes(_predicted(model, dataset.features.iloc[rows]), classes, "the predictions")
    else:
        prediction = _codes(_predicted(model, dataset.features), classes, "the predictions")
    return Scores(truth=truth, prediction=prediction, probability=probability, classes=classes)


def _likeliest(raw: Floats, codes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The class of the largest probability, of equal ones the first; -1 where one of them is no number."""
    if raw.shape[1] == 2:  # most models; going along such short rows takes ten times as long
        first, second = raw.T
        places = (second > first).astype(np.intp)
    else:
        places = np.argmax(raw, axis=1)
    likeliest: NDArray[np.intp] = np.take(codes, places)
    if not (np.isfinite(raw.min()) and np.isfinite(raw.max())):
        likeliest[~np.isfinite(raw).all(axis=1)] = -1
    return likeliest


def _reordered(raw: Floats, codes: NDArray[np.intp], classes: tuple[str, ...]) -> Floats:
    """Columns in the order of ``classes``; a class that the model does not know has probability 0."""
    if np.array_equal(codes, np.arange(len(classes))):
        return np.ascontiguousarray(raw)
    probability = np.zeros((len(raw), len(classes)))
    known = codes >= 0
    probability[:, codes[known]] = raw[:, known]
    return probability


def _tied(raw: Floats) -> NDArray[np.intp]:
    """Rows whose two largest probabilities are equal but for rounding."""
    if raw.shape[1] < 2:
        return np.empty(0, dtype=np.intp)
    if raw.shape[1] == 2:
        apart = np.abs(raw[:, 1] - raw[:, 0])
    else:
        apart = np.concatenate([_lead(raw[start : start + _BLOCK]) for start in range(0, len(raw), _BLOCK)])
    return np.flatnonzero(apart < _TIE)


def _lead(raw: Floats) -> Floats:
    """Of each row: by how much the largest number is above the largest of the others."""
    rows, others = np.arange(len(raw)), raw.copy()
    first = np.argmax(raw, axis=1)
    others[rows, first] = -np.inf
    lead: Floats = raw[rows, first] - others.max(axis=1)
    return lead


def _predicted(model: Any, features: pd.DataFrame) -> NDArray[Any]:
    if not len(features):
        return np.empty(0)
    return _asked(model, features, "predict").reshape(len(features))


def _asked(model: Any, features: pd.DataFrame, method: str) -> NDArray[Any]:
    """All rows at once, or in pieces where the policy's ``compute`` says so."""
    parts = pieces(len(features))
    if len(parts) == 1:
        return _answered(model, features, method)
    return np.concatenate(each(_answered, [(model, features.iloc[part], method) for part in parts]))


def _answered(model: Any, features: pd.DataFrame, method: str) -> NDArray[Any]:
    # A frame of its own: a model that prepares its rows in place must not change those that the next one is judged on.
    return _rows(getattr(model, method)(features.copy(deep=False)), len(features), method)


def _rows(answers: Any, rows: int, method: str) -> NDArray[Any]:
    array = np.asarray(answers)
    if array.shape[:1] != (rows,) or (method == "predict" and array.size != rows):
        raise ValueError(
            f"the model's {method} gave an array of shape {array.shape} for {rows} rows; it must give one answer each"
        )
    if (strange := _strange(array)) is not None:
        raise ValueError(
            f"the model's {method} gave values of the type {strange}; it must give numbers (float, int) or text, which "
            "can be judged and sent: convert them in the model, as by float()"
        )
    return array


def _strange(array: NDArray[Any]) -> str | None:
    """A type among the values that is neither number nor text, such as complex or Decimal."""
    if array.dtype.kind != "O":
        return None if array.dtype.kind in "biufUT" else str(array.dtype)
    if pd.api.types.infer_dtype(array.ravel(), skipna=False) == "string":
        return None
    kinds = set(map(type, array.ravel()))
    return next((kind.__name__ for kind in kinds if not issubclass(kind, _PLAIN)), None)


def as_answers(texts: Sequence[str], classes: tuple[str, ...]) -> NDArray[Any]:
    """Recorded answers as a model gives them: codes of the classes, -1 for an unknown one; numbers in regression."""
    if not classes:
        return np.array([float(text) for text in texts], dtype=np.float64)
    return _codes(texts, classes, "the recorded answers", strict=False)


def _values(target: pd.Series[Any]) -> Floats:
    return target.to_numpy(dtype=object).astype(np.float64)  # None becomes NaN


def _codes(labels: Any, classes: tuple[str, ...], what: str, *, strict: bool = True) -> NDArray[np.intp]:
    """Class codes of labels; -1 for a null, and for an unknown class unless that is an error."""
    values = labels if isinstance(labels, np.ndarray) else np.array(list(labels), dtype=object)
    return _known(*levels_of(values), classes, what, strict=strict)


def _known(
    levels: list[Any], places: NDArray[np.intp], classes: tuple[str, ...], what: str, *, strict: bool = True
) -> NDArray[np.intp]:
    """The same of the different labels, and of which of them each one is."""
    known: dict[str | None, int] = {label: code for code, label in enumerate(classes)} | {None: -1}
    texts = [text_of(level) for level in levels]
    unknown = [text for text in texts if text not in known]
    if strict and unknown:
        raise ValueError(
            f"{what} hold {unknown[0]!r}, which is not among the classes {', '.join(classes)}; "
            "train a model that knows it, or correct the rows"
        )
    table = np.array([*(known.get(text, -1) for text in texts), -1], dtype=np.intp)
    return np.take(table, places)


def latencies(
    model: Any, features: pd.DataFrame, *, calls: int, warmup: int = 20, budget_seconds: float = 20.0
) -> Floats:
    """Seconds per single-row predict, on real rows in turn, with one thread.

    With one, as a server that answers many requests at once runs it: more threads do nothing for one row, and on a busy
    machine they wait for each other, up to a second a call for a boosted ensemble on two cores. With no more filters of
    warnings than a process that only answers has: scikit-learn sets all of them again for each tree of a forest, and
    those that MLflow brings along would make the calls a fifth slower.

    Args:
        model: Fitted.
        features: Rows to take in turn; of many those that are taken lie as far apart as they can.
        calls: How many are measured.
        warmup: Calls before that; the first ones load code and fill caches.
        budget_seconds: A model that is so slow that the calls take longer is measured on those that fit in.

    Returns:
        shape (at most ``calls``,), in the order they were made.

    Raises:
        ValueError: When there are no rows.
    """
    if not len(features):
        raise ValueError("latency needs at least one row to predict; the holdout is empty")
    # Lifted out of the table, so that a model that changes its row in place changes nothing else. The first ones alone
    # would be of one hour or one shop, and what takes long may come later.
    places = np.unique(np.linspace(0, len(features) - 1, min(calls, _LIFTED)).astype(np.intp))
    lifted = features.iloc[places]
    rows = [lifted.iloc[place : place + 1].copy() for place in range(len(lifted))]
    taken: list[float] = []
    with threadpool_limits(limits=1), _filters_of_a_server():
        for call in range(warmup):
            model.predict(rows[call % len(rows)])
        end = time.perf_counter() + budget_seconds
        for call in range(calls):
            start = time.perf_counter()
            if start > end and taken:
                break
            model.predict(rows[call % len(rows)])
            taken.append(time.perf_counter() - start)
    return np.array(taken)


@contextmanager
def _filters_of_a_server() -> Iterator[None]:
    """Only the filters of warnings that came with Python, with the model, or with what it is made of."""
    with warnings.catch_warnings():
        filters = cast("list[tuple[Any, ...]]", warnings.filters)  # a copy, for as long as this lasts
        filters[:] = [one for one in filters if getattr(one[2], "__module__", "").partition(".")[0] not in _BESIDE]
        yield


def quietest(model: Any, features: pd.DataFrame, check: LatencyCheck) -> Floats:
    """Seconds per single-row predict in the quietest of up to three rounds; the first that may pass is the last.

    What else the machine does can only make calls slower, so a round that the gate would not let pass is measured again
    before it is believed. One slow call among a few hundred is enough for that: their bound is then the slowest of all.
    Each round asks rows of its own: a model that remembers its answers has none for rows that it has not seen.

    Args:
        model: Fitted.
        features: Rows to take in turn.
        check: Its calls are made in each round.

    Returns:
        shape (at most ``check.calls``,), as ``latencies``.

    Raises:
        ValueError: When there are no rows.
    """
    rounds: list[tuple[float, float, Floats]] = []
    while len(rounds) < _ROUNDS:
        rows = features.iloc[len(rounds) :: _ROUNDS] if len(features) >= _ROUNDS else features
        seconds = latencies(model, rows, calls=check.calls)
        _, high = quantile_bounds(seconds, 0.99, check.confidence)
        # A round that was cut short bounds nothing; the gate says so of it, if there is no other.
        bound = math.inf if high is None else high
        rounds.append((bound, float(np.quantile(seconds, 0.99)), seconds))
        if bound <= check.p99.total_seconds():
            break
    return min(rounds, key=lambda one: one[:2])[2]


def recorded_rows(recorded: Recorded, policy: Policy) -> Dataset:
    """Recorded requests as rows, oldest first, with labels where they have arrived.

    Args:
        recorded: Of one model.
        policy: Of the same.
    """
    data = policy.data
    apart = {data.target, *data.drop, data.time_column}
    raw = pd.DataFrame(list(recorded.features), index=pd.RangeIndex(len(recorded.features)))
    # JSON says what is a number; text that looks like one is what the caller sent.
    features = tidy(raw[[name for name in raw.columns if name not in apart]], text=data.categorical, parse=False)
    labels: list[Any] = [text_of(label) for label in recorded.labels]
    if policy.problem == "regression":
        labels = [None if label is None else float(label) for label in labels]
    moments = pd.DatetimeIndex(pd.to_datetime(list(recorded.times), utc=True)).as_unit("us")
    order = np.argsort(moments.asi8, kind="stable")
    rows = Dataset(features=features, target=pd.Series(labels, dtype=object), time=moments)
    return rows.take(order)
