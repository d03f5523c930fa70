"""Expiry: the part of the request log that nobody needs any more is taken out, and that is put down beside it.

On PostgreSQL a week is dropped as a whole, whatever it holds: the lock that this takes is waited for two seconds at
most, and while it is waited for nobody else is kept waiting longer than that. What is in no week, and everything on
SQLite, is deleted in batches, each a transaction of its own with its note: who writes gets in between. A process that
dies in the middle has taken out whole weeks and whole batches, the oldest first, and the next one goes on.

A week goes once every model in it can do without: a model of which nobody said how long its requests stay keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from tasks import schema
from tasks.database import Database, microseconds, moment
from tasks.partitions import EARLY, LABELS, REQUESTS, Partition, Sliced, changing, partitions, sliced

_LOCK_NOT_AVAILABLE = "55P03"
_BATCH = 5_000
"""Rows that one transaction deletes."""

Bounds = Mapping[str, datetime]
"""By model: nothing at or after this moment may go. A model that is not here keeps everything."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What was taken out.

    Attributes:
        name: Of the partition, or of the model whose rows it were.
        rows: How many; of a partition about.
    """

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class Stays:
    """A week that is older than somebody needs it, and stays.

    Attributes:
        name: Of the partition.
        reason: Why, in words.
        expected: The policies given say so themselves, and nobody has to do anything.
        busy: Somebody reads or writes it for longer than this waits.
    """

    name: str
    reason: str
    expected: bool = False
    busy: bool = False


def claim(database: Database, who: str, now: datetime, every: timedelta) -> bool:
    """Whether it is this one's turn: of those who ask under one name, one per stretch of time.

    Args:
        database: Of the log.
        who: Asks.
        now: Aware.
        every: The stretch.
    """
    rows = schema.expired
    last = select(func.max(rows.c.at)).where(rows.c.name == who, rows.c.kind == "turn")
    with database.reading() as connection:
        at = connection.execute(last).scalar_one()
    if _taken(at, now, every):
        return False
    with changing(database) as connection:
        if _taken(connection.execute(last).scalar_one(), now, every):
            return False
        _note(connection, "turn", who, 0, now)
    return True


def _taken(at: datetime | None, now: datetime, every: timedelta) -> bool:
    """Whether a turn stands; one of a later moment than could be is from a clock that was ahead."""
    return at is not None and abs(now - at) < every


def expire(database: Database, bounds: Bounds, now: datetime, *, dry_run: bool = False) -> Iterator[Gone | Stays]:
    """Take out what may go, the oldest first, and tell what stays although it is old.

    Args:
        database: Of the log.
        bounds: What stays of each model.
        now: For the notes; aware.
        dry_run: Only tell what would go.
    """
    if not bounds:
        return
    if sliced(database):
        yield from _weeks(database, bounds, now, dry_run=dry_run)
    yield from _batches(database, bounds, now, dry_run=dry_run)


# Weeks.


def _weeks(database: Database, bounds: Bounds, now: datetime, *, dry_run: bool) -> Iterator[Gone | Stays]:
    latest = max(microseconds(bound) for bound in bounds.values())
    with database.reading() as connection:
        requests = [one for one in partitions(connection, REQUESTS) if one.end is not None]
        labels = [one for one in partitions(connection, LABELS) if one.end is not None]
    left: int | None = None
    for one in requests:
        if one.end is None or one.end > latest:
            left = one.start if left is None else left
            break
        found = _dropped(database, REQUESTS, one, bounds, timedelta(0), now, dry_run=dry_run)
        yield found
        if isinstance(found, Stays):
            left = (one.start or 0) if left is None else left
            if found.busy:  # each week would keep everybody waiting anew
                return
    # Labels go after their requests: what is still there is not to look as if it had none.
    until = min(latest, latest if left is None else left) - EARLY // timedelta(microseconds=1)
    for one in labels:
        if one.end is not None and one.end <= until:
            found = _dropped(database, LABELS, one, bounds, EARLY, now, dry_run=dry_run)
            yield found
            if isinstance(found, Stays) and found.busy:
                return


def _dropped(
    database: Database,
    table: Sliced,
    one: Partition,
    bounds: Bounds,
    early: timedelta,
    now: datetime,
    *,
    dry_run: bool,
) -> Gone | Stays:
    with database.reading() as connection:
        needed, rows = _needed(connection, one, bounds, early), _about(connection, one)
    if needed is not None or dry_run:
        return needed or Gone(one.name, rows)
    try:
        with changing(database) as connection:
            # The whole first, as everybody does who reads or writes: in another order two could wait for each other.
            connection.exec_driver_sql(f"LOCK TABLE ONLY {table.name} IN ACCESS EXCLUSIVE MODE")
            if all(name != one.name for name in (there.name for there in partitions(connection, table))):
                return Stays(one.name, "somebody else has just taken it out")
            if needed := _needed(connection, one, bounds, early):  # a row that came late
                return needed
            _note(connection, "week", one.name, rows, now)
            connection.exec_driver_sql(f"DROP TABLE {one.name}")
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        return Stays(one.name, "it was in use for longer than this waits; the next run tries again", busy=True)
    except DBAPIError as error:  # a view on it, or rights that are missing: the others may go all the same
        said = str(error.orig).partition("\n")[0]
        return Stays(one.name, f"the database refuses to let it go: {said}. What rests on it has to go first")
    return Gone(one.name, rows)


def _needed(connection: Connection, one: Partition, bounds: Bounds, early: timedelta) -> Stays | None:
    """Why a partition stays; None: it may go. That nobody knows what a model needs comes before everything else."""
    end, needed = moment(one.end or 0), None
    for model in _models(connection, one):
        bound = bounds.get(model)
        if bound is None:
            unknown = f"{model} has rows in it, and none of the policies given here says how long its requests stay"
            return Stays(one.name, unknown)
        if end > bound - early:
            needed = Stays(one.name, f"{model} needs what was asked since {bound:%Y-%m-%d %H:%M} UTC", expected=True)
    return needed


def _models(connection: Connection, one: Partition) -> Iterator[str]:
    """Who has rows in it, by one step in its index for each."""
    query = text(f"SELECT MIN(model) FROM {one.name} WHERE model > :last")  # noqa: S608  a name from the catalogue
    last = ""
    while (found := connection.execute(query, {"last": last}).scalar_one()) is not None:
        last = str(found)
        yield last


def _about(connection: Connection, one: Partition) -> int:
    query = text("SELECT GREATEST(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(:name)")
    return int(connection.execute(query, {"name": one.name}).scalar_one_or_none() or 0)


# Batches.


def _batches(database: Database, bounds: Bounds, now: datetime, *, dry_run: bool) -> Iterator[Gone]:
    for model, bound in bounds.items():
        rows = sum(_deleted(database, model, bound, now, dry_run=dry_run))
        if rows:
            yield Gone(f"{model} before {bound:%Y-%m-%d}", rows)


def _deleted(database: Database, model: str, bound: datetime, now: datetime, *, dry_run: bool) -> Iterator[int]:
    """Rows of each batch: the requests, and then the labels that no request is left for."""
    divided = sliced(database)
    requests = f"model = :model AND {REQUESTS.key} < :end"
    nobody = f"SELECT 1 FROM {REQUESTS.name} r WHERE r.model = l.model AND r.request_id = l.request_id"  # noqa: S608  constants
    labels = f"l.model = :model AND l.{LABELS.key} < :end AND NOT EXISTS ({nobody})"
    for table, condition, end in (
        (REQUESTS, requests, microseconds(bound)),
        (LABELS, labels, microseconds(bound - EARLY)),
    ):
        name, row = (table.rest, "ctid") if divided else (table.name, "rowid")
        given = {"model": model, "end": end}
        if dry_run:
            counted = text(f"SELECT COUNT(*) FROM {name} l WHERE {condition}")  # noqa: S608  constants
            with database.reading() as connection:
                yield int(connection.execute(counted, given).scalar_one())
            continue
        inside = f"SELECT l.{row} FROM {name} l WHERE {condition} LIMIT {_BATCH}"  # noqa: S608  constants
        statement = text(f"DELETE FROM {name} WHERE {row} IN ({inside})")  # noqa: S608  constants
        while True:
            with database.writing() as connection:
                rows = connection.execute(statement, given).rowcount
                if rows:
                    _note(connection, "rows", model, rows, now)
            yield rows
            if rows < _BATCH:
                break


def _note(connection: Connection, kind: str, name: str, rows: int, at: datetime) -> None:
    """In the transaction in which it happens."""
    connection.execute(insert(schema.expired).values(at=at, kind=kind, name=name, rows=rows))
