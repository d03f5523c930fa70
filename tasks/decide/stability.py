"""Stability: have the answers moved wildly, and if so, do the labels say that they had to?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.decide import agreement, phrase
from tasks.decide.influence import Unmeasurable, checked, codes
from tasks.decide.intervals import Floats, bonett_price, normal_quantile
from tasks.decide.metrics import Difference, Spread, paired
from tasks.records import Finding, Outcome, Scores

if TYPE_CHECKING:
    from tasks.policy import Problem, StabilityCheck

_LEAST_ROWS = 10  # below that the interval of a rank correlation means nothing
_SEVERITY: dict[Outcome, int] = {"exempt": 0, "ok": 1, "unknown": 2, "breach": 3}


class Move(NamedTuple):
    """Something that moved between production and the candidate.

    Attributes:
        name: What it is, for the sentence.
        outcome: Of it alone, before the labels are asked.
        value: How far, or how similar.
        interval: One-sided bounds of it.
        reason: One sentence.
        explained: The labels show that it is towards the truth.
    """

    name: str
    outcome: Outcome
    value: float | None
    interval: tuple[float, float] | None
    reason: str
    explained: bool = False


class _Event(NamedTuple):
    """A decision, and on how many rows it was taken."""

    name: str
    ours: int
    theirs: int
    both: int
    truth: int

    @property
    def towards_truth(self) -> bool:
        return abs(self.ours - self.truth) < abs(self.theirs - self.truth)


def judge(
    candidate: Scores,
    production: Scores,
    rules: StabilityCheck,
    *,
    problem: Problem | str,
    confidence: float,
    compared: Callable[[str], Spread] | None = None,
) -> Finding:
    """The check ``stability``.

    Two things are looked at, both must hold. The rank correlation (Spearman) of the scores, the least over the
    classes; of predictions in regression; of the answers themselves when a model has no probabilities. Of more than
    50,000 rows it may be that by cell (:mod:`tasks.decide.agreement`), unless the exact one could be judged otherwise.
    And the shift of the decision rate: the share of rows given each class; in regression the share of predictions above
    each quartile of production's predictions, so that a change of level or of spread shows, in points as elsewhere.
    A shift or a low correlation is accepted when the labels show that it is towards the truth: the paired difference
    of accuracy (r2 in regression) is above zero, and, for a shift, the candidate's share is nearer to the labels'.

    Args:
        candidate: Of n rows.
        production: The other model's, on the same rows.
        rules: The policy's section ``gate.stability``.
        problem: What is predicted.
        confidence: Of each bound, one-sided.
        compared: The paired difference of the two by a metric, for a caller who needs some of them too.

    Raises:
        Unmeasurable: The scores are empty, broken or not of the same rows; or an answer is none of the classes.
    """
    ours, theirs = checked(candidate), checked(production)
    if ours.prediction.shape != theirs.prediction.shape:
        raise Unmeasurable("candidate and production were not scored on the same rows")
    if ours.truth.size < _LEAST_ROWS:
        raise Unmeasurable(f"{ours.truth.size} rows are too few to compare answers; {_LEAST_ROWS} are the least")
    regression = problem == "regression"
    better = _improvement(compared or (lambda metric: paired(metric, ours, theirs)), problem, confidence)
    shown = rules.explained_by_labels and better is not None and better.low > 0
    rows, events = ours.truth.size, _events(ours, theirs, regression=regression)
    correlation = _correlation(ours, theirs, events, rules.correlation, regression=regression, confidence=confidence)
    if shown and correlation.outcome != "ok" and correlation.value is not None:
        correlation = _explain(correlation, better)
    shift = _shift(events, rows, rules.decision_rate_shift, confidence)
    if shown and shift.outcome != "ok" and _towards_truth(events, rows, rules.decision_rate_shift):
        shift = _explain(shift, better)
    return _finding(correlation, shift, rules, rows=rows, confidence=confidence)


def _finding(correlation: Move, shift: Move, rules: StabilityCheck, *, rows: int, confidence: float) -> Finding:
    """One finding of two moves; it carries the numbers of the worse one."""
    worse = max((correlation, shift), key=lambda move: _SEVERITY[move.outcome])
    threshold = rules.correlation if worse is correlation else rules.decision_rate_shift
    both = "; ".join(move.reason for move in (correlation, shift))
    return Finding(
        name="stability",
        outcome=worse.outcome,
        reason=both if worse.outcome == "ok" else worse.reason,
        value=worse.value,
        threshold=threshold,
        interval=worse.interval,
        n=rows,
        evidence={
            "of": worse.name,
            "confidence": confidence,
            **{
                move.name: {
                    "outcome": move.outcome,
                    "value": move.value,
                    "interval": move.interval,
                    "threshold": limit,
                    "explained_by_labels": move.explained,
                }
                for move, limit in ((correlation, rules.correlation), (shift, rules.decision_rate_shift))
            },
        },
    )


def _improvement(compared: Callable[[str], Spread], problem: Problem | str, confidence: float) -> Difference | None:
    try:
        return compared("r2" if problem == "regression" else "accuracy").at(confidence)
    except Unmeasurable:
        return None


def _explain(move: Move, better: Difference | None) -> Move:
    if better is None:
        return move
    proof = f"the labels explain it: {better.metric} rises by at least {phrase.number(better.low)}"
    return Move(move.name, "ok", move.value, move.interval, f"{move.reason}, but {proof}", explained=True)


def _correlation(
    ours: Scores, theirs: Scores, events: list[_Event], least: float, *, regression: bool, confidence: float
) -> Move:
    rows = ours.truth.size
    columns = _score_columns(ours, theirs, regression=regression)
    if columns is None:
        moving = [(0 < one.ours < rows, 0 < one.theirs < rows) for one in events]
    else:
        moving = list(zip(*(agreement.moving(one) for one in columns), strict=True))
    name = "correlation"
    if any(then and not now for now, then in moving):
        what = "the candidate gives the same score to every row, where production does not"
        return Move(name, "breach", None, None, f"{what}: its predictions are constant")
    if not all(now == then for now, then in moving) or not any(now for now, _ in moving):
        who = "both models" if not any(now for now, _ in moving) else "production"
        reason = f"rank correlation is undefined: the predictions of {who} are constant"
        return Move(name, "unknown", None, None, reason)

    def judged(value: float) -> tuple[Outcome, float, float]:
        low, high = _correlation_bounds(value, rows, confidence)
        return "ok" if low >= least else "breach" if high < least else "unknown", low, high

    # The bounds rise with the coefficient, so what two coefficients are judged to be all between them are.
    value = _least_correlation(columns, events, rows, lambda one, other: judged(one)[0] == judged(other)[0])
    outcome, low, high = judged(value)
    said = f"rank correlation with production is {phrase.number(value)} ({phrase.number(low)} to {phrase.number(high)})"
    words = {
        "ok": f"{said}, at least {phrase.number(least)}",
        "breach": f"{said}, below {phrase.number(least)}",
        "unknown": f"{said}, which cannot be told from the limit {phrase.number(least)} on {rows:,} rows",
    }
    return Move(name, outcome, value, (low, high), words[outcome])


def _least_correlation(
    columns: tuple[Floats, Floats] | None, events: list[_Event], rows: int, same: Callable[[float, float], bool]
) -> float:
    """Of those that are not constant."""
    if columns is None:
        told = [one for one in events if 0 < one.ours < rows]
        return min(agreement.of_counts(one.both, one.ours, one.theirs, rows) for one in told)
    ours, theirs = columns
    moves = agreement.moving(ours)
    return agreement.least(*((ours, theirs) if moves.all() else (ours[:, moves], theirs[:, moves])), same)


def _score_columns(ours: Scores, theirs: Scores, *, regression: bool) -> tuple[Floats, Floats] | None:
    """Matrices of shape (n, columns) in which the columns of both models belong together; None: only classes."""
    if regression:
        return ours.prediction[:, None], theirs.prediction[:, None]
    if ours.probability is None or theirs.probability is None:
        return None
    if ours.probability.shape != theirs.probability.shape:
        raise Unmeasurable(
            f"the candidate scores {ours.probability.shape[1]} classes, production {theirs.probability.shape[1]}"
        )
    # In binary the other column is the mirror of this one.
    first = 1 if ours.probability.shape[1] == 2 else 0
    return ours.probability[:, first:], theirs.probability[:, first:]


def _correlation_bounds(value: float, rows: int, confidence: float) -> tuple[float, float]:
    """Fisher's z with the standard error of Bonett and Wright (2000) for Spearman's coefficient."""
    centre = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    width = normal_quantile(confidence) * math.sqrt((1 + value**2 / 2) / (rows - 3))
    return math.tanh(centre - width), math.tanh(centre + width)


def _events(ours: Scores, theirs: Scores, *, regression: bool) -> list[_Event]:
    if regression:
        cuts = zip((25, 50, 75), np.quantile(theirs.prediction, [0.25, 0.5, 0.75]), strict=True)
        return [_above(f"predictions above production's {level} % quantile", ours, theirs, cut) for level, cut in cuts]
    truth, mine, size = codes(ours)
    _, other, theirs_size = codes(theirs)
    size = max(size, theirs_size)
    if size == 2:  # codes are 0 and 1, and so are their products
        sums = [(int(np.count_nonzero(what)),) for what in (mine, other, mine & other, truth)]
    else:
        sums = [np.bincount(what, minlength=size).tolist() for what in (mine, other, mine[mine == other], truth)]
    asked = (1,) if size == 2 else range(size)
    names = [ours.classes[code] if ours.classes else str(code) for code in asked]
    return [_Event(f"answers {name!r}", *counts) for name, *counts in zip(names, *sums, strict=True)]


def _above(name: str, ours: Scores, theirs: Scores, cut: float) -> _Event:
    mine, other = ours.prediction > cut, theirs.prediction > cut
    return _Event(name, *(int(np.count_nonzero(what)) for what in (mine, other, mine & other, ours.truth > cut)))


def _shift(events: list[_Event], rows: int, most: float, confidence: float) -> Move:
    moves = [_event_move(one, rows, most, confidence) for one in events]
    return max(moves, key=lambda move: (_SEVERITY[move.outcome], abs(move.value or 0.0)))


def _event_move(event: _Event, rows: int, most: float, confidence: float) -> Move:
    low, high = bonett_price(event.ours - event.both, event.theirs - event.both, rows, confidence)
    shown, bounded = low > most or high < -most, -most <= low and high <= most
    outcome: Outcome = "breach" if shown else "ok" if bounded else "unknown"
    before, after = event.theirs / rows, event.ours / rows
    said = f"the share of {event.name} goes from {phrase.percent(before)} to {phrase.percent(after)}"
    words = {
        "ok": f"{said}, within {phrase.percent(most)}",
        "breach": f"{said}, more than the {phrase.percent(most)} allowed",
        "unknown": f"{said}, which cannot be told from the {phrase.percent(most)} allowed on {rows:,} rows",
    }
    return Move("decision_rate_shift", outcome, after - before, (low, high), words[outcome])


def _towards_truth(events: list[_Event], rows: int, most: float) -> bool:
    """Every decision rate that moved by more than what is allowed came nearer to that of the labels."""
    return all(event.towards_truth for event in events if abs(event.ours - event.theirs) > most * rows)
