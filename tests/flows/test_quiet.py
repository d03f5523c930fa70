"""An evaluation stands as long as nothing that it rested on has changed, and whatever changes is seen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scene import FIRST, PER_DAY, QUIET, Ran, Scene, arrivals, day, everybody, run
from sqlalchemy import create_engine
from told import LATER, Told

from flows.retrain import retrain
from tasks import audit, dossier, freshness
from tasks.case import open_case
from tasks.dossier import Dossier
from tasks.freshness import Unsure
from tasks.ledger import Ledger
from tasks.policy_file import load
from tasks.retrial import reach
from tasks.signals import observe


@pytest.fixture
def told(first: Scene) -> Told:
    """An evaluation that said keep, of a file."""
    one = Told(first, "file")
    assert one.evaluate().decision == "keep"
    return one


@pytest.fixture(params=["file", "table", "query"])
def anywhere(request: pytest.FixtureRequest, first: Scene) -> Told:
    """The same of every kind of source."""
    one = Told(first, request.param)
    assert one.evaluate().decision == "keep"
    return one


# As long as nothing changes.


def test_where_nothing_changed_the_evaluation_stands_and_says_since_when(anywhere: Told) -> None:
    found = anywhere.look()
    rows = int((anywhere.rows["observed_at"] >= day(QUIET - 42)).sum())  # two days more are counted than are used
    place = {"file": "told.csv", "table": f"customers ({rows:,} rows)", "query": f"the source ({rows:,} rows)"}
    where, _, count = place[anywhere.kind].partition(" (")
    start = f"nothing new in {where} since {day(QUIET):%Y-%m-%d %H:%M}"
    assert found.reason.startswith(start + (f" ({count}" if count else "") + "; the evaluation of then stands: Retrain")
    assert found.verdict.decision == "keep"
    with Ledger.open(anywhere.scene.stores.ledger) as ledger:
        assert ledger.decisions("churn", "triggers", limit=1)[0].trail == found.trail


# Whatever changes in the rows.


def one_more(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, arrivals(QUIET, QUIET + 1, seed=9).head(1)])


def one_earlier(rows: pd.DataFrame) -> pd.DataFrame:
    new = arrivals(QUIET - 1, QUIET, seed=9).head(1)
    return pd.concat([rows, new]).sort_values("observed_at")


def one_label(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(churned=rows["churned"].where(rows.index != rows.index[-3], "no"))


def another_label(rows: pd.DataFrame) -> pd.DataFrame:
    said = rows["churned"].iloc[-100]
    return rows.assign(churned=rows["churned"].where(rows.index != rows.index[-100], {"yes": "no", "no": "yes"}[said]))


def one_gone(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(index=rows.index[-50])


def another_in_its_place(rows: pd.DataFrame) -> pd.DataFrame:
    return one_more(one_gone(rows))


def one_column(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(discount=0)


def test_a_change_of_the_rows_is_seen(anywhere: Told) -> None:
    for change in (one_more, one_earlier, one_label, another_label, one_gone, another_in_its_place, one_column):
        anywhere.write(change(anywhere.rows))
        anywhere.sees("not as on .*: source")
        anywhere.write(anywhere.rows)
        assert anywhere.look(), change


def test_a_row_that_the_source_had_already_counts_from_its_own_moment_on(first: Scene) -> None:
    ahead = Told(first, "table")
    ahead.rows = everybody()
    ahead.write(ahead.rows)
    assert ahead.evaluate().decision == "keep"
    coming = everybody()["observed_at"][lambda times: times >= day(QUIET)].min()
    until = (coming.to_pydatetime() - day(0)) / timedelta(days=1)
    assert ahead.look(until - 1e-5)
    ahead.sees("stood until", until)


def test_a_row_that_leaves_its_window_is_missed_from_that_moment_on(first: Scene) -> None:
    told = Told(first, "table")
    window = {"triggers": {"window": "5d"}}
    told.changes |= window
    assert told.evaluate().decision == "keep"
    oldest = told.rows["observed_at"][lambda times: times >= day(QUIET - 5)].min()
    until = QUIET + (oldest.to_pydatetime() - day(QUIET - 5)) / timedelta(days=1)
    assert told.look(until - 1e-5)
    told.sees("stood until", until)


def test_a_change_in_place_that_leaves_no_trace_is_overlooked_for_a_day_at_most(first: Scene) -> None:
    told = Told(first, "table")
    told.evaluate()
    told.write(told.rows.assign(monthly_charges=told.rows["monthly_charges"] * 2))
    assert told.look(QUIET + 0.999)
    told.sees("stood until", QUIET + 1)


def test_a_file_that_is_put_there_again_is_the_same_and_a_large_one_is_known_by_its_clocks(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.write(told.rows)
    assert told.look()
    monkeypatch.setattr(freshness, "_SMALL", 100)
    path = told.scene.home / "told.csv"
    case = open_case(load(told.policy()), actor="a test", now=day(QUIET), stores=told.scene.stores)
    with case.ledger:
        assert observe(case, case.standing()).basis is None  # written this very moment
    monkeypatch.setattr(freshness, "_SETTLED", 0.0)
    told.evaluate()
    assert told.look()
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"yes", b"no ", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    told.sees("source")


def test_rows_that_only_the_kept_file_has_belong_to_the_source(told: Told) -> None:
    told.scene.stores.kept("churn").unlink()
    told.sees("kept rows")


def test_a_loader_and_a_source_that_cannot_be_read_are_always_read_in_full(told: Told, tmp_path: Path) -> None:
    (told.scene.home / "told.csv").unlink()
    told.sees("could not be looked at")
    loader = load(told.policy()).model_copy(
        update={"data": load(told.policy()).data.model_copy(update={"source": "own_package.rows:load"})}
    )
    with pytest.raises(Unsure, match="is a loader"):
        freshness.sample(loader, start=day(0), end=day(QUIET))


# Whatever changes around them.


@pytest.mark.parametrize("changes", [{"triggers": {"performance": {"drop": "2pt"}}}, {"notify": []}])
def test_an_edited_policy_is_seen(told: Told, changes: dict[str, Any]) -> None:
    told.policy(**changes)
    told.sees("policy")


def test_an_override_in_the_environment_is_seen(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTOP_CHURN__TRIGGERS__PERFORMANCE__FLOOR", "0.9")
    told.sees("policy")


def test_age_counts_from_the_moment_it_reaches_its_limit(told: Told) -> None:
    told.changes["triggers"] = {"age": f"{(LATER - FIRST) * 24:g}h"}
    assert told.evaluate().decision == "keep"
    assert told.look(LATER - 1e-5)
    told.sees("stood until", LATER)
    assert told.evaluate(LATER).decision == "retrain"
    told.sees("did not say keep", LATER)


def test_a_clock_that_went_backwards_is_seen(told: Told) -> None:
    told.sees("stood until", QUIET - 1e-5)


def move(told: Told, action: Any, version: str, at: float) -> None:
    """A transition as another run makes it."""
    case = open_case(load(told.policy()), actor="a test", now=day(at), stores=told.scene.stores)
    with case.ledger as ledger:
        seq = ledger.standing("churn").seq
        who = {"actor": "a test", "reason": "to see", "trail": "t", "at": day(at)}
        ledger.settle(ledger.intend(model="churn", based_on=seq, action=action, version=version, **who), "applied")


def test_another_version_in_production_and_any_other_transition_is_seen(told: Told) -> None:
    move(told, "stage", "2", LATER)
    told.sees("more to do")
    move(told, "reject", "2", LATER)
    told.sees("seq")
    told.evaluate()
    move(told, "promote", "2", LATER)
    told.sees("production, seq")


def test_after_a_rollback_the_triggers_count_again_when_the_pause_is_over(told: Told) -> None:
    move(told, "promote", "2", QUIET)
    move(told, "rollback", "1", QUIET)
    told.changes["triggers"] = {"rollback_cool_down": "5h"}
    assert told.evaluate(QUIET + 0.01).decision == "keep"
    case = open_case(load(told.policy()), actor="a test", now=day(QUIET + 0.01), stores=told.scene.stores)
    with case.ledger:
        basis = observe(case, case.standing()).basis
    assert basis is not None
    assert datetime.fromisoformat(basis["until"]) == day(QUIET) + timedelta(hours=5)


def test_a_registry_that_was_changed_by_hand_or_cannot_be_looked_at_is_seen(told: Told) -> None:
    told.scene.click("1", "Archived")
    told.sees("MLflow says something else")
    shutil.move(told.scene.home / "mlflow.db", told.scene.home / "away.db")
    told.sees("MLflow could not be looked at")


def test_other_rules_of_the_judges_are_seen(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dossier, "RULES", dossier.RULES + 1)
    told.sees("nothing to compare with")


def test_evidence_that_was_changed_is_seen(told: Told) -> None:
    engine = create_engine(told.scene.stores.ledger)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE backstop_evidence SET body = x'00'")
    engine.dispose()
    told.sees("do not trust it")


def test_what_went_wrong_since_is_looked_at_again(told: Told) -> None:
    case = open_case(load(told.policy()), actor="a test", now=day(LATER), stores=told.scene.stores)
    with case.ledger:
        rests = Dossier("mistake", {"problems": ("the source was away",), "name": "data"})
        case.note(reach(rests), rests)
    told.sees("something was wrong since: .*the source was away")


def test_a_model_that_could_not_answer_is_asked_again(told: Told) -> None:
    path = told.scene.artifact("1")
    for file in path.rglob("*.skops"):
        file.write_bytes(b"")
    verdict = told.evaluate()
    assert "could not score the recent rows" in verdict.reason
    told.sees("nothing to compare with")


# The flow.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock that a run without ``as_of`` reads."""

    def to(at: float) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # noqa: ARG003  it is called with UTC
                return day(at)

        monkeypatch.setattr("tasks.case.datetime", Clock)

    return to


def quiet(ran: Ran) -> bool:
    return ran.report.line.startswith("nothing new in")


def test_the_flow_reads_nothing_twice_records_nothing_twice_and_misses_nothing(
    first: Scene, clock: Callable[[float], None]
) -> None:
    told = Told(first, "table")
    policy = told.policy(notify=None)
    clock(QUIET)
    full = run(retrain, policy=policy)
    assert (full.state.name, quiet(full)) == ("Kept", False)

    clock(LATER)
    before = first.mark()
    again = run(retrain, policy=policy)
    assert (again.state.name, again.report.decision, quiet(again)) == ("Kept", "kept", True)
    assert again.report.verdicts == full.report.verdicts
    assert (again.report.trail, again.report.production) == (full.report.trail, "1")
    assert first.mark() == before
    with Ledger.open(first.stores.ledger) as ledger:
        assert {one.outcome for one in audit.check(ledger, "churn")} == {"ok"}

    for asked in ({"dry_run": True}, {"as_of": day(LATER)}, {"as_of": day(LATER + 0.01)}):
        assert not quiet(run(retrain, policy=policy, **asked))
    assert not quiet(run(retrain, policy=policy))  # the last one was of a moment that somebody chose

    told.write(pd.concat([told.rows, arrivals(QUIET, QUIET + 1, seed=9)]).head(len(told.rows) + PER_DAY // 4))
    seen = run(retrain, policy=policy)
    assert (seen.state.name, quiet(seen)) == ("Kept", False)
    assert quiet(run(retrain, policy=policy))
