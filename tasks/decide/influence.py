"""Metrics as a value and the influence of each row on it.

The influence function psi of a metric says how its value moves with the weight of one row. Its mean is zero and
``sd(psi) / sqrt(n)`` is the standard error (Hampel 1974); of two models on the same rows, that of their difference is
``sd(psi_c - psi_p) / sqrt(n)``. One pass over the rows replaces a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.decide.cells import Cells, Codes, Sample, cells, pairs
from tasks.decide.intervals import Floats
from tasks.decide.ranks import placements
from tasks.records import Scores

Average = Literal["plain", "macro", "weighted"]


_LARGEST = 1e70
"""What is measured is squared, and the error of that is squared again."""


class Unmeasurable(ValueError):
    """A metric has no value on these rows; its text says why."""


@dataclass(frozen=True, slots=True)
class Influence:
    """A metric on n rows.

    Attributes:
        value: In the metric's own unit.
        each: Influence of each row, shape (n,), or of each cell, shape (m,); the mean over the rows is zero.
        reach: How far one row that turns from right to wrong moves the value, times n; of amounts, one that is
            answered with the mean. It keeps a sample without errors from claiming that there are none.
        count: shape (m,), the rows of each cell; None: each is one row.
    """

    value: float
    each: Floats
    reach: float = 0.0
    count: Floats | None = None

    def sample(self) -> Sample:
        """The influences of the rows."""
        return Sample(self.each, self.count)


def apart(metric: str, first: Scores, second: Scores) -> tuple[Influence, Influence, Sample]:
    """A metric of two models on the same rows, and the differences of the rows' influences on them.

    Args:
        metric: One of :data:`FAMILIES`.
        first: Of n rows, clean.
        second: Of the same rows, with the same labels.

    Raises:
        Unmeasurable: The metric has no value on these rows.
    """
    if metric not in COUNTED:
        mine, other = FAMILIES[metric](first), FAMILIES[metric](second)
        return mine, other, Sample(mine.each - other.each)
    truth, answers, classes = codes(first)
    _, others, theirs = codes(second)
    both = pairs(truth, answers, others, max(classes, theirs))
    mine, other = COUNTED[metric](both.first), COUNTED[metric](both.second)
    return mine, other, Sample(mine.each[both.places[0]] - other.each[both.places[1]], both.count)


def checked(scores: Scores) -> Scores:
    """The same scores as clean arrays.

    Raises:
        Unmeasurable: For no rows, NaN or infinity anywhere, or arrays that do not belong together.
    """
    truth = _whole(scores.truth, scores, "the labels")
    prediction = _whole(scores.prediction, scores, "the predictions")
    if truth.ndim != 1 or truth.size == 0:
        raise Unmeasurable("there are no labelled rows to measure on")
    if prediction.shape != truth.shape:
        raise Unmeasurable(f"{prediction.shape[0]} predictions do not belong to {truth.size} labels")
    probability = None if scores.probability is None else _finite(scores.probability, "the probabilities")
    if probability is not None and (probability.ndim != 2 or probability.shape[0] != truth.size):
        raise Unmeasurable(f"probabilities of shape {probability.shape} do not belong to {truth.size} labels")
    if probability is not None and scores.classes and probability.shape[1] != len(scores.classes):
        raise Unmeasurable(f"{probability.shape[1]} columns of probabilities for {len(scores.classes)} classes")
    return Scores(truth=truth, prediction=prediction, probability=probability, classes=scores.classes)


def _whole(values: NDArray[np.generic], scores: Scores, what: str) -> NDArray[Any]:
    """Class codes stay the whole numbers that they are, which cannot be NaN; all else becomes floats."""
    codes = np.asarray(values)
    return codes if scores.classes and codes.dtype.kind in "iu" else _finite(values, what)


def _finite(values: NDArray[np.generic], what: str) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise Unmeasurable(f"{what} are no numbers") from None
    flat = numbers.ravel(order="K")
    with np.errstate(all="ignore"):
        squares = float(np.dot(flat, flat))
    if squares <= _LARGEST**2:
        # With one NaN, infinity or value beyond the largest it would not be; then each value is looked at.
        return numbers
    broken = int(numbers.size - np.count_nonzero(np.isfinite(numbers)))
    if broken:
        raise Unmeasurable(f"{broken:,} of {numbers.size:,} values of {what} are NaN or infinite")
    if numbers.size and max(-numbers.min(), numbers.max()) > _LARGEST:
        raise Unmeasurable(f"{what} reach beyond {_LARGEST:g}, where no sum of squares is a number any more")
    return numbers


def codes(scores: Scores) -> tuple[Codes, Codes, int]:
    """Labels and predictions as class codes, and the number of classes.

    Raises:
        Unmeasurable: For fractions, and for a code that is negative or no class.
    """
    truth, prediction = _whole_codes(scores.truth), _whole_codes(scores.prediction)
    # Read as unsigned, a negative number is the largest of all.
    highest = int(max(codes.view(np.uintp).max() for codes in (truth, prediction)))
    if highest > np.iinfo(np.intp).max:
        raise Unmeasurable("a class code is negative; codes are 0, 1, 2 ...")
    highest += 1
    if scores.classes and highest > len(scores.classes):
        raise Unmeasurable(f"class code {highest - 1} is not among the {len(scores.classes)} classes")
    return truth, prediction, max(highest, len(scores.classes), 2)


def _whole_codes(values: NDArray[Any]) -> Codes:
    codes = values.astype(np.intp, copy=False)
    if codes is not values and not np.array_equal(codes, values):
        raise Unmeasurable("labels and predictions must be class codes 0, 1, 2 ...; these hold fractions")
    return codes


def accuracy(cells: Cells) -> Influence:
    """Share of right answers."""
    right = (cells.truth == cells.prediction).astype(np.float64)
    value = float(right @ cells.count) / cells.rows
    return Influence(value, right - value, reach=1.0, count=cells.count)


def recall_family(cells: Cells, average: Average) -> Influence:
    """Recall per class; ``macro`` over the classes that have rows is balanced accuracy.

    psi = w_t (1{p = t} - R_t) / P(t), the influence function of a ratio of means.
    """
    truth = cells.truth
    share = cells.share(truth)
    weights = _weights(average, cells.classes, share > 0)
    if not weights @ share:
        raise Unmeasurable("recall is undefined: no row has the positive class")
    right = (truth == cells.prediction).astype(np.float64)
    recall = _ratio(cells.share(truth, right), share)
    psi = _ratio(weights, share)[truth] * (right - recall[truth])
    reach = float(np.linalg.norm(_ratio(weights, share)))
    return Influence(float(weights @ recall), psi, reach=reach, count=cells.count)


def balanced_accuracy(cells: Cells) -> Influence:
    """Mean recall over the classes that the labels hold."""
    return recall_family(cells, "macro")


def recall(cells: Cells) -> Influence:
    """Of the positive class; the mean over all classes, labelled or predicted, in multiclass."""
    if cells.classes == 2:
        return recall_family(cells, "plain")
    # A class that is predicted but never right counts as recall 0, as in scikit-learn.
    mean = recall_family(cells, "macro")
    labelled, answered = cells.share(cells.truth) > 0, cells.share(cells.prediction) > 0
    part = np.count_nonzero(labelled) / np.count_nonzero(labelled | answered)
    return Influence(mean.value * part, mean.each * part, mean.reach * part, mean.count)


def precision(cells: Cells) -> Influence:
    """Of the positive class; the mean over all classes, labelled or predicted, in multiclass.

    psi = w_p (1{p = t} - P_p) / P(predicted p).
    """
    prediction = cells.prediction
    share = cells.share(prediction)
    present = (cells.share(cells.truth) > 0) | (share > 0)
    weights = _weights("plain" if cells.classes == 2 else "macro", cells.classes, present)
    if not weights @ share:
        raise Unmeasurable("precision is undefined: the positive class is never predicted")
    right = (cells.truth == prediction).astype(np.float64)
    hit = _ratio(cells.share(prediction, right), share)
    psi = _ratio(weights, share)[prediction] * (right - hit[prediction])
    reach = float(np.linalg.norm(_ratio(weights, share)))
    return Influence(float(weights @ hit), psi, reach=reach, count=cells.count)


def f1_family(cells: Cells, average: Average) -> Influence:
    """F1 per class, of the positive class, or averaged.

    Per class psi = (2 tp - F (2 tp + fp + fn)) / mean(2 tp + fp + fn) (the delta method on the confusion counts;
    Takahashi et al. 2022, section 3). Weighted F1 adds what the row does to the weights.
    """
    truth, prediction = cells.truth, cells.prediction
    share = cells.share(truth)
    spread = share + cells.share(prediction)
    right = (truth == prediction).astype(np.float64)
    score = _ratio(2 * cells.share(truth, right), spread)
    weights = share if average == "weighted" else _weights(average, cells.classes, spread > 0)
    if not weights @ spread:
        raise Unmeasurable("F1 is undefined: the positive class is neither labelled nor predicted")
    value = float(weights @ score)
    per_row = _ratio(weights, spread)
    psi = 2 * right * per_row[truth] - (per_row * score)[truth] - (per_row * score)[prediction]
    if average == "weighted":
        psi += score[truth] - value
    return Influence(value, psi, reach=float(np.linalg.norm(per_row * (2 - score))), count=cells.count)


def f1(cells: Cells) -> Influence:
    """Of the positive class; macro in multiclass."""
    return f1_family(cells, "plain" if cells.classes == 2 else "macro")


def f1_macro(cells: Cells) -> Influence:
    """Mean over the classes that are labelled or predicted."""
    return f1_family(cells, "macro")


def f1_weighted(cells: Cells) -> Influence:
    """Mean over the classes, weighted by their labels."""
    return f1_family(cells, "weighted")


def _weights(average: Average, classes: int, present: NDArray[np.bool_]) -> Floats:
    weights: Floats = np.zeros(classes)
    weights[present] = 1 / np.count_nonzero(present)
    return np.eye(1, classes, 1)[0] if average == "plain" else weights


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Element by element; 0 where there is nothing to divide by (a class that does not occur)."""
    return np.divide(top, bottom, out=np.zeros(np.shape(bottom)), where=bottom > 0)


def roc_auc(scores: Scores) -> Influence:
    """Area under the ROC curve by placements, ties counted half (DeLong, DeLong and Clarke-Pearson 1988).

    Multiclass: the mean of one class against the rest.
    """
    truth, _, classes = codes(scores)
    probability = _probability(scores)
    parts = [_auc(truth == code, probability[:, code]) for code in (range(classes) if classes > 2 else (1,))]
    psi: Floats = parts[0].each if len(parts) == 1 else np.mean([part.each for part in parts], axis=0)
    return Influence(float(np.mean([p.value for p in parts])), psi, reach=float(np.mean([p.reach for p in parts])))


def _auc(positive: NDArray[np.bool_], score: Floats) -> Influence:
    n, hits = positive.size, int(np.count_nonzero(positive))
    if hits in {0, n}:
        raise Unmeasurable(f"roc_auc is undefined: the {n:,} rows hold one class only")
    placement = placements(positive, score, hits)
    value = float(placement[positive].mean())
    # One row of each class that ends up amid the other class.
    reach = 0.5 * float(np.hypot(n / hits, n / (n - hits)))
    placement -= value
    placement *= np.where(positive, n / hits, n / (n - hits))
    return Influence(value, placement, reach)


def log_loss(scores: Scores) -> Influence:
    """Mean of -ln(probability of the label), clipped as scikit-learn does."""
    truth, _, _ = codes(scores)
    probability = _probability(scores)
    tiny = float(np.finfo(np.float64).eps)
    # What the label that the model believes in least would have cost; of n rows none is known to be rarer than 1/(n+2).
    doubt = np.clip(probability.min(axis=1), 1 / (truth.size + 2), 1.0)
    reach = float(-np.log(doubt).mean())
    return _mean(-np.log(np.clip(probability[np.arange(truth.size), truth], tiny, 1 - tiny)), reach)


def brier(scores: Scores) -> Influence:
    """Mean squared distance of the probabilities from the label (Brier 1950); half of it in binary, as is usual."""
    truth, _, classes = codes(scores)
    probability = _probability(scores)
    if classes == 2:
        return _mean((probability[:, 1] - (truth == 1)) ** 2, 1.0)
    return _mean(((probability - np.eye(probability.shape[1])[truth]) ** 2).sum(axis=1), 2.0)


def _probability(scores: Scores) -> Floats:
    if scores.probability is None:
        raise Unmeasurable(
            "the model gives no probabilities; use a metric of its answers (accuracy, f1) or a model with predict_proba"
        )
    if scores.probability.shape[1] <= int(scores.truth.max()):
        raise Unmeasurable(f"no probabilities for class code {int(scores.truth.max())}")
    return np.asarray(scores.probability, dtype=np.float64)


def r2(scores: Scores) -> Influence:
    """Coefficient of determination; psi = ((1 - R)(y - mean y)^2 - e^2) / var(y)."""
    around = scores.truth - scores.truth.mean()
    around *= around
    variance = float(around.mean())
    if not variance:
        raise Unmeasurable(f"r2 is undefined: all {around.size:,} labels are equal")
    squared = scores.truth - scores.prediction
    squared *= squared
    value = 1 - float(squared.mean()) / variance
    around *= 1 - value  # of a million rows each array of its own takes longer than what is computed
    around -= squared
    around /= variance
    return Influence(value, around, 1.0)


def rmse(scores: Scores) -> Influence:
    """Root of the mean squared error; psi = (e^2 - mse) / (2 rmse)."""
    squared = (scores.truth - scores.prediction) ** 2
    value = float(np.sqrt(squared.mean()))
    n = squared.size
    reach = n * (math.sqrt(value**2 + max(float(np.var(scores.truth)), value**2) / n) - value)
    return Influence(value, (squared - value**2) / (2 * value) if value else np.zeros(n), reach)


def mae(scores: Scores) -> Influence:
    """Mean absolute error."""
    return _mean(np.abs(scores.truth - scores.prediction), _usual_distance(scores))


def pinball(quantile: float) -> Callable[[Scores], Influence]:
    """The mean pinball loss of a forecast of this quantile (Koenker and Bassett 1978).

    What lies above the forecast costs ``quantile`` per unit, what lies below it ``1 - quantile``.
    """

    def loss(scores: Scores) -> Influence:
        above = scores.truth - scores.prediction
        return _mean(np.maximum(quantile * above, (quantile - 1) * above), _usual_distance(scores))

    return loss


def _usual_distance(scores: Scores) -> float:
    """Of a label from the mean of them, or of an answer from its label, whichever is more."""
    apart = np.abs(scores.truth - scores.truth.mean()).mean()
    return float(max(apart, np.abs(scores.truth - scores.prediction).mean()))


def _mean(values: Floats, reach: float) -> Influence:
    value = float(values.mean())
    return Influence(value, values - value, reach)


def _of_cells(family: Callable[[Cells], Influence]) -> Callable[[Scores], Influence]:
    return lambda scores: family(cells(*codes(scores)))


COUNTED: dict[str, Callable[[Cells], Influence]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1": f1,
    "f1_macro": f1_macro,
    "f1_weighted": f1_weighted,
    "precision": precision,
    "recall": recall,
}
"""Metrics in which a row is either right or wrong, and no more than its cell needs to be known of it."""
FAMILIES: dict[str, Callable[[Scores], Influence]] = {
    **{name: _of_cells(family) for name, family in COUNTED.items()},
    "roc_auc": roc_auc,
    "log_loss": log_loss,
    "brier": brier,
    "r2": r2,
    "rmse": rmse,
    "mae": mae,
    **{f"pinball_{percent:02}": pinball(percent / 100) for percent in (5, 10, 25, 50, 75, 90, 95)},
}
LOSSES = frozenset({"log_loss", "brier", "rmse", "mae", *(name for name in FAMILIES if name.startswith("pinball"))})
"""Metrics of which less is better."""
UNIT = frozenset({*COUNTED, "roc_auc"})
"""Metrics that live in 0..1."""
AMOUNTS = frozenset(FAMILIES.keys() - UNIT - {"log_loss", "brier"})
"""Metrics of numbers, whose errors know no bound."""
