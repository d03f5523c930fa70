"""Removal: evidence that is older than a policy keeps it is taken out of the ledger, and that is put down.

The decision stays, with its verdict and the digest of its evidence, and so does every link of the chain. What was taken
out is named in a row of its own, with a link of its own: evidence that is gone without one is a breach.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, not_, or_, select
from sqlalchemy.engine import Connection

from tasks import chain, schema
from tasks.policy import as_utc

_ROWS, _BODIES = schema.decisions, schema.evidence
_CHUNK = 400
"""Digests that one statement names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to go, and on whose word.

    Attributes:
        model: Registered name.
        before: Evidence of decisions that were made before; aware.
        versions: Whose evidence stays all the same.
        trails: The same for these trails.
        at: When it goes; aware.
        reason: One sentence.
        actor: Person or flow.
    """

    model: str
    before: datetime
    versions: Collection[str] = ()
    trails: Collection[str] = ()
    at: datetime
    reason: str
    actor: str


def due(connection: Connection, order: Order) -> tuple[str, ...]:
    """Digests of the evidence that an order takes out, each once.

    The newest decision of every judge keeps its evidence, and so does everything that another decision rests on too.
    """
    old = _old(connection, order)
    found = select(_ROWS.c.evidence).join(_BODIES, _BODIES.c.digest == _ROWS.c.evidence).where(old).distinct()
    going = {str(digest) for digest in connection.execute(found).scalars()}
    for some in _chunks(sorted(going)):
        others = select(_ROWS.c.evidence).where(_ROWS.c.evidence.in_(some), not_(old))
        going.difference_update(connection.execute(others).scalars())
    return tuple(sorted(going))


def carry_out(connection: Connection, order: Order) -> int:
    """Take evidence out and put that down, in one transaction under the model's lock.

    Returns:
        How much of it there was; with nothing to take out nothing is put down.
    """
    digests = due(connection, order)
    if not digests:
        return 0
    values = {"model": order.model, "at": order.at, "before": order.before, "digests": json.dumps(digests)}
    told = {"size": len(digests), "reason": order.reason, "actor": order.actor}
    chain.write(connection, "removal", values | told)
    for some in _chunks(digests):
        connection.execute(delete(_BODIES).where(_BODIES.c.digest.in_(some)))
    return len(digests)


def removed(connection: Connection, model: str) -> Mapping[str, datetime]:
    """When which evidence of a model was taken out, by its digest."""
    rows = schema.removals
    query = select(rows.c.at, rows.c.digests).where(rows.c.model == model).order_by(rows.c.id)
    return {digest: row.at for row in connection.execute(query) for digest in json.loads(row.digests)}


def _old(connection: Connection, order: Order) -> ColumnElement[bool]:
    """Decisions whose evidence may go."""
    newest = select(func.max(_ROWS.c.id)).where(_ROWS.c.model == order.model).group_by(_ROWS.c.judge)
    return and_(
        _ROWS.c.model == order.model,
        _ROWS.c.at < as_utc(order.before),
        _ROWS.c.id.not_in(connection.execute(newest).scalars().all()),
        _ROWS.c.trail.not_in(order.trails),
        or_(_ROWS.c.version.is_(None), _ROWS.c.version.not_in(order.versions)),
    )


def _chunks(digests: Collection[str]) -> Iterator[list[str]]:
    listed = list(digests)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
