"""From Staging to Production: the comparison on recorded requests, and a person's word."""

from __future__ import annotations

from datetime import timedelta

import pytest
from scene import CHANGED, PER_DAY, QUIET, Scene, day

from flows.promote import promote
from flows.retrain import retrain
from tasks import profile as profiles
from tasks.records import Finding, Report

FORCED = {"force": True, "reason": "the season begins"}


def comparison(report: Report) -> Finding:
    """What the shadow found when it compared."""
    shadow = next(one for one in report.verdicts if one.judge == "shadow")
    return next(one for one in shadow.findings if one.name == "comparison")


def days_since_training(scene: Scene, version: str, at: float) -> float:
    """Days from the end of a version's training rows until a day."""
    with scene.case(0).ledger as ledger:
        plain = ledger.profile("churn", version)
    assert plain is not None
    return (day(at) - profiles.from_plain(plain).trained.end) / timedelta(days=1)


# Waiting.


def test_without_requests_the_candidate_waits_in_staging_and_says_what_is_missing(waiting: Scene) -> None:
    view = waiting.view
    assert (view.production, view.staging, view.champion, view.challenger) == (("1",), ("2",), "1", "2")
    assert waiting.standing.staged == "2"
    assert waiting.decisions("shadow")[-1] == ("wait", "2")
    ran = waiting.run(retrain, CHANGED + 1)
    assert (ran.report.decision, ran.state.name, ran.report.production) == ("waiting", "Waiting", "1")
    assert "no requests were recorded" in ran.report.line


def test_a_waiting_candidate_says_how_many_labels_it_needs(waiting: Scene) -> None:
    waiting.traffic(CHANGED, CHANGED + 1, requests=30)
    ran = waiting.run(retrain, CHANGED + 1)
    assert ran.report.decision == "waiting"
    assert "more labels are needed" in ran.report.line
    assert comparison(ran.report).n == 30


def test_requests_without_labels_are_no_evidence(waiting: Scene) -> None:
    waiting.traffic(CHANGED, CHANGED + 8, labels=False)
    ran = waiting.run(retrain, CHANGED + 8)
    assert ran.report.decision == "waiting"
    assert "has a label yet" in ran.report.line


def test_the_next_tick_judges_the_same_candidate_on_its_own_trail_and_trains_nothing(waiting: Scene) -> None:
    runs, trail = len(waiting.runs()), waiting.history[-1].trail
    waiting.traffic(CHANGED, CHANGED + 8)
    ran = waiting.run(retrain, CHANGED + 8)
    assert (ran.report.decision, ran.report.candidate, ran.report.production) == ("promoted", "2", "2")
    assert ran.report.trail == trail
    assert len(waiting.runs()) == runs
    assert {one.trail for one in waiting.history[2:]} == {trail}
    assert (waiting.view.production, waiting.view.staging) == (("2",), ())


def test_a_candidate_is_given_up_at_the_deadline_and_a_person_is_told(waiting: Scene) -> None:
    assert waiting.run(retrain, CHANGED + 13.99).report.decision == "waiting"
    ran = waiting.run(retrain, CHANGED + 14)
    assert (ran.report.decision, ran.report.production) == ("shadow-rejected", "1")
    assert waiting.version("2").current_stage == "Archived"
    assert (waiting.view.staging, waiting.view.challenger) == ((), None)
    title, body = waiting.messages()[-1]
    assert title == "churn: version 2 rejected"
    assert "given up after 14 days" in body


def test_a_dry_run_of_the_comparison_moves_nothing(waiting: Scene) -> None:
    waiting.traffic(CHANGED, CHANGED + 8)
    before = waiting.mark()
    ran = waiting.run(retrain, CHANGED + 8, dry_run=True)
    assert (ran.report.decision, ran.report.production) == ("promoted", "1")
    assert waiting.mark() == before


# What the comparison rests on.


def test_a_challenger_that_is_worse_on_recorded_requests_is_rejected(waiting: Scene) -> None:
    waiting.traffic(CHANGED, CHANGED + 8)
    waiting.label_all(CHANGED, CHANGED + 8, wrong=0.0)  # the users say that Production was right each time
    ran = waiting.run(retrain, CHANGED + 8)
    assert (ran.report.decision, ran.state.name) == ("shadow-rejected", "ShadowRejected")
    assert comparison(ran.report).outcome == "breach"
    assert (waiting.view.production, waiting.view.champion, waiting.view.staging) == (("1",), "1", ())
    assert waiting.version("2").tags["backstop.rejected"] == ran.report.line
    assert waiting.told()[-1] == "churn: version 2 rejected"


def test_the_comparison_uses_no_request_from_before_the_end_of_the_challengers_training_rows(first: Scene) -> None:
    first.traffic(CHANGED - 14, CHANGED)
    ran = first.run(retrain, CHANGED)
    recent = days_since_training(first, "2", CHANGED)
    assert recent < 13
    assert comparison(ran.report).n == pytest.approx(recent * PER_DAY, rel=0.1)
    assert "2 replaces 1" in ran.report.line


def test_a_challenger_that_cannot_answer_what_production_answered_is_rejected(first: Scene) -> None:
    """The training data has a column that no caller sends."""
    import pandas as pd

    rows = pd.read_csv(first.home / "churn.csv")
    rows["region"] = ["north" if number % 2 else "south" for number in range(len(rows))]
    first.write(rows, "region.csv")
    first.traffic(CHANGED - 14, CHANGED)
    policy = first.policy(data={"source": "region.csv", "history": False})
    ran = first.run(retrain, CHANGED, policy=policy)
    assert ran.report.decision == "shadow-rejected"
    assert "the challenger failed on" in ran.report.line
    assert first.view.production == ("1",)


def test_a_policy_without_shadow_promotes_what_the_gate_has_passed(first: Scene) -> None:
    ran = first.run(retrain, CHANGED, policy=first.policy(shadow="off"))
    assert (ran.report.decision, ran.report.production) == ("promoted", "2")
    assert "shadow is off in the policy" in ran.report.line


# A person's word.


def test_a_person_rejects_the_candidate_in_staging(waiting: Scene) -> None:
    ran = waiting.run(
        promote, CHANGED + 1, decision="reject", reason="the campaign is over", actor="Ada", dry_run=False
    )
    assert (ran.report.decision, ran.state.name) == ("rejected", "Rejected")
    assert (waiting.view.production, waiting.view.staging) == (("1",), ())
    assert waiting.history[-1].reason == "the campaign is over"


def failed_candidate(scene: Scene) -> str:
    """A version that the gate did not pass."""
    policy = scene.policy("strict", gate={"performance": {"at_least": 0.99}})
    ran = scene.run(retrain, CHANGED, policy=policy, **FORCED)
    assert ran.report.decision == "gate-failed"
    return str(ran.report.candidate)


def test_a_version_that_the_gate_failed_needs_an_override(first: Scene) -> None:
    version = failed_candidate(first)
    refused = first.run(promote, CHANGED + 1, reason="we need it today", version=version, dry_run=False)
    assert refused.state.is_failed()
    assert "the gate said fail" in str(refused.error)
    assert "Set override (--override at a terminal)" in str(refused.error)
    assert first.view.production == ("1",)


def test_a_version_that_the_shadow_rejected_needs_an_override_too(waiting: Scene) -> None:
    waiting.run(retrain, CHANGED + 14)
    refused = waiting.run(promote, CHANGED + 15, reason="let us try it", version="2", dry_run=False)
    assert refused.state.is_failed()
    assert "it was rejected" in str(refused.error)
    assert waiting.view.production == ("1",)


def test_a_version_that_does_not_load_is_not_promoted_whoever_says_so(waiting: Scene) -> None:
    next(waiting.artifact("2").glob("*.skops")).write_bytes(b"rubbish")
    ran = waiting.run(promote, CHANGED + 1, reason="let us try it", override=True, dry_run=False)
    assert ran.state.is_failed()
    assert "judged with" in str(ran.error)
    assert waiting.view.production == ("1",)


def test_promoting_without_a_candidate_says_what_to_name(first: Scene) -> None:
    ran = first.run(promote, QUIET, reason="let us try it")
    assert ran.state.is_failed()
    assert "has no version in Staging; name the version to promote" in str(ran.error)


@pytest.mark.parametrize("override", [False, True])
def test_a_version_that_mlflow_does_not_have_is_named(first: Scene, *, override: bool) -> None:
    ran = first.run(promote, QUIET, reason="let us try it", version="7", override=override, dry_run=False)
    assert ran.state.is_failed()
    assert "there is no version 7 of churn" in str(ran.error)
    assert str(ran.error).endswith("has version 1")
    assert "override" not in str(ran.error)
    assert first.view.production == ("1",)
