"""What is done to the registry beside Backstop, and runs that ask for what is not there: one Production, and a word."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from scene import CHANGED, Scene, day

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch

MINUTE = 1 / 1440


def stage(scene: Scene, version: str, name: str) -> None:
    """Change a stage without archiving the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
        scene.client.transition_model_version_stage("churn", version, name)


def write(scene: Scene, name: str, statement: str) -> None:
    """Change a database behind everybody's back."""
    connection = sqlite3.connect(scene.home / name)
    assert connection.execute(statement).rowcount > 0
    connection.commit()
    connection.close()


def aliased(scene: Scene) -> None:
    scene.client.set_registered_model_alias("churn", "champion", "1")


CLICKS: dict[str, Callable[[Scene], Any]] = {
    "two versions in Production": lambda scene: stage(scene, "1", "Production"),
    "Production archived": lambda scene: stage(scene, "2", "Archived"),
    "the champion moved": aliased,
    "a stage that does not exist": lambda scene: write(
        scene, "mlflow.db", "UPDATE model_versions SET current_stage = 'Nirvana' WHERE version = 2"
    ),
}
RUNS: dict[str, Callable[[Scene], Any]] = {
    "retrain": lambda scene: scene.run(retrain, CHANGED + 1),
    "watch": lambda scene: scene.run(watch, CHANGED + MINUTE),
    "promote": lambda scene: scene.run(promote, CHANGED + 1, reason="a test", version="2", dry_run=False),
}


@pytest.mark.parametrize("flow", RUNS)
@pytest.mark.parametrize("click", CLICKS)
def test_what_was_clicked_is_put_right_by_whichever_flow_comes_next(second: Scene, click: str, flow: str) -> None:
    CLICKS[click](second)
    RUNS[flow](second)
    assert (second.view.production, second.view.champion) == (("2",), "2")
    assert (second.standing.production, second.standing.pending) == ("2", None)
    assert "churn: registry" in second.told()
    assert len(second.history) == 4, "putting back is no transition"


def test_a_candidate_that_was_promoted_by_hand_goes_back_to_staging(waiting: Scene) -> None:
    waiting.click("2", "Production")
    waiting.run(watch, CHANGED + MINUTE)
    assert (waiting.view.production, waiting.view.staging, waiting.standing.staged) == (("1",), ("2",), "2")


def test_a_candidate_that_was_promoted_by_hand_is_adopted_where_the_policy_says_so(waiting: Scene) -> None:
    waiting.click("2", "Production")
    ran = waiting.run(watch, CHANGED + MINUTE, policy=waiting.policy(external="adopt"))
    assert (ran.report.production, waiting.view.production, waiting.view.champion) == ("2", ("2",), "2")
    last = waiting.history[-1]
    assert (last.action, last.actor, last.previous) == ("external", "outside Backstop", "1")
    assert waiting.standing.staged is None


def test_a_quarantined_version_is_never_adopted(second: Scene) -> None:
    adopting = second.policy(external="adopt")
    back = second.run(rollback, CHANGED + 1, reason="a test", dry_run=False, policy=adopting)
    assert back.report.decision == "rolled-back"
    second.click("2", "Production")
    ran = second.run(watch, CHANGED + 2, policy=adopting)
    assert (ran.report.production, second.view.production) == ("1", ("1",))
    assert any("was rolled back from and is never adopted" in body for _, body in second.messages())


def test_a_candidate_that_was_deleted_is_given_up(waiting: Scene) -> None:
    waiting.client.delete_registered_model_alias("churn", "challenger")
    stage(waiting, "2", "None")
    waiting.client.delete_model_version("churn", "2")
    waiting.run(watch, CHANGED + MINUTE)
    assert (waiting.standing.staged, waiting.view.production) == (None, ("1",))
    assert any("was deleted outside Backstop; it is given up" in body for _, body in waiting.messages())


def test_a_rollback_whose_target_was_deleted_keeps_production_and_says_why(second: Scene) -> None:
    second.client.delete_model_version("churn", "1")
    ran = second.run(rollback, CHANGED + 1, reason="a test", dry_run=False)
    assert (ran.report.decision, ran.report.production, second.view.production) == ("held", "2", ("2",))
    assert "no version known good loads and answers" in ran.report.line


def test_a_model_that_was_deleted_as_a_whole_is_told_and_nothing_is_made_up(second: Scene) -> None:
    second.client.delete_registered_model("churn")
    second.run(watch, CHANGED + MINUTE)
    assert second.standing.production == "2"
    told = "version 2 of churn should be in Production and was deleted from MLflow"
    assert any(told in body for _, body in second.messages())


def test_another_version_of_the_same_number_is_never_taken_for_the_one_that_served(second: Scene) -> None:
    """Numbers begin anew where a model was deleted; nobody has judged what is version 2 then."""
    run_id, source = second.version("1").run_id, second.version("1").source
    second.client.delete_registered_model("churn")
    failed = second.run(retrain, CHANGED + 1, force=True, reason="the model is gone")
    assert "where the model was deleted in MLflow its numbers began anew" in str(failed.error)
    assert second.view.versions == ("1",)
    assert str(second.client.create_model_version("churn", source=source, run_id=run_id).version) == "2"
    for click in (None, "Production"):
        if click is not None:
            second.click("2", click)
        ran = second.run(retrain, CHANGED + 2, policy=second.policy(triggers={"retrain_when": "age"}))
        assert (ran.report.decision, second.standing.production) == ("kept", "2")
        assert second.view.production == (() if click is None else ("2",)), "left as it is"
        assert "was deleted from MLflow" in second.messages()[-1][1]
        assert "(the version 2 that it has now is another one); nothing was changed" in second.messages()[-1][1]
    assert len(second.history) == 4


@pytest.mark.slow  # a fresh process
def test_a_rollback_leads_out_of_a_production_version_that_was_deleted(second: Scene) -> None:
    second.client.delete_model_version("churn", "2")
    refused = second.run(promote, CHANGED + 1, reason="a test", version="2", override=True, dry_run=False)
    assert refused.error is not None
    assert second.view.production == ()
    ran = second.run(rollback, CHANGED + 1, reason="it was deleted", dry_run=False)
    assert (ran.report.decision, second.view.production, second.view.champion) == ("rolled-back", ("1",), "1")
    assert second.standing.quarantined == ("2",)


def test_production_taken_out_by_hand_is_the_truth_where_the_policy_says_so(second: Scene) -> None:
    stage(second, "2", "Archived")
    ran = second.run(watch, CHANGED + MINUTE, policy=second.policy(external="adopt"))
    assert (ran.report.decision, ran.report.production, second.view.production) == ("held", None, ())
    assert second.history[-1].action == "external"
    assert "churn: registry" in second.told()


@pytest.mark.parametrize("flow", [promote, rollback])
def test_a_version_that_does_not_exist_is_named_and_nothing_moves(second: Scene, flow: Any) -> None:
    asked = {"version": "99", "override": True} if flow is promote else {"to": "99"}
    before = second.history
    ran = second.run(flow, CHANGED + 1, reason="a test", dry_run=False, **asked)
    assert "version 99" in (str(ran.error) if ran.error else ran.report.line)
    assert (second.view.production, second.history) == (("2",), before)


def test_a_ledger_of_a_later_version_is_refused_by_name_and_told(second: Scene) -> None:
    write(second, "ledger.db", "UPDATE backstop_ledger_version SET version_num = '0099'")
    for flow, asked in ((retrain, {}), (watch, {}), (rollback, {"reason": "a test", "dry_run": False})):
        ran = second.run(flow, CHANGED + 1, **asked)
        assert "have version 0099, and this Backstop knows" in str(ran.error)
        assert "update Backstop" in second.messages()[-1][1]
    assert second.view.production == ("2",)


@pytest.mark.parametrize("flow", ["retrain", "watch", "promote", "rollback"])
def test_a_clock_that_goes_backwards_is_refused(second: Scene, flow: str) -> None:
    flows = {"retrain": retrain, "watch": watch, "promote": promote, "rollback": rollback}
    asked = {} if flow in {"retrain", "watch"} else {"reason": "a test", "dry_run": False}
    before = second.history
    ran = second.run(flows[flow], CHANGED - 1, **asked)
    assert f"this run is for {day(CHANGED - 1):%Y-%m-%d %H:%M}" in str(ran.error)
    assert f"took effect at {day(CHANGED):%Y-%m-%d %H:%M}" in str(ran.error)
    assert (second.view.production, second.history) == (("2",), before)
    assert second.told()[-1] == f"churn: {flow} failed, Production unchanged"


def test_a_clock_that_stays_wrong_is_told_once_and_not_every_minute(second: Scene) -> None:
    told = len(second.told())
    for minute in range(3):
        assert second.run(watch, CHANGED - 1 + minute * MINUTE).error is not None
    assert second.told()[told:] == ["churn: watch failed, Production unchanged"]
    assert second.run(watch, CHANGED - 1 + 40 * MINUTE).error is not None
    assert len(second.told()) == told + 2, "after the silence deadline it is told again"


def test_clocks_that_differ_by_a_minute_are_no_reason_to_stop(second: Scene) -> None:
    assert second.run(watch, CHANGED - MINUTE).error is None


def test_two_policies_for_one_model_are_refused_by_both_names(second: Scene) -> None:
    (second.home / "also.yaml").write_text((second.home / "churn.yaml").read_text("utf-8"), encoding="utf-8")
    for flow, policy in ((retrain, "churn.yaml"), (watch, "also.yaml"), (watch, "")):
        ran = second.run(flow, CHANGED + MINUTE, policy=str(second.home / policy))
        assert "one model has one policy" in str(ran.error)
        assert {"churn.yaml", "also.yaml"} <= {word.rpartition("/")[2] for word in str(ran.error).split()} | {
            line.partition(":")[0].rpartition("/")[2] for line in str(ran.error).splitlines()
        }
    assert second.view.production == ("2",)
