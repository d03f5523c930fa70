"""The request log on PostgreSQL as it gets older: what writing, the watch's question and letting go of a week cost.

``python -m benchmarks.log_scale [--quick]``: on a real server of this machine, with 2 and with 100 weeks of requests of
which half have labels. The watch asks for a day in minutes and for its newest request, as it does at every tick. The
two ages are asked in turn, and medians are compared. A week is let go of as retention does it, with few rows in it and
with many. The server does not wait for its disk (fsync is off), as in the tests.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count

from benchmarks.proof import Line, run
from tasks.database import Database, microseconds
from tasks.expiry import Gone, expire
from tasks.partitions import LABELS, REQUESTS, WEEK, Weeks, week_of
from tasks.requests import RequestLog, Served
from tests.servers import Postgres, postgres

AGES = (2, 100)
"""Weeks."""
BATCH = 500
"""Rows that a gateway writes at once."""
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
_GROWS = 1 / 8
"""The share of what grows with the weeks that writing may grow by: an id is looked for in each of them."""
_FEATURES = {f"column_{number}": number * 1.25 for number in range(10)}
_MODEL = "churn"


@contextmanager
def aged(server: Postgres, weeks: int, rows: int) -> Iterator[RequestLog]:
    """A log with so many weeks, of so many rows each."""
    with RequestLog.open(server.database(), clock=lambda: NOW) as log:
        database, present = log._database, week_of(microseconds(NOW))  # noqa: SLF001  it fills what the log would have
        starts = [present - number * WEEK for number in range(weeks)]
        for table in (REQUESTS, LABELS):
            Weeks(database, table).see_to(starts, microseconds(NOW))
        print(f"{weeks} weeks of {rows:,} requests ...", file=sys.stderr, flush=True)
        for start in starts:
            fill(database, start, rows)
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        yield log


def fill(database: Database, start: int, rows: int) -> None:
    """A week of requests, and of labels for every other one."""
    step, name = WEEK // rows, f"md5('{start}' || i)"
    at, features = f"{start} + i * {step}::bigint", '{"' + '": 1.25, "'.join(_FEATURES) + '": 1.25}'
    requests = f"'{_MODEL}', {name}, 'production', '1', {at}, 0.01, mod(i, 97) = 0, '{features}', 'yes', 0.7"
    labels = f"'{_MODEL}', {name}, 'no', {start}, 0, '{{}}', {at}"
    with database.writing() as connection:
        for table, columns, every in ((REQUESTS.name, requests, 1), (LABELS.name, labels, 2)):
            numbers = f"generate_series(0, {rows - 1}, {every}) i"
            connection.exec_driver_sql(f"INSERT INTO {table} SELECT {columns} FROM {numbers}")  # noqa: S608  constants


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def asks(log: RequestLog) -> Callable[[], object]:
    """What a tick of the watch asks."""

    def ask() -> None:
        log.looks(
            _MODEL,
            "1",
            start=NOW - timedelta(days=1),
            until=NOW,
            tick=timedelta(minutes=1),
            slow_after=1.0,
            problem="binary",
        )
        log.last_request(_MODEL, "1", until=NOW)

    return ask


def writes(log: RequestLog, names: Iterator[int]) -> Callable[[], object]:
    """What a gateway writes at once."""

    def write() -> None:
        log.record(
            Served(
                request_id=f"new {next(names)}",
                model=_MODEL,
                version="1",
                at=NOW,
                seconds=0.01,
                features=_FEATURES,
                prediction="yes",
                score=0.7,
            )
            for _ in range(BATCH)
        )

    return write


def let_go(server: Postgres, rows: int) -> float:
    """Seconds until an old week is gone."""
    old = week_of(microseconds(NOW)) - 20 * WEEK
    with RequestLog.open(server.database(), clock=lambda: NOW) as log:
        log.record(
            [Served(request_id="a", model=_MODEL, version="1", at=NOW, seconds=0, features={}, prediction="yes")]
        )
        database = log._database  # noqa: SLF001  as above
        for table in (REQUESTS, LABELS):
            Weeks(database, table).see_to([old], microseconds(NOW))
        fill(database, old, rows)
        bounds = {_MODEL: NOW - timedelta(weeks=10)}
        begun = time.perf_counter()
        gone = [one for one in expire(database, bounds, NOW) if isinstance(one, Gone)]
        took = time.perf_counter() - begun
        if len(gone) != 2:
            raise RuntimeError(f"a week of requests and one of labels should be gone, and it was {gone}")
    return took


def prove(*, quick: bool = False) -> list[Line]:
    """Every figure, the promised ones with their limits."""
    rows, times, many = (500, 5, 20_000) if quick else (10_000, 25, 1_000_000)
    with postgres() as server:
        with aged(server, AGES[0], rows) as young, aged(server, AGES[1], rows) as old:
            names = count()
            works = {"tick": [asks(one) for one in (young, old)], "batch": [writes(one, names) for one in (young, old)]}
            found = {name: medians(pair, times) for name, pair in works.items()}
        few, large = let_go(server, 1_000), let_go(server, many)
    return [*_lines(found, rows), *_letting_go(few, large, many)]


def medians(pair: list[Callable[[], object]], times: int) -> tuple[float, float]:
    """Of two works that are done in turn."""
    for work in pair:
        work()
    taken = [[seconds(work) for work in pair] for _ in range(times)]
    young, old = (statistics.median(one) for one in zip(*taken, strict=True))
    return young, old


def _lines(found: dict[str, tuple[float, float]], rows: int) -> list[Line]:
    (young, old), (quick, slow) = found["tick"], found["batch"]
    told = f"{rows:,} requests a week"
    return [
        Line(what=f"tick, {AGES[1]} weeks to {AGES[0]}", value=old / young, limit=1.5, told=told),
        *(
            Line(what=f"tick, {age} weeks, ms", value=1000 * took, told=f"{rows * age:,} requests")
            for age, took in zip(AGES, (young, old), strict=True)
        ),
        *(
            Line(what=f"rows written a second, {age} weeks", value=BATCH / took, told=f"one writer, {BATCH} at once")
            for age, took in zip(AGES, (quick, slow), strict=True)
        ),
        Line(
            what=f"a batch written, {AGES[1]} weeks to {AGES[0]}",
            value=slow / quick,
            limit=_GROWS * AGES[1] / AGES[0],
            told="an id is looked for in every week",
        ),
    ]


def _letting_go(few: float, large: float, many: int) -> list[Line]:
    return [
        Line(what="a week goes, s", value=few, limit=1.0, told="1,000 requests, and its labels"),
        Line(what="a large week goes, s", value=large, limit=1.0, told=f"{many:,} requests, and its labels"),
    ]


if __name__ == "__main__":
    raise SystemExit(run("log_scale", prove, rows=True))
