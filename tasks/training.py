"""Training: fit a model, or search for its parameters first, and describe what later decisions compare it with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import leaning
from tasks import profile as profiles
from tasks.data import Dataset, Split, fingerprint
from tasks.decide.metrics import Unmeasurable, is_loss, measure
from tasks.decide.probabilities import strays
from tasks.estimators import STEP, TrainingError, build, failed, seed_for
from tasks.plugins import custom_metric, resolve
from tasks.policy import Policy, Search
from tasks.progress import Progress, silent
from tasks.records import Measurement, Profile, Scores, Span
from tasks.scoring import classes_of, score

__all__ = ["Fitted", "TrainingError", "check_answers", "fit", "profile_of", "train_metrics"]

_TICK = timedelta(microseconds=1)
_USUAL = 0.9
"""Share of a regression's answers on the holdout that are no errors."""
_FACTOR = 3
"""Of successive halving: a third of the parameter sets goes on, on three times the rows."""
_FEW, _ENOUGH = 1000, 5000
"""Fitted rows that are scored at least, where there are as many, and at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A fitted model.

    Attributes:
        model: Has predict, and predict_proba where it can.
        params: Of the estimator, those that a search found included.
        searched: Whether they were searched for.
        window: Which stretch of the rows it learned from, and why; empty where there was nothing to choose.
    """

    model: Any
    params: dict[str, Any]
    searched: bool = False
    window: str = ""


def fit(policy: Policy, train: Dataset, *, search: bool = False, progress: Progress = silent) -> Fitted:
    """Fit the policy's estimator, or call its trainer.

    Args:
        policy: Of the model.
        train: Labelled rows.
        search: Whether to look for better parameters first, where the policy has a space for it.
        progress: Told how far a search is.

    Raises:
        PluginError: When the estimator or trainer cannot be imported or does not take the parameters.
        TrainingError: When it raises, or when the model's answers are no answers.
    """
    training = policy.training
    labels = _labels(policy, train)
    if training.trainer is not None:
        fitted = Fitted(model=_trained(policy, train.features, labels), params=dict(training.params))
    else:
        model = build(training, train.features)
        wanted = training.search if search else None
        if wanted:
            fitted = _searched(policy, wanted, model, train, labels, progress)
        else:
            fitted = _fitted(policy, model, train, labels)
    check_answers(policy, fitted.model, train)
    return fitted


def _labels(policy: Policy, train: Dataset) -> NDArray[Any]:
    """As they are: numpy finds the one type that holds them all."""
    return np.array(train.target.tolist(), dtype=np.float64 if policy.problem == "regression" else None)


def _fitted(policy: Policy, model: Any, train: Dataset, labels: NDArray[Any]) -> Fitted:
    training = policy.training
    try:
        model.fit(train.features.copy(deep=False), labels)  # what it does to them in place is not the reference
    except Exception as error:
        # The user's estimator may raise anything.
        raise failed(str(training.estimator), training.params, error) from error
    return Fitted(model=model, params=dict(training.params))


def _trained(policy: Policy, features: pd.DataFrame, labels: NDArray[Any]) -> Any:
    training = policy.training
    trainer = resolve(str(training.trainer), place="training.trainer", accepts=tuple(training.params))
    try:
        model = trainer(features.copy(deep=False), labels, **{**seed_for(trainer, training), **training.params})
    except Exception as error:
        # The user's code may raise anything.
        raise failed(str(training.trainer), training.params, error) from error
    if not callable(getattr(model, "predict", None)):
        raise TrainingError(
            f"training.trainer: {training.trainer} returned {type(model).__name__}, which has no predict; "
            "return the fitted model"
        )
    if policy.problem != "regression" and not hasattr(model, "classes_"):
        model.classes_ = np.unique(labels)  # the classes have to be known where no label is at hand
    return model


def check_answers(policy: Policy, model: Any, train: Dataset) -> None:
    """Refuse a model whose answers to the rows that it has just learned are no answers.

    Raises:
        TrainingError: When some are NaN or nothing, or probabilities that are none, or the model raises.
    """
    name = policy.training.estimator or policy.training.trainer
    rows = train.take(slice(max(0, len(train) - 1000), None))
    try:
        scores = score(model, rows, classes=classes_of(model, rows, policy))
    except Exception as error:
        # The user's model may raise anything.
        raise failed(str(name), policy.training.params, error) from error
    bad = ~np.isfinite(scores.prediction) if not scores.classes else scores.prediction < 0
    if scores.probability is not None:
        bad = bad | ~np.isfinite(scores.probability).all(axis=1)
    if bad.any():
        raise TrainingError(
            f"training: the model of {name} answers {int(bad.sum())} of {len(rows)} rows with NaN or nothing; "
            "look at its parameters and at the scale of the columns"
        )
    if scores.probability is not None and (told := strays(scores.probability)):
        raise TrainingError(f"training: of the model of {name}, {told}")


def _searched(
    policy: Policy, search: Search, model: Any, train: Dataset, labels: NDArray[Any], progress: Progress
) -> Fitted:
    training = policy.training
    prefix = f"{STEP}__" if training.preprocess == "auto" else ""
    space = {f"{prefix}{name}": values for name, values in search.space.items()}
    searcher = _searcher(policy, search, model, space, len(train), progress)
    try:
        with warnings.catch_warnings():
            # A parameter set that cannot be fitted on one split has no score and is not chosen; that is enough.
            warnings.filterwarnings("ignore", message=r"(?s).*fits failed out of a total of")
            warnings.filterwarnings("ignore", message="One or more of the (test|train) scores are non-finite")
            searcher.fit(train.features, labels)
    except Exception as error:
        # The user's estimator may raise anything.
        raise failed(str(training.estimator), {**training.params, "search": search.space}, error) from error
    if not math.isfinite(searcher.best_score_):
        raise TrainingError(
            f"training.search: no parameter set of {search.space} could be scored on {search.folds} splits by time of "
            f"{len(train)} rows; use fewer folds, or look at the values"
        )
    found = {name.removeprefix(prefix): value for name, value in searcher.best_params_.items()}
    return Fitted(model=searcher.best_estimator_, params={**training.params, **found}, searched=True)


def _searcher(
    policy: Policy, search: Search, model: Any, space: dict[str, list[Any]], rows: int, progress: Progress
) -> Any:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401, PLC0415  makes the next import possible
    from sklearn.model_selection import (  # noqa: PLC0415  costs seconds, and only a search needs it
        HalvingRandomSearchCV,
        RandomizedSearchCV,
        TimeSeriesSplit,
    )

    candidates = min(search.iterations, math.prod(len(values) for values in space.values()))
    judge = _Judge(policy, search.folds * candidates, progress)
    shared = {
        "cv": TimeSeriesSplit(n_splits=search.folds),
        "scoring": judge,
        "random_state": policy.training.seed,
        "error_score": math.nan,
        "return_train_score": False,  # halving would score every fit a second time, and nobody asks for it
    }
    if search.method == "random" or candidates < _FACTOR:
        return RandomizedSearchCV(model, space, n_iter=candidates, **shared)
    rounds = int(math.log(candidates, _FACTOR) + 1e-9)
    least = min(rows, max(rows // _FACTOR**rounds, 50 * (search.folds + 1)))
    held = min(rounds, int(math.log(rows // least, _FACTOR) + 1e-9))  # few rows do not grow threefold as often
    judge.total = search.folds * sum(math.ceil(candidates / _FACTOR**number) for number in range(held + 1))
    return HalvingRandomSearchCV(model, space, n_candidates=candidates, factor=_FACTOR, min_resources=least, **shared)


class _Judge:
    """Scores a parameter set by the very metric that the gate compares candidates by; more is better.

    Each parameter set is scored once on each split, so counting the calls tells how far the search is.
    """

    def __init__(self, policy: Policy, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = 0, total, progress
        gate = policy.gate
        rule = gate.regression or gate.performance
        self.policy = policy
        self.metric = rule.metric if rule else "r2" if policy.problem == "regression" else "accuracy"
        self.custom = custom_metric(self.metric)

    def __getstate__(self) -> dict[str, Any]:
        """Where fits run in other processes, those tell nobody."""
        return {**self.__dict__, "progress": silent}

    def __call__(self, model: Any, features: pd.DataFrame, labels: NDArray[Any]) -> float:
        self.done += 1
        self.progress(min(self.done, self.total), self.total, f"search of {self.policy.model}'s parameters")
        target = pd.Series(labels.tolist(), dtype=object)
        rows = Dataset(
            features=features.reset_index(drop=True), target=target, time=pd.DatetimeIndex([pd.NaT] * len(target))
        )
        try:
            scores = score(model, rows, classes=classes_of(model, rows, self.policy))
            value = _value(self.metric, scores, self.custom)
        except Unmeasurable:
            return math.nan
        return -value if is_loss(self.metric) else value


def _value(metric: str, scores: Scores, custom: Any) -> float:
    """Without the uncertainty, which costs hundreds of calls for a metric that is not built in."""
    if custom is None:
        return measure(metric, scores).value
    return float(custom(scores.truth, scores.prediction, scores.probability))


def profile_of(
    policy: Policy,
    split: Split,
    holdout_scores: Scores,
    measurements: Sequence[Measurement],
    now: datetime,
    *,
    model: Any = None,
) -> Profile:
    """What later decisions compare with.

    Args:
        policy: Of the model.
        split: Rows that were fitted, and rows that judge.
        holdout_scores: The model's answers on the latter.
        measurements: Its metrics there.
        now: When it was trained.
        model: Fitted, to see which columns it leans on; None: that is not measured.
    """
    drift = policy.triggers.drift
    columns = profiles.describe(split.train.features, ks=drift is not None and drift.ks)
    if model is not None:
        known, seed = holdout_scores.classes, policy.training.seed
        columns = leaning.measured(columns, model, split.holdout, classes=known, seed=seed)
    limit, errors = errors_of(holdout_scores)
    return Profile(
        columns=columns,
        prediction=profiles.describe_prediction(holdout_scores),
        metrics=tuple(measurements),
        rows=len(split.train),
        labelled=len(split.train) + len(split.holdout),
        trained_at=now,
        trained=_span(split.train),
        holdout=_span(split.holdout),
        fingerprint=fingerprint(split.train),
        source_version=policy.data.source_version,
        errors=errors,
        error_limit=limit,
        sureness=profiles.sureness(holdout_scores),
    )


def train_metrics(policy: Policy, model: Any, split: Split, profile: Profile) -> dict[str, float]:
    """The holdout's metrics on rows that were fitted: the distance between the two shows overfitting.

    On as many as the holdout has, spread over all: more would make the one side surer, and the distance no surer. Nor
    would more than some thousand tell overfitting from chance any better: they put a share within a hundredth or two.

    Args:
        policy: Of the model.
        model: Fitted.
        split: Its rows.
        profile: From :func:`profile_of`.

    Returns:
        By name; without those that have no value on these rows.
    """
    places = np.linspace(0, len(split.train) - 1, min(len(split.train), max(len(split.holdout), _FEW), _ENOUGH))
    rows = split.train.take(np.unique(places.astype(np.intp)))
    scores = score(model, rows, classes=classes_of(model, rows, policy))
    found: dict[str, float] = {}
    for metric in profile.metrics:
        with suppress(Unmeasurable):  # the holdout's is what decides
            found[metric.metric] = _value(metric.metric, scores, custom_metric(metric.metric))
    return found


def errors_of(scores: Scores) -> tuple[float | None, tuple[int, int]]:
    """What counts as an error of this model, and how many of its answers on the holdout were one.

    A class is wrong or right. In regression an answer is an error when it is further off than nine of ten on the
    holdout; that limit is a value that occurred there, so the exact bounds of a share hold for it too.

    Returns:
        The limit, None in classification; and (errors, answers).
    """
    if scores.classes:
        return None, (int((scores.prediction != scores.truth).sum()), int(scores.truth.size))
    off = np.abs(scores.prediction - scores.truth)
    limit = float(np.quantile(off, _USUAL, method="inverted_cdf"))
    return limit, (int((~(off <= limit)).sum()), int(off.size))


def _span(rows: Dataset) -> Span:
    """From the first row to just after the last one."""
    return Span(start=rows.time[0].to_pydatetime(), end=rows.time[-1].to_pydatetime() + _TICK)
