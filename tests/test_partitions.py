"""The request log in weeks on a real PostgreSQL: every row has its place, ids are unique over all, reads are narrow.

The clock is given; the servers, their locks and their plans are real.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from servers import Postgres
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DataError, OperationalError

from tasks import database, partitions
from tasks.database import Database, microseconds
from tasks.partitions import LABELS, REQUESTS, Partition, Sliced, week_of
from tasks.requests import Label, RequestLog, Served

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    return postgres_server.database()


@pytest.fixture
def log(url: str) -> Iterator[RequestLog]:
    with opened(url) as log:
        yield log


@contextmanager
def opened(url: str, now: datetime = NOW) -> Iterator[RequestLog]:
    with RequestLog.open(url, clock=lambda: now) as log:
        yield log


def served(name: str, at: datetime, *, prediction: str = "yes", model: str = "churn") -> Served:
    return Served(
        request_id=name, model=model, version="1", at=at, seconds=0.1, features={"x": 1}, prediction=prediction
    )


def told(name: str, label: str, at: datetime) -> Label:
    return Label(request_id=name, model="churn", label=label, at=at)


def there(url: str, table: Sliced = REQUESTS) -> dict[str, Partition]:
    with connected(url) as connection:
        return {one.name: one for one in partitions.partitions(connection, table)}


@contextmanager
def connected(url: str) -> Iterator[Any]:
    engine: Engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def execute(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def asked(url: str, statement: str) -> list[Any]:
    with connected(url) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def everything(log: RequestLog) -> dict[str, str | None]:
    """Label by request of all there is."""
    window = log.window("churn", start=EPOCH, end=datetime(2200, 1, 1, tzinfo=UTC), limit=9_999)
    return dict(zip(window.request_ids, window.labels, strict=True))


def together(*work: Callable[[], object]) -> list[Exception]:
    """Run all of it at once; what was raised."""
    errors: list[Exception] = []
    barrier = threading.Barrier(len(work))

    def run(one: Callable[[], object]) -> None:
        barrier.wait()
        try:
            one()
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# Rows and their places.


def test_a_week_begins_on_monday_in_utc() -> None:
    for moment in (NOW, EPOCH, EPOCH - DAY, datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)):
        start = database.moment(week_of(microseconds(moment)))
        assert (start.weekday(), start.hour, start.minute) == (0, 0, 0)
        assert timedelta(0) <= moment - start < timedelta(weeks=1)


def test_rows_go_to_their_week_and_the_next_weeks_are_made_ahead(url: str, log: RequestLog) -> None:
    assert log.record([served("a", NOW), served("b", NOW - 8 * DAY)]) == 2
    assert [name.removeprefix("backstop_requests_") for name in there(url)] == [
        "2026_w09",
        "2026_w10",
        "2026_w11",
        "2026_w12",
        "rest",
    ]
    assert asked(url, "SELECT tableoid::regclass::text, request_id FROM backstop_requests ORDER BY request_id") == [
        ("backstop_requests_2026_w10", "a"),
        ("backstop_requests_2026_w09", "b"),
    ]


def test_rows_of_the_far_past_and_future_are_kept_and_make_no_tables(url: str, log: RequestLog) -> None:
    far = [EPOCH, NOW - 3000 * DAY, NOW + 100 * DAY, datetime(2100, 1, 1, tzinfo=UTC)]
    assert log.record(served(str(number), at) for number, at in enumerate(far)) == 4
    assert log.record(served(str(number), NOW) for number in range(4)) == 0, "they are known all the same"
    assert len(there(url)) == 4
    assert everything(log).keys() == {"0", "1", "2", "3"}


def test_what_is_in_the_rest_moves_to_its_week_when_that_comes(url: str, log: RequestLog) -> None:
    future = NOW + 100 * DAY
    log.record([served("early", future), served("later", future + 30 * DAY)])
    with opened(url, future) as then:
        assert then.record([served("late", future), served("early", future)]) == 1
        assert everything(then).keys() == {"early", "late", "later"}
    name = REQUESTS.week(week_of(microseconds(future)))
    assert asked(url, f"SELECT request_id FROM {name} ORDER BY 1") == [("early",), ("late",)]
    assert asked(url, f"SELECT request_id FROM {REQUESTS.rest}") == [("later",)]


def test_a_row_whose_week_cannot_be_made_goes_to_the_rest_and_is_told(
    url: str, log: RequestLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_WAIT", "100ms")
    monkeypatch.setattr(partitions, "_PATIENCE", 0.0)
    with caplog.at_level(logging.WARNING), connected(url) as other:
        other.exec_driver_sql("LOCK TABLE backstop_requests IN SHARE UPDATE EXCLUSIVE MODE")  # such as VACUUM's
        assert log.record([served("a", NOW)]) == 1
    assert "rows go to the rest" in caplog.text
    assert asked(url, f"SELECT request_id FROM {REQUESTS.rest}") == [("a",)]
    assert log.record([served("a", NOW), served("b", NOW)]) == 1
    assert asked(url, f"SELECT COUNT(*) FROM {REQUESTS.rest}") == [(0,)], "the week is made later, with its rows"
    assert everything(log).keys() == {"a", "b"}


def test_many_that_make_the_same_week_at_once_make_it_once(url: str, log: RequestLog) -> None:
    logs = [RequestLog.open(url, clock=lambda: NOW) for _ in range(4)]
    assert together(*(lambda one=one, n=n: one.record([served(f"{n}", NOW)]) for n, one in enumerate(logs))) == []
    for one in logs:
        one.close()
    assert len(there(url)) == 4
    assert asked(url, f"SELECT COUNT(*) FROM {REQUESTS.rest}") == [(0,)]
    assert len(everything(log)) == 4


def test_rows_come_back_as_they_were_written_to_the_last_digit(log: RequestLog) -> None:
    odd = [0.1 + 0.2, -1e-300, 5, 'a "quoted" \\ text\n', "naïve 日本 🙂", None, True, [1, {"a": ",{}"}]]
    features = {f"column {number}, '\\'": value for number, value in enumerate(odd)}
    at = NOW + timedelta(microseconds=1)
    row = Served(
        request_id='i\\d "1"',
        model="churn",
        version="1",
        at=at,
        seconds=1 / 3,
        features=features,
        prediction='ye"s\\',
        score=0.1 + 0.2,
    )
    log.record(
        [row, Served(**{name: getattr(row, name) for name in row.__slots__} | {"request_id": "2", "score": None})]
    )
    window = log.window("churn", start=at, end=at + DAY, limit=9)
    assert set(window.request_ids) == {'i\\d "1"', "2"}
    assert window.features == (features, features)
    assert (window.predictions, window.times) == (('ye"s\\',) * 2, (at, at))
    assert set(window.scores) == {0.1 + 0.2, None}


def test_a_row_that_no_database_takes_is_refused_as_such(log: RequestLog) -> None:
    """So that the gateway leaves that one out, and not the batch."""
    for name in ("nul \0", "x" * 200):
        with pytest.raises(DataError):
            log.record([served(name, NOW), served("fine", NOW)])
    assert everything(log) == {}


# One id is one request, in whichever weeks it comes.


def test_a_request_that_is_sent_again_in_another_week_counts_once_and_stays_as_it_was(log: RequestLog) -> None:
    assert log.record([served("a", NOW - 20 * DAY)]) == 1
    assert log.record([served("a", NOW, prediction="no"), served("b", NOW)]) == 1
    assert log.record([served("b", NOW - 20 * DAY, prediction="no")]) == 0, "an old one that is replayed late"
    assert log.record([served("c", NOW), served("c", NOW - 20 * DAY, prediction="no")]) == 1, "in one batch"
    assert log.record([served("a", NOW, model="fraud")]) == 1, "another model's"
    window = log.window("churn", start=NOW - 30 * DAY, end=NOW + DAY, limit=9)
    assert sorted(zip(window.request_ids, window.predictions, strict=True)) == [
        ("a", "yes"),
        ("b", "yes"),
        ("c", "yes"),
    ]


def test_a_request_that_is_sent_again_at_the_same_moment_in_another_week_counts_once(url: str) -> None:
    """Two gateways, midnight between Sunday and Monday: the one writes the old week, the other the new one."""
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    pause = threading.Event()
    with opened(url, midnight) as one, opened(url, midnight) as other:
        one.record([served("first", midnight)])  # the weeks are there
        looked = one._in_any_week

        def slowly(*given: Any) -> Any:
            found = looked(*given)
            pause.wait(1)  # has looked and not written
            return found

        one._in_any_week = slowly  # type: ignore[method-assign]
        early, late = ([served(str(number), at) for number in range(20)] for at in (midnight - DAY / 24, midnight))
        assert together(lambda: one.record(early), lambda: other.record(late)) == []
        assert len(everything(other)) == 21
    assert asked(url, "SELECT COUNT(*) FROM backstop_requests") == [(21,)]


def test_writers_of_the_middle_of_a_week_do_not_wait_for_each_other(url: str, log: RequestLog) -> None:
    log.record([served("first", NOW)])
    with connected(url) as held, connected(url) as second:
        partitions.guard(held, REQUESTS, [microseconds(NOW)], microseconds(NOW))
        second.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
        partitions.guard(second, REQUESTS, [microseconds(NOW)], microseconds(NOW))
        with pytest.raises(OperationalError, match="lock timeout"):
            partitions.guard(second, REQUESTS, [microseconds(NOW - 9 * DAY)], microseconds(NOW))


def test_labels_that_come_weeks_apart_are_told_of_one_request(url: str) -> None:
    with opened(url, NOW - 20 * DAY) as log:
        log.record([served("a", NOW - 20 * DAY), served("b", NOW - 20 * DAY)])
        log.label([told("a", "yes", NOW - 20 * DAY)])
    with opened(url) as log:
        log.label([told("a", "no", NOW), told("b", "yes", NOW - 20 * DAY), told("early", "no", NOW)])
        log.label([told("a", "maybe", NOW - 30 * DAY), told("a", "no", NOW)])
        assert everything(log) == {"a": "no", "b": "yes"}
        assert log.contradictions("churn") == 2
        log.record([served("early", NOW)])
        assert everything(log)["early"] == "no"
    assert asked(url, "SELECT tableoid::regclass::text FROM backstop_labels ORDER BY request_id") == [
        ("backstop_labels_2026_w07",),
        ("backstop_labels_2026_w10",),
        ("backstop_labels_2026_w10",),
    ]


def test_labels_of_one_request_from_two_weeks_at_once_are_both_there(url: str) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    with opened(url, midnight - DAY / 86_400) as one, opened(url, midnight) as other:
        one.record([served(str(number), midnight) for number in range(30)])
        first = [told(str(number), "yes", midnight - DAY) for number in range(30)]
        second = [told(str(number), "no", midnight - 2 * DAY) for number in range(30)]
        assert together(lambda: one.label(first), lambda: other.label(second)) == []
        assert set(everything(one).values()) == {"yes"}
        assert one.contradictions("churn") == 30
    assert asked(url, "SELECT COUNT(*) FROM backstop_labels") == [(30,)]


# From one table to many.


BEFORE = """
INSERT INTO backstop_requests SELECT 'churn', i::text, 'production', '1', {now} - i * 86400000000::bigint, 0.1, false,
    '{{}}', 'yes', NULL FROM generate_series(0, {last}) i;
INSERT INTO backstop_requests
    VALUES ('churn', 'future', 'production', '1', 4102444800000000, 0.1, false, '{{}}', 'yes', NULL);
INSERT INTO backstop_labels SELECT 'churn', i::text, 'no', 1, 0, '{{}}' FROM generate_series(0, {last}, 2) i;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY labelled; RETURN NULL; END $$;
CREATE TRIGGER "Odd one" AFTER INSERT ON backstop_labels FOR EACH STATEMENT EXECUTE FUNCTION f();
GRANT SELECT ON backstop_requests TO PUBLIC
"""


def of_before(url: str, rows: int) -> None:
    """A log as the version before made it, with a trigger and a right that somebody put on it."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        database._migrate(connection, "requests", None, to="0002")
        for statement in BEFORE.split(";\n"):
            connection.exec_driver_sql(statement.format(now=microseconds(NOW), last=rows - 1))
    engine.dispose()


def test_a_table_of_before_becomes_the_first_partition_and_keeps_everything(url: str) -> None:
    of_before(url, 400)
    with opened(url) as log:
        kept = everything(log)
        assert kept == {str(i): None if i % 2 else "no" for i in range(400)} | {"future": None}
        assert log.record([served("399", NOW), served("new", NOW)]) == 1
        log.label([told("398", "yes", NOW), told("new", "yes", NOW)])
        assert everything(log) == kept | {"398": "yes", "new": "yes"}
    assert [name for name in there(url) if "_w" not in name] == [REQUESTS.before, REQUESTS.rest]
    assert asked(url, f"SELECT request_id FROM {REQUESTS.rest}") == [("future",)]
    triggers = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'Odd one' AND tgparentid = 0"
    assert asked(url, triggers) == [("backstop_labels",)]
    assert asked(url, "SELECT has_table_privilege('pg_monitor', 'backstop_requests', 'SELECT')") == [(True,)]
    known = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'backstop_requests'::regclass ORDER BY 1"
    assert asked(url, known) == [("backstop_requests_by_time",), ("backstop_requests_by_version",)]


@pytest.mark.parametrize("view", [False, True])
def test_an_empty_table_with_what_somebody_put_on_it_is_divided_too(url: str, view: bool) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        database._migrate(connection, "requests", None, to="0002")
        for statement in BEFORE.split(";\n")[-3:-1]:
            connection.exec_driver_sql(statement)
        if view:
            connection.exec_driver_sql("CREATE VIEW ours AS SELECT * FROM backstop_labels")
    engine.dispose()
    with opened(url) as log:
        assert log.record([served("1", NOW)]) == 1
        log.label([told("1", "yes", NOW)])
        assert everything(log) == {"1": "yes"}
    triggers = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'Odd one' AND tgparentid = 0"
    assert asked(url, triggers) == [("backstop_labels",)]
    assert asked(url, f"SELECT to_regclass('{LABELS.before}') IS NOT NULL") == [(view,)]


def test_a_row_that_is_under_way_while_the_table_is_divided_is_kept(url: str) -> None:
    of_before(url, 10)
    started, errors = threading.Event(), []

    def upgrade() -> None:
        started.set()
        try:
            RequestLog.open(url).close()
        except Exception as error:  # noqa: BLE001  see above
            errors.append(error)

    thread = threading.Thread(target=upgrade)
    with connected(url) as writer:
        writer.exec_driver_sql(
            "INSERT INTO backstop_requests VALUES ('churn', 'under way', 'production', '1', 5, 0.1, false, '{}', 'yes')"
        )
        thread.start()
        started.wait()
        thread.join(0.5)
        assert thread.is_alive(), "the upgrade waits for whoever writes"
    thread.join()
    assert errors == []
    with opened(url) as log:
        assert len(everything(log)) == 12


def test_a_division_that_dies_leaves_the_table_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_before(url, 10)
    plain, engines = Database.writing, set()

    def dies(*given: Any) -> None:
        if "ATTACH PARTITION backstop_labels_before" in given[2]:
            raise KeyboardInterrupt

    def writing(self: Database) -> Any:
        engines.add(self.engine)
        event.listen(self.engine, "before_cursor_execute", dies)
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "writing", writing)
        with pytest.raises(KeyboardInterrupt):
            RequestLog.open(url)
    for used in engines:  # this process keeps it for the next that opens the database
        event.remove(used, "before_cursor_execute", dies)
    assert asked(url, "SELECT relkind FROM pg_class WHERE relname = 'backstop_requests'") == [("r",)]
    with opened(url) as log:
        assert len(everything(log)) == 11


def test_the_triggers_of_the_events_find_the_table_of_the_labels(
    url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, log: RequestLog
) -> None:
    from tasks.springs import check_installed, install, springs

    execute(url, "CREATE TABLE customers (at timestamptz, x int, y int)")
    (tmp_path / "churn.yaml").write_text(
        f"model: churn\ndata: {{source: '{url}', table: customers, target: y, timestamp: at}}\n"
        "training: {estimator: sklearn.linear_model:LogisticRegression}\n"
    )
    monkeypatch.setenv("BACKSTOP_REQUESTS", url)
    found = springs(str(tmp_path / "churn.yaml"), labels=True)
    assert [spring.table for spring in found] == ["customers", "backstop_labels"]
    for spring in found:
        install(spring)
    check_installed(found)


# What is read.


def plans(log: RequestLog, work: Callable[[], object]) -> list[str]:
    """How PostgreSQL carried out each query of this."""
    seen: list[tuple[str, Any]] = []
    engine = log._database.engine

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    work()
    event.remove(engine, "before_cursor_execute", note)
    found = []
    with engine.connect() as connection:
        for statement, parameters in seen:
            rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {statement}", parameters)
            found.append("\n".join(row[0] for row in rows))
    return found


def tables_in(plan: str) -> set[str]:
    """Partitions that a plan has anything to do with, those left out that it never came to."""
    lines = [line for line in plan.splitlines() if "never executed" not in line]
    return set(re.findall(r"backstop_(?:requests|labels)_(?:\d{4}_w\d\d|rest|before)\b(?=[ _])", "\n".join(lines)))


def aged(log: RequestLog, days: int) -> None:
    """A log with a request and its label on each of so many days."""
    moments = [NOW - number * DAY for number in range(days)]
    log.record(served(f"r{number}", at) for number, at in enumerate(moments))
    rows = ((f"l{number}", microseconds(at)) for number, at in enumerate(moments))
    log._weeks[LABELS].see_to([microseconds(at) for at in moments], microseconds(NOW))
    with log._database.writing() as connection:
        for name, made in rows:
            connection.execute(
                text("INSERT INTO backstop_labels VALUES ('churn', :name, 'yes', :made, 0, '{}', :made)"),
                {"name": name, "made": made},
            )
    with log._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def buffers(plan: str) -> int:
    """Pages that were looked at, those of planning left out."""
    return sum(int(number) for number in re.findall(r"shared hit=(\d+)", plan.partition("\n")[0] + plan.split("\n")[1]))


def tick(log: RequestLog) -> Callable[[], object]:
    """What the watch asks at a quiet tick of the day."""

    def ask() -> None:
        shared: dict[str, Any] = {"slow_after": 1.0, "problem": "binary", "tick": timedelta(minutes=1)}
        log.looks("churn", "1", start=NOW - DAY, until=NOW, **shared)
        log.last_request("churn", "1", until=NOW)

    return ask


def test_a_tick_reads_the_weeks_of_its_window_however_many_there_are(postgres_server: Postgres) -> None:
    pages: list[list[int]] = []
    for days in (30, 400):
        with opened(postgres_server.database()) as log:
            aged(log, days)
            found = plans(log, tick(log))
            assert len(found) == 2, "the look and the newest request"
            looks, last = (tables_in(plan) for plan in found)
            assert looks == {
                "backstop_requests_2026_w10",
                *(f"backstop_labels_2026_{week}" for week in ("w09", "w10", "w11", "w12")),
                "backstop_labels_rest",
            }
            assert last <= {
                *(f"backstop_requests_2026_{week}" for week in ("w08", "w09", "w10")),
                "backstop_requests_rest",
            }
            pages.append([buffers(plan) for plan in found])
    assert pages[0] == pages[1], "as many pages after 400 days as after 30"


def test_a_version_that_was_silent_for_long_is_still_known(log: RequestLog) -> None:
    log.record([served("a", NOW - 200 * DAY)])
    assert log.last_request("churn", "1", until=NOW) == NOW - 200 * DAY
    assert log.last_request("churn", "1") == NOW - 200 * DAY
    assert log.last_request("churn", "1", until=NOW - 201 * DAY) is None


def test_windows_of_any_age_are_read_with_their_labels(url: str) -> None:
    with opened(url, NOW - 300 * DAY) as log:
        log.record([served("old", NOW - 300 * DAY)])
        log.label([told("old", "no", NOW - 300 * DAY)])
    with opened(url) as log:
        log.record([served("new", NOW)])
        log.label([told("new", "no", NOW - 500 * DAY)])  # what says how old the truth is, not when it came
        assert [one.request_id for one in log.feedback("churn", start=EPOCH, end=NOW + DAY, limit=9)] == ["old", "new"]
        assert [one.request_id for one in log.feedback("churn", start=NOW, end=NOW + DAY, limit=9)] == ["new"]
        (look,) = log.looks("churn", "1", start=NOW, until=NOW + DAY, tick=DAY, slow_after=None, problem="binary")
        assert (look.requests, look.labelled, look.wrong) == (1, 1, 1)
