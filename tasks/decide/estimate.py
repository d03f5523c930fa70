"""Estimate: how many answers are probably right, before their labels are there. Nothing follows from it.

A classifier says how sure it is of each answer. How many of its answers were right at each degree of sureness is known
from the holdout. If the answers of now are right as often as those of then at the same sureness, the shares of now tell
how many are right in all (confidence-based estimation). That fails where the probabilities were no probabilities from
the start: how sure it is then does not tell how many are right. And a change of what the inputs mean breaks it, of
which no probability tells: the labels that are there already have to agree. Where it fails there is no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.decide import phrase
from tasks.decide.intervals import normal_quantile
from tasks.records import Finding, Sureness

EDGES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)
"""Between the degrees of sureness. They are closer near 1: a model that is too sure of itself says that of answers of
all kinds, and what is right of them differs most there."""

_CONFIDENCE = 0.99
_CALIBRATED = 0.05
"""Mean distance, on the holdout, of what it says from what was right, beyond that of chance, above which it fails."""
_LEAST = 20
"""Answers of the holdout at a degree of sureness below which it is not known how many are right."""
_COVERED = 0.95
"""Share of the answers of now that must be of a degree that is known."""
_ROWS = 100
"""Answers below which a share is no share."""


def judge(before: Sequence[Sureness], now: Sequence[Sureness]) -> Finding:
    """The finding ``estimate``: ``exempt``, as no rule asks for it, or ``unknown`` where what it assumes fails.

    Args:
        before: Of the holdout, by degree.
        now: Of the recent answers, by degree.
    """
    rows = sum(one.rows for one in now)
    if rows < _ROWS or len(before) != len(now):
        return _unknown(f"{phrase.count(rows)} recent answers with probabilities, {_ROWS} are needed", rows)
    known = [(then, here) for then, here in zip(before, now, strict=True) if then.labelled >= _LEAST]
    covered = sum(here.rows for _, here in known) / rows
    if covered < _COVERED:
        told = f"only {phrase.percent(covered)} of the recent answers are as sure as answers of the holdout were"
        return _unknown(f"{told}; of the others it is not known how many are right", rows)
    contradiction = _miscalibrated(before) or _contradiction(known)
    if contradiction:
        return _unknown(contradiction, rows)
    return _estimated(known, rows)


def _estimated(known: list[tuple[Sureness, Sureness]], rows: int) -> Finding:
    total = sum(here.rows for _, here in known)
    value = sum(here.rows * _share(then) for then, here in known) / total
    # What the holdout leaves open, and what so many answers vary by themselves.
    spread = sum((here.rows / total) ** 2 * _variance(then) for then, here in known) + value * (1 - value) / total
    width = normal_quantile(_CONFIDENCE) * math.sqrt(spread)
    low, high = max(0.0, value - width), min(1.0, value + width)
    was = sum(then.right for then, _ in known) / sum(then.labelled for then, _ in known)
    reason = (
        f"an estimate before labels: about {phrase.percent(value)} ({phrase.percent(low)} to {phrase.percent(high)}) "
        f"of {phrase.count(rows)} recent answers are right, going by how sure the model is; {phrase.percent(was)} were "
        "at training. It holds as long as inputs mean what they did"
    )
    facts = {"estimate": True, "labelled": sum(here.labelled for _, here in known), "at_training": was}
    return Finding(
        name="estimate", outcome="exempt", reason=reason, value=value, interval=(low, high), n=rows, evidence=facts
    )


def _miscalibrated(before: Sequence[Sureness]) -> str:
    """How far the model's probabilities were off on its holdout (Guo and others 2017); empty: not too far."""
    there = [one for one in before if one.labelled]
    total = sum(one.labelled for one in there)
    off = sum(abs(one.said - one.right) for one in there) / total
    # The mean of |x| of a normal distribution is sqrt(2/pi) standard deviations.
    chance = sum(math.sqrt(2 / math.pi * one.labelled * _share(one) * (1 - _share(one))) for one in there) / total
    if off - chance <= _CALIBRATED:
        return ""
    return (
        f"no estimate: on {phrase.count(total)} rows of the holdout its probabilities were off by "
        f"{phrase.percent(off)} on average, so that they do not tell how many answers are right"
    )


def _contradiction(known: list[tuple[Sureness, Sureness]]) -> str:
    """What the labels that are there say against it; empty: nothing."""
    labelled = sum(here.labelled for _, here in known)
    expected = sum(here.labelled * _share(then) for then, here in known)
    right = sum(here.right for _, here in known)
    spread = sum(
        here.labelled * _share(then) * (1 - _share(then)) + here.labelled**2 * _variance(then) for then, here in known
    )
    if not labelled or abs(right - expected) <= normal_quantile(0.5 + _CONFIDENCE / 2) * math.sqrt(spread) + 0.5:
        return ""
    return (
        f"no estimate: {phrase.count(right)} of {phrase.count(labelled)} labelled recent answers are right, and by how "
        f"sure the model is it would be about {phrase.about(expected)}; its probabilities do not mean what they did"
    )


def _share(one: Sureness) -> float:
    return (one.right + 1) / (one.labelled + 2)


def _variance(one: Sureness) -> float:
    return _share(one) * (1 - _share(one)) / one.labelled


def _unknown(reason: str, rows: int) -> Finding:
    return Finding(name="estimate", outcome="unknown", reason=reason, n=rows, evidence={"estimate": True})
