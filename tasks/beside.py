"""Beside: another version that answers at the same time as the one in Production, and what it did.

It is asked for only when the version in Production is shown to be bad, so that a quiet tick reads none of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from tasks import canary, split
from tasks.case import Case
from tasks.health_sources import RequestLogSource, source
from tasks.records import Beside, Standing


def beside(case: Case, standing: Standing, *, start: datetime, end: datetime) -> tuple[Beside | None, str | None]:
    """The other version's looks, or why there are none.

    A canary answers other requests of the same minutes. A live shadow answers those that Production has answered, and
    only the labels of those tell of it; it is in the request log, whoever counts the rest.

    Args:
        case: Whose model.
        standing: What the ledger says.
        start: Of the first look.
        end: Of the last one.
    """
    version, role, serving = _other(case, standing, start)
    if version is None:
        return None, "no other version answers at the same time"
    from_log = RequestLogSource(case.stores.requests)
    counted = source(case.stores, case.policy) if role == "canary" else from_log
    policy = case.policy
    seen = counted.evidence(
        case.model, version, started=start, now=end, health=policy.health, problem=policy.problem, role=role
    )
    if seen.unavailable is not None:
        return None, f"what version {version} did at the same time could not be read ({seen.unavailable})"
    return Beside(version=version, role=role, looks=seen.looks, serving=serving), None


def _other(case: Case, standing: Standing, start: datetime) -> tuple[str | None, Literal["canary", "shadow"], bool]:
    """(version, role, whether it answers still) of the other version; a canary that has gone since is one too.

    Otherwise what two versions suffered from would be put down to the one in Production once the other has left.
    """
    rollout = canary.running(case, standing)
    if rollout is not None:
        return rollout.version, "canary", True
    newest, shadow = case.ledger.rollout(case.model), case.policy.shadow
    if (
        newest is not None
        and newest.baseline == standing.production
        and newest.state != "running"
        and newest.at > start
    ):
        return newest.version, "canary", False
    if shadow is None or shadow.live is None:
        return None, "shadow", False
    return split.shadow(standing, newest), "shadow", True
