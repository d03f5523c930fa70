"""Chain: one hash over every row that was written about a model, so that a change behind the ledger's back shows.

Each link's digest covers its row and the link before it: who changes a row has to write every later link anew. The
newest digest is also put into a tag in MLflow with every transition, outside this database, where it can be compared.

The lists of columns below are a format. A column that is added to a table later belongs to a new kind of link; the old
kinds keep theirs, or every chain that exists would look broken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, Table, func, insert, inspect, select
from sqlalchemy.engine import Connection

from tasks import schema
from tasks.progress import Course, Progress, silent

_LINKS = schema.chain
_AT_A_TIME = 1000
_STREAMED = {"yield_per": _AT_A_TIME}
"""Rows that are read at once; left to itself PostgreSQL's driver fetches all of a table before the first is seen."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a link stands for.

    Attributes:
        table: With the row.
        key: Column that tells rows of a model apart.
        columns: That the digest covers.
        called: In messages.
    """

    table: Table
    key: str
    columns: tuple[str, ...]
    called: str

    def rows(self, model: str) -> Select[Any]:
        """The rows of a model that have to have a link."""
        key = self.table.c[self.key].label("key")
        query = select(key, *(self.table.c[name] for name in self.columns)).where(self.table.c.model == model)
        if self is KINDS["settled"]:
            query = query.where(self.table.c.state != "intended")
        return query.order_by(self.table.c[self.key])


KINDS = {
    "transition": _Kind(
        schema.transitions,
        "seq",
        (
            *("seq", "action", "version", "previous", "production", "actor", "reason", "trail", "flow_run_id"),
            *("evidence", "intended_at"),
        ),
        "transition",
    ),
    "settled": _Kind(schema.transitions, "seq", ("seq", "state", "applied_at"), "outcome of transition"),
    "version": _Kind(
        schema.versions, "version", ("version", "run_id", "digest", "size", "trained_at", "profile"), "version"
    ),
    "decision": _Kind(
        schema.decisions,
        "id",
        (
            *("trail", "judge", "decision", "reason", "verdict", "at", "flow_run_id", "version", "seq"),
            *("span_start", "span_end", "evidence"),
        ),
        "decision",
    ),
    "fact": _Kind(schema.facts, "id", ("version", "fact", "at", "reason", "actor", "trail"), "fact"),
    "notification": _Kind(schema.notifications, "id", ("trail", "at", "sink", "title", "ok", "error"), "notification"),
    "rollout": _Kind(
        schema.rollouts,
        "id",
        (
            *("version", "baseline", "weight", "state", "started", "at", "reason", "actor", "trail"),
            "flow_run_id",
        ),
        "step of a rollout",
    ),
    "removal": _Kind(
        schema.removals, "id", ("at", "before", "digests", "size", "reason", "actor"), "removal of evidence"
    ),
    "lesson": _Kind(schema.lessons, "id", ("version", "base", "requests", "size", "at", "reason", "trail"), "lesson"),
}
"""In the order in which rows from before there was a chain are linked."""


def write(connection: Connection, kind: str, values: Mapping[str, Any]) -> None:
    """Put a row down, and its link. Only under the model's lock.

    Args:
        connection: In a transaction.
        kind: Of :data:`KINDS`; tells the table.
        values: Of the row, the model among them.
    """
    what = KINDS[kind]
    key = connection.execute(insert(what.table).values(**values)).inserted_primary_key
    append(connection, values["model"], kind, values[what.key] if what.key in values else key and key[0])


def append(connection: Connection, model: str, kind: str, key: object) -> None:
    """Add the link of a row that was just written. Only under the model's lock.

    Args:
        connection: In the transaction that wrote the row.
        model: Registered name.
        kind: Of :data:`KINDS`.
        key: Of the row, in the kind's key column.
    """
    what = KINDS[kind]
    row = connection.execute(what.rows(model).where(what.table.c[what.key] == key)).one()
    position, before = newest(connection, model) or (0, "")
    values = {"model": model, "position": position + 1, "kind": kind, "row": str(key)}
    connection.execute(insert(_LINKS).values(**values, digest=_digest(before, position + 1, _fingerprint(kind, row))))


def newest(connection: Connection, model: str) -> tuple[int, str] | None:
    """(position, digest) of the newest link, or None."""
    query = (
        select(_LINKS.c.position, _LINKS.c.digest)
        .where(_LINKS.c.model == model)
        .order_by(_LINKS.c.position.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else (found.position, found.digest)


def digest_at(connection: Connection, model: str, position: int) -> str | None:
    """Of one link, or None."""
    query = select(_LINKS.c.digest).where(_LINKS.c.model == model, _LINKS.c.position == position)
    return connection.execute(query).scalar_one_or_none()


def seal(connection: Connection) -> None:
    """Link every row that has no link yet; for a ledger from before there was a chain, and before later tables."""
    names: set[str] = set()
    there = {name: kind for name, kind in KINDS.items() if inspect(connection).has_table(kind.table.name)}
    for kind in there.values():
        names.update(connection.execute(select(kind.table.c.model).distinct()).scalars())
    for model in sorted(names):
        position, before = newest(connection, model) or (0, "")
        for name, kind in there.items():
            for row in connection.execute(kind.rows(model)).all():
                position += 1
                before = _digest(before, position, _fingerprint(name, row))
                values = {"model": model, "position": position, "kind": name, "row": str(row.key), "digest": before}
                connection.execute(insert(_LINKS).values(**values))


def verify(connection: Connection, model: str, progress: Progress = silent) -> tuple[str, ...]:
    """What does not fit: rows that were changed, taken out, or put in beside the ledger. One sentence each.

    Somebody who can write to the database can also write the whole chain anew; against that compare
    :func:`digest_at` with what MLflow's tags say.
    """
    return tuple(_misfits(connection, model, progress))


def _misfits(connection: Connection, model: str, progress: Progress) -> Iterator[str]:
    # Verdicts and profiles are long and there are many: what is held at once is their fingerprints.
    rows: dict[str, dict[str, str]] = {}
    total = connection.execute(select(func.count()).select_from(_LINKS).where(_LINKS.c.model == model)).scalar_one()
    course = Course(progress, f"rows of {model} in the ledger, and their links", 2 * (total // _AT_A_TIME + 1))
    for name, kind in KINDS.items():
        read = connection.execute(kind.rows(model), execution_options=_STREAMED)
        rows[name] = {str(row.key): _fingerprint(name, row) for row in _noted(read, course)}
    chain = select(_LINKS).where(_LINKS.c.model == model).order_by(_LINKS.c.position)
    links = connection.execute(chain, execution_options=_STREAMED)
    before, last = "", 0
    for link in _noted(links, course):
        if link.position != last + 1:
            yield f"links {last + 1} to {link.position - 1} of the chain were taken out"
        found = rows.get(link.kind, {}).pop(link.row, None)
        called = f"{_called(link.kind)} {link.row} (link {link.position})"
        if found is None:
            yield f"{called} was taken out"
        elif _digest(before, link.position, found) != link.digest:
            yield f"{called}, or the link before it, was changed after it was written"
        before, last = link.digest, link.position
    course.end()
    for name, left in rows.items():
        for key in left:
            yield f"{_called(name)} {key} was put in beside the ledger: no link stands for it"
    yield from _lost_tail(connection, model)


def _noted(rows: Iterable[Row[Any]], course: Course) -> Iterator[Row[Any]]:
    """The same rows; every so many of them are a stage."""
    for number, row in enumerate(rows, 1):
        yield row
        if number % _AT_A_TIME == 0:
            course.past()


def _lost_tail(connection: Connection, model: str) -> Iterator[str]:
    moves = schema.transitions
    heads = select(schema.models.c.head).where(schema.models.c.model == model)
    head = connection.execute(heads).scalar_one_or_none() or 0
    newest_move = select(moves.c.seq).where(moves.c.model == model).order_by(moves.c.seq.desc()).limit(1)
    known = connection.execute(newest_move).scalar_one_or_none() or 0
    if head != known:
        yield f"the newest transition should be {head} and is {known}"


def _called(kind: str) -> str:
    return KINDS[kind].called if kind in KINDS else kind


def _fingerprint(kind: str, row: Row[Any]) -> str:
    """Of a row's content; the same on every database."""
    content = {name: _plain(row._mapping[name]) for name in KINDS[kind].columns}  # noqa: SLF001  SQLAlchemy's public door
    return _sha([kind, content])


def _digest(before: str, position: int, fingerprint: str) -> str:
    return _sha([before, position, fingerprint])


def _sha(content: list[Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: Any) -> Any:
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
