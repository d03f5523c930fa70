"""Standing: what the ledger's rows say about one model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from tasks import schema
from tasks.records import Standing, Transition

_ROWS = schema.transitions

SERVING = ("promote", "rollback", "external")
"""Actions that change what serves."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Questions about one model's transitions and facts; each answer is one row, or the facts of its versions.

    Attributes:
        connection: Open.
        model: Registered name.
    """

    connection: Connection
    model: str

    def newest(self, *conditions: Any) -> Row[Any] | None:
        """The newest transition for which all of these hold."""
        query = select(_ROWS).where(_ROWS.c.model == self.model, *conditions).order_by(_ROWS.c.seq.desc()).limit(1)
        return self.connection.execute(query).one_or_none()

    def last_applied(self) -> Row[Any] | None:
        """The newest transition that took effect."""
        return self.newest(_ROWS.c.state == "applied")

    def facts(self) -> tuple[tuple[str, str], ...]:
        """(version, fact) of every fact that decides whether a version may come back, oldest first."""
        named = ("known-good", "quarantined", "released")
        query = (
            select(schema.facts.c.version, schema.facts.c.fact)
            .where(schema.facts.c.model == self.model, schema.facts.c.fact.in_(named))
            .order_by(schema.facts.c.id)
        )
        return tuple((row.version, row.fact) for row in self.connection.execute(query))


def standing_of(rows: Rows) -> Standing:
    """What the ledger says about a model.

    ``seq`` is the newest row that is settled. As long as an intent is not, every decision is stale: whatever it was
    based on is about to change.
    """
    head = rows.newest()
    pending = head if head is not None and head.state == "intended" else None
    settled = head if pending is None else rows.newest(_ROWS.c.state != "intended")
    # Most often the newest row says it all; every other question costs more than its answer in a tick.
    applied = head if head is not None and head.state == "applied" else rows.last_applied()
    production = applied.production if applied is not None else None
    served = None
    if applied is not None and production:
        told = applied.action in SERVING
        served = applied if told else rows.newest(_ROWS.c.state == "applied", _ROWS.c.action.in_(SERVING))
    staged = _staged(rows)
    known_good, quarantined = _eligible(rows.facts())
    return Standing(
        model=rows.model,
        seq=settled.seq if settled is not None else 0,
        production=production,
        since=served.applied_at if served is not None else None,
        staged=staged.version if staged is not None else None,
        staged_since=staged.applied_at if staged is not None else None,
        staged_trail=staged.trail if staged is not None else None,
        pending=transition_of(pending) if pending is not None else None,
        known_good=known_good,
        quarantined=quarantined,
        moved_at=applied.applied_at if applied is not None else None,
    )


def _staged(rows: Rows) -> Row[Any] | None:
    """The newest applied ``stage`` whose version neither reached Production nor was rejected since."""
    staged = rows.newest(_ROWS.c.state == "applied", _ROWS.c.action == "stage")
    if staged is None:
        return None
    later = (_ROWS.c.state == "applied", _ROWS.c.version == staged.version, _ROWS.c.action != "stage")
    return staged if rows.newest(*later, _ROWS.c.seq > staged.seq) is None else None


def _eligible(facts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(known good, quarantined), newest first.

    A quarantine takes the standing of a version away: released, it has to show again that it is good.
    """
    good: dict[str, None] = {}
    bad: dict[str, None] = {}
    for version, fact in facts:
        if fact == "known-good":
            good.pop(version, None)
            good[version] = None
        elif fact == "quarantined":
            good.pop(version, None)
            bad.pop(version, None)
            bad[version] = None
        else:
            bad.pop(version, None)
    return tuple(reversed(good)), tuple(reversed(bad))


def transition_of(row: Row[Any]) -> Transition:
    """A row of the table as a record."""
    return Transition(
        model=row.model,
        seq=row.seq,
        action=row.action,
        version=row.version,
        previous=row.previous,
        state=row.state,
        actor=row.actor,
        reason=row.reason,
        at=row.intended_at,
        trail=row.trail,
        flow_run_id=row.flow_run_id,
        evidence=json.loads(row.evidence),
        applied_at=row.applied_at,
    )
