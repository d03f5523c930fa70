"""Partitions: the weeks into which PostgreSQL divides the request log, and how a week comes to be.

A week is the width because everything that reads the log reads hours to weeks, and what expires is dropped a week at a
time: days would be seven times as many tables in which to look for a request id, months would keep a month too much.
Weeks begin on Monday, in UTC. SQLite has no partitions; there nothing here does anything.

A row whose week has no partition goes to the one called ``rest``: it is never refused. So do rows from more than two
years ago or from more than eight weeks ahead, which would otherwise make a table each.

The key of a partition is part of nothing that tells rows apart, so a request id is unique within a week only by its
index. Across weeks it is looked for before it is written, under a lock: see :func:`guard`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from tasks.database import Database, moment

_log = logging.getLogger(__name__)

_HOUR = 3_600_000_000
WEEK = 7 * 24 * _HOUR
"""Microseconds."""
_MONDAY = 4 * 24 * _HOUR
"""1970-01-05, in microseconds since 1970."""

EARLY = timedelta(weeks=1)
"""So long before its request was asked a label may have been put down; clients may know ids, and truths, in advance."""

_BACK, _AHEAD = 104, 8
"""Weeks before and after the present one that get a partition of their own."""
_READY = 2
"""Weeks after the present one that are made ahead of time."""
_PATIENCE = 60.0
"""Seconds until it is tried again to make a partition, where that could not be done."""
_WAIT = "2s"
"""How long a change of the partitions waits for its lock: while it waits, everybody else waits behind it."""
_LOCK = 7_236_018
"""Of everybody who changes partitions. Any number will do, as long as it is the same."""


@dataclass(frozen=True, slots=True)
class Sliced:
    """A table in partitions.

    Attributes:
        name: Of the table.
        key: Column that tells the partition: microseconds since 1970.
        unique: Columns that tell rows apart.
        number: Of the lock under which its rows are written.
    """

    name: str
    key: str
    unique: tuple[str, ...]
    number: int

    @property
    def rest(self) -> str:
        """Name of the partition for everything that has no other."""
        return f"{self.name}_rest"

    @property
    def before(self) -> str:
        """Name of the partition that is the table from before there were weeks."""
        return f"{self.name}_before"

    def week(self, start: int) -> str:
        """Name of the partition of a week, as ISO 8601 counts them."""
        return f"{self.name}_{moment(start):%G_w%V}"


REQUESTS = Sliced("backstop_requests", "at", ("model", "request_id", "role"), 7_236_019)
LABELS = Sliced("backstop_labels", "made", ("model", "request_id"), 7_236_020)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition that is there.

    Attributes:
        name: Of its table.
        start: First microsecond since 1970 that belongs to it; None: it has no beginning.
        end: First one that does not; None: it is the rest.
    """

    name: str
    start: int | None
    end: int | None

    def holds(self, ticks: int) -> bool:
        """Whether a row of this moment belongs to it; nothing belongs to the rest by its moment."""
        return self.end is not None and (self.start is None or self.start <= ticks) and ticks < self.end


def week_of(ticks: int) -> int:
    """Beginning of the week that a moment is in; both in microseconds since 1970."""
    return ticks - (ticks - _MONDAY) % WEEK


def sliced(database: Database) -> bool:
    """Whether a database divides the log."""
    return database.engine.dialect.name == "postgresql"


def partitions(connection: Connection, table: Sliced) -> tuple[Partition, ...]:
    """Those that are there, the oldest first, the rest last."""
    asked = text(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:name)"
    )
    found = [_partition(*row) for row in connection.execute(asked, {"name": table.name})]
    return tuple(sorted(found, key=lambda one: (one.end is None, one.end or 0)))


def _partition(name: str, bounds: str) -> Partition:
    numbers = re.fullmatch(r"FOR VALUES FROM \((?:'?(-?\d+)'?|MINVALUE)\) TO \('?(-?\d+)'?\)", bounds)
    if numbers is None:
        return Partition(name, None, None)
    return Partition(name, None if numbers[1] is None else int(numbers[1]), int(numbers[2]))


class Weeks:
    """What one process knows of the partitions of a table, so that a batch costs no question whether they are there."""

    def __init__(self, database: Database, table: Sliced) -> None:
        self._database, self._table = database, table
        self._known: set[int] = set()
        self._next_try = 0.0

    def see_to(self, ticks: Iterable[int], now: int) -> None:
        """Make the partitions of these moments, and of the next weeks, where they are not there.

        What cannot be made is told, and its rows go to the rest: nobody loses a row over it.

        Args:
            ticks: Moments of rows that are about to be written, in microseconds since 1970.
            now: The present one.
        """
        if not sliced(self._database):
            return
        present = week_of(now)
        asked = {week_of(one) for one in ticks}
        near = {one for one in asked if present - _BACK * WEEK <= one <= present + _AHEAD * WEEK}
        wanted = (near | {present + number * WEEK for number in range(_READY + 1)}) - self._known
        if not wanted or time.monotonic() < self._next_try:
            return
        try:
            with changing(self._database) as connection:
                _make(connection, self._table, wanted)
        except DBAPIError as error:
            self._next_try = time.monotonic() + _PATIENCE
            said = str(error.orig).strip().splitlines()[0]
            _log.warning(
                "no partition for %d weeks of %s, rows go to the rest: %s", len(wanted), self._table.name, said
            )
            return
        self._known |= wanted


@contextmanager
def changing(database: Database) -> Iterator[Connection]:
    """A transaction that changes partitions: one at a time, and nobody waits long behind it."""
    with database.writing() as connection:
        if sliced(database):  # elsewhere who writes is alone
            connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT}'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection


def guard(connection: Connection, table: Sliced, ticks: Iterable[int], now: int) -> None:
    """Keep two writers from putting one id into two weeks at the same moment; until the transaction ends.

    Whoever writes to the present week only, and not within an hour of its ends, keeps nobody out who does the same: the
    index of that week tells ids apart. Everybody else writes alone.

    Args:
        connection: In the transaction that is about to look for the ids and to write them.
        table: That is written.
        ticks: Moments of the rows.
        now: The present one.
    """
    inside = week_of(now - _HOUR) == week_of(now + _HOUR) and {week_of(one) for one in ticks} == {week_of(now)}
    lock = "pg_advisory_xact_lock_shared" if inside else "pg_advisory_xact_lock"
    connection.execute(text(f"SELECT {lock}(:key)"), {"key": table.number})


def _make(connection: Connection, table: Sliced, weeks: Iterable[int]) -> None:
    there = partitions(connection, table)
    for start in sorted(weeks):
        if not any(one.holds(start) for one in there):
            _make_one(connection, table, start)


def _make_one(connection: Connection, table: Sliced, start: int) -> None:
    """Made beside the table and then attached: that keeps out no reader and no writer, as CREATE ... OF would."""
    name = table.week(start)
    inside = f"DELETE FROM {table.rest} WHERE {table.key} >= {start} AND {table.key} < {start + WEEK}"  # noqa: S608  numbers
    for statement in (
        # What is moved out of it must not come in again. A weaker lock would grow with the last statement, and meet a
        # writer who has read it and wants to write to it.
        f"LOCK TABLE {table.rest} IN ACCESS EXCLUSIVE MODE",
        f"CREATE TABLE {name} (LIKE {table.name} INCLUDING DEFAULTS, PRIMARY KEY ({', '.join(table.unique)}))",
        f"WITH moved AS ({inside} RETURNING *) INSERT INTO {name} SELECT * FROM moved",  # noqa: S608  as above
        f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({start + WEEK})",
    ):
        connection.exec_driver_sql(statement)
