"""A candidate answers live requests unseen before it goes on; the tick of the rollout sees when that is enough."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from scene import CHANGED, Scene, day

from flows.retrain import retrain
from flows.rollout import rollout
from tasks.records import Arm, Report
from tasks.requests import RequestLog, Served
from tasks.retrial import retry_all

MINUTE = 1 / 1440
BEGUN = CHANGED + 8
LIVE = {"window": "14d", "tolerate": "2pt", "live": "60m", "live_requests": 100}
STEPS = {"steps": ["5%", "100%"], "hold": "15m", "deadline": "4h"}

pytestmark = pytest.mark.slow


def policy(scene: Scene, **changes: Any) -> str:
    return scene.policy("live", **{"shadow": LIVE, **changes})


def live(scene: Scene, minutes: int, *, failing: int = 0, version: str = "2") -> None:
    """What a gateway puts down from day BEGUN on: two requests a minute, answered by both; the first few fail."""
    with RequestLog.open(scene.stores.requests) as log:
        known = log.window("churn", start=day(CHANGED), end=day(BEGUN), limit=2 * minutes)
        for number in range(2 * minutes):
            failed = number < failing
            shared: dict[str, Any] = {
                "request_id": f"live{number}",
                "model": "churn",
                "at": day(BEGUN) + timedelta(seconds=30 * number),
                "seconds": 0.01,
            }
            said = known.predictions[number % len(known)]
            theirs = {"prediction": None if failed else said, "failed": failed, "features": {}, "role": "shadow"}
            ours = {"prediction": said, "features": known.features[number % len(known)]}
            log.record([Served(version="1", **shared, **ours), Served(version=version, **shared, **theirs)])


def tick(scene: Scene, minute: float, path: str) -> Report:
    ran = scene.run(rollout, BEGUN + minute * MINUTE, policy=path)
    assert ran.error is None, ran.error
    return ran.reports[0]


def test_it_holds_until_the_hour_is_over_and_then_the_candidate_goes_on(waiting: Scene) -> None:
    path = policy(waiting)
    waiting.traffic(CHANGED, BEGUN)
    ran = waiting.run(retrain, BEGUN, policy=path)
    assert (ran.report.decision, ran.report.production) == ("waiting", "1")
    assert "no live request yet" in ran.report.line, "the replay alone would have promoted it"
    live(waiting, 61)
    decided = len(waiting.decisions())
    early = tick(waiting, 30, path)
    assert (early.decision, early.phase, early.candidate, early.production) == ("holding", "shadow", "2", "1")
    assert "30 minutes of 1 hour and 60 of 100 live requests" in early.line
    assert len(waiting.decisions()) == decided, "a minute that decides nothing writes nothing"
    late = tick(waiting, 61, path)
    assert (late.decision, late.production) == ("promoted", "2")
    assert late.trail == waiting.history[-1].trail == waiting.history[-2].trail
    assert waiting.told()[-1] == "churn: version 2 promoted"
    with waiting.case(0).ledger as ledger:
        assert {one.outcome for one in retry_all(ledger, "churn") if one.reason.startswith("shadow")} == {"ok"}


def test_with_steps_it_becomes_a_canary_and_answers_unseen_no_more(waiting: Scene) -> None:
    path = policy(waiting, rollout=STEPS, health={"accuracy": "off"})
    waiting.traffic(CHANGED, BEGUN)
    with waiting.case(0).ledger as ledger:
        assert ledger.shadow("churn") == "2"
    live(waiting, 61)
    assert tick(waiting, 61, path).decision == "canary"
    with waiting.case(0).ledger as ledger:
        assert ledger.arms("churn") == (Arm("1", 95), Arm("2", 5))
        assert ledger.shadow("churn") is None
    assert tick(waiting, 62, path).phase == "5%, step 1 of 2"


def test_one_that_fails_on_live_requests_is_rejected_however_many_were_replayed(waiting: Scene) -> None:
    path = policy(waiting)
    waiting.traffic(CHANGED, BEGUN)
    live(waiting, 61, failing=12)
    report = tick(waiting, 61, path)
    assert (report.decision, report.production) == ("shadow-rejected", "1")
    assert "failed on 12 of 122 live requests: more than 1%" in report.line
    assert waiting.version("2").current_stage == "Archived"
    assert tick(waiting, 62, path).decision == "idle"


def test_without_live_requests_it_is_given_up_at_the_deadline(waiting: Scene) -> None:
    """Nor do those of another version count, nor a request log that cannot be read."""
    path = policy(waiting)
    waiting.traffic(CHANGED, BEGUN)
    live(waiting, 61, version="7")
    held = tick(waiting, 120, path)
    assert (held.decision, "no live request yet" in held.line) == ("holding", True)
    report = tick(waiting, (14 - 8) * 1440 + 1, path)
    assert (report.decision, report.production) == ("shadow-rejected", "1")
    assert "given up after 14 days" in report.line
