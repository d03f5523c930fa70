"""Labels: what turned out to be right, told late, twice, out of order, or in several ways.

Everything that was ever told about a request is a small table: each label with the newest moment at which it was told.
Adding to it in any order, in any batches, as often as one likes gives the same table, so a batch that is written again
after a crash changes nothing. The label that counts and the number of contradictions follow from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, select, tuple_, update
from sqlalchemy.engine import Connection

from tasks import schema
from tasks.database import microseconds, moment

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

Key = tuple[str, str]
"""(model, request id)."""

_ROWS = schema.labels
_KEPT = 32
"""Labels of one request that are remembered, the newest; nobody honest tells more."""
_CHUNK = 400
"""Requests that one statement asks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What turned out to be right.

    Attributes:
        request_id: Of the request.
        model: Registered name; models that share a log may use the same request ids.
        label: The truth.
        at: When it became known; aware.
    """

    request_id: str
    model: str
    label: str | float
    at: datetime


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that was told about one request.

    Attributes:
        labels: Each with the newest moment at which it was told, in microseconds since 1970.
    """

    labels: Mapping[str, int]

    @property
    def standing(self) -> str | None:
        """The label that counts: the newest. Two that were told for the same moment cancel each other."""
        newest = self.at
        found = [label for label, at in self.labels.items() if at == newest]
        return found[0] if len(found) == 1 else None

    @property
    def at(self) -> int:
        """The newest moment."""
        return max(self.labels.values())

    @property
    def contradictions(self) -> int:
        """Labels beside the first one; repeats are none."""
        return len(self.labels) - 1

    def with_(self, more: Told) -> Told:
        """Both together; the order does not matter, and neither does a repeat."""
        every = {**self.labels}
        for label, at in more.labels.items():
            every[label] = max(at, every.get(label, at))
        # The newest of a union are the newest of its parts, so this too is the same in any order.
        kept = sorted(every.items(), key=lambda one: (-one[1], one[0]))[:_KEPT]
        return Told(dict(kept))


def told_by(rows: Iterable[Label]) -> dict[Key, Told]:
    """What a batch says about each of its requests; everybody writes them in one order.

    Two batches could otherwise wait for each other's rows.

    Raises:
        ValueError: For a naive datetime, an empty model, or a label that is empty or NaN.
    """
    new: dict[Key, Told] = {}
    for row in rows:
        key, told = _read(row)
        new[key] = new[key].with_(told) if key in new else told
    return {key: new[key] for key in sorted(new)}


def put(
    connection: Connection,
    insert: sqlite.Insert | postgresql.Insert,
    new: Mapping[Key, Told],
    *,
    now: int,
    known: Collection[Key] = (),
) -> None:
    """Put labels down.

    Args:
        connection: In a transaction that may write.
        insert: Into the table of labels, as the database has it.
        new: Of :func:`told_by`.
        now: Microseconds since 1970.
        known: Requests that have a row already, where an insert would not notice that.
    """
    values = [
        {**_values(key, told), "made": moment(max(now, told.at))} for key, told in new.items() if key not in known
    ]
    fresh: set[Key] = set()
    if values:
        statement = insert.on_conflict_do_nothing().returning(_ROWS.c.model, _ROWS.c.request_id)
        fresh = {(row.model, row.request_id) for row in connection.execute(statement, values)}
    _add(connection, {key: told for key, told in new.items() if key not in fresh})


def _add(connection: Connection, new: Mapping[Key, Told]) -> None:
    """To rows that are there; what changes nothing is not written."""
    changed = []
    for row in _stored(connection, list(new)):
        key = (row.model, row.request_id)
        before = _told(row)
        after = before.with_(new[key])
        if after != before:
            values = _values(key, after)
            # A row from before every label was kept knows only how many there were.
            values["contradictions"] = max(values["contradictions"], row.contradictions)
            changed.append({f"new_{name}": value for name, value in (*values.items(), ("made", row.made))})
    if changed:
        where = and_(*(_ROWS.c[name] == bindparam(f"new_{name}") for name in ("model", "request_id", "made")))
        fields: dict[str, Any] = {
            name: bindparam(f"new_{name}") for name in ("label", "at", "contradictions", "others")
        }
        connection.execute(update(_ROWS).where(where).values(fields), changed)


def _stored(connection: Connection, keys: list[Key]) -> Iterator[Any]:
    for start in range(0, len(keys), _CHUNK):
        asked = tuple_(_ROWS.c.model, _ROWS.c.request_id).in_(keys[start : start + _CHUNK])
        query = select(_ROWS).where(asked).order_by(_ROWS.c.model, _ROWS.c.request_id)
        # Locked: who adds to the same request at this moment has to see what is added here.
        yield from connection.execute(query.with_for_update()).all()


def _told(row: Any) -> Told:
    labels = {str(label): int(at) for label, at in json.loads(row.others).items()}
    return Told(labels if row.label is None else labels | {row.label: microseconds(row.at)})


def _values(key: Key, told: Told) -> dict[str, Any]:
    standing = told.standing
    others = {label: at for label, at in told.labels.items() if label != standing}
    return {
        "model": key[0],
        "request_id": key[1],
        "label": standing,
        "at": moment(told.at),
        "contradictions": told.contradictions,
        "others": json.dumps(others, sort_keys=True),
    }


def _read(row: Label) -> tuple[Key, Told]:
    if not row.model:
        raise ValueError(f"the label of request {row.request_id!r} names no model; give its registered name")
    return (row.model, row.request_id), Told({as_text(row.label): microseconds(row.at)})


def as_text(value: object) -> str:
    """A label or an answer as it is compared: ``1``, ``1.0`` and numpy's 1 are the same.

    Raises:
        ValueError: For nothing, an empty text, NaN or an infinity: none of them can be right or wrong.
    """
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        if not math.isfinite(plain):
            raise ValueError(f"{plain!r} is no label and no answer; leave it out until there is one")
        return str(int(plain)) if plain.is_integer() else repr(plain)
    if plain is None or not str(plain).strip():
        raise ValueError(f"{plain!r} is no label and no answer; leave it out until there is one")
    return str(plain)
