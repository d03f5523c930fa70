"""A rollout step by step through the real flows, registry, ledger and request log, and what may come between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from scene import CHANGED, Ran, Scene, at_home, day

from flows.approve import approve
from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import RolloutFailed, rollout
from flows.watch import watch
from tasks import delivery, promotion
from tasks import rollout as rolling
from tasks.case import open_case
from tasks.ledger import Ledger
from tasks.policy_file import load as load_policy
from tasks.records import Arm, Report
from tasks.registry import Registry
from tasks.requests import RequestLog, Served
from tasks.retrial import retry_all
from tasks.transitions import Held

MINUTE = 1 / 1440
BEGUN = CHANGED + 8
ROLLOUT = {"steps": ["5%", "50%", "100%"], "hold": "15m", "deadline": "4h"}
ONE, BOTH = (Arm("1", 100),), (Arm("1", 95), Arm("2", 5))


def policy(scene: Scene, **changes: Any) -> str:
    return scene.policy("rollout", **{"rollout": ROLLOUT, "health": {"accuracy": "off"}, **changes})


@pytest.fixture(scope="session")
def canary_scene(waiting_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Version 2 passed gate and shadow on day BEGUN, and is a canary with 5 % of the requests."""
    scene = waiting_scene.copy(tmp_path_factory.mktemp("canary") / "home")
    with at_home(scene.home):
        scene.traffic(CHANGED, BEGUN)
        ran = scene.run(retrain, BEGUN, policy=policy(scene))
        assert (ran.report.decision, ran.report.production, ran.state.name) == ("canary", "1", "Canary")
    return scene


@pytest.fixture
def canary(canary_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`canary_scene`, as the home of the flows."""
    scene = canary_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene


def split(scene: Scene) -> tuple[Arm, ...]:
    """What a gateway is told."""
    with scene.case(0).ledger as ledger:
        return ledger.arms("churn")


def steps(scene: Scene) -> list[tuple[int, str]]:
    with scene.case(0).ledger as ledger:
        return [(one.weight, one.state) for one in ledger.rollouts("churn")]


def serve(scene: Scene, first: int, last: int, *, weight: int, each: int = 600, failing: float = 0.0) -> None:
    """Requests of some minutes after the beginning, as a gateway splits them; a share of the canary's fail."""

    def served() -> Iterator[Served]:
        for minute in range(first, last):
            canaries = each * weight // 100
            for number in range(each):
                ours = number < canaries
                failed = ours and number < failing * canaries
                yield Served(
                    request_id=f"r{minute}-{number}",
                    model="churn",
                    version="2" if ours else "1",
                    role="canary" if ours else "production",
                    at=day(BEGUN + (minute + number / each) * MINUTE),
                    seconds=0.01,
                    features={},
                    prediction=None if failed else "no",
                    failed=failed,
                )

    with RequestLog.open(scene.stores.requests) as log:
        log.record(served())


def tick(scene: Scene, minute: float, **options: Any) -> Ran:
    options.setdefault("policy", scene.home / "rollout.variant")
    return scene.run(rollout, BEGUN + minute * MINUTE, **options | {"policy": str(options["policy"])})


def ticked(scene: Scene, minute: float, **options: Any) -> Report:
    ran = tick(scene, minute, **options)
    assert ran.error is None, ran.error
    return ran.reports[0]


def sound(scene: Scene) -> None:
    """The ledger is as it was written, and every verdict follows from its evidence."""
    with scene.case(0).ledger as ledger:
        assert ledger.misfits("churn") == ()
        assert {one.outcome for one in retry_all(ledger, "churn") if one.reason.startswith("rollout")} <= {"ok"}


# From 5 % to Production.


def test_a_healthy_canary_goes_step_by_step_to_production(canary: Scene) -> None:
    assert split(canary) == BOTH
    assert (canary.view.production, canary.view.staging) == (("1",), ("2",))
    assert canary.told()[-1] == "churn: version 2 is a canary with 5%"

    serve(canary, 0, 16, weight=5)
    early = ticked(canary, 14)
    assert (early.decision, early.phase, early.production) == ("holding", "5%, step 1 of 3", "1")
    assert re.search(r" \(counted until \d\d:\d\d:00 UTC\)$", early.line)
    assert "14 minutes at 5%, 15 minutes are the least" in early.line
    assert split(canary) == BOTH

    ran = tick(canary, 16)
    assert (ran.report.decision, ran.state.name, ran.report.phase) == ("stepped", "Stepped", "50%, step 2 of 3")
    assert split(canary) == (Arm("1", 50), Arm("2", 50))
    assert ticked(canary, 16.5).decision == "holding", "the next step has to be shown by its own requests"
    assert canary.view.staging == ("2",)

    serve(canary, 17, 33, weight=50, each=200)
    ran = tick(canary, 33)
    assert (ran.report.decision, ran.state.name, ran.report.production) == ("promoted", "Promoted", "2")
    assert (canary.view.production, canary.view.champion, canary.view.staging) == (("2",), "2", ())
    assert split(canary) == (Arm("2", 100),)
    assert steps(canary) == [(5, "running"), (50, "running"), (100, "promoted")]
    assert canary.told()[-1] == "churn: version 2 promoted"
    assert len({one.trail for one in canary.history[-2:]}) == 1
    assert ran.report.trail == canary.history[-1].trail
    sound(canary)

    assert ticked(canary, 34).decision == "idle"
    assert canary.run(watch, BEGUN + 34 * MINUTE, policy=policy(canary)).report.decision == "watching"


def test_a_run_of_retrain_leaves_a_canary_to_its_rollout(canary: Scene) -> None:
    report = canary.run(retrain, BEGUN + 5 * MINUTE, policy=policy(canary)).report
    assert (report.decision, report.production) == ("waiting", "1")
    assert "version 2 is a canary with 5% of the requests" in report.line
    assert split(canary) == BOTH


def test_a_dry_run_says_what_would_happen_and_changes_nothing(canary: Scene) -> None:
    serve(canary, 0, 16, weight=5, failing=0.5)
    before = canary.mark()
    report = ticked(canary, 16, dry_run=True)
    assert (report.decision, report.transition) == ("aborted", None)
    assert canary.mark() == before


# Worse, and no evidence.


def test_a_bad_canary_is_out_of_service_archived_quarantined_and_told(canary: Scene) -> None:
    serve(canary, 0, 4, weight=5, failing=0.3)
    ran = tick(canary, 4)
    assert (ran.report.decision, ran.state.name, ran.report.production) == ("aborted", "Aborted", "1")
    assert "version 2 at 5% is worse than version 1" in ran.report.line
    assert (split(canary), canary.view.production, canary.view.staging) == (ONE, ("1",), ())
    assert canary.version("2").current_stage == "Archived"
    standing = canary.standing
    assert (standing.quarantined, standing.staged, standing.production) == (("2",), None, "1")
    title, body = canary.messages()[-1]
    assert title == "churn: canary 2 aborted, version 1 answers all requests"
    assert f"trail {ran.report.trail}" in body
    told = len(canary.told())
    assert ticked(canary, 5).decision == "idle"
    assert len(canary.told()) == told
    sound(canary)
    refused = canary.run(promote, BEGUN + 1, reason="try it", version="2", dry_run=False)
    assert "quarantined" in str(refused.error)


def test_without_requests_it_holds_and_is_given_up_at_the_deadline_and_never_promoted(canary: Scene) -> None:
    held = ticked(canary, 200)
    assert held.decision == "holding"
    assert "0 requests to version 2 and 0 to version 1" in held.line
    assert f"until {day(BEGUN + 240 * MINUTE):%Y-%m-%d %H:%M} UTC at most" in held.line
    decided = len(canary.decisions())
    assert ticked(canary, 201).decision == "holding"
    assert len(canary.decisions()) == decided, "a hold is put down once"
    late = ticked(canary, 240)
    assert (late.decision, late.production, split(canary)) == ("aborted", "1", ONE)
    assert "version 2 is given up: 4 hours at 5% have shown too little" in late.line


def test_a_request_log_that_is_away_holds(canary: Scene) -> None:
    serve(canary, 0, 16, weight=5)
    (canary.home / "requests.db").write_bytes(b"rubbish" * 1000)
    report = ticked(canary, 16)
    assert report.decision == "holding"
    assert "could not be read" in report.line
    assert split(canary) == BOTH


def test_a_bad_canary_is_out_of_service_although_mlflow_is_away(canary: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(canary, 0, 4, weight=5, failing=0.3)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        for minute in (4, 5):
            assert isinstance(tick(canary, minute).error, RolloutFailed)
            assert split(canary) == ONE
    told = [one for one in canary.told() if "aborted" in one]
    assert told == ["churn: canary 2 aborted, version 1 answers all requests"]
    assert canary.version("2").current_stage == "Staging"
    assert ticked(canary, 6).decision == "aborted"
    assert canary.version("2").current_stage == "Archived"
    assert [one for one in canary.told() if "aborted" in one] == told


# What comes between.


def test_a_newer_candidate_that_passed_supersedes_a_canary(canary: Scene) -> None:
    passes = policy(canary, gate={"regression": "off", "stability": "off"}, shadow="off")
    report = canary.run(retrain, BEGUN + 5 * MINUTE, policy=passes, force=True, reason="new prices").report
    assert (report.decision, report.candidate) == ("canary", "3")
    assert split(canary) == (Arm("1", 95), Arm("3", 5))
    assert steps(canary) == [(5, "running"), (0, "ended"), (5, "running")]
    assert (canary.version("2").current_stage, canary.view.staging) == ("Archived", ("3",))
    with canary.case(0).ledger as ledger:
        assert "superseded by version 3" in ledger.rollouts("churn")[1].reason
    assert canary.told()[-2:] == ["churn: rollout of version 2 ended", "churn: version 3 is a canary with 5%"]
    sound(canary)


def test_a_promotion_by_hand_ends_a_rollout(canary: Scene) -> None:
    ran = canary.run(promote, BEGUN + 5 * MINUTE, reason="we need it now", dry_run=False)
    assert (ran.report.decision, split(canary)) == ("promoted", (Arm("2", 100),))
    assert steps(canary)[-1] == (100, "promoted")
    report = ticked(canary, 6)
    assert report.decision == "idle"
    assert "was promoted: version 2 is in Production: promote of version 2 by a person" in report.line


def test_a_rejection_by_hand_ends_a_rollout_and_that_is_told_once(canary: Scene) -> None:
    canary.run(promote, BEGUN + 5 * MINUTE, reason="not this one", decision="reject", actor="Ada", dry_run=False)
    assert split(canary) == ONE
    report = ticked(canary, 6)
    assert report.decision == "ended"
    assert "reject of version 2 by Ada" in report.line
    assert canary.told()[-1] == "churn: rollout of version 2 ended"
    told = len(canary.told())
    assert ticked(canary, 7).decision == "idle"
    assert len(canary.told()) == told
    sound(canary)


def test_a_rollback_of_production_ends_a_rollout_and_the_candidate_is_judged_anew(canary: Scene) -> None:
    """Version 3, a copy of the first, came to Production; its rollback puts version 1 back while 2 is a canary."""
    serve(canary, 0, 16, weight=5)
    with canary.case(BEGUN + 1 * MINUTE, policy(canary)).ledger as ledger:
        made = canary.client.get_model_version("churn", "1")
        third = str(canary.client.create_model_version("churn", made.source, run_id=made.run_id).version)
        told = {"actor": "Bob", "reason": "a test", "at": day(BEGUN + 1 * MINUTE), "trail": "t"}
        Registry(canary.stores).move(ledger, ledger.standing("churn"), action="promote", version=third, **told)  # type: ignore[arg-type]
    assert (split(canary), steps(canary)[-1]) == ((Arm(third, 100),), (0, "ended"))
    back = canary.run(rollback, BEGUN + 2 * MINUTE, policy=policy(canary), reason="it was worse", dry_run=False)
    assert back.report.decision == "rolled-back"
    assert split(canary) == ONE
    assert ticked(canary, 3).decision == "ended"
    again = canary.run(retrain, BEGUN + 5 * MINUTE, policy=policy(canary)).report
    assert (again.decision, split(canary)) == ("canary", BOTH)
    assert "version 2 stays at 5%" in ticked(canary, 6).line


def test_a_policy_without_a_rollout_ends_the_one_that_runs(canary: Scene) -> None:
    report = ticked(canary, 5, policy=policy(canary, rollout="off"))
    assert (report.decision, split(canary)) == ("ended", ONE)
    assert "the policy has no section rollout any more" in report.line


def test_what_a_person_approved_becomes_a_canary_and_the_watch_leaves_it_alone(waiting: Scene) -> None:
    asked = policy(waiting, approval={"required": True, "deadline": "3d"})
    waiting.traffic(CHANGED, BEGUN)
    assert waiting.run(retrain, BEGUN, policy=asked).report.decision == "awaiting"
    word = {"version": "2", "decision": "approve", "name": "Ada", "reason": "looked at it"}
    answer = waiting.run(approve, BEGUN + 1 * MINUTE, policy=asked, **word)
    assert (answer.report.decision, split(waiting)) == ("canary", BOTH)
    for _ in range(2):
        ran = waiting.run(watch, BEGUN + 60 * MINUTE, policy=asked)
        assert len(ran.reports) == 1, "nothing is settled a second time"
    assert split(waiting) == BOTH
    again = waiting.run(approve, BEGUN + 61 * MINUTE, policy=asked, **word)
    assert (again.report.decision, again.report.production) == ("answered", "1")
    no = {**word, "decision": "reject", "reason": "on second thoughts"}
    assert waiting.run(approve, BEGUN + 62 * MINUTE, policy=asked, **no).report.decision == "rejected"
    assert (split(waiting), steps(waiting)) == (ONE, [(5, "running"), (0, "ended")])


# Killed.


class Died(BaseException):
    """The process ends here: nothing catches it, and what is not committed is undone."""


def dies(patch: pytest.MonkeyPatch, where: str, number: str, end: Any) -> None:
    """Let a process end before or after one of the lines that something hangs on."""
    owner, name = {
        "weigh": (Ledger, "weigh"),
        "tell": (delivery, "tell"),
        "archive": (promotion, "archive"),
        "promote": (promotion, "promote"),
        "carry_out": (Registry, "carry_out"),
        "settle": (Held, "settle"),
        "end": (Held, "_end_rollout"),
    }[where]
    inner = getattr(owner, name)

    def last(*args: Any, **kwargs: Any) -> None:
        if number == "after":
            inner(*args, **kwargs)
        end()

    patch.setattr(owner, name, last)


def died(scene: Scene, where: str, number: str, minute: float) -> None:
    """One tick that ends in the middle."""

    def end() -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        dies(patch, where, number, end)
        case = scene.case(BEGUN + minute * MINUTE, policy(scene))
        with case.ledger, pytest.raises(Died):
            rolling.tick(case, case.standing())


@pytest.mark.parametrize("number", ["before", "after"])
def test_a_tick_that_dies_at_a_step_costs_one_tick(canary: Scene, number: str) -> None:
    serve(canary, 0, 18, weight=5)
    died(canary, "weigh", number, 16)
    assert split(canary) == (BOTH if number == "before" else (Arm("1", 50), Arm("2", 50)))
    assert ticked(canary, 17).decision == ("stepped" if number == "before" else "holding")
    assert steps(canary) == [(5, "running"), (50, "running")]
    sound(canary)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("weigh", "before"),
        ("weigh", "after"),
        ("tell", "before"),
        ("archive", "after"),
        ("carry_out", "before"),
        ("settle", "before"),
    ],
)
def test_a_tick_that_dies_in_an_abort_never_serves_the_canary_again(canary: Scene, where: str, number: str) -> None:
    serve(canary, 0, 6, weight=5, failing=0.3)
    died(canary, where, number, 4)
    assert split(canary) == (BOTH if (where, number) == ("weigh", "before") else ONE)
    assert ticked(canary, 5).decision in {"aborted", "idle"}
    _as_aborted(canary)


def _as_aborted(scene: Scene) -> None:
    assert (split(scene), steps(scene)) == (ONE, [(5, "running"), (0, "aborted")])
    assert (scene.version("2").current_stage, scene.standing.quarantined) == ("Archived", ("2",))
    assert "churn: canary 2 aborted, version 1 answers all requests" in scene.told()
    sound(scene)


@pytest.mark.parametrize(
    ("where", "number"), [("promote", "before"), ("carry_out", "before"), ("settle", "before"), ("end", "before")]
)
def test_a_tick_that_dies_in_the_promotion_is_completed_by_the_next(canary: Scene, where: str, number: str) -> None:
    serve(canary, 0, 16, weight=5)
    assert ticked(canary, 16).decision == "stepped"
    serve(canary, 17, 35, weight=50, each=200)
    died(canary, where, number, 33)
    assert split(canary) == (Arm("1", 50), Arm("2", 50)), "until it is read back, the split is as it was"
    done = ticked(canary, 34)
    assert (done.decision, done.production) == ("promoted" if where == "promote" else "idle", "2")
    assert (split(canary), canary.view.production) == ((Arm("2", 100),), ("2",))
    assert steps(canary)[-1] == (100, "promoted")
    sound(canary)


def test_a_process_that_is_killed_in_an_abort_leaves_what_the_next_tick_completes(canary: Scene) -> None:
    serve(canary, 0, 6, weight=5, failing=0.3)
    at = day(BEGUN + 4 * MINUTE).isoformat()
    folders = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, __file__, at, policy(canary)], check=False, env={**os.environ, "PYTHONPATH": folders}
    )
    assert ran.returncode == -signal.SIGKILL
    assert split(canary) == ONE
    assert canary.version("2").current_stage == "Staging"
    assert ticked(canary, 5).decision == "idle", "what was begun was completed first"
    _as_aborted(canary)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched:
        dies(patched, "carry_out", "before", lambda: os.kill(os.getpid(), signal.SIGKILL))
        opened = open_case(load_policy(sys.argv[2]), actor="flows.rollout", now=datetime.fromisoformat(sys.argv[1]))
        rolling.tick(opened, opened.standing())
