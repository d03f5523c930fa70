"""Past: what earlier evaluations found is read from the ledger, as far as it is of this version and counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dossiers import gate, triggers

from tasks.case import Case
from tasks.dossier import Dossier, pack
from tasks.ledger import Ledger
from tasks.past import earlier
from tasks.policy import Confirm, FalseRetrains, Policy, Triggers
from tasks.records import Standing
from tasks.retrial import reach
from tasks.stores import Stores

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALL = {"confirm": Confirm(), "cool_down": timedelta(days=1), "false_retrains": FalseRetrains(at_most=1)}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def case(ledger: Ledger, tmp_path: Path, **rules: object) -> Case:
    policy = Policy.model_validate(
        {
            "model": "m",
            "data": {"source": "rows.csv", "target": "y", "timestamp": "at"},
            "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
            "triggers": Triggers(**rules),  # type: ignore[arg-type]
        }
    )
    return Case(policy, Stores.at(tmp_path), ledger, NOW, "test", "t")


def put_down(ledger: Ledger, hours_ago: float, dossier: Dossier, *, saw: str = "", trail: str = "t") -> None:
    """An evaluation with ``confirm`` in its policy, or any other verdict."""
    if dossier.judge == "triggers":
        signals = replace(dossier.given["signals"], saw=saw)
        dossier = replace(dossier, given={"signals": signals, "rules": Triggers(confirm=Confirm())})
    ledger.record("m", reach(dossier), trail=trail, at=NOW - hours_ago * HOUR, dossier=pack(dossier))


def test_nothing_is_known_before_the_first_evaluation(ledger: Ledger, tmp_path: Path) -> None:
    found = earlier(case(ledger, tmp_path, **ALL), Standing(model="m"))
    assert found == {"evaluations": (), "evaluated_at": None, "retrained_at": None}


def test_what_held_in_each_evaluation_is_read_with_what_it_saw_the_newest_first(ledger: Ledger, tmp_path: Path) -> None:
    put_down(ledger, 5, triggers(0, 0.81), saw="a")
    put_down(ledger, 2, triggers(3, 0.81), saw="b")
    found = earlier(case(ledger, tmp_path, **ALL), Standing(model="m", since=NOW - 9 * HOUR))
    assert [(one.held, one.saw) for one in found["evaluations"]] == [(("drift",), "b"), ((), "a")]
    assert found["evaluated_at"] == NOW - 2 * HOUR


def test_evaluations_of_another_version_and_of_the_future_do_not_count(ledger: Ledger, tmp_path: Path) -> None:
    put_down(ledger, 5, triggers(3, 0.81), saw="a")
    put_down(ledger, -1, triggers(3, 0.81), saw="b")
    found = earlier(case(ledger, tmp_path, **ALL), Standing(model="m", since=NOW - 4 * HOUR))
    assert found["evaluations"] == ()
    assert found["evaluated_at"] == NOW - 5 * HOUR


def retrain() -> Dossier:
    given = triggers().given
    return Dossier("triggers", {**given, "signals": replace(given["signals"], event="asked for")})


def test_a_retraining_is_one_only_when_a_training_was_begun(ledger: Ledger, tmp_path: Path) -> None:
    put_down(ledger, 8, retrain(), trail="first")
    asked = case(ledger, tmp_path, **ALL)
    assert earlier(asked, Standing(model="m"))["retrained_at"] is None, "there was nothing new to train on"
    put_down(ledger, 7, gate(), trail="first")
    put_down(ledger, 3, retrain(), trail="second")
    assert earlier(asked, Standing(model="m"))["retrained_at"] == NOW - 8 * HOUR
    failed = Dossier("mistake", {"problems": ("it raised",), "name": "training"})
    put_down(ledger, 2, failed, trail="second")
    found = earlier(asked, Standing(model="m"))
    assert found["retrained_at"] == NOW - 3 * HOUR, "a training that fails is tried again no sooner"
    assert found["evaluations"] == (), "what held before it was answered by it"


def test_a_policy_that_asks_for_none_of_it_is_given_none(ledger: Ledger, tmp_path: Path) -> None:
    put_down(ledger, 5, retrain())
    put_down(ledger, 4, gate())
    found = earlier(case(ledger, tmp_path), Standing(model="m"))
    assert found == {"evaluations": (), "evaluated_at": None, "retrained_at": None}
