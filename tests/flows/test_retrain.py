"""Retraining through the real flow: why, on what, and what a bad candidate is kept from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scene import CHANGED, FIRST, QUIET, Scene, day, everybody

from flows.retrain import retrain
from rehearsal.churn import corrupt_labels
from tasks import profile as profiles
from tasks.records import Finding, Profile, Report, Verdict

FORCED = {"force": True, "reason": "the season begins"}


def verdict(report: Report, judge: str) -> Verdict:
    """The report's verdict of this judge."""
    return next(one for one in report.verdicts if one.judge == judge)


def finding(report: Report, judge: str, name: str) -> Finding:
    """One finding of the report's verdict of this judge."""
    return next(one for one in verdict(report, judge).findings if one.name == name)


def stored_profile(scene: Scene, version: str) -> Profile:
    """The profile that the ledger keeps of a version."""
    with scene.case(0).ledger as ledger:
        plain = ledger.profile("churn", version)
    assert plain is not None
    return profiles.from_plain(plain)


def untouched(scene: Scene) -> bool:
    """Version 1 is in Production, alone, and the alias says so."""
    view = scene.view
    return view.production == ("1",) and view.champion == "1" and scene.standing.production == "1"


# The first model.


def test_the_first_model_is_judged_by_the_absolute_checks_and_exempt_from_the_relative_ones(first: Scene) -> None:
    with first.case(0).ledger as ledger:
        gate = ledger.decisions("churn", "gate")[-1].verdict
    outcomes = {one.name: one.outcome for one in gate.findings}
    assert outcomes == {
        "performance": "ok",
        "regression": "exempt",
        "stability": "exempt",
        "latency": "ok",
        "size": "ok",
        "fresh_process": "ok",
    }
    assert "no baseline" in next(one.reason for one in gate.findings if one.name == "regression")
    assert all(one.reason for one in gate.findings)
    assert first.history[-1].action == "promote"
    assert first.history[-1].previous is None


def test_the_newest_rows_choose_what_is_learned_from_and_the_report_says_which(empty: Scene) -> None:
    policy = empty.policy("windows", training={"windows": ["14d"]})
    report = empty.run(retrain, FIRST, policy=policy).report
    assert report.learned is not None
    assert "log_loss on the newest" in report.learned
    assert "newest 14d" in report.learned


def test_a_first_model_below_the_floor_is_not_promoted(empty: Scene) -> None:
    empty.write(corrupt_labels(everybody(), 0.3, seed=5))
    ran = empty.run(retrain, FIRST)
    assert (ran.report.decision, ran.state.name) == ("gate-failed", "GateFailed")
    assert finding(ran.report, "gate", "performance").outcome == "breach"
    assert empty.view.production == ()
    assert empty.view.champion is None
    assert empty.standing.production is None
    assert "nothing is in Production" in empty.told()[-1]


def test_one_version_is_in_production_and_its_run_answers_every_question_about_it(first: Scene) -> None:
    view, version = first.view, first.version("1")
    assert (view.production, view.staging, view.champion, view.challenger) == (("1",), (), "1", None)
    run = first.client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["estimator"] == "sklearn.linear_model:LogisticRegression"
    assert run.data.params["max_iter"] == "1000"
    profile = stored_profile(first, "1")
    assert run.data.tags["backstop.triggers"] == "first_model"
    assert run.data.tags["backstop.fingerprint"] == profile.fingerprint
    assert run.data.tags["backstop.rows"] == str(profile.rows)
    assert "Retrain model: true" in run.data.tags["backstop.reason"]
    assert run.data.tags["backstop.urgency"] == "medium"
    assert {"backstop.thresholds", "backstop.trained", "backstop.holdout", "backstop.flow_run_id"} <= set(run.data.tags)
    assert {"holdout_accuracy", "train_accuracy", "holdout_f1_weighted"} <= set(run.data.metrics)
    folder = Path(first.client.download_artifacts(version.run_id, ""))
    assert (folder / "policy.yaml").read_text("utf-8") == (first.home / "full.variant").read_text("utf-8")
    assert profiles.from_json((folder / "profile.json").read_text("utf-8")) == profile
    assert (folder / "triggers.json").is_file()


def test_the_deployed_artifact_brings_its_signature_and_an_example_that_it_answers(first: Scene) -> None:
    import mlflow

    folder = first.artifact("1")
    described = mlflow.models.Model.load(str(folder))
    assert described.signature is not None
    names = [column.name for column in described.signature.inputs]
    assert "contract" in names
    assert not {"customer_id", "churned", "observed_at"} & set(names)
    assert described.saved_input_example_info is not None
    assert (folder / "input_example.json").is_file()


# Nothing to do.


def test_a_quiet_evaluation_keeps_production_and_leaves_a_record_and_no_run(first: Scene) -> None:
    runs, versions = len(first.runs()), first.view.versions
    ran = first.run(retrain, QUIET)
    assert (ran.report.decision, ran.state.name) == ("kept", "Kept")
    assert ran.report.line.startswith("Retrain model: false")
    assert first.decisions("triggers")[-1] == ("keep", None)
    assert (len(first.runs()), first.view.versions) == (runs, versions)
    assert untouched(first)
    assert len(first.history) == 2


def test_nothing_new_to_train_on_stops_even_when_the_age_fires(first: Scene) -> None:
    rows = everybody()
    first.write(rows[rows["observed_at"] < pd.Timestamp(day(FIRST))])
    runs = len(first.runs())
    ran = first.run(retrain, FIRST + 20, policy=first.policy(triggers={"retrain_when": "any", "age": "14d"}))
    assert finding(ran.report, "triggers", "age").outcome == "breach"
    assert ran.report.decision == "kept"
    assert "Not retrained: no labelled row has come since" in ran.report.line
    assert len(first.runs()) == runs
    assert untouched(first)


@pytest.mark.parametrize(("days", "outcome"), [(13.99, "ok"), (14, "breach")])
def test_a_limit_of_14_days_is_reached_on_the_fourteenth_day(first: Scene, days: float, outcome: str) -> None:
    policy = first.policy(triggers={"retrain_when": "age", "age": "14d", "drift": "off", "performance": "off"})
    ran = first.run(retrain, FIRST + days, policy=policy, dry_run=True)
    assert finding(ran.report, "triggers", "age").outcome == outcome
    assert (ran.report.decision == "kept") == (outcome == "ok")


def test_too_few_new_labels_are_insufficient_and_part_of_the_decision(first: Scene) -> None:
    ran = first.run(retrain, FIRST + 1)
    found = finding(ran.report, "triggers", "performance")
    assert (found.outcome, ran.report.decision) == ("unknown", "kept")
    assert "200" in found.reason
    assert f"unknown: performance ({found.reason})" in ran.report.line


def test_performance_alone_does_not_retrain_where_the_policy_asks_for_drift_too(first: Scene) -> None:
    rows = everybody()
    after = rows["observed_at"] >= pd.Timestamp(day(FIRST))
    first.write(pd.concat([rows[~after], corrupt_labels(rows[after], 0.3, seed=5)]))
    ran = first.run(retrain, FIRST + 9)
    assert finding(ran.report, "triggers", "performance").outcome == "breach"
    assert finding(ran.report, "triggers", "drift").outcome == "ok"
    assert ran.report.decision == "kept"
    assert "fired, but `age or volume or (drift and performance)` needs more" in ran.report.line


# The world has changed.


def test_a_changed_world_is_seen_learned_judged_and_replaces_production(second: Scene) -> None:
    view = second.view
    assert (view.production, view.champion, view.challenger) == (("2",), "2", None)
    assert [second.version(number).current_stage for number in ("1", "2")] == ["Archived", "Production"]
    assert [(one.action, one.version, one.previous, one.state) for one in second.history[2:]] == [
        ("stage", "2", "1", "applied"),
        ("promote", "2", "1", "applied"),
    ]
    with second.case(0).ledger as ledger:
        why = ledger.decisions("churn", "triggers", limit=1)[0].verdict
    fired = {one.name: one for one in why.having("breach")}
    assert {"drift", "performance"} <= set(fired)
    assert {"monthly_charges", "contract"} <= set(fired["drift"].evidence["features"])
    assert second.told()[-1] == "churn: version 2 promoted"


def test_one_trail_leads_from_the_trigger_to_the_transition(second: Scene) -> None:
    trail = second.history[-1].trail
    version = second.version("2")
    assert version.tags["backstop.trail"] == trail
    assert second.client.get_run(version.run_id).data.tags["backstop.trail"] == trail
    assert {one.trail for one in second.history[2:]} == {trail}
    with second.case(0).ledger as ledger:
        judged = {one.verdict.judge for one in ledger.decisions("churn", trail=trail)}
        assert ledger.notifications("churn", limit=1)[0].trail == trail
    assert judged == {"triggers", "gate", "shadow"}
    assert f"trail {trail}" in second.messages()[-1][1]
    assert trail != second.history[0].trail


def test_the_holdout_holds_no_row_that_production_or_the_candidate_was_trained_on(second: Scene) -> None:
    before, after = stored_profile(second, "1"), stored_profile(second, "2")
    assert after.holdout.start >= before.trained.end
    assert after.holdout.start >= after.trained.end


def test_right_after_a_retraining_only_rows_that_production_has_not_seen_judge(first: Scene) -> None:
    """A quarter of 40 days would reach back into Production's own training rows."""
    policy = first.policy(data={"holdout": "50%"}, shadow="off", gate={"regression": "off", "stability": "off"})
    ran = first.run(retrain, FIRST + 5, policy=policy, **FORCED)
    before = stored_profile(first, "1")
    after = stored_profile(first, str(ran.report.candidate))
    assert after.trained.start < before.trained.end  # it may learn from them, and is not judged on them
    assert after.holdout.start >= before.trained.end
    assert after.holdout.start > day(FIRST + 5 - 20)


# A bad candidate.


def test_a_candidate_of_corrupted_labels_fails_and_everybody_hears_of_it(first: Scene) -> None:
    first.write(corrupt_labels(everybody(), 0.4, seed=5), "scrambled.csv")
    policy = first.policy("scrambled", data={"source": "scrambled.csv", "history": False})
    ran = first.run(retrain, CHANGED, policy=policy, **FORCED)
    assert (ran.report.decision, ran.state.name, ran.report.candidate) == ("gate-failed", "GateFailed", "2")
    assert ran.state.is_completed()
    assert untouched(first)
    version = first.version("2")
    assert version.current_stage == "None"
    assert first.view.challenger is None
    assert version.tags["backstop.gate"] == "fail"
    assert "performance: accuracy" in version.tags["backstop.reason"]
    title, body = first.messages()[-1]
    assert title == "churn: gate fail, version 1 stays in Production"
    assert "below the floor 0.85" in body
    assert first.decisions("gate")[-1] == ("fail", "2")
    assert {one.name for one in verdict(ran.report, "gate").findings} >= {
        "performance",
        "regression",
        "stability",
        "size",
    }


def test_a_production_model_that_cannot_be_loaded_makes_the_gate_inconclusive(first: Scene) -> None:
    next(first.artifact("1").glob("*.skops")).write_bytes(b"rubbish")
    ran = first.run(retrain, CHANGED, **FORCED)
    regression = finding(ran.report, "gate", "regression")
    assert (ran.report.decision, regression.outcome) == ("gate-inconclusive", "unknown")
    assert ran.state.name == "GateInconclusive"
    assert "version 1 in Production" in regression.reason
    assert "no baseline" not in regression.reason
    assert finding(ran.report, "triggers", "performance").outcome == "unknown"
    assert untouched(first)
    assert first.version("2").current_stage == "None"


@pytest.mark.parametrize(
    ("check", "decision", "said"),
    [
        ("checks:opposed", "gate-failed", "customers over 60 are treated worse"),
        ("checks:broken", "gate-inconclusive", "raised KeyError"),
        ("checks:vague", "gate-inconclusive", "returned bool; it must return a tasks.records.Finding"),
    ],
)
def test_a_check_of_the_users_own_that_fails_raises_or_returns_nonsense_is_no_pass(
    first: Scene, check: str, decision: str, said: str
) -> None:
    policy = first.policy(gate={"checks": ["checks:content", check]})
    ran = first.run(retrain, CHANGED, policy=policy, **FORCED)
    assert ran.report.decision == decision
    assert finding(ran.report, "gate", "content").outcome == "ok"
    assert said in ran.report.line
    assert untouched(first)


# A person or an event asks.


@pytest.mark.parametrize("reason", ["", "  ", "x"])
def test_a_forced_retraining_needs_a_reason(first: Scene, reason: str) -> None:
    before = first.mark()
    ran = first.run(retrain, QUIET, force=True, reason=reason)
    assert ran.state.is_failed()
    assert "force needs a reason" in str(ran.error)
    assert first.mark() == before


def test_an_event_retrains_and_its_reason_and_urgency_are_kept(first: Scene) -> None:
    ran = first.run(retrain, QUIET, policy=first.policy(shadow="off"), urgency="critical", **FORCED)
    why = verdict(ran.report, "triggers")
    assert (why.decision, why.urgency) == ("retrain", "critical")
    tags = first.client.get_run(first.version("2").run_id).data.tags
    assert tags["backstop.triggers"] == "event"
    assert tags["backstop.urgency"] == "critical"
    assert "the season begins" in tags["backstop.reason"]
    with first.case(0).ledger as ledger:
        assert ledger.decisions("churn", "triggers", limit=1)[0].verdict.urgency == "critical"


# The source has changed.


def without(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="payment")


def with_new(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(region=np.where(np.arange(len(rows)) % 2 == 0, "north", "south"))


def with_words(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(support_calls=[f"{calls} calls" for calls in rows["support_calls"]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, "column 'payment' is gone"),
        (with_new, "column 'region' is new"),
        (with_words, "column 'support_calls' was a number and is a category now (first value"),
    ],
)
def test_a_changed_column_is_named_and_production_stays(first: Scene, change: Any, said: str) -> None:
    first.write(change(everybody()), "other.csv")
    policy = first.policy(data={"source": "other.csv", "history": False})
    ran = first.run(retrain, FIRST + 9, policy=policy)
    upstream = finding(ran.report, "triggers", "upstream")
    assert (ran.report.decision, upstream.outcome, upstream.urgency) == ("kept", "breach", "medium")
    assert said in upstream.reason
    assert said in ran.report.line
    assert untouched(first)


@pytest.mark.parametrize("change", [without, with_words])
def test_a_candidate_that_cannot_be_compared_with_production_any_more_is_not_promoted(
    first: Scene, change: Any
) -> None:
    first.write(change(everybody()), "other.csv")
    policy = first.policy(
        data={"source": "other.csv", "history": False}, triggers={"retrain_when": "any"}, shadow="off"
    )
    ran = first.run(retrain, FIRST + 9, policy=policy)
    assert ran.report.decision == "gate-inconclusive"
    assert "version 1 in Production could not score the holdout" in finding(ran.report, "gate", "regression").reason
    assert untouched(first)


def test_a_new_version_of_the_feature_source_is_an_upstream_change(first: Scene) -> None:
    with_version = first.policy("v1", data={"source_version": "features-7"}, shadow="off")
    made = first.run(retrain, QUIET, policy=with_version, **FORCED)
    assert made.report.decision == "promoted"
    later = first.policy("v2", data={"source_version": "features-8"}, triggers={"retrain_when": "any"}, shadow="off")
    ran = first.run(retrain, QUIET + 3, policy=later, dry_run=True)
    reason = finding(ran.report, "triggers", "upstream").reason
    assert reason == "the feature source changed from version features-7 to features-8"


# A dry run.


def test_a_dry_run_says_what_would_happen_and_changes_nothing(first: Scene) -> None:
    first.traffic(CHANGED - 14, CHANGED)
    before = first.mark()
    ran = first.run(retrain, CHANGED, dry_run=True)
    assert ran.report.dry_run
    assert ran.report.line.startswith("dry run, nothing changed: ")
    assert (ran.report.decision, ran.report.production, ran.report.candidate) == ("promoted", "1", None)
    assert [one.judge for one in ran.report.verdicts] == ["triggers", "gate", "shadow"]
    assert first.mark() == before


# What was done outside.


def test_a_stage_that_was_changed_by_hand_is_put_back_and_told(second: Scene) -> None:
    second.click("1", "Production")
    ran = second.run(retrain, CHANGED + 1)
    assert (ran.report.decision, ran.report.production) == ("kept", "2")
    assert (second.view.production, second.view.champion) == (("2",), "2")
    title, body = second.messages()[-1]
    assert title == "churn: registry"
    assert "version 2 was put back" in body
    assert second.decisions("data")[-1] == ("reconciled", None)


def test_a_stage_that_was_changed_by_hand_is_adopted_where_the_policy_says_so(second: Scene) -> None:
    second.click("1", "Production")
    policy = second.policy(external="adopt", triggers={"retrain_when": "age"})
    ran = second.run(retrain, CHANGED + 1, policy=policy)
    assert (ran.report.decision, ran.report.production) == ("kept", "1")
    assert (second.history[-1].action, second.history[-1].version) == ("external", "1")
    assert (second.view.production, second.view.champion) == (("1",), "1")
    title, body = second.messages()[-1]
    assert title == "churn: registry"
    assert "the policy adopts it" in body


def test_a_dry_run_leaves_a_stage_that_was_changed_by_hand_as_it_is(second: Scene) -> None:
    second.click("1", "Production")
    before = second.mark()
    assert second.run(retrain, CHANGED + 1, dry_run=True).report.decision == "kept"
    assert second.mark() == before
