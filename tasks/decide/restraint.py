"""Restraint: what keeps a trigger that holds from counting, so that noise and bad data start no loop of retrainings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.records import Finding, Signals

if TYPE_CHECKING:
    from tasks.policy import Confirm, Triggers

CERTAIN = frozenset({"age", "volume", "growth"})
"""A clock and a count of rows: to ask them again tells nothing new."""

HELD = "held"
"""Key of a finding's evidence: the trigger held in this evaluation, counted or not."""


def cooling(signals: Signals, rules: Triggers) -> tuple[Finding, ...]:
    """Whether a rollback or a retraining is so recent that no trigger counts yet; at most one finding, ``cool_down``.

    Where both are, the one that lasts longer is told.
    """
    pauses: list[tuple[datetime, Finding]] = []
    if (back := signals.rolled_back_at) is not None and rules.rollback_cool_down is not None:
        told = f"version {signals.rolled_back_from} was rolled back from"
        evidence = {"rolled_back_from": signals.rolled_back_from, "rolled_back_at": back.isoformat()}
        pauses += _pause(signals.now, back, rules.rollback_cool_down, told, evidence)
    if (trained := signals.retrained_at) is not None and rules.cool_down is not None:
        evidence = {"retrained_at": trained.isoformat()}
        pauses += _pause(signals.now, trained, rules.cool_down, "the last retraining began", evidence)
    return (max(pauses, key=lambda pause: pause[0])[1],) if pauses else ()


def _pause(
    now: datetime, since: datetime, length: timedelta, told: str, evidence: dict[str, str | None]
) -> list[tuple[datetime, Finding]]:
    if now - since >= length:
        return []
    until = since + length
    reason = f"{told} {phrase.period(now - since)} ago, and no trigger counts before "
    reason += f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return [(until, Finding(name="cool_down", outcome="exempt", reason=reason, evidence=evidence))]


def asked(signals: Signals, rule: Confirm | None) -> tuple[Finding, ...]:
    """What this evaluation saw, for those that come after it; nothing where one evaluation is enough."""
    if rule is None:
        return ()
    seen = len(_distinct(signals))
    reason = f"a trigger counts once it held in {rule.times} of the last {rule.of} evaluations that saw something new"
    return (Finding(name="confirm", outcome="exempt", reason=reason, n=seen, evidence={"saw": signals.saw}),)


def confirmed(findings: tuple[Finding, ...], signals: Signals, rule: Confirm | None) -> tuple[Finding, ...]:
    """The findings, those ``unknown`` that hold now but did not in enough of the last evaluations.

    An evaluation that saw the very rows and labels of another one confirms nothing, and they count as one: of a source
    that stands still no number of evaluations is enough. An evaluation in which a trigger was unknown did not confirm
    it.
    """
    if rule is None:
        return findings
    earlier = _distinct(signals)[: rule.of - 1]
    return tuple(_confirmed(finding, earlier, rule) for finding in findings)


def _confirmed(finding: Finding, earlier: list[tuple[str, ...]], rule: Confirm) -> Finding:
    if finding.outcome != "breach" or finding.name in CERTAIN:
        return finding
    times = 1 + sum(finding.name in held for held in earlier)
    told = f"{finding.reason}; it held in {times} of the last {1 + len(earlier)} evaluations"
    evidence = {**finding.evidence, HELD: True, "times": times, "evaluations": 1 + len(earlier)}
    if times >= rule.times:
        return replace(finding, reason=told, evidence=evidence)
    reason = f"{told}, {rule.times} of {rule.of} are needed"
    return replace(finding, outcome="unknown", reason=reason, urgency=None, evidence=evidence)


def _distinct(signals: Signals) -> list[tuple[str, ...]]:
    """What held in each earlier evaluation that saw something else, the newest first."""
    seen, found = {signals.saw} - {""}, []
    for one in signals.evaluations:
        if one.saw and one.saw in seen:
            continue
        seen.add(one.saw)
        found.append(one.held)
    return found
