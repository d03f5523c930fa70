"""Hindsight: which retrainings of a played history were worth it, and which that were needed never came.

Everything is measured on the rows that followed, which no model of the day had seen. docs/backtest.md says the same in
plain words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from rehearsal.memory import Memory, Model, served
from rehearsal.player import PROMOTED, Day, Player
from tasks.data import Dataset
from tasks.decide.metrics import Difference, Unmeasurable, measure, paired
from tasks.plugins import custom_metric
from tasks.policy import Policy
from tasks.records import Scores

Worth = Literal["right", "false", "unknown"]
Harm = Literal["worse", "calm", "unknown"]

_CONFIDENCE = 0.95
"""One-sided, of comparisons for which the policy has no rule of its own."""
_LEAST = 100
"""Labelled rows below which nothing is known, where the policy has no rule of its own."""
_FEWEST = 20
"""Labelled rows below which a window has no metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Yardstick:
    """What counts as better and as worse; the same for every policy of a grid, so that their numbers compare.

    Attributes:
        gain_metric: By which a new model is compared with the old one.
        margin: Gain that a retraining is worth, in its unit.
        gain_confidence: One-sided.
        loss_metric: By which what served is compared with a model retrained then; it is also the metric of the table.
        drop: Loss that calls for a retraining, in its unit.
        relative: ``drop`` is a share of what the retrained model reaches.
        loss_confidence: One-sided.
        follow: For so long the rows after a retraining are looked at.
        least: Labelled rows below which nothing is known.
    """

    gain_metric: str
    margin: float
    gain_confidence: float
    loss_metric: str
    drop: float
    relative: bool
    loss_confidence: float
    follow: timedelta
    least: int

    @classmethod
    def of(cls, policy: Policy) -> Yardstick:
        """The policy's own margins: of a gain that of ``gate.regression``, of a loss that of ``triggers.performance``.

        Where one of the two is off, the other stands in; where both are, it is 2 and 3 points.
        """
        usual = "r2" if policy.problem == "regression" else "accuracy"
        trigger, check, floor = policy.triggers.performance, policy.gate.regression, policy.gate.performance
        named = [rule.metric for rule in (trigger, floor, check) if rule is not None and rule.metric]
        loss_metric = (trigger.metric if trigger else "") or (named[0] if named else usual)
        relative = trigger is not None and trigger.relative_drop is not None
        drop = trigger.drop if trigger else check.margin if check else 0.03
        return cls(
            gain_metric=(check.metric if check else "") or loss_metric,
            margin=check.margin if check else drop,
            gain_confidence=check.confidence if check else _CONFIDENCE,
            loss_metric=loss_metric,
            drop=float(trigger.relative_drop or 0) if relative and trigger else drop,
            relative=relative,
            loss_confidence=trigger.confidence if trigger else _CONFIDENCE,
            follow=policy.triggers.window,
            least=trigger.min_labels if trigger else _LEAST,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """One retraining that was begun although a version was in Production.

    Attributes:
        at: When.
        fired: Triggers that started it.
        decision: What became of it.
        old: Version in Production.
        new: The candidate, or None: its training failed.
        worth: ``right``: on the rows that followed the candidate was better by the margin at least, and shown to be
            better. ``false``: shown to be better by less than the margin, if at all. ``unknown``: neither.
        gain: Candidate minus old version there; None where it could not be measured.
        low: One-sided lower bound of it.
        high: One-sided upper bound of it.
        rows: Labelled ones that followed.
        harmful: It was promoted, lost the margin at least there, and is shown to be worse.
    """

    at: datetime
    fired: tuple[str, ...]
    decision: str
    old: str
    new: str | None
    worth: Worth
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    rows: int = 0
    harmful: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Stay:
    """A window of the history: what served, and what could have.

    Attributes:
        start: Of the window.
        end: Of the window, not included.
        rows: Labelled ones.
        version: In Production at its start, or None.
        frozen: Metric of the first version.
        served: Metric of what was in Production on each day.
        oracle: Metric of a model fitted at the start on everything that was known, with nothing held out.
        harm: ``worse``: what served lost the policy's drop against that model, and chance is ruled out; ``calm``: it is
            shown to have lost less; ``unknown``: neither.
    """

    start: datetime
    end: datetime
    rows: int
    version: str | None
    frozen: float | None
    served: float | None
    oracle: float | None
    harm: Harm


@dataclass(frozen=True, slots=True)
class Stretch:
    """Windows without a gap in which what served was worse.

    Attributes:
        start: Of the first.
        end: Of the last.
        found: When the first retraining in it was begun; None: none was, an alarm was missed.
    """

    start: datetime
    end: datetime
    found: datetime | None

    @property
    def delay(self) -> float | None:
        """Days until it was found, or None."""
        return None if self.found is None else (self.found - self.start) / timedelta(days=1)


def alarms(player: Player, yardstick: Yardstick) -> tuple[Alarm, ...]:
    """Every retraining that was begun after the first model, judged by what followed it."""
    return tuple(_alarm(player, day, yardstick) for day in player.days if day.begun and day.before is not None)


def _alarm(player: Player, day: Day, yardstick: Yardstick) -> Alarm:
    old = str(day.before)
    plain = Alarm(at=day.at, fired=day.fired, decision=day.decision, old=old, new=day.candidate, worth="unknown")
    if day.candidate is None:
        return plain
    rows = player.memory.window(day.at, day.at + yardstick.follow).labelled
    pair = (player.versions[day.candidate], player.versions[old])
    found = compared(pair, rows, yardstick.gain_metric, yardstick.gain_confidence, yardstick.least, player.policy)
    if found is None:
        return replace(plain, rows=len(rows))
    # A candidate that waits for its shadow may be promoted days later; that is its promotion too.
    promoted = any(one.candidate == day.candidate and one.decision in PROMOTED for one in player.days)
    return replace(
        plain,
        worth=worth(found, yardstick.margin),
        gain=found.value,
        low=found.low,
        high=found.high,
        rows=found.n,
        harmful=promoted and found.value <= -yardstick.margin and found.high < 0,
    )


def worth(found: Difference, margin: float) -> Worth:
    """Whether a retraining with this gain was right, false, or cannot be told."""
    if found.value >= margin and found.low > 0:
        return "right"
    return "false" if found.high < margin else "unknown"


def compared(
    pair: tuple[Model, Model], rows: Dataset, metric: str, confidence: float, least: int, policy: Policy
) -> Difference | None:
    """The first model minus the second on the same rows; None where that cannot be told."""
    if len(rows) < least:
        return None
    try:
        first, second = (served([(one, rows)], policy, pair) for one in pair)
        return paired(metric, first, second, custom=custom_metric(metric)).at(confidence)
    except Exception:  # noqa: BLE001  whatever a model raises on later rows, of those nothing is known
        return None


def stays(player: Player, yardstick: Yardstick, base: Policy, edges: Sequence[datetime]) -> tuple[Stay, ...]:
    """The history window by window.

    Args:
        player: Has played it.
        yardstick: What counts as worse.
        base: Policy by which the retrained models are made; the same for all of a grid.
        edges: Of the windows, ascending, k + 1 of them for k windows.
    """
    first = next((day.candidate for day in player.days if day.decision == "first-promoted"), None)
    frozen = player.versions[first] if first is not None else None
    return tuple(_stay(player, yardstick, base, frozen, start, end) for start, end in pairwise(edges))


def _stay(
    player: Player, yardstick: Yardstick, base: Policy, frozen: Model | None, start: datetime, end: datetime
) -> Stay:
    memory, metric = player.memory, yardstick.loss_metric
    rows = memory.window(start, end).labelled
    parts = _parts(player, start, end)
    oracle = _reference(memory, base, start, end, player.known(start))
    whole = sum(len(part) for _, part in parts) == len(rows) and bool(parts)
    answers = _answers(parts, base, oracle) if whole else None
    against = _answers([(oracle, rows)], base, *(model for model, _ in parts)) if oracle and len(rows) else None
    return Stay(
        start=start,
        end=end,
        rows=len(rows),
        version=next((day.production for day in reversed(player.days) if day.at <= start), None),
        frozen=_metric(_answers([(frozen, rows)], base) if frozen and len(rows) else None, metric),
        served=_metric(answers, metric),
        oracle=_metric(against, metric),
        harm=_harm(answers, against, yardstick) if len(rows) >= yardstick.least else "unknown",
    )


def _parts(player: Player, start: datetime, end: datetime) -> list[tuple[Model, Dataset]]:
    """What was in Production in a window, and on which of its labelled rows."""
    moments = [day.at for day in player.days]
    found: list[tuple[Model, Dataset]] = []
    for day, until in zip(player.days, [*moments[1:], max(end, moments[-1])], strict=True):
        begin, stop = max(day.at, start), min(until, end)
        if day.production is None or begin >= stop:
            continue
        rows = player.memory.window(begin, stop).labelled
        if len(rows):
            found.append((player.versions[day.production], rows))
    return found


def _reference(memory: Memory, base: Policy, start: datetime, end: datetime, known: datetime | None) -> Model | None:
    try:
        return memory.reference(base, start, end, known)
    except Exception:  # noqa: BLE001  nothing to compare with, so nothing is known of the window
        return None


def _answers(parts: list[tuple[Model, Dataset]], policy: Policy, *others: Model | None) -> Scores | None:
    try:
        return served(parts, policy, tuple(one for one in others if one is not None))
    except Exception:  # noqa: BLE001  see compared()
        return None


def _metric(scores: Scores | None, metric: str) -> float | None:
    if scores is None or len(scores.truth) < _FEWEST:
        return None
    try:
        value = measure(metric, scores, custom=custom_metric(metric)).value
    except Unmeasurable:
        return None
    return value if math.isfinite(value) else None


def _harm(answers: Scores | None, against: Scores | None, yardstick: Yardstick) -> Harm:
    if answers is None or against is None:
        return "unknown"
    metric = yardstick.loss_metric
    try:
        found = paired(metric, against, answers, custom=custom_metric(metric)).at(yardstick.loss_confidence)
    except Unmeasurable:
        return "unknown"
    drop = yardstick.drop * abs(found.candidate) if yardstick.relative else yardstick.drop
    if found.value >= drop and found.low > 0:
        return "worse"
    return "calm" if found.high < drop else "unknown"


def stretches(windows: Sequence[Stay], days: Sequence[Day]) -> tuple[Stretch, ...]:
    """Where what served was worse, and whether a retraining was begun there."""
    found: list[Stretch] = []
    for window in windows:
        if window.harm != "worse":
            continue
        start = found.pop().start if found and found[-1].end == window.start else window.start
        begun = (day.at for day in days if day.begun and start <= day.at <= window.end)
        found.append(Stretch(start, window.end, next(begun, None)))
    return tuple(found)
