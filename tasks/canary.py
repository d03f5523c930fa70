"""Canary: the version in Staging that answers a share of the requests, as the ledger keeps it.

Its share is a fact in the ledger and nothing else: to give it or to take it away needs no MLflow, so a bad canary is
out of service also while MLflow is away. The watch reads this every minute, so nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tasks.case import Case
from tasks.records import Rollout, Standing


def running(case: Case, standing: Standing) -> Rollout | None:
    """The rollout of the version in Staging, where one runs; otherwise None."""
    newest = case.ledger.rollout(case.model)
    if newest is None or newest.state != "running" or newest.version != standing.staged:
        return None
    return newest


def aborted(case: Case, standing: Standing) -> Rollout | None:
    """The rollout of the version in Staging, where it was aborted and the version was not archived since."""
    newest = case.ledger.rollout(case.model)
    if newest is None or newest.state != "aborted" or newest.version != standing.staged:
        return None
    return newest if newest.version in standing.quarantined else None


def begin(case: Case, standing: Standing, version: str, weight: int, reason: str) -> Rollout | None:
    """Give the version in Staging its first share; a dry run gives none.

    Raises:
        StaleDecision: When the ledger moved since ``standing`` was read.
        ValueError: When nothing is in Production, so there is nothing to compare it with.
    """
    if standing.production is None:
        raise ValueError(f"nothing of {case.model} is in Production; version {version} cannot be a canary beside it")
    first = Rollout(
        id=0,
        model=case.model,
        version=version,
        baseline=standing.production,
        weight=weight,
        state="running",
        started=case.now,
        at=case.now,
        reason=reason,
        actor=case.actor,
        trail=case.trail,
    )
    return _put(case, first, case.ledger.rollout(case.model))


def weigh(case: Case, rollout: Rollout, weight: int, reason: str) -> Rollout | None:
    """Give a canary another share, from now on.

    Raises:
        StaleDecision: When the rollout went on, or ended, since ``rollout`` was read.
    """
    return _put(case, replace(rollout, weight=weight, at=case.now, reason=reason, actor=case.actor), rollout)


def end(case: Case, rollout: Rollout, state: Literal["aborted", "ended"], reason: str) -> Rollout | None:
    """Take all of a canary's share away; one that is aborted is quarantined by that.

    Raises:
        StaleDecision: When the rollout went on, or ended, since ``rollout`` was read.
    """
    over = replace(rollout, weight=0, state=state, at=case.now, reason=reason, actor=case.actor)
    return _put(case, over, rollout)


def told(rollout: Rollout) -> str:
    """One sentence about a rollout that runs."""
    since = f"{rollout.at:%Y-%m-%d %H:%M} UTC"
    return f"version {rollout.version} is a canary with {rollout.weight}% of the requests since {since}"


def _put(case: Case, step: Rollout, after: Rollout | None) -> Rollout | None:
    if case.dry_run:
        return None
    return case.ledger.weigh(step, after=after, flow_run_id=case.flow_run_id)
