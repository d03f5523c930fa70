"""Split: which version answers which share of the requests, by the ledger.

A progressive rollout is rows that are only ever added: one per step, and one that says how it ended. The newest row is
where it stands. Whatever ends it by moving a version (a promotion, a rollback, a newer candidate) adds that row in the
transaction in which the move takes effect, so that no share goes to a version that has lost its place.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from tasks import chain, schema
from tasks.records import Arm, Rollout, RolloutState, Standing

_ROWS = schema.rollouts


def arms(standing: Standing, rollout: Rollout | None) -> tuple[Arm, ...]:
    """Who answers: the version in Production, and beside it the canary, where one runs.

    Args:
        standing: What the ledger says.
        rollout: Its newest row about a rollout of the model.

    Returns:
        The version in Production first. The weights sum to 100; nothing when nothing is in Production.
    """
    if standing.production is None:
        return ()
    if rollout is None or _lost(standing, rollout) or not 0 < rollout.weight < 100:
        return (Arm(standing.production, 100),)
    return (Arm(standing.production, 100 - rollout.weight), Arm(rollout.version, rollout.weight))


def shadow(standing: Standing, rollout: Rollout | None) -> str | None:
    """The version that waits in Staging and has no share yet, so that it may answer unseen; None: there is none.

    Args:
        standing: What the ledger says.
        rollout: Its newest row about a rollout of the model.
    """
    version = standing.staged
    if version is None or standing.production is None or version in standing.quarantined:
        return None
    shares = rollout is not None and rollout.version == version and not _lost(standing, rollout)
    return None if shares else version


def newest(connection: Connection, model: str) -> Rollout | None:
    """The newest row about a rollout of the model, or None."""
    query = select(_ROWS).where(_ROWS.c.model == model).order_by(_ROWS.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _rollout(row)


def every(connection: Connection, model: str) -> tuple[Rollout, ...]:
    """All rows about rollouts of the model, the oldest first."""
    query = select(_ROWS).where(_ROWS.c.model == model).order_by(_ROWS.c.id)
    return tuple(_rollout(row) for row in connection.execute(query))


def put(connection: Connection, rollout: Rollout, flow_run_id: str | None) -> None:
    """Add a row, and its link in the chain; its id is the database's. Only under the model's lock."""
    names = ("model", "version", "baseline", "weight", "state", "started", "at", "reason", "actor", "trail")
    values: dict[str, Any] = {name: getattr(rollout, name) for name in names}
    chain.write(connection, "rollout", {**values, "flow_run_id": flow_run_id})


def ending(rollout: Rollout, standing: Standing) -> tuple[RolloutState, str] | None:
    """How a rollout ends by what has just taken effect, and in which words; None where it goes on.

    Args:
        rollout: The newest row.
        standing: What the ledger says now.
    """
    if rollout.state != "running" or not _lost(standing, rollout):
        return None
    canary = rollout.version
    if standing.production == canary:
        return "promoted", f"version {canary} is in Production"
    if standing.production != rollout.baseline:
        now = "nothing" if standing.production is None else f"version {standing.production}"
        return "ended", f"{now} is in Production, no longer version {rollout.baseline} that {canary} was compared with"
    if standing.staged is not None and standing.staged != canary:
        return "ended", f"version {canary} is superseded by version {standing.staged}, which passed the gate"
    return "ended", f"version {canary} was taken out of Staging"


def _lost(standing: Standing, rollout: Rollout) -> bool:
    """Whether the canary has no place any more, whatever the row says."""
    waits = standing.staged == rollout.version and rollout.version not in standing.quarantined
    return rollout.state != "running" or not waits or standing.production != rollout.baseline


def _rollout(row: Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        model=row.model,
        version=row.version,
        baseline=row.baseline,
        weight=row.weight,
        state=row.state,
        started=row.started,
        at=row.at,
        reason=row.reason,
        actor=row.actor,
        trail=row.trail,
    )
