"""Removal: evidence that is older than a policy keeps it is taken out of the ledger, and that is put down.

The decision stays, with its verdict and the digest of its evidence, and so does every link of the chain. What was taken
out is named in a row of its own, with a link of its own: evidence that is gone without one is a breach.
"""

from __future__ import annotations

import hashlib
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
_AT_ONCE = 20
"""Bodies that are in memory at once."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A row that says what was taken out.

    Attributes:
        at: When.
        before: It may name evidence of decisions that were made before this moment.
        reason: One sentence.
        actor: Person or flow.
    """

    at: datetime
    before: datetime
    reason: str
    actor: str

    def covers(self, decided: datetime) -> bool:
        """Whether the evidence of a decision of this moment may have gone by it: a younger one's cannot have."""
        return decided < self.before <= self.at


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

    A body that is not what was put down stays: it is a breach, and age makes it none the less.

    Returns:
        How much of it there was; with nothing to take out nothing is put down.

    Raises:
        ValueError: When evidence of the future is to go.
    """
    if as_utc(order.before) > as_utc(order.at):
        raise ValueError(f"evidence of before {order.before} cannot be old at {order.at}; give an earlier moment")
    held = due(connection, order)
    for some in _chunks(held):  # whoever rests a new decision on one of these waits, or has put it down already
        connection.execute(select(_BODIES.c.digest).where(_BODIES.c.digest.in_(some)).with_for_update())
    digests = tuple(_genuine(connection, due(connection, order)))
    if not digests:
        return 0
    values = {"model": order.model, "at": order.at, "before": order.before, "digests": json.dumps(digests)}
    told = {"size": len(digests), "reason": order.reason, "actor": order.actor}
    chain.write(connection, "removal", values | told)
    for some in _chunks(digests):
        connection.execute(delete(_BODIES).where(_BODIES.c.digest.in_(some)))
    return len(digests)


def removed(connection: Connection, model: str) -> Mapping[str, tuple[Removal, ...]]:
    """What was taken out of a model's evidence, by its digest; the same evidence may have gone more than once."""
    rows, found = schema.removals, dict[str, tuple[Removal, ...]]()
    query = select(rows).where(rows.c.model == model).order_by(rows.c.id)
    for row in connection.execute(query):
        one = Removal(at=row.at, before=row.before, reason=row.reason, actor=row.actor)
        for digest in json.loads(row.digests):
            found[digest] = (*found.get(digest, ()), one)
    return found


def _genuine(connection: Connection, digests: Collection[str]) -> Iterator[str]:
    for some in _chunks(digests, _AT_ONCE):
        held = select(_BODIES.c.digest, _BODIES.c.body).where(_BODIES.c.digest.in_(some))
        for digest, body in connection.execute(held):
            if hashlib.sha256(bytes(body)).hexdigest() == digest:
                yield digest


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


def _chunks(digests: Collection[str], size: int = _CHUNK) -> Iterator[list[str]]:
    listed = list(digests)
    return (listed[start : start + size] for start in range(0, len(listed), size))
