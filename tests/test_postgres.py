"""Ledger and request log on a real PostgreSQL: the same promises as on SQLite, with its own kind of lock.

Needs PostgreSQL's programs (Debian: the package postgresql); the server is started and stopped by the fixture.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from servers import Postgres
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from tasks.ledger import Ledger, StaleDecision
from tasks.records import Candidate, Profile, Span, Verdict
from tasks.requests import Label, RequestLog, Served

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    """A database of its own for each test."""
    return postgres_server.database()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url, clock=lambda: T0) as opened:
        yield opened


def promote(ledger: Ledger, version: str, based_on: int) -> None:
    pending = ledger.intend(
        model="churn",
        based_on=based_on,
        action="promote",
        version=version,
        actor="ada",
        reason="better",
        at=T0,
        trail="t",
        evidence={"n": 1},
    )
    ledger.settle(pending, "applied")


def together(count: int, work: object) -> list[Exception]:
    """Run the same work in several threads at once; what they raised."""
    errors: list[Exception] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_many_may_open_new_databases_at_once(url: str) -> None:
    def open_both(_: int) -> None:
        Ledger.open(url).close()
        RequestLog.open(url).close()

    assert together(6, open_both) == []


def test_of_several_that_intend_at_once_one_gets_in(url: str, ledger: Ledger) -> None:
    def intend(number: int) -> None:
        with Ledger.open(url) as own:
            promote(own, str(number), 0)

    errors = together(6, intend)
    assert [type(error) for error in errors] == [StaleDecision] * 5
    (row,) = ledger.history("churn")
    assert (row.seq, row.state) == (1, "applied")
    assert ledger.standing("churn").production == row.version


def test_the_lock_is_the_models_own(url: str, ledger: Ledger) -> None:
    promote(ledger, "1", 0)
    with ledger.holding("churn") as held, Ledger.open(url) as other:
        other.intend(model="fraud", based_on=0, action="promote", version="1", actor="a", reason="r", at=T0, trail="t")
        held.adopt(action="external", version="2", production="2", reason="r", at=T0, trail="t")
        assert other.standing("churn").production == "1"
    assert ledger.standing("churn").production == "2"


def test_moments_come_back_in_utc_whatever_the_servers_zone(ledger: Ledger) -> None:
    promote(ledger, "1", 0)
    assert ledger.standing("churn").since == T0
    (row,) = ledger.history("churn")
    assert row.at.utcoffset() == timedelta(0)
    served = ledger.serving_at("churn", T0)
    assert served is not None
    assert ledger.serving_at("churn", T0 - MINUTE) is None


def test_the_chain_is_checked_some_rows_at_a_time(ledger: Ledger) -> None:
    """Verdicts are long: left to itself the driver would fetch all of a ledger's before the first is looked at."""
    for number in range(3):
        promote(ledger, str(number + 1), number)
    asked: list[tuple[str, bool]] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append((statement, isinstance(cursor, psycopg.ServerCursor)))

    event.listen(Engine, "after_cursor_execute", note)
    try:
        assert ledger.misfits("churn") == ()
    finally:
        event.remove(Engine, "after_cursor_execute", note)
    read = [kept for statement, kept in asked if "ORDER BY" in statement and "LIMIT" not in statement]
    assert len(read) > 5
    assert all(read)


def test_verdicts_facts_and_versions_are_kept(ledger: Ledger) -> None:
    span = Span(start=T0 - MINUTE, end=T0)
    verdict = Verdict(judge="gate", decision="fail", reason="r", findings=())
    ledger.record("churn", verdict, trail="t", at=T0, version="1", span=span)
    assert ledger.attempts_on("churn", span) == 1
    assert ledger.decisions("churn")[0].verdict == verdict
    for fact in ("known-good", "quarantined"):
        ledger.state_fact("churn", "1", fact, at=T0, reason="r", actor="a", trail="t")
    assert ledger.standing("churn").quarantined == ("1",)
    known = Profile(
        columns=(),
        prediction=None,
        metrics=(),
        rows=1,
        labelled=1,
        trained_at=T0,
        trained=span,
        holdout=span,
        fingerprint="f",
    )
    candidate = Candidate(model="churn", version="1", run_id="r", digest="d", size=3_000_000_000, profile=known)
    ledger.describe(candidate)
    ledger.describe(candidate)
    assert ledger.digest("churn", "1") == "d"
    ledger.note_notification("churn", trail="t", at=T0, sink="s", title="x", ok=False, error="e")
    assert ledger.notifications("churn")[0].ok is False


def test_requests_count_once_and_looks_are_the_same_as_on_sqlite(url: str) -> None:
    def served(name: str, after: float, *, failed: bool = False) -> Served:
        return Served(
            request_id=name,
            model="churn",
            version="1",
            at=T0 + after * MINUTE,
            seconds=2.0 if name == "b" else 0.1,
            features={"x": 1},
            prediction="yes",
            failed=failed,
        )

    with RequestLog.open(url) as log:
        assert log.record([served("a", 0), served("a", 0), served("b", 2), served("c", 2.5, failed=True)]) == 3
        assert log.record([served("a", 0)]) == 0
        log.label([Label(request_id="b", model="churn", label="yes", at=T0 + 9 * MINUTE)])
        log.label([Label(request_id="b", model="churn", label="no", at=T0 + 10 * MINUTE)])
        log.label([Label(request_id="b", model="churn", label="yes", at=T0 + 8 * MINUTE)])
        looks = log.looks("churn", "1", start=T0, until=T0 + 3 * MINUTE, tick=MINUTE, slow_after=1.0, problem="binary")
        assert [(one.requests, one.errors, one.slow, one.labelled, one.wrong) for one in looks] == [
            (1, 0, 0, 0, 0),
            (0, 0, 0, 0, 0),
            (2, 1, 1, 1, 1),
        ]
        assert log.contradictions("churn") == 1, "a repeat contradicts nothing"
        assert log.last_request("churn", "1") == T0 + 2.5 * MINUTE
        window = log.window("churn", start=T0, end=T0 + 9 * MINUTE, limit=9)
        assert (window.request_ids, window.labels) == (("a", "b"), (None, "no"))


def test_requests_recorded_by_several_processes_at_once_count_once(url: str) -> None:
    def record(number: int) -> None:
        with RequestLog.open(url) as log:
            order = range(50) if number % 2 else reversed(range(50))  # locks taken in opposite orders
            log.record(
                Served(
                    request_id=str(one),
                    model="churn",
                    version="1",
                    at=T0,
                    seconds=0.1,
                    features={},
                    prediction="yes",
                )
                for one in order
            )

    with RequestLog.open(url) as log:
        assert together(4, record) == []
        assert len(log.window("churn", start=T0, end=T0 + MINUTE, limit=999)) == 50


def test_one_that_is_closed_takes_no_connection_from_another_and_leaves_none(url: str) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def connections() -> int:
        with create_engine(url, poolclass=NullPool).connect() as own:
            return int(own.execute(text(query)).scalar_one())

    first, second = Ledger.open(url, clock=lambda: T0), RequestLog.open(url, clock=lambda: T0)
    with first.holding("churn") as held:
        second.close()
        second.close()
        assert held.get(1) is None, "the transaction goes on"
    promote(first, "1", 0)
    assert connections() > 0
    first.close()
    assert connections() == 0
    with Ledger.open(url, clock=lambda: T0) as again:
        assert again.standing("churn").production == "1"
    assert connections() == 0
