"""Measuring a model, and comparing two of them on the same rows, each with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide.cells import Sample
from tasks.decide.influence import AMOUNTS, COUNTED, FAMILIES, LOSSES, UNIT, Unmeasurable, checked, codes
from tasks.decide.intervals import (
    Floats,
    adjusted_difference,
    clopper_pearson,
    normal_quantile,
    normal_tail,
    t_quantile,
    t_tail,
)
from tasks.records import Measurement, Scores

__all__ = [
    "Custom",
    "Difference",
    "Spread",
    "Unmeasurable",
    "bounds",
    "compare",
    "is_loss",
    "measure",
    "paired",
    "subset",
]

Custom = Callable[[Any, Any, Any], float]
"""(truth, prediction, probability) -> a number of which more is better, as scikit-learn's scorers have it."""

_FOUND = 0.95
"""How often a loss must be found to be one that "would have been found"."""
_BOOTSTRAP_ROWS = 100_000
_GROUPS = 100
_SEED = 20_240_401


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Candidate minus production, turned so that more is better for the candidate; for losses too.

    Attributes:
        metric: Name as in the policy.
        value: In the metric's own unit.
        low: One-sided lower bound at ``confidence``.
        high: One-sided upper bound at ``confidence``.
        n: Rows it rests on.
        confidence: Of each bound.
        candidate: The candidate's own value, as the metric has it.
        production: The same of production.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    confidence: float
    candidate: float
    production: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A paired difference and how uncertain it is, before anybody says how sure to be.

    Attributes:
        metric: Name as in the policy.
        value: Candidate minus production, turned so that more is better.
        centre: Of its bounds; that of an adjusted interval is not ``value``.
        error: Standard error.
        degrees: Of Student's t; None: normal.
        skew: Of the mean of the rows' influences: their skewness over sqrt(n).
        reach: The bounds are no farther from 0 than this.
        grows: What a true loss of one unit adds to the square of the error, as rows turn from right to wrong.
        n: Rows it rests on.
        candidate: The candidate's own value, as the metric has it.
        production: The same of production.
    """

    metric: str
    value: float
    centre: float
    error: float
    degrees: int | None
    skew: float
    reach: float
    grows: float
    n: int
    candidate: float
    production: float

    def at(self, confidence: float) -> Difference:
        """With one-sided bounds at this confidence.

        Raises:
            Unmeasurable: One of them is no finite number.
        """
        quantile = normal_quantile(confidence) if self.degrees is None else t_quantile(confidence, self.degrees)
        below, above = _unskewed(quantile, self.skew) * self.error, _unskewed(-quantile, self.skew) * self.error
        return Difference(
            metric=self.metric,
            value=_number(self.value, self.metric),
            low=_number(max(-self.reach, self.centre - below), self.metric),
            high=_number(min(self.reach, self.centre - above), self.metric),
            n=self.n,
            confidence=confidence,
            candidate=_number(self.candidate, self.metric),
            production=_number(self.production, self.metric),
        )

    def visible(self, margin: float, confidence: float) -> float:
        """The loss that would have been shown to be more than the margin, nineteen times of twenty."""
        sure, loss = normal_quantile(confidence) + normal_quantile(_FOUND), margin
        for _ in range(30):  # a contraction: a larger loss has a larger error
            loss = margin + sure * math.sqrt(self.error**2 + self.grows * loss)
        return loss

    def chance(self, margin: float) -> float:
        """Probability of a difference so low, or lower, while the true one is ``-margin``: p of "worse by more"."""
        if not self.error:
            return float(self.centre >= -margin)
        distance = _skewed((self.centre + margin) / self.error, self.skew)
        return normal_tail(distance) if self.degrees is None else t_tail(distance, self.degrees)


def _skewed(t: float, skew: float) -> float:
    """What a studentized mean of skewed rows has to be read as to be normal (Hall 1992, JRSS B 54, p. 221)."""
    a = skew / 3
    return t + a * t**2 + a**2 * t**3 / 3 + a / 2


def _unskewed(quantile: float, skew: float) -> float:
    """The other way round; the cubic rises everywhere."""
    a = skew / 3
    if abs(a) < 1e-9:
        return quantile
    return float((np.cbrt(1 + 3 * a * (quantile - a / 2)) - 1) / a)


def is_loss(metric: str) -> bool:
    """Whether less is better."""
    return metric in LOSSES


def measure(metric: str, scores: Scores, custom: Custom | None = None) -> Measurement:
    """A metric with its standard error.

    Args:
        metric: A built-in name, or the name under which ``custom`` is known.
        scores: Of n rows.
        custom: Computes a metric that is not built in; its error comes from a bootstrap over the rows.

    Raises:
        Unmeasurable: The rows do not give the metric a value.
    """
    clean = checked(scores)
    n = clean.truth.size
    if metric in FAMILIES:
        influence = FAMILIES[metric](clean)
        error = max(influence.sample().error(), influence.reach / n) if n > 1 else None
        value = _number(influence.value, metric)
        return Measurement(metric=metric, value=value, error=error, n=n, greater_is_better=not is_loss(metric))
    value, spread, _ = _resampled(metric, (clean,), custom)
    return Measurement(metric=metric, value=value, error=spread, n=n)


def bounds(measurement: Measurement, *, confidence: float) -> tuple[float, float]:
    """One-sided bounds of a metric's true value, in the metric's own unit.

    Accuracy is a share and gets exact bounds. Other metrics within 0..1 get theirs on the logit scale, because a
    symmetric interval promises too much near 1 (Pepe 2003, section 5.2.3); where the error is as large as the distance
    to 0 or 1 the rule of three takes over (Hanley and Lippman-Hand 1983).

    Raises:
        Unmeasurable: The value or its error is missing or not finite.
    """
    value, error, n = measurement.value, measurement.error, measurement.n
    if not math.isfinite(value) or error is None or not math.isfinite(error):
        raise Unmeasurable(f"{measurement.metric} has value {value} and standard error {error}; both must be numbers")
    if measurement.metric == "accuracy":
        return clopper_pearson(round(value * n), n, confidence)
    t = t_quantile(confidence, max(n - 1, 1))
    if measurement.metric not in UNIT:
        return value - t * error, value + t * error
    if error >= value * (1 - value):
        # So near the edge the error says what a single row could have changed, and a logit would make it infinite.
        far = -math.log(1 - confidence) * error
        return max(0.0, value - far), min(1.0, value + far)
    return _logit_bounds(value, t * error)


def compare(
    metric: str, candidate: Scores, production: Scores, *, confidence: float, custom: Custom | None = None
) -> Difference:
    """The paired difference of two models on the same rows, with one-sided bounds; see :func:`paired`.

    Raises:
        Unmeasurable: One of the two has no value on these rows, or the rows are not the same.
    """
    return paired(metric, candidate, production, custom=custom).at(confidence)


def paired(metric: str, candidate: Scores, production: Scores, *, custom: Custom | None = None) -> Spread:
    """The paired difference of two models on the same rows.

    Accuracy by Bonett and Price (2012); other built-in metrics by ``t * sd(psi_c - psi_p) / sqrt(n)``. Where rows are
    right or wrong one row each way is added that differs, as Bonett and Price do it, half as much where losses are
    gradual: with fifty rows of the class that counts, a sample without many losses looks surer than it is, and two
    models that answer alike on thirty rows are not shown to do so on all. And the skewness of the
    rows is taken out (Hall 1992), though not of amounts, whose third moment need not exist. ``custom`` by a paired
    bootstrap up to 100,000 rows, above that by 100 disjoint groups with t(99).

    Raises:
        Unmeasurable: One of the two has no value on these rows, or the rows are not the same.
    """
    ours, theirs = checked(candidate), checked(production)
    if ours.truth is not theirs.truth and not np.array_equal(ours.truth, theirs.truth):
        raise Unmeasurable("candidate and production were not scored on the same rows in the same order")
    n = ours.truth.size
    if n < 2:
        raise Unmeasurable("one row cannot show how uncertain a difference is")
    if metric not in FAMILIES:
        value, spread, values = _resampled(metric, (ours, theirs), custom)
        return _spread(metric, value, spread, values, n=n, degrees=_GROUPS - 1 if n > _BOOTSTRAP_ROWS else None)
    if metric == "accuracy":
        return _accuracy_spread(ours, theirs)
    mine, other = FAMILIES[metric](ours), FAMILIES[metric](theirs)
    sign = -1.0 if is_loss(metric) else 1.0
    value = _number(sign * (mine.value - other.value), metric)
    apart, reach = mine.minus(other), max(mine.reach, other.reach)
    values, error = (mine.value, other.value), _paired_error(metric, apart, reach)
    grows = reach / n if metric in COUNTED else 0.0
    skew = 0.0 if metric in AMOUNTS else sign * apart.skewness()
    return _spread(metric, value, error, values, n=n, degrees=n - 1, grows=grows, skew=skew)


def _spread(
    metric: str,
    value: float,
    error: float,
    values: tuple[float, ...],
    *,
    n: int,
    degrees: int | None,
    grows: float = 0.0,
    skew: float = 0.0,
) -> Spread:
    return Spread(
        metric=metric,
        value=value,
        centre=value,
        error=error,
        degrees=degrees,
        skew=skew,
        reach=math.inf,
        grows=grows,
        n=n,
        candidate=values[0],
        production=values[1],
    )


def _accuracy_spread(ours: Scores, theirs: Scores) -> Spread:
    for one in (ours, theirs):
        codes(one)  # no answer at all is not merely a wrong one
    right, other = ours.prediction == ours.truth, theirs.prediction == theirs.truth
    gains, losses = int(np.count_nonzero(right & ~other)), int(np.count_nonzero(other & ~right))
    n = right.size
    centre, error = adjusted_difference(gains, losses, n)
    return Spread(
        metric="accuracy",
        value=(gains - losses) / n,
        centre=centre,
        error=error,
        degrees=None,
        skew=0.0,
        reach=1.0,
        grows=1 / n,
        n=n,
        candidate=float(right.mean()),
        production=float(other.mean()),
    )


def _paired_error(metric: str, apart: Sample, reach: float) -> float:
    error = apart.error()
    least = math.sqrt(2) * reach / apart.size
    # Losses that are gradual show their own spread; where they show none at all, it is not believed.
    more = least if metric in COUNTED or error < 1e-12 else least / 2
    return math.hypot(error, more)


def _number(value: float, metric: str) -> float:
    if not math.isfinite(value):
        raise Unmeasurable(
            f"{metric} came out as {value}, which is no finite number; look at its function and at the rows, or judge "
            "by another metric"
        )
    return float(value)


def _logit_bounds(value: float, width: float) -> tuple[float, float]:
    centre, spread = math.log(value / (1 - value)), width / (value * (1 - value))

    def back(logit: float) -> float:
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    return back(centre - spread), back(centre + spread)


def _resampled(
    metric: str, models: tuple[Scores, ...], custom: Custom | None
) -> tuple[float, float, tuple[float, ...]]:
    """Value of a custom metric (a difference of two models), its standard error, and the value of each model."""
    if custom is None:
        raise Unmeasurable(
            f"{metric!r} is not a built-in metric and no function for it was given; "
            f"use one of {', '.join(FAMILIES)} or the name of a scikit-learn scorer"
        )
    ordered = _in_canonical_order(tuple(_as_floats(model) for model in models))
    values = tuple(_call(metric, custom, model) for model in ordered)
    value = values[0] - values[1] if len(values) == 2 else values[0]
    n = ordered[0].truth.size
    rng = np.random.default_rng(_SEED)
    if n > _BOOTSTRAP_ROWS:
        draws, shrink = np.array_split(rng.permutation(n), _GROUPS), math.sqrt(_GROUPS)
    else:
        # The interval needs the spread only, which 400 draws give to within 4 %.
        draws, shrink = [rng.integers(0, n, n) for _ in range(400 if n <= 10_000 else 200)], 1.0
    replicates = [_replicate(metric, custom, ordered, rows) for rows in draws]
    usable = np.array([one for one in replicates if math.isfinite(one)])
    if n < 2 or usable.size < 0.95 * len(replicates):
        raise Unmeasurable(f"{metric} has no value on {len(replicates) - usable.size} of {len(replicates)} resamples")
    # One row more, of the size of the value: resamples of rows that are all alike know no other kind.
    size = max(abs(one) for one in values)
    unseen = (size if size > 1e-9 else 1.0) / n
    return value, math.hypot(float(np.std(usable, ddof=1)) / shrink, unseen / math.sqrt(2)), values


def _replicate(metric: str, custom: Custom, models: tuple[Scores, ...], rows: NDArray[np.intp]) -> float:
    try:
        values = [_call(metric, custom, subset(model, rows)) for model in models]
    except Unmeasurable:
        return math.nan
    return values[0] - values[1] if len(values) == 2 else values[0]


def _call(metric: str, custom: Custom, scores: Scores) -> float:
    try:
        return _number(float(custom(scores.truth, scores.prediction, scores.probability)), metric)
    except Unmeasurable:
        raise
    except Exception as error:
        # Whatever a user's function raises, the other checks still run and this one is unknown.
        raise Unmeasurable(f"{metric} failed with {type(error).__name__}: {error}") from error


def subset(scores: Scores, rows: NDArray[np.intp]) -> Scores:
    """The answers on some of the rows, by position."""
    return Scores(
        truth=scores.truth[rows],
        prediction=scores.prediction[rows],
        probability=None if scores.probability is None else scores.probability[rows],
        classes=scores.classes,
    )


def _as_floats(scores: Scores) -> Scores:
    """As a metric of one's own gets them, whatever type the codes are kept in."""
    truth, prediction = np.asarray(scores.truth, dtype=np.float64), np.asarray(scores.prediction, dtype=np.float64)
    return Scores(truth=truth, prediction=prediction, probability=scores.probability, classes=scores.classes)


def _in_canonical_order(models: tuple[Scores, ...]) -> tuple[Scores, ...]:
    """Rows sorted by what they hold, so that a seeded resample does not depend on the order they came in."""
    keys: list[Floats] = []
    for model in models:
        keys.append(model.prediction)
        if model.probability is not None:
            keys.extend(model.probability[:, :10].T)
    rows = np.lexsort((*keys, models[0].truth))
    return tuple(subset(model, rows) for model in models)
