"""What runs every minute finds its rows by an index, and the homes that growth is measured on are real ones."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

from benchmarks import aged_home, curve, growth, quiet_home
from benchmarks.aged_home import MODEL
from benchmarks.quiet_home import Home
from tasks.glance import Glance
from tasks.past import earlier
from tasks.policy_file import load, load_many
from tasks.records import Span


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Home:
    """One model that serves well."""
    folder = tmp_path_factory.mktemp("quiet") / "home"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return quiet_home.make(folder, models=0, rows=2_000)


@pytest.fixture
def home(quiet: Home, tmp_path: Path) -> Home:
    return aged_home.copied(quiet, tmp_path / "home")


@contextmanager
def asked() -> Iterator[list[tuple[str, str, Any]]]:
    """(database, statement, parameters) of every question that is asked meanwhile."""
    found: list[tuple[str, str, Any]] = []

    def note(connection: Any, _cursor: Any, statement: str, given: Any, *_: object) -> None:
        if statement.lstrip().startswith("SELECT"):
            found.append((str(connection.engine.url), statement, given))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plans(questions: list[tuple[str, str, Any]]) -> list[tuple[str, str]]:
    """(statement, step) of how SQLite answers each."""
    found = []
    for url, statement, given in questions:
        engine = create_engine(url)
        with engine.connect() as connection:
            steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()
        engine.dispose()
        found += [(statement, str(step[-1])) for step in steps]
    return found


def test_a_quiet_tick_reads_no_table_from_end_to_end(home: Home) -> None:
    with asked() as questions:
        assert aged_home.tick(home) == "watching"
        assert not Glance(home.stores.tracking).differs(aged_home.case(home).standing())
    found = plans([one for one in questions if "backstop_" in one[1] or "model_versions" in one[1]])
    assert any("backstop_requests" in statement for statement, _ in found)
    assert any("backstop_decisions" in statement for statement, _ in found)
    scans = [one for one in found if one[1].startswith("SCAN") and "_version" not in one[1]]
    assert scans == []


def test_what_flows_ask_the_ledger_reads_no_table_from_end_to_end(home: Home) -> None:
    case = aged_home.case(home)
    with asked() as questions, case.ledger as ledger:
        earlier(case, case.standing())
        ledger.serving(MODEL)
        ledger.serving_at(MODEL, case.now)
        ledger.gate_on(MODEL, "1")
        ledger.gate_decision(MODEL, "1")
        ledger.attempts_on(MODEL, Span(start=case.now - timedelta(days=1), end=case.now))
        ledger.decisions(MODEL, trail="t")
        ledger.decisions(MODEL, before=7)
        ledger.last_rollback(MODEL)
        ledger.outbox.due(MODEL, case.now)
    found = plans([one for one in questions if "backstop_" in one[1]])
    assert len(found) > 8
    assert [one for one in found if one[1].startswith("SCAN") and "_version" not in one[1]] == []


def test_the_newest_decisions_are_not_sorted_out_of_all_of_them(home: Home) -> None:
    with asked() as questions, aged_home.case(home).ledger as ledger:
        for asking in ({}, {"judge": "health"}, {"before": 7}):
            ledger.decisions(MODEL, **asking)  # type: ignore[arg-type]
    found = plans([one for one in questions if "FROM backstop_decisions" in one[1]])
    assert len(found) == 3
    assert [step for _, step in found if "TEMP B-TREE" in step] == []


def test_homes_that_were_grown_hold_together_and_stay_quiet(home: Home) -> None:
    folder = aged_home.models(home, 3)
    aged_home.decisions(home, 40)
    aged_home.versions(home, 5)
    end = datetime.now(UTC) - timedelta(days=2)
    aged_home.requests(home, 500, start=end - timedelta(days=1), end=end)
    with aged_home.case(home).ledger as ledger:
        assert ledger.models() == ("c1", "c2", "c3", MODEL)
        assert [ledger.misfits(model) for model in ledger.models()] == [()] * 4
        assert len(ledger.decisions(MODEL, "health", limit=1000)) > 40
        assert len(ledger.history(MODEL)) == len(ledger.history("c1")) + 10
        glance = Glance(home.stores.tracking)
        assert [glance.differs(ledger.standing(model)) for model in ledger.models()] == [False] * 4
        assert glance.blind is None
    assert [one.model for one in load_many(str(folder))] == ["c1", "c2", "c3"]
    assert load(folder / "c2.yaml").data == load(home.policy).data
    assert aged_home.tick(home) == "watching"


@pytest.mark.slow
def test_a_version_that_has_served_for_months_asks_no_more_than_a_young_one(tmp_path: Path) -> None:
    counts = []
    for days in (3, 40):
        now = datetime.now(UTC)
        aged = quiet_home.make(tmp_path / str(days), models=0, rows=2_000, now=now, ago=timedelta(days=days))
        begun = now - timedelta(days=days) + quiet_home.AGO
        aged_home.requests(aged, days * 1440, start=begun, end=now + timedelta(hours=1))
        aged_home.decisions(aged, days)
        aged_home.tick(aged)  # it catches up
        with asked() as questions:
            assert aged_home.tick(aged) in {"healthy", "watching"}
        counts.append(len([one for one in questions if "backstop_" in one[1]]))
    young, old = counts
    assert young == old > 5


@pytest.mark.parametrize("name", growth.CURVES)
def test_every_curve_can_be_measured(home: Home, name: str) -> None:
    measure, _, few = growth.CURVES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found = measure(few, home)
    assert found.sizes == few
    assert all(value > 0 for value in (*found.seconds, *found.megabytes))


def test_a_curve_that_grows_too_fast_is_short() -> None:
    sizes = [10, 100, 1000]
    steep = curve.Curve("x", "y", sizes=sizes, seconds=[one**1.2 / 1000 for one in sizes])
    linear = curve.Curve("x", "y", sizes=sizes, seconds=[one / 1000 for one in sizes])
    assert [line.ok for one in (steep, linear) for line in one.lines()] == [False, True, True, True]


def test_what_a_fit_over_all_sizes_hides_is_short_too() -> None:
    sizes = [10, 100, 1000]
    bent = curve.Curve("x", "y", sizes=sizes, seconds=[1.0, 1.0, 30.0])
    doubled = curve.Curve("x", "y", curve.CONSTANT, sizes=[10, 10**9], seconds=[1.0, 2.0])
    assert [line.ok for one in (bent, doubled) for line in one.lines()] == [True, False, True, False]


def test_all_sizes_are_measured_in_turn() -> None:
    done: list[int] = []
    found = curve.Curve("x", "y").over({size: lambda size=size: done.append(size) for size in (1, 2)}, times=2)
    assert done == [1, 2, 1, 2, 1, 2, 1, 2]  # once before, two rounds, and for the memory
    assert (found.sizes, len(found.seconds), len(found.megabytes)) == ([1, 2], 2, 2)
