"""Bad data, a retraining, a rollback: it does not go round in a circle, and in the end a person is called."""

from __future__ import annotations

from scene import CHANGED, Scene

from flows.retrain import retrain
from flows.watch import watch
from rehearsal.traffic import Faults

MINUTE = 1 / 1440
AGE = {"triggers": {"retrain_when": "age", "age": "1d"}, "shadow": "off"}


def rolled_back(scene: Scene, day: float) -> None:
    scene.traffic(day, day + 10 * MINUTE, requests=600, faults=Faults(errors=0.4), labels=False)
    ran = scene.run(watch, day + 10 * MINUTE)
    assert ran.report.decision == "rolled-back"


def test_after_a_rollback_no_trigger_retrains_until_the_cool_down_is_over(second: Scene) -> None:
    rolled_back(second, CHANGED)
    hourly = second.policy(**AGE)
    versions = second.view.versions
    kept = second.run(retrain, CHANGED + 0.5, policy=hourly)
    assert (kept.report.decision, kept.report.production) == ("kept", "1")
    assert "version 2 was rolled back from 11.8 hours ago, and no trigger counts before" in kept.report.line
    assert second.view.versions == versions, "nothing was trained"
    forced = second.run(retrain, CHANGED + 0.6, policy=hourly, dry_run=True, force=True, reason="the data are mended")
    assert forced.report.decision != "kept"
    later = second.run(retrain, CHANGED + 1.5, policy=hourly)
    assert later.report.decision in {"promoted", "gate-failed", "gate-inconclusive"}, "the triggers count again"


def test_a_model_that_keeps_coming_back_bad_is_a_persons_in_the_end(second: Scene) -> None:
    rolled_back(second, CHANGED)
    eager = second.policy(**AGE)
    again = second.run(retrain, CHANGED + 2, policy=eager)
    assert again.report.decision == "promoted"
    assert second.view.production == ("3",)
    rolled_back(second, CHANGED + 2)
    third = second.run(retrain, CHANGED + 4, policy=eager)
    assert third.report.decision == "promoted"
    second.traffic(CHANGED + 4, CHANGED + 4 + 10 * MINUTE, requests=600, faults=Faults(errors=0.4), labels=False)
    held = second.run(watch, CHANGED + 4 + 10 * MINUTE)
    assert (held.report.decision, second.view.production) == ("held", ("4",))
    assert (
        "2 rollbacks happened within the policy's window and 2 are allowed; a person has to decide" in held.report.line
    )
    assert second.told()[-1] == "churn: version 4 is unhealthy, and nothing is eligible to go back to"
    assert second.decisions("rollback")[-1][0] == "stay"
