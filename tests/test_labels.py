"""Labels: late, out of order, twice, contradicting each other, for nobody; what counts is the same in the end."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from servers import Postgres
from sqlalchemy import create_engine, text

from benchmarks.crash_matrix import Nursery
from benchmarks.killing import LASTING, Doom, fork
from tasks import database
from tasks.labels import Told
from tasks.requests import Label, RequestLog, Served

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'requests.db'}"


@pytest.fixture
def log(url: str) -> Iterator[RequestLog]:
    with RequestLog.open(url) as opened:
        yield opened


def served(request_id: str, model: str = "churn", **given_ones: Any) -> Served:
    values: dict[str, Any] = {
        "version": "1",
        "at": T0,
        "seconds": 0.02,
        "features": {"calls": 3},
        "prediction": "yes",
    }
    return Served(**{"request_id": request_id, "model": model, **values, **given_ones})


def label(request_id: str, value: str | float, minutes: float = 60, model: str = "churn") -> Label:
    return Label(request_id=request_id, model=model, label=value, at=T0 + minutes * MINUTE)


def stored(log: RequestLog) -> list[tuple[Any, ...]]:
    with log._database.reading() as connection:
        query = "SELECT model, request_id, label, at, contradictions, others FROM backstop_labels ORDER BY 1, 2"
        return [tuple(row) for row in connection.execute(text(query))]


def counting(log: RequestLog, model: str = "churn") -> dict[str, str | None]:
    found = log.window(model, start=T0, end=T0 + MINUTE, limit=99)
    return dict(zip(found.request_ids, found.labels, strict=True))


# In any order, as often as one likes.


LABELS = st.lists(
    st.builds(label, st.sampled_from("ab"), st.sampled_from(["yes", 1, 1.0, "1"]), st.integers(0, 4)),
    min_size=5,
    max_size=8,
)
"""So many that repeats of one label at several moments, and contradictions, are the rule."""


@settings(max_examples=25, deadline=None, phases=(Phase.generate,))  # an example costs two databases: it is not shrunk
@given(labels=LABELS, draw=st.randoms(use_true_random=False), cuts=st.lists(st.integers(0, 16), max_size=3))
def test_labels_in_any_order_in_any_batches_and_twice_leave_the_same(
    labels: list[Label], draw: Any, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    again = [*labels, *(one for one in labels if draw.random() < 0.5)]
    draw.shuffle(again)
    ends = [0, *sorted(cuts), len(again)]
    with RequestLog.open(f"sqlite:///{folder / 'once.db'}") as once:
        once.label(labels)
        expected = stored(once)
    with RequestLog.open(f"sqlite:///{folder / 'again.db'}") as log:
        for start, end in itertools.pairwise(ends):
            log.label(again[start:end])
        assert stored(log) == expected


def test_a_batch_that_is_replayed_after_a_crash_counts_no_contradiction_twice(log: RequestLog) -> None:
    batch = [label("a", "no", 90), label("a", "yes", 80)]
    log.record([served("a")])
    log.label(batch)
    log.label(batch)
    log.label(batch[:1])
    assert log.contradictions("churn") == 1
    assert counting(log) == {"a": "no"}


def test_two_labels_for_the_same_moment_cancel_each_other_until_a_newer_one_comes(log: RequestLog) -> None:
    log.record([served("a")])
    log.label([label("a", "yes", 5)])
    log.label([label("a", "no", 5)])
    assert counting(log) == {"a": None}, "neither of the two is the truth"
    assert log.feedback("churn", start=T0, end=T0 + MINUTE, limit=9) == ()
    look = {"start": T0, "until": T0 + MINUTE, "tick": MINUTE, "slow_after": None, "problem": "binary"}
    assert log.looks("churn", "1", **look)[0].labelled == 0  # type: ignore[arg-type]
    log.label([label("a", "yes", 4)])
    assert counting(log) == {"a": None}, "an older one decides nothing"
    log.label([label("a", "no", 6)])
    assert counting(log) == {"a": "no"}
    assert log.contradictions("churn") == 1


def test_what_is_remembered_of_one_request_is_bounded_and_still_the_same_in_any_order() -> None:
    told = [Told({str(number): number}) for number in range(100)]
    up, down = told[0], told[-1]
    for one in told:
        up = up.with_(one)
    for one in reversed(told):
        down = down.with_(one)
    assert up == down
    assert (up.standing, up.contradictions) == ("99", 31)


def test_labels_from_two_processes_at_once_are_both_there(postgres_server: Postgres) -> None:
    url = postgres_server.database()
    with RequestLog.open(url) as first, RequestLog.open(url) as second:
        first.record([served(f"r{number}") for number in range(40)])
        barrier = threading.Barrier(2)

        def tell(log: RequestLog, value: str, minutes: float) -> None:
            for start in range(0, 40, 4):
                barrier.wait(30)
                log.label([label(f"r{number}", value, minutes) for number in range(start, start + 4)])

        threads = [
            threading.Thread(target=tell, args=(first, "yes", 1)),
            threading.Thread(target=tell, args=(second, "no", 2)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert first.contradictions("churn") == 40
        assert set(counting(first).values()) == {"no"}


# To whom.


def test_models_that_share_a_log_may_use_the_same_request_ids(log: RequestLog) -> None:
    assert log.record([served("7"), served("7", "fraud", prediction="no")]) == 2
    log.label([label("7", "yes")])
    assert (counting(log), counting(log, "fraud")) == ({"7": "yes"}, {"7": None})
    log.label([label("7", "no", model="fraud"), label("7", "yes", 61, model="fraud")])
    assert (log.contradictions("churn"), log.contradictions("fraud")) == (0, 1)
    assert log.unmatched([label("7", "yes"), label("8", "yes"), label("8", "no"), label("7", "x", model="price")]) == 2
    with pytest.raises(ValueError, match="names no model"):
        log.label([label("9", "yes"), label("7", "yes", model="")])
    assert log.unmatched([]) == 0


def test_a_request_that_production_and_a_canary_answered_is_one_piece_of_feedback(log: RequestLog) -> None:
    log.record([served("a", role="canary", version="2"), served("b", at=T0 + 3 * MINUTE, features={"calls": 4})])
    log.record([served("a", at=T0 + MINUTE), served("a", role="shadow"), served("c", failed=True, prediction=None)])
    log.label([label("a", "no"), label("b", "yes"), label("c", "no"), label("d", "no")])
    found = log.feedback("churn", start=T0, end=T0 + 9 * MINUTE, limit=9)
    assert [(one.request_id, one.at, one.label) for one in found] == [
        ("a", T0, "no"),
        ("b", T0 + 3 * MINUTE, "yes"),
    ]
    assert [one.request_id for one in log.feedback("churn", start=T0, end=T0 + 9 * MINUTE, limit=1)] == ["b"]
    asked = log.asked("churn", ["b", "a", "nobody"])
    assert (asked.request_ids, asked.labels, asked.versions) == (("a", "b"), ("no", "yes"), ("2", "1"))
    assert asked.features == ({"calls": 3}, {"calls": 4})


def test_where_labels_come_late_a_full_window_still_holds_those_that_have_come(log: RequestLog) -> None:
    log.record([served(str(number), at=T0 + number * timedelta(seconds=1)) for number in range(10)])
    log.label([label("1", "yes"), label("3", "no")])
    window = {"start": T0, "end": T0 + MINUTE, "limit": 4}
    assert log.window("churn", **window).labels == (None,) * 4  # type: ignore[arg-type]
    found = log.window("churn", **window, labelled_first=True)  # type: ignore[arg-type]
    assert found.request_ids == ("1", "3", "8", "9")
    assert found.labels == ("yes", "no", None, None)


# From before.


def test_a_log_of_the_first_version_keeps_its_requests_and_labels(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        database._migrate(connection, "requests", None, to="0001")
        for row in (
            "('a', 'production', 'churn', '1', 1767614400000000, 0.1, 0, '{}', 'yes', 0.5)",
            "('a', 'shadow', 'churn', '2', 1767614400000000, 0.1, 0, '{}', 'no', 0.5)",
            "('b', 'production', 'fraud', '1', 1767614400000000, 0.1, 0, '{}', 'yes', NULL)",
        ):
            connection.exec_driver_sql(f"INSERT INTO backstop_requests VALUES {row}")
        for row in ("('a', 'no', 1767614500000000, 2)", "('late', 'yes', 1767614500000000, 0)"):
            connection.exec_driver_sql(f"INSERT INTO backstop_labels VALUES {row}")
    engine.dispose()
    with RequestLog.open(url) as log:
        assert counting(log) == {"a": "no"}
        assert log.contradictions("churn") == 2
        log.label([label("a", "yes", 9999999)])
        assert log.contradictions("churn") == 2, "what was counted is not counted down"
        log.record([served("late", "fraud")])
        assert counting(log, "fraud") == {"b": None, "late": "yes"}, "it was early, and finds its request"


# A process that dies.


def replayed(folder: Path) -> Iterator[tuple[str, int, dict[str, str | None]]]:
    """In the nursery: a gateway's log book is killed while it writes what lay on the disk, and another takes over."""
    from serving.logbook import Logbook, _label_line
    from serving.metrics import Metrics
    from serving.settings import Settings
    from tasks.stores import Stores

    def work(stores: Stores, doom: Doom | None) -> list[str]:
        import time

        if doom is not None:
            doom.put_on()
        book = Logbook(stores, Settings(), Metrics())
        book.start()
        end = time.monotonic() + 30
        while any((stores.home / "spool" / "labels").glob("*.jsonl")) and time.monotonic() < end:
            time.sleep(0.01)
        book.stop()
        return [] if doom is None else doom.seen

    lines = [_label_line(one) for one in (label("a", "no", 90), label("b", "yes", 60), label("a", "yes", 80))]
    number, boundaries = 0, 1
    while number < boundaries:
        stores = Stores.at(folder / str(number))
        (stores.home / "spool" / "labels").mkdir(parents=True)
        (stores.home / "spool" / "labels" / "1.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        with RequestLog.open(stores.requests) as log:
            log.record([served("a"), served("b")])
        fate = fork(partial(work, stores, Doom(number, LASTING)), folder).end()
        boundaries = number + 1 + (fate.signal == signal.SIGKILL)
        after = fork(partial(work, stores, None), folder).end()
        assert after.error == "", after.error
        with RequestLog.open(stores.requests) as log:
            yield str(fate.signal), log.contradictions("churn"), counting(log)
        number += 1


def test_a_gateway_that_is_killed_while_it_replays_labels_counts_none_twice(tmp_path: Path) -> None:
    found: list[Any] = list(Nursery(replayed, tmp_path))
    ended = [one[0] for one in found]
    assert ended[-1] == "None", "the last one came to its end"
    assert set(ended[:-1]) == {str(int(signal.SIGKILL))} or set(ended[:-1]) == {str(signal.SIGKILL)}
    assert len(found) == 3, "killed before and after the commit, and not at all"
    for _, contradictions, labels in found:
        assert (contradictions, labels) == (1, {"a": "no", "b": "yes"})
