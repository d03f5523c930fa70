"""Stability: have the answers moved wildly, and if so, do the labels say that they had to?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.decide import phrase
from tasks.decide.influence import Unmeasurable, checked
from tasks.decide.intervals import Floats, bonett_price, normal_quantile
from tasks.decide.metrics import Difference, compare
from tasks.decide.ranks import midranks
from tasks.records import Finding, Outcome, Scores

if TYPE_CHECKING:
    from tasks.policy import Problem, StabilityCheck

_LEAST_ROWS = 10  # below that the interval of a rank correlation means nothing
_SEVERITY: dict[Outcome, int] = {"exempt": 0, "ok": 1, "unknown": 2, "breach": 3}


@dataclass(frozen=True, slots=True)
class Move:
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


def judge(
    candidate: Scores, production: Scores, rules: StabilityCheck, *, problem: Problem | str, confidence: float
) -> Finding:
    """The check ``stability``.

    Two things are looked at, both must hold. The rank correlation (Spearman) of the scores, the least over the
    classes; of predictions in regression; of the answers themselves when a model has no probabilities. And the shift
    of the decision rate: the share of rows given each class; in regression the share of predictions above each
    quartile of production's predictions, so that a change of level or of spread shows, in points as elsewhere.
    A shift or a low correlation is accepted when the labels show that it is towards the truth: the paired difference
    of accuracy (r2 in regression) is above zero, and, for a shift, the candidate's share is nearer to the labels'.

    Raises:
        Unmeasurable: The scores are empty, broken or not of the same rows.
    """
    ours, theirs = checked(candidate), checked(production)
    if ours.prediction.shape != theirs.prediction.shape:
        raise Unmeasurable("candidate and production were not scored on the same rows")
    if ours.truth.size < _LEAST_ROWS:
        raise Unmeasurable(f"{ours.truth.size} rows are too few to compare answers; {_LEAST_ROWS} are the least")
    regression = problem == "regression"
    better = _improvement(ours, theirs, regression=regression, confidence=confidence)
    shown = rules.explained_by_labels and better is not None and better.low > 0
    correlation = _correlation(ours, theirs, rules.correlation, regression=regression, confidence=confidence)
    if shown and correlation.outcome != "ok" and correlation.value is not None:
        correlation = _explain(correlation, better)
    shift = _shift(ours, theirs, rules.decision_rate_shift, regression=regression, confidence=confidence)
    if shown and shift.outcome != "ok" and _towards_truth(ours, theirs, rules, regression=regression):
        shift = _explain(shift, better)
    return _finding(correlation, shift, rules, rows=ours.truth.size, confidence=confidence)


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


def _improvement(ours: Scores, theirs: Scores, *, regression: bool, confidence: float) -> Difference | None:
    try:
        return compare("r2" if regression else "accuracy", ours, theirs, confidence=confidence)
    except Unmeasurable:
        return None


def _explain(move: Move, better: Difference | None) -> Move:
    if better is None:
        return move
    proof = f"the labels explain it: {better.metric} rises by at least {phrase.number(better.low)}"
    return Move(move.name, "ok", move.value, move.interval, f"{move.reason}, but {proof}", explained=True)


def _correlation(ours: Scores, theirs: Scores, least: float, *, regression: bool, confidence: float) -> Move:
    mine, other = _score_columns(ours, theirs, regression=regression)
    moving = [(np.ptp(a) > 0, np.ptp(b) > 0) for a, b in zip(mine.T, other.T, strict=True)]
    name = "correlation"
    if any(then and not now for now, then in moving):
        what = "the candidate gives the same score to every row, where production does not"
        return Move(name, "breach", None, None, f"{what}: its predictions are constant")
    if not all(now == then for now, then in moving) or not any(now for now, _ in moving):
        who = "both models" if not any(now for now, _ in moving) else "production"
        reason = f"rank correlation is undefined: the predictions of {who} are constant"
        return Move(name, "unknown", None, None, reason)
    pairs = zip(mine.T, other.T, moving, strict=True)
    value = min(_spearman(a, b) for a, b, (now, _) in pairs if now)
    low, high = _correlation_bounds(value, ours.truth.size, confidence)
    outcome: Outcome = "ok" if low >= least else "breach" if high < least else "unknown"
    said = f"rank correlation with production is {phrase.number(value)} ({phrase.number(low)} to {phrase.number(high)})"
    words = {
        "ok": f"{said}, at least {phrase.number(least)}",
        "breach": f"{said}, below {phrase.number(least)}",
        "unknown": f"{said}, which cannot be told from the limit {phrase.number(least)} on {ours.truth.size:,} rows",
    }
    return Move(name, outcome, value, (low, high), words[outcome])


def _score_columns(ours: Scores, theirs: Scores, *, regression: bool) -> tuple[Floats, Floats]:
    """Matrices of shape (n, classes) or (n, 1) in which the columns of both models belong together."""
    if regression:
        return ours.prediction[:, None], theirs.prediction[:, None]
    if ours.probability is not None and theirs.probability is not None:
        if ours.probability.shape != theirs.probability.shape:
            raise Unmeasurable(
                f"the candidate scores {ours.probability.shape[1]} classes, production {theirs.probability.shape[1]}"
            )
        # In binary the other column is the mirror of this one.
        first = 1 if ours.probability.shape[1] == 2 else 0
        return ours.probability[:, first:], theirs.probability[:, first:]
    seen = np.union1d(ours.prediction, theirs.prediction)
    seen = seen[1:] if seen.size == 2 else seen
    return ((ours.prediction[:, None] == seen).astype(float), (theirs.prediction[:, None] == seen).astype(float))


def _spearman(first: Floats, second: Floats) -> float:
    a, b = midranks(first), midranks(second)
    a, b = a - a.mean(), b - b.mean()
    # Not a @ b: of many rows its last digits hang on how many threads there are, and a verdict is to be reached again.
    return float(np.clip(np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)), -1, 1))


def _correlation_bounds(value: float, rows: int, confidence: float) -> tuple[float, float]:
    """Fisher's z with the standard error of Bonett and Wright (2000) for Spearman's coefficient."""
    centre = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    width = normal_quantile(confidence) * math.sqrt((1 + value**2 / 2) / (rows - 3))
    return math.tanh(centre - width), math.tanh(centre + width)


@dataclass(frozen=True, slots=True)
class _Event:
    """A decision, and on how many rows it was taken."""

    name: str
    ours: int
    theirs: int
    both: int
    truth: int

    @property
    def towards_truth(self) -> bool:
        return abs(self.ours - self.truth) < abs(self.theirs - self.truth)


def _events(ours: Scores, theirs: Scores, *, regression: bool) -> Iterator[_Event]:
    if regression:
        for level, cut in zip((25, 50, 75), np.quantile(theirs.prediction, [0.25, 0.5, 0.75]), strict=True):
            mine, other = ours.prediction > cut, theirs.prediction > cut
            sums = (int(np.count_nonzero(what)) for what in (mine, other, mine & other, ours.truth > cut))
            yield _Event(f"predictions above production's {level} % quantile", *sums)
        return
    highest = int(max(ours.prediction.max(), theirs.prediction.max(), ours.truth.max()))
    size = max(highest + 1, len(ours.classes))
    same = ours.prediction == theirs.prediction
    mine, other, both, truth = (
        np.bincount(codes.astype(np.intp), minlength=size)
        for codes in (ours.prediction, theirs.prediction, ours.prediction[same], ours.truth)
    )
    for code in (1,) if size == 2 else range(size):
        label = ours.classes[code] if ours.classes else str(code)
        yield _Event(f"answers {label!r}", int(mine[code]), int(other[code]), int(both[code]), int(truth[code]))


def _shift(ours: Scores, theirs: Scores, most: float, *, regression: bool, confidence: float) -> Move:
    rows = ours.truth.size
    moves = [_event_move(one, rows, most, confidence) for one in _events(ours, theirs, regression=regression)]
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


def _towards_truth(ours: Scores, theirs: Scores, rules: StabilityCheck, *, regression: bool) -> bool:
    """Every decision rate that moved by more than what is allowed came nearer to that of the labels."""
    rows = ours.truth.size
    moved = [
        event
        for event in _events(ours, theirs, regression=regression)
        if abs(event.ours - event.theirs) > rules.decision_rate_shift * rows
    ]
    return all(event.towards_truth for event in moved)
