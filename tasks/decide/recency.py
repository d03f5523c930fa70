"""Recency: how much of the past is worth learning from, as far as the newest rows can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.decide.metrics import Unmeasurable, measure, paired
from tasks.records import Scores


class Choice(NamedTuple):
    """Which of several models goes on.

    Attributes:
        place: Its place among those that were given.
        metric: By which they were compared.
        values: Of each, in the metric's own unit.
    """

    place: int
    metric: str
    values: tuple[float, ...]


def longest(tried: Sequence[Scores]) -> Choice:
    """The first that is not worse than the best by more than one standard error of their difference.

    Within one standard error nothing tells them apart, and more rows make a steadier model (Breiman, Friedman, Olshen
    and Stone 1984, section 3.4.3). By log loss where there are probabilities, which a few hundred rows tell apart
    sooner than shares of right answers; else by accuracy, or by the mean absolute error.

    Args:
        tried: Answers to the same rows, of models that learned from less and less of the past.

    Raises:
        Unmeasurable: When the rows tell nothing.
    """
    if not tried:
        raise Unmeasurable("no model was tried")
    metric = _metric(tried)
    values = tuple(measure(metric, one).value for one in tried)
    sign = 1 if metric == "accuracy" else -1
    best = tried[max(range(len(tried)), key=lambda place: sign * values[place])]
    for place, one in enumerate(tried):
        if one is best:
            return Choice(place, metric, values)
        apart = paired(metric, one, best)
        if apart.value >= -apart.error:
            return Choice(place, metric, values)
    raise AssertionError("the best is among those that were tried")


def _metric(tried: Sequence[Scores]) -> str:
    if not tried[0].classes:
        return "mae"
    return "accuracy" if any(one.probability is None for one in tried) else "log_loss"
