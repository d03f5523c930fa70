"""Requests: the log of what was asked, what was answered, and what turned out to be right.

A request is one row however often it is sent again: repeats counted as evidence would roll back healthy models. Labels
come later, in any order, see :mod:`tasks.labels`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    String,
    Table,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.engine import Connection

from tasks import labels as labelling
from tasks import schema
from tasks.database import Database, microseconds, moment
from tasks.labels import Label, as_text
from tasks.partitions import EARLY, LABELS, REQUESTS, Sliced, Weeks, guard, sliced
from tasks.policy import Problem, as_utc
from tasks.records import LiveShadow, Look, to_plain

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Feedback", "Label", "Recorded", "RequestLog", "Role", "Served", "as_text"]

Role = Literal["production", "canary", "shadow"]

ANSWERING: tuple[Role, ...] = ("production", "canary")
"""Roles whose answer somebody was given."""

_CHUNK = 400
"""Requests that one statement asks for."""

_LATELY = timedelta(weeks=2)
"""What served lately is found among so much of the log."""

_requests, _labels = schema.requests, schema.labels
_write = json.JSONEncoder(allow_nan=False).encode


def _wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One request and its answer.

    Attributes:
        request_id: The same for every repeat of a request.
        model: Registered name.
        version: That answered.
        at: When it was asked; aware.
        seconds: Until it was answered.
        features: As they were asked, by name.
        prediction: The answer; None when it failed.
        score: Probability of the positive class, or None.
        failed: It was answered with an error.
        role: ``production``: the version in Production answered. ``canary``: a version of a progressive rollout
            answered in its place. ``shadow``: a challenger's answer, which nobody was given.
    """

    request_id: str
    model: str
    version: str
    at: datetime
    seconds: float
    features: Mapping[str, Any]
    prediction: str | float | None
    score: float | None = None
    failed: bool = False
    role: Role = "production"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """Answered requests in the order they came; every tuple has one entry per request.

    Attributes:
        features: As they were asked.
        predictions: As text.
        scores: Of the positive class, where there are any.
        labels: As text; None where none has arrived.
        times: Aware, in UTC.
        versions: That answered.
        request_ids: As they were recorded.
    """

    features: tuple[dict[str, Any], ...] = ()
    predictions: tuple[str, ...] = ()
    scores: tuple[float | None, ...] = ()
    labels: tuple[str | None, ...] = ()
    times: tuple[datetime, ...] = ()
    versions: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.request_ids)


@dataclass(frozen=True, slots=True)
class Feedback:
    """One labelled request, without what was asked.

    Attributes:
        request_id: Of the request.
        at: When it was asked; aware.
        label: The one that counts, as text.
    """

    request_id: str
    at: datetime
    label: str


class RequestLog:
    """One open request log. Use it as a context manager, or close it."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = _wall_clock) -> None:
        self._database, self._clock = database, clock
        self._weeks = {table: Weeks(database, table) for table in (REQUESTS, LABELS)}

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], datetime] = _wall_clock) -> RequestLog:
        """Connect, and create the tables if they are not there.

        Args:
            url: SQLAlchemy URL.
            clock: Tells which week it is, where PostgreSQL divides the log into weeks.

        Raises:
            SchemaTooNew: When the tables were made by a later version of Backstop.
            ValueError: When the URL cannot be read.
        """
        return cls(Database.open(url, part="requests", revision=schema.LOG_REVISION), clock)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record(self, rows: Iterable[Served]) -> int:
        """Put down requests; one that is there already stays as it was first.

        Returns:
            How many were new.

        Raises:
            ValueError: For a naive datetime, a duration that is not a finite number >= 0, or an answer that is missing
                although the request did not fail; nothing of the batch is put down then.
        """
        first: dict[tuple[str, ...], dict[str, Any]] = {}
        for values in map(_request_values, rows):
            first.setdefault(_by_request(values), values)
        if not first:
            return 0
        with self._writing(REQUESTS, [values["at"] for values in first.values()]) as connection:
            there = self._in_any_week(connection, _requests, first)
            # Rows are written in one order by everybody; two batches could otherwise wait for each other's rows.
            new = [first[key] for key in sorted(first) if key not in there]
            return self._put(connection, new) if new else 0

    def label(self, rows: Iterable[Label]) -> None:
        """Put down labels, in any order and as often as they come, their requests before or after them.

        The newest one counts; two different ones for the same moment cancel each other until a newer one comes. Other
        labels than the first are counted as contradictions, whichever wins. The same labels again change nothing.

        Raises:
            ValueError: For a naive datetime, an empty model, or a label that is empty or NaN; nothing of the batch is
                put down then.
        """
        new, now = labelling.told_by(rows), microseconds(self._clock())
        if not new:
            return
        with self._writing(LABELS, [moment(max(now, told.at)) for told in new.values()]) as connection:
            there = self._in_any_week(connection, _labels, new)
            labelling.put(connection, self._insert(_labels), new, now=now, known=there)

    def looks(
        self,
        model: str,
        version: str,
        *,
        start: datetime,
        until: datetime,
        tick: timedelta,
        slow_after: float | None,
        problem: Problem,
        role: Role = "production",
    ) -> tuple[Look, ...]:
        """Counts of one version's requests, interval by interval.

        Args:
            model: Registered name.
            version: That answered.
            start: Of the first interval.
            until: Nothing at or after it is counted; an interval that is not over by then is left out.
            tick: Length of an interval.
            slow_after: Seconds above which a request is slow; None: none is.
            problem: In regression no answer is wrong, only more or less far off; ``wrong`` stays 0.
            role: In which it answered.

        Returns:
            One look per complete interval, in order; one without requests has zero counts.

        Raises:
            ValueError: For a naive datetime.
        """
        planned = max(0, (as_utc(until) - as_utc(start)) // tick)
        if planned == 0:
            return ()
        counted = self._counts(
            model,
            version,
            start=as_utc(start),
            end=as_utc(start) + planned * tick,
            tick=tick,
            slow_after=slow_after,
            problem=problem,
            role=role,
        )
        nothing = (0, 0, 0, 0, 0)
        return tuple(_look(as_utc(start) + k * tick, counted.get(k, nothing)) for k in range(planned))

    def last_request(
        self, model: str, version: str, *, until: datetime | None = None, role: Role = "production"
    ) -> datetime | None:
        """When the version last answered in this role, before ``until`` where that is given; None: never."""
        query = select(func.max(_requests.c.at)).where(*_served(model, role), _requests.c.version == version)
        if until is not None:
            query = query.where(_requests.c.at < as_utc(until))
        lately = query.where(_requests.c.at >= as_utc(until or self._clock()) - _LATELY)
        with self._database.reading() as connection:
            # Only of a version that has been silent for long are all weeks asked.
            newest: datetime | None = connection.execute(lately).scalar_one() or connection.execute(query).scalar_one()
        return newest

    def window(
        self,
        model: str,
        *,
        start: datetime,
        end: datetime,
        limit: int,
        version: str | None = None,
        labelled_first: bool = False,
    ) -> Recorded:
        """Requests of a window that Production answered, with labels where they have arrived.

        Args:
            model: Registered name.
            start: Of the window, included.
            end: Of the window, not included.
            limit: The newest so many; they come in the order in which they were asked all the same.
            version: Only this version's.
            labelled_first: Where there are more than ``limit``, those without a label are left out before others: where
                labels come late, the newest requests are those that have none.

        Raises:
            ValueError: For a naive datetime.
        """
        query = (
            select(_requests, _labels.c.label)
            .outerjoin(_labels, _labelled(self._weeks_from(start)))
            .where(*_served(model), _requests.c.at >= as_utc(start), _requests.c.at < as_utc(end), _answered())
            .order_by(*([_number(_labels.c.label.is_(None))] if labelled_first else []))
            .order_by(_requests.c.at.desc(), _requests.c.request_id.desc())
            .limit(limit)
        )
        if version is not None:
            query = query.where(_requests.c.version == version)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return _recorded(sorted(rows, key=lambda row: (row.at, row.request_id)))

    def feedback(self, model: str, *, start: datetime, end: datetime, limit: int) -> tuple[Feedback, ...]:
        """Labelled requests of a window that somebody was given an answer to, in the order in which they were asked.

        One that Production and a canary answered is one.

        Args:
            model: Registered name.
            start: Of the window, included.
            end: Of the window, not included.
            limit: The newest so many.

        Raises:
            ValueError: For a naive datetime.
        """
        rows = _requests.c
        query = (
            select(rows.request_id, func.min(rows.at).label("first"), _labels.c.label)
            .join(_labels, _labelled(self._weeks_from(start)))
            .where(rows.model == model, rows.role.in_(ANSWERING), _answered(), _labels.c.label.is_not(None))
            .where(rows.at >= as_utc(start), rows.at < as_utc(end))
            .group_by(rows.request_id, _labels.c.label)
            .order_by(func.min(rows.at).desc(), rows.request_id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        return tuple(Feedback(row.request_id, row.first, row.label) for row in reversed(found))

    def asked(self, model: str, request_ids: Iterable[str]) -> Recorded:
        """These requests as they were asked, with labels where they have arrived, oldest first; each is one row."""
        wanted = sorted(set(request_ids))
        found: dict[str, Any] = {}
        with self._database.reading() as connection:
            for start in range(0, len(wanted), _CHUNK):
                query = (
                    select(_requests, _labels.c.label)
                    .outerjoin(_labels, _labelled())
                    .where(_requests.c.model == model, _requests.c.request_id.in_(wanted[start : start + _CHUNK]))
                    .where(_requests.c.role.in_(ANSWERING), _answered())
                )
                for row in connection.execute(query):
                    first = found.setdefault(row.request_id, row)
                    found[row.request_id] = min(first, row, key=lambda one: one.at)
        return _recorded(sorted(found.values(), key=lambda row: (row.at, row.request_id)))

    def live(self, model: str, version: str, *, start: datetime, end: datetime) -> LiveShadow:
        """What a version did as a shadow with the requests that were asked from ``start`` until before ``end``.

        Raises:
            ValueError: For a naive datetime.
        """
        rows = _requests.c
        query = select(func.min(rows.at), func.count(), func.sum(_number(rows.failed))).where(
            *_shadowed(model, version, start, end)
        )
        with self._database.reading() as connection:
            first, total, failed = connection.execute(query).one()
        return LiveShadow(since=first, requests=int(total), failures=int(failed or 0))

    def unseen(self, model: str, version: str, *, start: datetime, end: datetime) -> dict[str, str | None]:
        """What a version said as a shadow in this time, by request; None where it failed.

        Raises:
            ValueError: For a naive datetime.
        """
        query = select(_requests.c.request_id, _requests.c.prediction, _requests.c.failed).where(
            *_shadowed(model, version, start, end)
        )
        with self._database.reading() as connection:
            return {row.request_id: None if row.failed else row.prediction for row in connection.execute(query)}

    def seen(self, model: str) -> bool:
        """Whether any request to the model was ever put down."""
        query = select(_requests.c.request_id).where(*_served(model)).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def unmatched(self, labels: Iterable[Label]) -> int:
        """How many requests these labels name that are not in the log, or not yet."""
        missing = {(label.model, label.request_id) for label in labels}
        asked, key = sorted(missing), (_requests.c.model, _requests.c.request_id)
        with self._database.reading() as connection:
            for start in range(0, len(asked), _CHUNK):
                query = select(*key).where(tuple_(*key).in_(asked[start : start + _CHUNK]))
                missing.difference_update((row.model, row.request_id) for row in connection.execute(query))
        return len(missing)

    def ping(self) -> None:
        """See that the database is there."""
        with self._database.reading() as connection:
            connection.execute(select(1))

    def contradictions(self, model: str) -> int:
        """How often a label of the model's requests was followed or preceded by another one."""
        query = (
            select(func.coalesce(func.sum(_labels.c.contradictions), 0))
            .join(_requests, _labelled())
            .where(*_served(model))
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def _counts(
        self,
        model: str,
        version: str,
        *,
        start: datetime,
        end: datetime,
        tick: timedelta,
        slow_after: float | None,
        problem: Problem,
        role: Role,
    ) -> dict[int, tuple[int, ...]]:
        """(requests, errors, slow, labelled, wrong) by number of the interval."""
        rows = _requests.c
        interval = (type_coerce(rows.at, BigInteger) - microseconds(start)) // (tick // timedelta(microseconds=1))
        labelled = and_(_labels.c.label.is_not(None), _answered())
        wrong = false() if problem == "regression" else and_(labelled, _labels.c.label != rows.prediction)
        slow = false() if slow_after is None else rows.seconds > slow_after
        sums = [func.sum(_number(condition)) for condition in (rows.failed, slow, labelled, wrong)]
        query = (
            select(interval.label("k"), func.count(), *sums)
            .select_from(_requests.outerjoin(_labels, _labelled(self._weeks_from(start))))
            .where(*_served(model, role), rows.version == version, rows.at >= as_utc(start), rows.at < as_utc(end))
            .group_by(literal_column("k"))
        )
        with self._database.reading() as connection:
            return {int(row[0]): tuple(int(value) for value in row[1:]) for row in connection.execute(query)}

    @contextmanager
    def _writing(self, table: Sliced, moments: Sequence[datetime]) -> Iterator[Connection]:
        """A transaction in which the rows of these moments have their place, and no id can come in twice."""
        ticks, now = [microseconds(one) for one in moments], microseconds(self._clock())
        self._weeks[table].see_to(ticks, now)
        with self._database.writing() as connection:
            if sliced(self._database):
                guard(connection, table, ticks, now)
            yield connection

    def _put(self, connection: Connection, values: list[dict[str, Any]]) -> int:
        """Insert requests, those left out that are there; how many were not."""
        statement, told = self._insert(_requests), _requests.c.request_id
        if not sliced(self._database):
            return len(connection.execute(statement.on_conflict_do_nothing().returning(told), values).all())
        from sqlalchemy.dialects.postgresql import JSON  # noqa: PLC0415  see below

        # One parameter, and not one for each value: the driver reads through a statement by those, in Python.
        plain = _write([{**row, "at": microseconds(row["at"])} for row in values])
        columns = [Column(column.name, column.type) for column in _requests.columns]
        asked = func.json_to_recordset(cast(literal(plain, String), JSON)).table_valued(*columns)
        rows = select(asked.render_derived(with_types=True))
        statement = statement.from_select([column.name for column in columns], rows).on_conflict_do_nothing()
        return len(connection.execute(statement.returning(told)).all())

    def _in_any_week(self, connection: Connection, table: Table, keys: Iterable[tuple[str, ...]]) -> set[Any]:
        """Which of these are in the log; nothing where the index of one table tells."""
        if not sliced(self._database):
            return set()
        from sqlalchemy.dialects.postgresql import ARRAY  # noqa: PLC0415  see below

        wanted: dict[str, list[str]] = {}
        for model, request_id, *_ in keys:
            wanted.setdefault(model, []).append(request_id)
        columns = list(table.primary_key.columns)
        found: set[Any] = set()
        for model, ids in wanted.items():
            among = table.c.request_id == any_(literal(ids, ARRAY(String)))
            found.update(
                tuple(row) for row in connection.execute(select(*columns).where(table.c.model == model, among))
            )
        return found

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """The same ``INSERT ... ON CONFLICT`` for both databases; SQLAlchemy has a construct for each."""
        from sqlalchemy.dialects import postgresql, sqlite  # noqa: PLC0415  whoever only reads does not need both

        return postgresql.insert(table) if self._database.engine.dialect.name == "postgresql" else sqlite.insert(table)

    def _weeks_from(self, start: datetime) -> datetime | None:
        """For :func:`_labelled`. In one piece there are no weeks to choose, and old writers say no moment."""
        return start if sliced(self._database) else None


def _request_values(row: Served) -> dict[str, Any]:
    if not (math.isfinite(row.seconds) and row.seconds >= 0):
        raise ValueError(f"request {row.request_id!r} took {row.seconds!r} seconds; give a finite number >= 0")
    if row.prediction is None and not row.failed:
        raise ValueError(f"request {row.request_id!r} has no answer and did not fail; give a prediction or failed=True")
    score = None if row.score is None or not math.isfinite(row.score) else float(row.score)
    return {
        "request_id": row.request_id,
        "role": row.role,
        "model": row.model,
        "version": row.version,
        "at": as_utc(row.at),
        "seconds": float(row.seconds),
        "failed": bool(row.failed),
        "features": _text(row.features),
        "prediction": None if row.prediction is None else as_text(row.prediction),
        "score": score,
    }


def _text(features: Mapping[str, Any]) -> str:
    """As JSON. What came as JSON is written as it is; only what holds something else is looked through."""
    try:
        return _write(features)
    except (TypeError, ValueError):
        return json.dumps(to_plain(features))


def _by_request(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells requests apart."""
    return tuple(str(values[name]) for name in REQUESTS.unique)


def _recorded(rows: Sequence[Any]) -> Recorded:
    return Recorded(
        features=tuple(json.loads(row.features) for row in rows),
        predictions=tuple(row.prediction for row in rows),
        scores=tuple(row.score for row in rows),
        labels=tuple(row.label for row in rows),
        times=tuple(row.at for row in rows),
        versions=tuple(row.version for row in rows),
        request_ids=tuple(row.request_id for row in rows),
    )


def _served(model: str, role: Role = "production") -> tuple[ColumnElement[bool], ...]:
    return (_requests.c.model == model, _requests.c.role == role)


def _labelled(start: datetime | None = None) -> ColumnElement[bool]:
    """A label belongs to a request of its own model.

    Args:
        start: Requests from before it are not read: labels that were put down long before are not theirs.
    """
    belongs = and_(_labels.c.model == _requests.c.model, _labels.c.request_id == _requests.c.request_id)
    return belongs if start is None else and_(belongs, _labels.c.made >= as_utc(start) - EARLY)


def _shadowed(model: str, version: str, start: datetime, end: datetime) -> tuple[ColumnElement[bool], ...]:
    rows = _requests.c
    return (*_served(model, "shadow"), rows.version == version, rows.at >= as_utc(start), rows.at < as_utc(end))


def _answered() -> ColumnElement[bool]:
    return and_(_requests.c.failed.is_(False), _requests.c.prediction.is_not(None))


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """1 where it holds and 0 everywhere else, unknown included."""
    return case((condition, 1), else_=0)


def _look(start: datetime, counts: tuple[int, ...]) -> Look:
    requests, errors, slow, labelled, wrong = counts
    return Look(start=start, requests=requests, errors=errors, slow=slow, labelled=labelled, wrong=wrong)
