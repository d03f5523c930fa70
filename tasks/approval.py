"""Approval: the question that a candidate puts to a person, as the ledger keeps it. It changes nothing.

The watch reads it every minute, so nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks import canary
from tasks.case import Case
from tasks.policy import Approval
from tasks.records import Standing, Verdict
from tasks.standing import SERVING

SETTLING = 300.0
"""Seconds that whoever took a person's word has to carry it out, before the watch does it."""


@dataclass(frozen=True, slots=True)
class Question:
    """That a person is asked and nobody has answered.

    Attributes:
        version: That asks to go to Production.
        asked: When.
        deadline: From then on Production stays.
    """

    version: str
    asked: datetime
    deadline: datetime

    def overdue(self, now: datetime) -> bool:
        """Whether it is too late to answer."""
        return now >= self.deadline


def question(case: Case, standing: Standing) -> Question | None:
    """The question of the version in Staging; None when nobody is asked, or it was answered."""
    version = standing.staged
    asked = None if version is None else case.ledger.fact_at(case.model, version, "awaiting")
    if version is None or asked is None:
        return None
    rules = case.policy.approval or Approval()
    return Question(version=version, asked=asked, deadline=asked + rules.deadline)


def granted(case: Case, standing: Standing) -> datetime | None:
    """When a person approved the version in Staging; None when nobody did, or it was taken back."""
    version = standing.staged
    return None if version is None else case.ledger.fact_at(case.model, version, "approved")


def due(case: Case, standing: Standing) -> bool:
    """Whether the watch has something to do: nobody answered in time, or an answer was never carried out."""
    if standing.staged is None:
        return False
    asked, approved = question(case, standing), granted(case, standing)
    if asked is not None:
        return asked.overdue(case.now)
    if approved is not None:
        if canary.running(case, standing) is not None:  # it was carried out, and goes on by its evidence
            return False
        return (case.now - approved).total_seconds() >= SETTLING
    return case.ledger.has_fact(case.model, standing.staged, "expired")


def became(case: Case, standing: Standing, version: str) -> str:
    """One sentence: why there is nothing to answer about a version."""
    serves = f"version {standing.production} is in Production" if standing.production else "nothing is in Production"
    moves = [one for one in case.ledger.history(case.model) if one.version == version and one.state == "applied"]
    if not moves:
        return f"{case.model} has no version {version} that asks for approval; {serves}"
    last = moves[-1]
    when = f"{last.applied_at or last.at:%Y-%m-%d %H:%M} UTC"
    done = {"promote": "promoted", "reject": "rejected", "rollback": "put back", "external": "moved", "stage": "staged"}
    if standing.staged == version:
        return f"version {version} is in Staging since {when} and asks for no approval now; {serves}"
    return f"version {version} was {done[last.action]} at {when} by {last.actor} ({last.reason}); {serves}"


def verdicts(case: Case, version: str) -> tuple[Verdict, ...]:
    """What gate and shadow said last of a version, as far as they were asked; the gate first."""
    found = (
        next((one for one in case.ledger.decisions(case.model, judge) if one.version == version), None)
        for judge in ("gate", "shadow")
    )
    return tuple(one.verdict for one in found if one is not None)


def compared_with_present(case: Case, version: str) -> bool:
    """Whether the shadow's last word on a version is for it, and was said about what is in Production now."""
    last = next((one for one in case.ledger.decisions(case.model, "shadow") if one.version == version), None)
    if last is None or last.verdict.decision != "promote":
        return False
    moves = case.ledger.history(case.model)
    return not any(one.seq > last.seq and one.state == "applied" and one.action in SERVING for one in moves)
