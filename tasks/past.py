"""Past: what earlier evaluations of the triggers found, as the ledger has it, for those that look at more than one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypedDict

from tasks.case import Case
from tasks.decide.restraint import HELD
from tasks.policy import Triggers
from tasks.records import Evaluation, Standing, Verdict

_DISTINCT = 4
"""Of so many evaluations one at least saw other rows; more are read, since those that saw the same count as one."""


class Evaluated(Protocol):
    """An earlier verdict of the triggers: a row of the ledger, or of a history that is played in memory."""

    @property
    def at(self) -> datetime:
        """The moment it was made for."""

    @property
    def verdict(self) -> Verdict:
        """What was found."""


class Past(TypedDict):
    """Fields of :class:`tasks.records.Signals`."""

    evaluations: tuple[Evaluation, ...]
    evaluated_at: datetime | None
    retrained_at: datetime | None


def earlier(case: Case, standing: Standing) -> Past:
    """What is known of earlier evaluations, as far as the policy asks for it.

    Args:
        case: Whose model, and the moment: what a replay of the past has not seen yet is left out.
        standing: What the ledger says.
    """
    rules = case.policy.triggers
    known = [one for one in case.ledger.decisions(case.model, "triggers", limit=depth(rules)) if one.at <= case.now]
    retrained = _retrained(case) if looks_back(rules) else None
    return of(rules, known, since=standing.since, retrained=retrained)


def depth(rules: Triggers) -> int:
    """How many of the last evaluations have to be known."""
    return max(1, _DISTINCT * rules.confirm.of if rules.confirm is not None else 1)


def looks_back(rules: Triggers) -> bool:
    """Whether the policy asks when a training was last begun."""
    return rules.cool_down is not None or rules.confirm is not None


def of(rules: Triggers, known: Sequence[Evaluated], *, since: datetime | None, retrained: datetime | None) -> Past:
    """What the policy asks of earlier evaluations.

    Args:
        rules: Of the policy.
        known: The last :func:`depth` evaluations, the newest first.
        since: When the Production version was promoted.
        retrained: When a training was last begun; None where the policy does not ask for it.
    """
    begin = max((one for one in (since, retrained) if one is not None), default=None)
    return {
        "evaluations": tuple(
            _evaluation(one) for one in known if rules.confirm is not None and (begin is None or one.at > begin)
        ),
        "evaluated_at": known[0].at if known and rules.false_retrains is not None else None,
        "retrained_at": retrained,
    }


def _evaluation(decision: Evaluated) -> Evaluation:
    findings = decision.verdict.findings
    held = tuple(one.name for one in findings if one.outcome == "breach" or one.evidence.get(HELD))
    seen = next((str(one.evidence["saw"]) for one in findings if "saw" in one.evidence), "")
    return Evaluation(at=decision.at, held=held, saw=seen)


def _retrained(case: Case) -> datetime | None:
    """When a training was last begun: the newest ``retrain`` after which something was judged, or went wrong.

    A ``retrain`` for which nothing new was there to train on is none. One whose training failed is one: to try again
    every hour what fails is the very loop that a cool-down is against.
    """
    for one in case.ledger.decisions(case.model, "triggers", limit=100):
        if one.at > case.now or one.verdict.decision != "retrain":
            continue
        if any(other.id > one.id for other in case.ledger.decisions(case.model, trail=one.trail)):
            return one.at
    return None
