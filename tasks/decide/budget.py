"""Budget: how often healthy data may start a retraining, over all triggers and all evaluations together.

An evaluation is given a chance of being wrong that grows with the time since the one before it, and the triggers that
chance can set off share it. By the union bound nothing has to be known of how evaluations and triggers hang together:
they look at overlapping rows, and often at the same ones.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from tasks.decide import phrase
from tasks.records import Finding, Signals

if TYPE_CHECKING:
    from tasks.policy import FalseRetrains, Triggers

CHANCE = ("drift", "performance", "multivariate", "concept", "prediction")
"""Triggers that chance can set off. A clock, a count of rows and a changed column are what they are."""

_RESERVE = 0.25
"""Share of the budget that one evaluation may have at most; the rest comes with the time that passes."""

_PARTS = {"drift": 3.0, "performance": 2.0, "multivariate": 1.0, "concept": 1.0, "prediction": 1.25}
"""Into how many tests at its own level each trigger divides: drift asks for the index, the nulls (both ways) and the
categories; performance for the floor and the drop; prediction for two halves and for broken answers."""


class Allowance(NamedTuple):
    """What one evaluation may spend.

    Attributes:
        chance: That healthy data start a retraining in this evaluation.
        each: The same of each trigger that chance can set off.
        finding: What it came to, for the report.
    """

    chance: float
    each: float
    finding: Finding


def spending(budget: FalseRetrains, gap: timedelta) -> float:
    """The chance of a false retraining that one evaluation may have.

    With budget b per time T and a gap g since the evaluation before it, ``b min(1/4, 3/4 g/T)``. Over the evaluations
    of any stretch of length T the first spends at most b/4, and the gaps of the others lie inside the stretch, so
    they spend at most 3b/4: together at most b. Nothing but the moment of the evaluation before it has to be known,
    and a schedule that is changed, or an evaluation that somebody asks for, breaks no promise.

    Args:
        budget: Of the policy.
        gap: Since the last evaluation; none or a negative one spends nothing.
    """
    return budget.at_most * max(0.0, min(_RESERVE, (1 - _RESERVE) * (gap / budget.per)))


def allowance(signals: Signals, rules: Triggers) -> Allowance | None:
    """What this evaluation may spend; None where the policy sets no budget."""
    budget = rules.false_retrains
    sharing = [name for name in rules.enabled if name in CHANCE]
    if budget is None or not sharing or signals.profile is None:
        return None
    before = signals.evaluated_at or signals.profile.trained_at
    gap = signals.now - before
    chance = spending(budget, gap)
    each = chance / len(sharing)
    reason = (
        f"healthy data may start {phrase.number(budget.at_most)} retraining(s) in {phrase.period(budget.per)}: "
        f"{phrase.period(max(gap, timedelta(0)))} after the last evaluation this one may be wrong with a chance of "
        f"{phrase.percent(chance)}, {phrase.percent(each)} for each of {', '.join(sharing)}"
    )
    finding = Finding(
        name="budget",
        outcome="exempt",
        reason=reason,
        value=chance,
        threshold=budget.at_most,
        evidence={"each": each, "triggers": sharing, "since": before.isoformat()},
    )
    return Allowance(chance, each, finding)


def within(rules: Triggers, allowed: Allowance | None) -> Triggers:
    """The rules at levels that keep the budget; never at looser ones than the policy's own."""
    if allowed is None or allowed.each <= 0:
        return rules
    level = {name: allowed.each / parts for name, parts in _PARTS.items()}
    changes: dict[str, object] = {}
    for name in ("drift", "multivariate", "concept", "prediction"):
        section = getattr(rules, name)
        if section is not None:
            changes[name] = section.model_copy(update={"false_alarms": min(section.false_alarms, level[name])})
    if (section := rules.performance) is not None:
        confidence = max(section.confidence, 1 - level["performance"])
        changes["performance"] = section.model_copy(update={"confidence": confidence})
    return rules.model_copy(update=changes)
