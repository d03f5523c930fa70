"""Answers: whether those of a candidate, and the labels that they are held against, can show anything at all.

A metric is a number also of a model that says the same to every row, of labels that know one class only, and of a class
that the model has never heard of. What the number is worth is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.decide import phrase
from tasks.decide.influence import COUNTED, FAMILIES, checked
from tasks.decide.intervals import clopper_pearson
from tasks.decide.metrics import Custom, Difference, Unmeasurable, asked, is_loss, measure, paired
from tasks.decide.probabilities import strays
from tasks.records import Finding, GateEvidence, Outcome, Scores

if TYPE_CHECKING:
    from tasks.policy import Problem

_FEW = 0.01
"""Share of rows of classes that the model does not know, up to which they are told and nothing more."""
_CONFIDENCE = 0.95
_SAME = 1e-9
"""Spread of a probability below which it is one and the same."""
_ENOUGH = 20
"""Rows that are answered with one class of many, from which on their mean tells what it is thought of."""
_MOST = 20
"""Classes, the most frequent ones, of which the constant answer is tried."""
_WORST: Mapping[Outcome, int] = {"ok": 0, "unknown": 1, "breach": 2}


def judge(evidence: GateEvidence, *, problem: Problem | str, metrics: Sequence[str]) -> Finding | None:
    """The finding ``answers``, or None where there is nothing to be said.

    Args:
        evidence: With the classes that the candidate knows; without them nothing of this was looked at.
        problem: What is predicted.
        metrics: By which the candidate is judged.
    """
    scores = evidence.candidate
    try:
        checked(scores)
    except Unmeasurable:
        return None  # every check that needs the answers says so
    if evidence.known is None or (scores.classes and int(scores.truth.min()) < 0):
        return None
    told = list(_amounts(scores) if problem == "regression" else _classes(evidence, evidence.known, metrics))
    if not told:
        return None
    worst = max((outcome for outcome, _ in told), key=_WORST.__getitem__)
    reason = "; ".join(text for outcome, text in told if outcome == worst)
    return Finding(name="answers", outcome=worst, reason=phrase.one_line(reason), n=int(scores.truth.size))


def _amounts(scores: Scores) -> Iterator[tuple[Outcome, str]]:
    n = int(scores.truth.size)
    if n > 1 and scores.prediction.min() == scores.prediction.max() and scores.truth.min() < scores.truth.max():
        same = phrase.number(float(scores.prediction[0]))
        yield "breach", f"all {phrase.count(n)} rows get the same answer, {same}, although their labels differ"


def _classes(evidence: GateEvidence, known: tuple[str, ...], metrics: Sequence[str]) -> Iterator[tuple[Outcome, str]]:
    scores, n = evidence.candidate, int(evidence.candidate.truth.size)
    counts = np.bincount(scores.truth.astype(np.intp), minlength=len(scores.classes))
    if int(scores.prediction.min()) < 0:
        none = phrase.count(int(np.count_nonzero(scores.prediction < 0)))
        yield "unknown", f"{none} of {phrase.count(n)} rows get no answer: predict gives null or NaN, which is no class"
        return
    if scores.probability is not None and (why := strays(scores.probability)):
        yield "unknown", why
    held = np.flatnonzero(counts)
    if held.size < 2:
        why = (
            f"all {phrase.count(n)} labels of the holdout are {scores.classes[held[0]]!r}: rows of one class do not "
            "show whether the model can tell it from another one; let the holdout reach further back (data.holdout), "
            "or wait for rows of another class"
        )
        yield "unknown", why
    else:
        yield from _constant(scores, counts, metrics)
    yield from _contradicting(scores)
    yield from _unheard(scores, counts, known)


def _constant(scores: Scores, counts: np.ndarray[Any, Any], metrics: Sequence[str]) -> Iterator[tuple[Outcome, str]]:
    first = int(scores.prediction[0])
    if first < 0 or scores.prediction.min() != scores.prediction.max():
        return
    n, answer = int(scores.truth.size), scores.classes[first]
    others = n - int(counts[first])
    said = f"all {phrase.count(n)} rows are answered {answer!r}, although {phrase.count(others)} of them are not"
    if scores.probability is None or float(np.ptp(scores.probability, axis=0).max()) < _SAME:
        yield "breach", f"{said}, and all with the same certainty: the model has learned nothing that shows here"
    elif metrics and COUNTED.keys() >= set(metrics):
        why = (
            f"{said}: {phrase.listing(list(dict.fromkeys(metrics)))} cannot see whether it tells them apart; judge by "
            "a metric of its probabilities such as roc_auc or log_loss (gate.performance.metric), or let it answer by "
            "another threshold"
        )
        yield "unknown", why


def _contradicting(scores: Scores) -> Iterator[tuple[Outcome, str]]:
    """What is answered with a class must be what the class is thought more likely of.

    Of more than two classes it need not be: where no class is likely, the answer is one that is likelier elsewhere. It
    contradicts only where another class is thought likelier even of the rows that are answered with this one.
    """
    probability, k = scores.probability, len(scores.classes)
    if probability is None or k < 2:
        return
    answers = scores.prediction.astype(np.intp, copy=False)
    n, given = answers.size, np.bincount(answers, minlength=k)
    # Of two classes one tells both.
    codes = [1] if k == 2 and 0 < given[1] < n else np.flatnonzero((given >= _ENOUGH) & (given < n)) if k > 2 else []
    where = np.bincount(answers, weights=probability[np.arange(n), answers], minlength=k)
    everywhere = probability.sum(axis=0)
    for code in codes:
        there, elsewhere = where[code] / given[code], (everywhere[code] - where[code]) / (n - given[code])
        if there >= elsewhere or (k > 2 and np.argmax(probability[answers == code].mean(axis=0)) == code):
            continue
        why = (
            f"predict and predict_proba contradict each other: {scores.classes[code]!r} has the probability "
            f"{phrase.number(float(there))} on average where it is the answer, and {phrase.number(float(elsewhere))} "
            "where it is not; see that the columns are in the order of the model's classes_"
        )
        yield "unknown", why
        return


def _unheard(scores: Scores, counts: np.ndarray[Any, Any], known: tuple[str, ...]) -> Iterator[tuple[Outcome, str]]:
    missing = [place for place, name in enumerate(scores.classes) if counts[place] and name not in known]
    if not missing:
        return
    n, rows = int(scores.truth.size), int(counts[missing].sum())
    low, _ = clopper_pearson(rows, n, _CONFIDENCE)
    names = phrase.listing([repr(scores.classes[place]) for place in missing])
    said = f"{phrase.count(rows)} of {phrase.count(n)} rows ({phrase.percent(rows / n)}) are {names}, which"
    if low > _FEW:
        why = (
            f"{said} the model does not know and can never answer: more than {phrase.percent(_FEW)} is shown; train "
            "it once rows of that class are old enough to learn from, or with a smaller data.holdout"
        )
        yield "breach", why
    else:
        yield "ok", f"{said} the model does not know and can never answer"


@dataclass(frozen=True, slots=True)
class Constant:
    """The best that can be had without looking at a row.

    Attributes:
        said: The answer, as text.
        value: Of the metric, in its own unit.
        scores: It to every row.
    """

    said: str
    value: float
    scores: Scores


def constant(metric: str, scores: Scores, custom: Custom | None) -> Constant:
    """The constant answer that the metric likes best on these labels.

    Of classes one of the most frequent ones, with their shares as probabilities; of numbers their mean, their median or
    the quantile that the metric asks for.

    Args:
        metric: By which it is the best.
        scores: Of a model; its labels are used.
        custom: The metric's function, where it is not built in.

    Raises:
        Unmeasurable: When no constant answer has a value.
    """
    found: list[Constant] = []
    for said, one in _constants(metric, checked(scores)):
        try:
            found.append(Constant(said, _value(metric, one, custom), one))
        except Unmeasurable:
            continue
    if not found:
        raise Unmeasurable(f"no constant answer has a value of {metric} on these rows")
    return (min if is_loss(metric) else max)(found, key=lambda one: one.value)


def _value(metric: str, scores: Scores, custom: Custom | None) -> float:
    """Without the uncertainty, which costs hundreds of calls for a metric that is not built in."""
    if metric in FAMILIES or custom is None:
        return measure(metric, scores).value
    return asked(metric, custom, scores)


def _constants(metric: str, scores: Scores) -> Iterator[tuple[str, Scores]]:
    truth, n = scores.truth, int(scores.truth.size)
    if not scores.classes:
        quantile = float(metric[-2:]) / 100 if metric.startswith("pinball_") else 0.5
        for value in (float(truth.mean()), float(np.quantile(truth, quantile))):
            yield phrase.number(value), Scores(truth=truth, prediction=np.full(n, value))
        return
    counts = np.bincount(truth, minlength=len(scores.classes))
    probability = None if scores.probability is None else np.tile(counts / n, (n, 1))
    for code in np.argsort(-counts, kind="stable")[:_MOST]:
        if counts[code]:
            answers = np.full(n, code, dtype=np.intp)
            one = Scores(truth=truth, prediction=answers, probability=probability, classes=scores.classes)
            yield repr(scores.classes[code]), one


def against_constant(
    metric: str, candidate: Scores, other: Constant, *, confidence: float, custom: Custom | None
) -> tuple[Outcome, str, Difference]:
    """Whether the candidate is shown to be better than a constant answer: ok, breach where it is shown to be worse.

    Raises:
        Unmeasurable: When the candidate has no value on these rows.
    """
    apart = paired(metric, candidate, other.scores, custom=custom).at(confidence)
    outcome: Outcome = "ok" if apart.low > 0 else "breach" if apart.high < 0 else "unknown"
    words = {"ok": "better", "breach": "worse", "unknown": "not shown to be better"}
    said = (
        f"{metric} {phrase.number(apart.candidate)} is {words[outcome]} than the {phrase.number(other.value)} of "
        f"always answering {other.said} ({phrase.number(apart.low)} to {phrase.number(apart.high)} apart) on "
        f"{phrase.count(apart.n)} rows"
    )
    return outcome, said, apart
