"""Measuring a model, and comparing two of them on the same rows, each with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decide.cells import Sample
from tasks.decide.influence import AMOUNTS, COUNTED, FAMILIES, LOSSES, UNIT, Unmeasurable, apart, checked, codes
from tasks.decide.intervals import (
    Floats,
    adjusted_difference,
    clopper_pearson,
    logit_bounds,
    normal_quantile,
    normal_tail,
    t_factor_tail,
    t_factors,
    t_quantile,
    tango,
    tango_score,
)
from tasks.decide.probabilities import strays
from tasks.records import Measurement, Scores

__all__ = [
    "Custom",
    "Difference",
    "Spread",
    "Unmeasurable",
    "asked",
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
        degrees: Of Student's t, fewer than n - 1 where the error of amounts hangs on few rows; None: normal.
        skew: Of the mean of the rows' influences: their skewness over sqrt(n).
        reach: The bounds are no farther from 0 than this.
        grows: What a true loss of one unit adds to the square of the error, as rows turn from right to wrong.
        n: Rows it rests on.
        candidate: The candidate's own value, as the metric has it.
        production: The same of production.
        pairs: Rows that only the candidate has right, and that only production has; of accuracy alone.
    """

    metric: str
    value: float
    centre: float
    error: float
    degrees: float | None
    skew: float
    reach: float
    grows: float
    n: int
    candidate: float
    production: float
    pairs: tuple[int, int] | None = None

    def at(self, confidence: float) -> Difference:
        """With one-sided bounds at this confidence.

        Raises:
            Unmeasurable: One of them is no finite number.
        """
        below, above = self._factors(confidence)
        low, high = self.centre - below * self.error, self.centre + above * self.error
        if self.pairs is not None:
            ends = tango(*self.pairs, self.n, confidence)
            low, high = min(low, ends[0]), max(high, ends[1])
        return Difference(
            metric=self.metric,
            value=_number(self.value, self.metric),
            low=_number(max(-self.reach, low), self.metric),
            high=_number(min(self.reach, high), self.metric),
            n=self.n,
            confidence=confidence,
            candidate=_number(self.candidate, self.metric),
            production=_number(self.production, self.metric),
        )

    def visible(self, margin: float, confidence: float) -> float:
        """The loss that would have been shown to be more than the margin, nineteen times of twenty."""
        far = self._factors(confidence)[1] if self.metric in AMOUNTS else normal_quantile(confidence)
        sure, loss = far + normal_quantile(_FOUND), margin
        for _ in range(30):  # a contraction: a larger loss has a larger error
            loss = margin + sure * math.sqrt(self.error**2 + self.grows * loss)
        return loss

    def chance(self, margin: float) -> float:
        """Probability of a difference so low, or lower, while the true one is ``-margin``: p of "worse by more"."""
        if not self.error:
            return float(self.centre >= -margin)
        distance = (self.centre + margin) / self.error
        if self.degrees is None:
            pairs = self.pairs if 0 < margin < 1 else None
            score = distance if pairs is None else max(distance, tango_score(*pairs, self.n, -margin))
            return normal_tail(score)
        return t_factor_tail(distance, self.degrees, self.skew, heavy=self.metric in AMOUNTS)

    def _factors(self, confidence: float) -> tuple[float, float]:
        """How many errors below and above the centre the bounds are."""
        if self.degrees is None:
            return (normal_quantile(confidence),) * 2
        return t_factors(confidence, self.degrees, self.skew, heavy=self.metric in AMOUNTS)


def is_loss(metric: str) -> bool:
    """Whether less is better."""
    return metric in LOSSES


def _clean(scores: Scores, metric: str) -> Scores:
    """As clean arrays, see :func:`tasks.decide.influence.checked`.

    Raises:
        Unmeasurable: When they are not clean, or hold probabilities that are none and that the metric looks at.
    """
    clean = checked(scores)
    if metric not in COUNTED and clean.probability is not None and (told := strays(clean.probability, whole=False)):
        raise Unmeasurable(told)
    return clean


def _defined(metric: str, clean: Scores) -> None:
    """Refuse labels to which rounding gives a value that the metric does not have.

    Raises:
        Unmeasurable: When a class of more than two has no rows, or numbers do not differ.
    """
    if metric == "r2":
        low, high = float(clean.truth.min()), float(clean.truth.max())
        # Their mean need not be the same number, and then there is a variance that is none.
        if high - low <= 4 * float(np.finfo(np.float64).eps) * max(-low, high):
            raise Unmeasurable(f"r2 is undefined: all {clean.truth.size:,} labels are equal")
    if metric == "roc_auc" and len(clean.classes) > 2:
        held = np.isin(np.arange(len(clean.classes)), clean.truth)
        if not held.all() and np.count_nonzero(held) > 1:
            missing = ", ".join(clean.classes[place] for place in np.flatnonzero(~held)[:5])
            raise Unmeasurable(
                f"roc_auc is undefined: of {held.size} classes the {clean.truth.size:,} rows hold "
                f"{np.count_nonzero(held)}, and none of {missing}; widen the holdout, or judge by another metric"
            )


def measure(metric: str, scores: Scores, custom: Custom | None = None) -> Measurement:
    """A metric with its standard error.

    Args:
        metric: A built-in name, or the name under which ``custom`` is known.
        scores: Of n rows.
        custom: Computes a metric that is not built in; its error comes from a bootstrap over the rows.

    Raises:
        Unmeasurable: The rows do not give the metric a value.
    """
    clean = _clean(scores, metric)
    _defined(metric, clean)
    n = clean.truth.size
    if metric in FAMILIES:
        influence = FAMILIES[metric](clean)
        value, better = _number(influence.value, metric), not is_loss(metric)
        if n == 1:
            return Measurement(metric=metric, value=value, error=None, n=n, greater_is_better=better)
        sample = influence.sample()
        error = max(sample.error(), influence.reach / n)
        skew, degrees = _tail(metric, sample)
        return Measurement(
            metric=metric, value=value, error=error, n=n, greater_is_better=better, skew=skew, degrees=degrees
        )
    value, spread, _ = _resampled(metric, (clean,), custom)
    return Measurement(metric=metric, value=value, error=spread, n=n)


def bounds(measurement: Measurement, *, confidence: float) -> tuple[float, float]:
    """One-sided bounds of a metric's true value, in the metric's own unit.

    Accuracy is a share and gets exact bounds. Other metrics within 0..1 get theirs on the logit scale, because a
    symmetric interval promises too much near 1 (Pepe 2003, section 5.2.3); where the error is as large as the distance
    to 0 or 1 the rule of three takes over (Hanley and Lippman-Hand 1983). Losses and amounts are means of rows of which
    a few may be large: theirs reach farther on that side; see :func:`paired`.

    Raises:
        Unmeasurable: The value or its error is missing or not finite.
    """
    value, error, n = measurement.value, measurement.error, measurement.n
    if not math.isfinite(value) or error is None or not math.isfinite(error):
        raise Unmeasurable(f"{measurement.metric} has value {value} and standard error {error}; both must be numbers")
    if measurement.metric == "accuracy":
        return clopper_pearson(round(value * n), n, confidence)
    if measurement.metric not in UNIT:
        degrees = max(n - 1, 1) if measurement.degrees is None else measurement.degrees
        heavy = measurement.metric in AMOUNTS
        below, above = t_factors(confidence, degrees, measurement.skew, heavy=heavy)
        return value - below * error, value + above * error
    t = t_quantile(confidence, max(n - 1, 1))
    if error >= value * (1 - value):
        # So near the edge the error says what a single row could have changed, and a logit would make it infinite.
        far = -math.log(1 - confidence) * error
        return max(0.0, value - far), min(1.0, value + far)
    return logit_bounds(value, t * error)


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

    Accuracy by Bonett and Price (2012), and as far as Tango (1998) where that is farther: where only one of the two has
    rows of its own right the first alone would let half as many more pass as it promises, and later candidates thrice.
    Other built-in metrics by ``t * sd(psi_c - psi_p) / sqrt(n)``. Where rows are right or wrong one row each way is
    added that differs, as Bonett and Price do it, half as much where losses are gradual: with fifty rows of the class
    that counts, a sample without many losses looks surer than it is, and two models that answer alike on thirty rows
    are not shown to do so on all. And the skewness of the
    rows is taken out (Hall 1992). Of amounts, whose third moment need not exist, it moves bounds farther off and never
    nearer, and their t has as few degrees as the error has large rows (Satterthwaite 1946): what a few rows tell of is
    not known to the digits of a thousand. ``custom`` by a paired bootstrap up to 100,000 rows, above that by 100
    disjoint groups with t(99).

    Raises:
        Unmeasurable: One of the two has no value on these rows, or the rows are not the same.
    """
    ours, theirs = _clean(candidate, metric), _clean(production, metric)
    if ours.truth is not theirs.truth and not np.array_equal(ours.truth, theirs.truth):
        raise Unmeasurable("candidate and production were not scored on the same rows in the same order")
    n = ours.truth.size
    if n < 2:
        raise Unmeasurable("one row cannot show how uncertain a difference is")
    if metric not in FAMILIES:
        value, spread, values = _resampled(metric, (ours, theirs), custom)
        return _spread(metric, value, spread, values, n=n, degrees=_GROUPS - 1 if n > _BOOTSTRAP_ROWS else None)
    _defined(metric, ours)
    if metric == "accuracy":
        return _accuracy_spread(ours, theirs)
    mine, other, differences = apart(metric, ours, theirs)
    sign = -1.0 if is_loss(metric) else 1.0
    value = _number(sign * (mine.value - other.value), metric)
    reach = max(mine.reach, other.reach)
    values, error = (mine.value, other.value), _paired_error(metric, differences, reach)
    grows = reach / n if metric in COUNTED else 0.0
    skew, degrees = differences.tail() if metric in AMOUNTS else (differences.skewness(), n - 1.0)
    return _spread(metric, value, error, values, n=n, degrees=degrees, grows=grows, skew=sign * skew)


def _tail(metric: str, sample: Sample) -> tuple[float, float | None]:
    """Skewness and degrees of one model's value; within 0..1 the scale of its bounds is enough."""
    if metric in UNIT:
        return 0.0, None
    return sample.tail() if metric in AMOUNTS else (sample.skewness(), None)


def _spread(
    metric: str,
    value: float,
    error: float,
    values: tuple[float, ...],
    *,
    n: int,
    degrees: float | None,
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
        pairs=(gains, losses),
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


def replicates_of(rows: int) -> int:
    """How often a custom metric is asked, for each model, to know how far its value may be off."""
    if rows > _BOOTSTRAP_ROWS:
        return _GROUPS
    return 400 if rows <= 10_000 else 200  # the interval needs the spread only, which 400 draws give to within 4 %


def _resampled(
    metric: str, models: tuple[Scores, ...], custom: Custom | None
) -> tuple[float, float, tuple[float, ...]]:
    """Value of a custom metric (a difference of two models), its standard error, and the value of each model."""
    if custom is None:
        raise Unmeasurable(
            f"{metric!r} is not a built-in metric and no function for it was given; "
            f"use one of {', '.join(FAMILIES)} or the name of a scikit-learn scorer"
        )
    for model in models:
        if model.classes:
            codes(model)  # no answer at all is not merely a wrong one, as a function of one's own would have it
    ordered = _in_canonical_order(models)
    values = tuple(asked(metric, custom, model) for model in ordered)
    value = values[0] - values[1] if len(values) == 2 else values[0]
    n = ordered[0].truth.size
    rng = np.random.default_rng(_SEED)
    if n > _BOOTSTRAP_ROWS:
        draws, shrink = np.array_split(rng.permutation(n), replicates_of(n)), math.sqrt(replicates_of(n))
    else:
        draws, shrink = [rng.integers(0, n, n) for _ in range(replicates_of(n))], 1.0
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
        values = [asked(metric, custom, subset(model, rows)) for model in models]
    except Unmeasurable:
        return math.nan
    return values[0] - values[1] if len(values) == 2 else values[0]


def asked(metric: str, custom: Custom, scores: Scores) -> float:
    """What a function of one's own says, given floats of its own: one that sorts them changes nothing that is judged.

    Args:
        metric: Its name, for the error.
        custom: The function.
        scores: Of n rows; codes of classes may be whole numbers.

    Raises:
        Unmeasurable: When it raises, or gives no finite number.
    """
    truth, prediction = np.array(scores.truth, dtype=np.float64), np.array(scores.prediction, dtype=np.float64)
    probability = None if scores.probability is None else scores.probability.copy()
    try:
        return _number(float(custom(truth, prediction, probability)), metric)
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


def _in_canonical_order(models: tuple[Scores, ...]) -> tuple[Scores, ...]:
    """Rows sorted by what they hold, so that a seeded resample does not depend on the order they came in."""
    keys: list[Floats] = []
    for model in models:
        keys.append(model.prediction)
        if model.probability is not None:
            keys.extend(model.probability[:, :10].T)
    rows = np.lexsort((*keys, models[0].truth))
    return tuple(subset(model, rows) for model in models)
