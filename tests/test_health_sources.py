"""Health sources: every period has an end that is judged, and a source that is down says so and breaks nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from tasks.health_sources import Period, RequestLogSource, due, late, period, source
from tasks.policy import Health, Labels
from tasks.requests import Label, RequestLog, Served
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
RULES = Health()


def after(minutes: float) -> datetime:
    return T0 + minutes * MINUTE


# Periods.


def test_the_first_period_is_the_watch_after_a_promotion() -> None:
    expected = Period(start=T0, end=after(30), tick=MINUTE, planned_looks=30, first=True)
    assert period(T0, T0, RULES) == period(T0, after(29.99), RULES) == expected


def test_days_are_looked_at_again_until_all_their_labels_are_old_enough_to_count() -> None:
    judged = period(T0, T0 + 60 * DAY, RULES)
    assert len(late(T0, judged, RULES)) == 14
    slow = Health(labels=Labels(delay=20 * DAY))
    earliest = late(T0, judged, slow)[-1]
    assert judged.end - earliest.end >= 20 * DAY


def test_from_then_on_one_day_follows_another() -> None:
    second = period(T0, after(30), RULES)
    assert second == Period(start=after(30), end=after(30) + DAY, tick=MINUTE, planned_looks=1440, first=False)
    later = period(T0, after(30) + 400.5 * DAY, RULES)
    assert (later.start, later.planned_looks) == (after(30) + 400 * DAY, 1440)


def test_a_clock_that_lags_behind_the_promotion_sees_the_first_period() -> None:
    assert period(T0, T0 - MINUTE, RULES).first


def test_a_watch_that_no_whole_number_of_looks_fills_is_rounded_up() -> None:
    rules = Health(watch=timedelta(minutes=30), tick=timedelta(minutes=7))
    watch = period(T0, T0, rules)
    assert (watch.planned_looks, watch.end) == (5, after(35))
    assert period(T0, after(35), rules).start == after(35), "no request falls between two periods"
    short = period(T0, T0, Health(watch=timedelta(seconds=10), tick=MINUTE))
    assert (short.planned_looks, short.end) == (1, after(1))


def test_a_period_needs_moments_with_a_zone() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        period(T0.replace(tzinfo=None), T0, RULES)


def test_during_the_first_watch_only_it_is_due() -> None:
    assert due(T0, after(12), RULES, judged_until=None) == (period(T0, T0, RULES),)


def test_a_watch_that_is_over_is_judged_once_however_late_the_next_tick_comes() -> None:
    watch = period(T0, T0, RULES)
    for moment in (after(30), after(31.5), after(30) + 0.9 * DAY):
        assert due(T0, moment, RULES, judged_until=after(29)) == (watch, period(T0, moment, RULES))
        assert due(T0, moment, RULES, judged_until=None)[0] == watch
        assert due(T0, moment, RULES, judged_until=moment) == (period(T0, moment, RULES),)


@settings(max_examples=50, deadline=None)
@given(
    minutes=st.floats(0, 60 * 24 * 30),
    watch=st.integers(1, 3000),
    tick=st.integers(1, 900),
)
def test_every_moment_lies_in_exactly_one_period_and_its_cost_is_bounded(minutes: float, watch: int, tick: int) -> None:
    rules = Health(watch=timedelta(minutes=watch), tick=timedelta(seconds=tick))
    now = after(minutes)
    found = period(T0, now, rules)
    assert found.start <= now < found.end
    assert found.end - found.start == found.planned_looks * found.tick
    following = period(T0, found.end, rules)
    assert following.start == found.end
    assert not following.first
    assert found.first == (found.start == T0)
    assert found.end - found.start < max(DAY, rules.watch) + rules.tick


# The request log.


def record(url: str) -> None:
    with RequestLog.open(url) as log:
        log.record(
            Served(
                request_id=str(number),
                model="churn",
                version="1",
                at=after(number / 4),
                seconds=2.0 if number == 1 else 0.1,
                features={},
                prediction="yes",
                failed=number == 0,
            )
            for number in range(10)
        )
        log.label([Label(request_id="9", model="churn", label="no", at=after(30))])


def test_the_evidence_holds_every_complete_look_since_the_start(tmp_path: Path) -> None:
    stores = Stores.at(tmp_path)
    record(stores.requests)
    found = source(stores).evidence("churn", "1", started=T0, now=after(3.5), health=RULES, problem="binary")
    assert [(look.requests, look.errors, look.slow, look.wrong) for look in found.looks] == [
        (4, 1, 1, 0),
        (4, 0, 0, 0),
        (2, 0, 0, 1),
    ]
    assert (found.started, found.now, found.unavailable) == (T0, after(3.5), None)
    assert found.last_request == after(2.25)


def test_evidence_for_the_past_knows_nothing_of_later_requests(tmp_path: Path) -> None:
    url = Stores.at(tmp_path).requests
    record(url)
    found = RequestLogSource(url).evidence("churn", "1", started=T0, now=after(1), health=RULES, problem="binary")
    assert (len(found.looks), found.last_request) == (1, after(1))


def test_a_version_that_never_served_has_looks_without_requests(tmp_path: Path) -> None:
    url = Stores.at(tmp_path).requests
    found = RequestLogSource(url).evidence("churn", "1", started=T0, now=after(2), health=RULES, problem="binary")
    assert [look.requests for look in found.looks] == [0, 0]
    assert (found.last_request, found.unavailable) == (None, None)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////dev/null/nowhere/requests.db",
        "postgresql://ada:secret@127.0.0.1:1/nowhere?connect_timeout=1",
    ],
)
def test_a_database_that_cannot_be_reached_is_missing_evidence_and_no_exception(url: str) -> None:
    found = RequestLogSource(url).evidence("churn", "1", started=T0, now=after(2), health=RULES, problem="binary")
    assert found.looks == ()
    assert found.unavailable is not None
    assert "could not be read" in found.unavailable
    assert "secret" not in found.unavailable


def test_a_broken_file_and_a_missing_column_are_missing_evidence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    found = RequestLogSource(f"sqlite:///{broken}").evidence(
        "churn", "1", started=T0, now=after(2), health=RULES, problem="binary"
    )
    assert found.unavailable is not None
    url = Stores.at(tmp_path).requests
    record(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE backstop_requests RENAME COLUMN failed TO broken"))
    engine.dispose()
    found = RequestLogSource(url).evidence("churn", "1", started=T0, now=after(2), health=RULES, problem="binary")
    assert found.unavailable is not None
    assert found.looks == ()
