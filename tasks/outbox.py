"""Outbox: what has to be told is written down before it is tried, and tried again until it is taken or a day is over.

A message is delivered at least once: whoever is killed between the sink's answer and the ledger delivers it twice. It
never keeps a decision waiting for longer than a sink's patience, and what cannot be delivered changes no decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import insert, select, update

from tasks import schema
from tasks.database import Database

Kind = Literal["notification", "event"]
State = Literal["waiting", "sent", "given up"]

LEASE = timedelta(minutes=2)
"""For so long a message is the affair of whoever tries to deliver it; then others may."""
FIRST, LONGEST = timedelta(minutes=1), timedelta(hours=1)
"""Between two attempts: the first time, doubling, up to the longest."""
DEADLINE = timedelta(days=1)
"""After which a message is given up; by then somebody has looked, or nobody will."""

_ROWS = schema.messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One thing for one sink.

    Attributes:
        kind: What carries it.
        model: Registered name.
        trail: That it belongs to.
        at: When it was written down.
        sink: As it may be shown, see :func:`tasks.notify.mask`.
        address: Digest of the sink's address, see :func:`digest`.
        title: One line.
        body: Plain text, or JSON of an event.
        state: What became of it so far.
        due: When it is to be tried next.
        attempts: So far.
        number: In the ledger.
    """

    kind: Kind
    model: str
    trail: str
    at: datetime
    sink: str
    address: str
    title: str
    body: str
    state: State = "waiting"
    due: datetime
    attempts: int = 0
    number: int = 0


def digest(address: str) -> str:
    """What names an address without telling it."""
    return hashlib.sha256(address.encode()).hexdigest()


def pause(attempts: int) -> timedelta:
    """How long to wait after so many attempts: 1, 2, 4, ... minutes, an hour at most."""
    doublings: int = min(max(attempts - 1, 0), 10)
    return min(FIRST * (1 << doublings), LONGEST)


class Outbox:
    """The messages of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        """Write messages down, as being tried by the caller from now on.

        Returns:
            The same with their numbers.
        """
        kept: list[Message] = []
        with self._database.writing() as connection:
            for message in messages:
                values = {name: getattr(message, name) for name in Message.__slots__ if name != "number"}
                key = connection.execute(insert(_ROWS).values(**values)).inserted_primary_key
                kept.append(replace(message, number=int(key[0]) if key else 0))
        return tuple(kept)

    def due(self, model: str, now: datetime, *, limit: int = 50) -> tuple[Message, ...]:
        """Messages of a model that are to be tried, the oldest first. One indexed query that mostly finds nothing."""
        query = (
            select(_ROWS)
            .where(_ROWS.c.model == model, _ROWS.c.state == "waiting", _ROWS.c.due <= now)
            .order_by(_ROWS.c.id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple(_message(row) for row in connection.execute(query).mappings())

    def undelivered(self, model: str, *, limit: int = 50) -> tuple[Message, ...]:
        """Messages that wait or were given up, the newest first."""
        query = (
            select(_ROWS)
            .where(_ROWS.c.model == model, _ROWS.c.state != "sent", _ROWS.c.attempts > 0)
            .order_by(_ROWS.c.id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return tuple(_message(row) for row in connection.execute(query).mappings())

    def claim(self, message: Message, now: datetime) -> Message | None:
        """Take a message for an attempt; None when somebody else was faster."""
        taken = replace(message, due=now + LEASE)
        same = (_ROWS.c.id == message.number) & (_ROWS.c.state == "waiting") & (_ROWS.c.due == message.due)
        with self._database.writing() as connection:
            won = connection.execute(update(_ROWS).where(same).values(due=taken.due)).rowcount
        return taken if won else None

    def settle(self, message: Message, now: datetime, *, ok: bool, final: bool = False) -> Message:
        """Put down what an attempt came to: sent, to be tried later, or given up after the deadline.

        Args:
            message: That was claimed.
            now: The moment of the attempt.
            ok: The sink took it.
            final: It is not worth another attempt.
        """
        attempts = message.attempts + 1
        state: State = "sent" if ok else "given up" if final or now - message.at >= DEADLINE else "waiting"
        settled = replace(message, state=state, due=now + pause(attempts), attempts=attempts)
        values = {"state": state, "due": settled.due, "attempts": attempts}
        with self._database.writing() as connection:
            connection.execute(update(_ROWS).where(_ROWS.c.id == message.number).values(**values))
        return settled


def _message(row: object) -> Message:
    known = dict(row)  # type: ignore[call-overload]
    return Message(number=known.pop("id"), **known)
