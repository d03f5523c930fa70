"""Triggers that look at more than one evaluation, through the real flow, ledger and models."""

from __future__ import annotations

from datetime import datetime

import pytest
from scene import CHANGE, CHANGED, Scene, day
from test_retrain import finding, stored_profile

from flows.retrain import retrain
from tasks.records import Report
from tasks.retrial import retry_all

OFF = {"age": "off", "volume": "off", "performance": "off", "prediction": "off", "upstream": False}
NO_SHADOW = {"shadow": "off"}


def evaluated(scene: Scene, at: float, **triggers: object) -> Report:
    path = scene.policy(triggers={"retrain_when": "any", **OFF, **triggers}, **NO_SHADOW)
    return scene.run(retrain, at, policy=path).report


def test_what_training_keeps_for_later_is_there(first: Scene) -> None:
    profile = stored_profile(first, "1")
    assert profile.errors is not None
    wrong, answers = profile.errors
    accuracy = profile.metric("accuracy")
    assert accuracy is not None
    assert 1 - wrong / answers == pytest.approx(accuracy.value)
    assert sum(one.labelled for one in profile.sureness or ()) == answers
    assert sum(one.right for one in profile.sureness or ()) == answers - wrong
    scores = {column.name: column.score or 0.0 for column in profile.columns}
    assert max(scores.values()) > 0.3
    assert all(0 <= score <= 1 for score in scores.values())


def test_a_changed_world_is_found_by_its_errors_with_the_day_on_which_it_changed(first: Scene) -> None:
    ran = first.run(retrain, CHANGED, policy=first.policy(triggers={"concept": {"tolerate": "2pt"}}), dry_run=True)
    found = finding(ran.report, "triggers", "concept")
    assert (found.outcome, found.urgency) == ("breach", "high")
    since = datetime.fromisoformat(found.evidence["since"])
    assert abs((since - day(CHANGE)).days) <= 4
    estimate = finding(ran.report, "triggers", "estimate")
    assert estimate.outcome == "unknown", "the labels that are there contradict what the model is so sure of"


def test_what_holds_in_one_evaluation_of_two_retrains_with_the_second_and_not_with_the_same_rows(first: Scene) -> None:
    confirm = {"confirm": {"times": 2, "of": 2}}
    once = evaluated(first, CHANGED, **confirm)
    assert once.decision == "kept"
    assert "it held in 1 of the last 1 evaluations, 2 of 2 are needed" in once.line
    same = evaluated(first, CHANGED + 1e-6, **confirm)
    assert same.decision == "kept", "not one row has come since"
    runs = len(first.runs())
    twice = evaluated(first, CHANGED + 1, **confirm)
    assert twice.decision != "kept"
    assert "it held in 2 of the last 2 evaluations" in finding(twice, "triggers", "drift").reason
    assert len(first.runs()) == runs + 1
    with first.case(CHANGED + 1).ledger as ledger:
        assert {one.outcome for one in retry_all(ledger, "churn")} == {"ok"}


def test_after_a_retraining_no_trigger_counts_until_the_cool_down_is_over(second: Scene) -> None:
    hourly = {"age": "1h", "drift": "off", "concept": "off", "cool_down": "2d"}
    kept = evaluated(second, CHANGED + 1, **hourly)
    assert kept.decision == "kept"
    assert "fired, but the last retraining began 1 day ago, and no trigger counts before" in kept.line
    assert evaluated(second, CHANGED + 2, **hourly).decision != "kept"


def test_a_budget_is_spent_from_one_evaluation_to_the_next(first: Scene) -> None:
    budget = {"false_retrains": "1 per 30d", "drift": {"psi": 5}, "concept": {"tolerate": "60pt"}}
    evaluated(first, CHANGED - 2, **budget)
    found = finding(evaluated(first, CHANGED - 1, **budget), "triggers", "budget")
    assert found.value == 0.75 / 30
    assert found.evidence["triggers"] == ["drift", "concept"]
