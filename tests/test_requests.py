"""The request log: a request counts once, a label may come late, and a look reads only its own interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tasks.policy import Problem
from tasks.records import LiveShadow, Look
from tasks.requests import Label, RequestLog, Served, as_text

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'requests.db'}"


@pytest.fixture
def log(url: str) -> Iterator[RequestLog]:
    with RequestLog.open(url) as opened:
        yield opened


def served(request_id: str, minutes: float = 0.5, **given: Any) -> Served:
    values: dict[str, Any] = {
        "request_id": request_id,
        "model": "churn",
        "version": "1",
        "at": T0 + minutes * MINUTE,
        "seconds": 0.02,
        "features": {"calls": 3, "contract": "one year"},
        "prediction": "yes",
        "score": 0.8,
    }
    return Served(**{**values, **given})


def label(request_id: str, value: str | float, minutes: float = 60, model: str = "churn") -> Label:
    return Label(request_id=request_id, model=model, label=value, at=T0 + minutes * MINUTE)


def looks(
    log: RequestLog,
    minutes: float = 3,
    *,
    version: str = "1",
    problem: Problem = "binary",
    slow_after: float | None = 1.0,
) -> tuple[Look, ...]:
    return log.looks(
        "churn",
        version,
        start=T0,
        until=T0 + minutes * MINUTE,
        tick=MINUTE,
        slow_after=slow_after,
        problem=problem,
    )


def counts(found: tuple[Look, ...]) -> list[tuple[int, int, int, int, int]]:
    return [(look.requests, look.errors, look.slow, look.labelled, look.wrong) for look in found]


# Recording.


def test_a_request_that_is_sent_again_counts_once(log: RequestLog) -> None:
    assert log.record([served("a"), served("a"), served("b")]) == 2
    assert log.record([served("a", failed=True), served("b"), served("c")]) == 1
    assert counts(looks(log, 1)) == [(3, 0, 0, 0, 0)]
    assert log.record([]) == 0


def test_a_later_success_does_not_erase_an_error(log: RequestLog) -> None:
    log.record([served("a", failed=True, prediction=None)])
    log.record([served("a")])
    assert counts(looks(log, 1)) == [(1, 1, 0, 0, 0)]


def test_a_shadow_answers_the_same_request_without_counting_for_production(log: RequestLog) -> None:
    assert log.record([served("a"), served("a", role="shadow", version="2", failed=True)]) == 2
    assert counts(looks(log, 1)) == [(1, 0, 0, 0, 0)]
    assert counts(looks(log, 1, version="2")) == [(0, 0, 0, 0, 0)]
    assert log.last_request("churn", "2") is None
    assert log.window("churn", start=T0, end=T0 + MINUTE, limit=9).versions == ("1",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"at": T0.replace(tzinfo=None)}, "no time zone"),
        ({"seconds": math.nan}, "took nan seconds"),
        ({"seconds": -1.0}, "took -1.0 seconds"),
        ({"prediction": None}, "no answer and did not fail"),
        ({"prediction": math.nan}, "no label and no answer"),
    ],
)
def test_a_request_that_says_nothing_is_refused_with_its_whole_batch(
    log: RequestLog, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        log.record([served("good"), served("bad", **given)])
    assert not log.seen("churn")


def test_seen_tells_whether_anything_was_ever_recorded_for_the_model(log: RequestLog) -> None:
    assert not log.seen("churn")
    log.record([served("a", model="fraud"), served("b", role="shadow")])
    assert not log.seen("churn")
    log.record([served("c")])
    assert log.seen("churn")


# Labels.


def test_the_latest_label_counts_in_whatever_order_they_come_and_contradictions_are_counted(log: RequestLog) -> None:
    log.record([served("a"), served("b")])
    log.label([label("a", "no", 90), label("b", "yes", 60)])
    log.label([label("a", "yes", 80), label("b", "yes", 61), label("b", "no", 70)])
    assert log.window("churn", start=T0, end=T0 + MINUTE, limit=9).labels == ("no", "no")
    assert log.contradictions("churn") == 2
    assert log.contradictions("fraud") == 0


def test_a_label_may_come_before_its_request(log: RequestLog) -> None:
    log.label([label("a", "no")])
    log.record([served("a")])
    assert counts(looks(log, 1)) == [(1, 0, 0, 1, 1)]


@pytest.mark.parametrize("nothing", [math.nan, math.inf, "", " "])
def test_an_empty_label_is_refused(log: RequestLog, nothing: str | float) -> None:
    log.record([served("a")])
    with pytest.raises(ValueError, match="leave it out"):
        log.label([label("a", "yes"), label("a", nothing)])
    assert counts(looks(log, 1)) == [(1, 0, 0, 0, 0)]
    with pytest.raises(ValueError, match="no time zone"):
        log.label([Label(request_id="a", model="churn", label="yes", at=T0.replace(tzinfo=None))])


@pytest.mark.parametrize("same", [1, 1.0, np.int64(1), np.float32(1), "1"])
def test_an_answer_is_right_in_whatever_type_the_label_comes(same: object) -> None:
    assert as_text(same) == "1"


def test_answers_that_differ_stay_different() -> None:
    assert as_text(1.5) == "1.5"
    assert as_text(np.bool_(1)) != as_text(1)
    assert as_text("01") == "01"


# Looks.


def test_gaps_are_looks_with_zero_counts_and_an_unfinished_look_is_left_out(log: RequestLog) -> None:
    log.record([served("a", 0), served("b", 0.999), served("c", 2), served("d", 3.5)])
    found = looks(log, 3.9)
    assert [look.start for look in found] == [T0, T0 + MINUTE, T0 + 2 * MINUTE]
    assert [look.requests for look in found] == [2, 0, 1]
    assert looks(log, 0.5) == ()
    assert looks(log, -5) == ()


def test_errors_slow_answers_labels_and_wrong_answers_are_counted_apart(log: RequestLog) -> None:
    log.record(
        [
            served("error", failed=True, prediction=None, seconds=5.0),
            served("slow", seconds=1.001),
            served("just", seconds=1.0),
            served("wrong"),
            served("late"),
        ]
    )
    log.label([label("wrong", "no"), label("just", "yes"), label("error", "yes")])
    assert counts(looks(log, 1)) == [(5, 1, 2, 2, 1)]
    assert counts(looks(log, 1, slow_after=None)) == [(5, 1, 0, 2, 1)]


def test_in_regression_no_answer_is_wrong(log: RequestLog) -> None:
    log.record([served("a", prediction=3.25)])
    log.label([label("a", 4.0)])
    assert counts(looks(log, 1, problem="regression")) == [(1, 0, 0, 1, 0)]


def test_a_look_counts_only_its_version_and_model(log: RequestLog) -> None:
    log.record([served("a"), served("b", version="2"), served("c", model="fraud")])
    assert counts(looks(log, 1)) == [(1, 0, 0, 0, 0)]


def test_moments_are_the_same_in_every_zone(log: RequestLog) -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    log.record([served("a", at=(T0 + 1.5 * MINUTE).astimezone(zone))])
    found = log.looks(
        "churn",
        "1",
        start=T0.astimezone(zone),
        until=T0 + 2 * MINUTE,
        tick=MINUTE,
        slow_after=None,
        problem="binary",
    )
    assert [look.requests for look in found] == [0, 1]
    assert found[0].start.utcoffset() == timedelta(0)
    assert log.last_request("churn", "1") == T0 + 1.5 * MINUTE
    with pytest.raises(ValueError, match="no time zone"):
        log.looks(
            "churn",
            "1",
            start=T0.replace(tzinfo=None),
            until=T0,
            tick=MINUTE,
            slow_after=None,
            problem="binary",
        )


def test_a_tick_reads_an_index_and_not_the_age_of_the_deployment(log: RequestLog) -> None:
    log.record([served("a")])
    asked: list[tuple[str, Any]] = []
    engine = log._database.engine
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    looks(log, 3)
    log.last_request("churn", "1", until=T0 + MINUTE)
    queries = [(sql, values) for sql, values in asked if sql.startswith("SELECT")]
    assert len(queries) == 2, "one statement for all looks, one for the last request"
    for sql, values in queries:
        with engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all())
        assert "SCAN backstop_requests" not in plan
        assert "backstop_requests_by_version (model=? AND version=? AND role=? AND at" in plan


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 30),  # request id: repeats happen
        st.integers(0, 10 * 60_000_000 - 1),  # microseconds since the start
        st.booleans(),  # failed
        st.sampled_from([0.1, 1.0, 1.5]),  # seconds
        st.sampled_from([None, "yes", "no"]),  # label
    ),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(rows=REQUESTS, cut=st.integers(0, 40), width=st.sampled_from([1, 7, 60, 61]))
def test_looks_count_each_request_once_however_the_batches_are_split(
    rows: list[tuple[int, int, bool, float, str | None]],
    cut: int,
    width: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first: dict[int, tuple[int, int, bool, float, str | None]] = {}
    for row in rows:
        first.setdefault(row[0], row)
    tick = timedelta(seconds=width)
    with RequestLog.open(f"sqlite:///{tmp_path_factory.mktemp('log') / 'requests.db'}") as log:
        batch = [
            served(str(number), at=T0 + timedelta(microseconds=after), failed=failed, seconds=seconds)
            for number, after, failed, seconds, _ in rows
        ]
        log.record(batch[:cut])
        log.record(batch[cut:])
        log.label([label(str(number), row[4]) for number, row in first.items() if row[4]])
        found = log.looks("churn", "1", start=T0, until=T0 + 10 * MINUTE, tick=tick, slow_after=1.0, problem="binary")
    expected = [[0] * 5 for _ in range(10 * MINUTE // tick)]
    for _, after, failed, seconds, truth in first.values():
        place = timedelta(microseconds=after) // tick
        if place < len(expected):
            right = not failed and truth is not None
            seen = (1, failed, seconds > 1.0, right, right and truth != "yes")
            expected[place] = [old + int(new) for old, new in zip(expected[place], seen, strict=True)]
    assert counts(found) == [tuple(row) for row in expected]


# Windows.


def test_a_window_holds_the_newest_requests_in_the_order_in_which_they_were_asked(log: RequestLog) -> None:
    log.record([served(str(number), number, version="1" if number < 3 else "2") for number in range(5)])
    log.label([label("4", "no")])
    found = log.window("churn", start=T0, end=T0 + 60 * MINUTE, limit=3)
    assert found.request_ids == ("2", "3", "4")
    assert found.labels == (None, None, "no")
    assert found.times == tuple(T0 + number * MINUTE for number in (2, 3, 4))
    assert found.versions == ("1", "2", "2")
    assert found.features[0] == {"calls": 3, "contract": "one year"}
    assert (found.predictions[0], found.scores[0], len(found)) == ("yes", 0.8, 3)
    assert log.window("churn", start=T0, end=T0 + 60 * MINUTE, limit=9, version="1").request_ids == ("0", "1", "2")


def test_a_window_ends_before_its_end_and_holds_only_what_was_answered(log: RequestLog) -> None:
    log.record([served("a", 0), served("b", 1), served("c", 0.5, failed=True, prediction=None)])
    assert log.window("churn", start=T0, end=T0 + MINUTE, limit=9).request_ids == ("a",)
    assert len(log.window("fraud", start=T0, end=T0 + MINUTE, limit=9)) == 0


def test_a_feature_that_is_not_a_number_comes_back_as_missing(log: RequestLog) -> None:
    log.record([served("a", features={"calls": np.float64("nan"), "n": np.int64(3)}, score=math.nan)])
    found = log.window("churn", start=T0, end=T0 + MINUTE, limit=1)
    assert found.features == ({"calls": None, "n": 3},)
    assert found.scores == (None,)


# A live shadow.


def test_what_a_shadow_answered_and_failed_is_counted_by_version_and_time(log: RequestLog) -> None:
    rows = [served(f"r{number}", minutes=number, version="2", role="shadow") for number in range(4)]
    log.record([*rows, served("r9", minutes=9, version="2", role="shadow", failed=True, prediction=None)])
    log.record([served("r1", minutes=1), served("other", minutes=1, version="3", role="shadow")])
    start, end = T0 + timedelta(minutes=1), T0 + timedelta(minutes=10)
    assert log.live("churn", "2", start=start, end=end) == LiveShadow(since=start, requests=4, failures=1)
    assert log.live("churn", "2", start=end, end=end) == LiveShadow(since=None, requests=0, failures=0)
    assert log.unseen("churn", "2", start=start, end=end) == {"r1": "yes", "r2": "yes", "r3": "yes", "r9": None}
