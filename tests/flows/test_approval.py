"""A person's approval is a fact with a deadline: one answer counts, whichever door it comes through."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Pending, Running, Suspended
from scene import CHANGED, FIRST, Ran, Scene, day

from flows.approve import approve
from flows.promote import promote
from flows.retrain import retrain
from flows.suspended import tag
from flows.watch import watch
from tasks.case import Case, open_case
from tasks.ledger import Ledger
from tasks.policy_file import load as load_policy
from tasks.stores import Stores

APPROVAL = {"required": True, "deadline": "3d"}
ASKED = CHANGED + 8
ADA = {"decision": "approve", "name": "Ada", "reason": "looked at the report"}


@pytest.fixture(scope="session")
def asking_scene(waiting_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Version 2 passed gate and shadow on day ASKED and awaits a person's approval."""
    scene = waiting_scene.copy(tmp_path_factory.mktemp("asking") / "home")
    with pytest.MonkeyPatch.context() as patch:
        at_home(scene, patch)
        scene.traffic(CHANGED, ASKED)
        ran = scene.run(retrain, ASKED, policy=scene.policy(approval=APPROVAL))
        assert (ran.report.decision, ran.report.production) == ("awaiting", "1")
    return scene


@pytest.fixture
def asking(asking_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A copy of :func:`asking_scene`, as the home of the flows."""
    scene = asking_scene.copy(tmp_path / "home")
    at_home(scene, monkeypatch)
    return scene


def at_home(scene: Scene, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("BACKSTOP_HOME", str(scene.home))
    for name in ("MLFLOW_TRACKING_URI", "BACKSTOP_LEDGER", "BACKSTOP_REQUESTS"):
        patch.delenv(name, raising=False)


def policy(scene: Scene) -> str:
    return scene.policy(approval=APPROVAL)


def answer(scene: Scene, at: float, version: str = "2", **given: Any) -> Ran:
    return scene.run(approve, at, **{"policy": policy(scene), "version": version, **given})


def tick(scene: Scene, at: float) -> dict[str, str]:
    """Decision and line of everything that one tick came to."""
    ran = scene.run(watch, at, policy=policy(scene))
    assert ran.error is None, ran.error
    return {report.decision: report.line for report in ran.reports}


def facts(scene: Scene, version: str = "2") -> set[str]:
    with scene.case(0).ledger as ledger:
        named = ("awaiting", "approved", "rejected", "expired")
        return {fact for fact in named if ledger.has_fact("churn", version, fact)}


def moves(scene: Scene) -> list[tuple[str, str]]:
    return [(one.action, one.version) for one in scene.history if one.state == "applied"]


# Asking.


def test_a_candidate_that_needs_approval_waits_for_a_person_who_is_told_once(asking: Scene) -> None:
    title, body = asking.messages()[-1]
    assert title == "churn: version 2 awaits approval"
    assert f"until {day(ASKED + 3):%Y-%m-%d %H:%M} UTC Production stays" in body
    told = len(asking.told())
    again = asking.run(retrain, ASKED + 1, policy=policy(asking))
    assert (again.report.decision, len(asking.told()), asking.view.production) == ("waiting", told, ("1",))


def test_the_first_model_needs_approval_too_where_the_policy_asks_for_it(empty: Scene) -> None:
    asked = empty.run(retrain, FIRST, policy=policy(empty))
    assert (asked.report.decision, asked.report.production) == ("awaiting", None)
    assert (empty.view.production, empty.told()) == ((), ["churn: version 1 awaits approval"])
    assert "expired" in tick(empty, FIRST + 3), "nothing serves, and the deadline is kept all the same"
    assert (empty.view.production, empty.standing.staged) == ((), None)


def test_without_an_answer_and_without_a_deployment_the_evidence_is_shown_and_nothing_moves(asking: Scene) -> None:
    before = asking.standing
    ran = answer(asking, ASKED + 1)
    assert (ran.report.decision, ran.report.production) == ("waiting", "1")
    assert "version 2 asks to replace version 1" in ran.report.line
    assert "--decision" in ran.report.line
    assert [one.judge for one in ran.report.verdicts] == ["gate", "shadow"]
    assert asking.standing == before


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"decision": "approve"}, "name, reason are missing"),
        ({"name": "Ada", "reason": "looked at it"}, "decision is missing"),
        ({"decision": "approve", "name": "Ada"}, "reason is missing"),
    ],
)
def test_half_an_answer_is_none(asking: Scene, given: dict[str, str], missing: str) -> None:
    before = asking.mark()
    ran = answer(asking, ASKED + 1, **given)
    assert missing in str(ran.error)
    assert asking.mark() == before


@pytest.mark.parametrize("blank", [{"name": "   "}, {"reason": "     "}, {"reason": " x "}, {"decision": "yes"}])
def test_blanks_are_no_name_and_no_reason(asking: Scene, blank: dict[str, str]) -> None:
    ran = answer(asking, ASKED + 1, **{**ADA, **blank})
    assert ran.state.is_failed()
    assert next(iter(blank)) in str(ran.error)
    assert asking.view.production == ("1",)


# The answer.


@pytest.mark.slow  # the version is tried out in a fresh process
def test_what_was_approved_is_promoted_in_the_name_of_the_person_and_only_once(asking: Scene) -> None:
    ran = answer(asking, ASKED + 1, **ADA)
    assert (ran.report.decision, ran.report.candidate, ran.report.production) == ("promoted", "2", "2")
    assert (ran.state.name, asking.view.production) == ("Promoted", ("2",))
    last = asking.history[-1]
    assert (last.action, last.actor, last.trail) == ("promote", "Ada", asking.history[-2].trail)
    assert "looked at the report (by Ada)" in last.reason
    assert "approved" in facts(asking)
    after = moves(asking)
    for word in (ADA, {**ADA, "decision": "reject", "name": "Bob"}):
        again = answer(asking, ASKED + 1.1, **word)
        assert (again.report.decision, again.state.name) == ("answered", "Answered")
        assert "version 2 was promoted at" in again.report.line
        assert "by Ada" in again.report.line
    assert moves(asking) == after


@pytest.mark.slow  # see above
def test_an_approval_through_the_other_door_is_the_same_fact(asking: Scene) -> None:
    word = {"reason": "looked at the report", "actor": "Ada", "dry_run": False}
    ran = asking.run(promote, ASKED + 1, policy=policy(asking), **word)
    assert (ran.report.decision, ran.report.production) == ("promoted", "2")
    assert "approved" in facts(asking)
    assert answer(asking, ASKED + 1.1, **ADA).report.decision == "answered"


def test_a_rejection_keeps_production_and_names_the_person(asking: Scene) -> None:
    ran = answer(asking, ASKED + 1, **{**ADA, "decision": "reject"})
    assert (ran.report.decision, ran.report.production) == ("rejected", "1")
    assert asking.version("2").current_stage == "Archived"
    assert (asking.history[-1].action, asking.history[-1].actor) == ("reject", "Ada")
    assert answer(asking, ASKED + 1.1, **ADA).report.decision == "answered"
    assert asking.view.production == ("1",)


def test_a_version_that_was_not_asked_about_is_not_promoted(asking: Scene) -> None:
    ran = answer(asking, ASKED + 1, version="1", **ADA)
    assert (ran.report.decision, ran.report.production) == ("answered", "1")
    ran = answer(asking, ASKED + 1, version="7", **ADA)
    assert "churn has no version 7 that asks for approval" in ran.report.line
    assert facts(asking) == {"awaiting"}


def test_files_that_were_swapped_since_are_not_promoted(asking: Scene) -> None:
    next(asking.artifact("2").glob("*.skops")).write_bytes(b"rubbish")
    ran = answer(asking, ASKED + 1, **ADA)
    assert ran.state.is_failed()
    assert "judged with" in str(ran.error)
    assert asking.view.production == ("1",)
    ran = answer(asking, ASKED + 1.1, **{**ADA, "decision": "reject"})
    assert ran.report.decision == "rejected", "a person can end it"


def test_when_production_moved_the_candidate_is_compared_with_the_new_one(asking: Scene) -> None:
    """Version 3 came to Production on a person's word; version 2 was compared with version 1."""
    before = asking.decisions("shadow")
    third = another_version(asking)
    ran = answer(asking, ASKED + 1, **ADA)
    assert asking.decisions("shadow")[len(before) :], "the shadow was asked again"
    assert "compared with what is in Production now" in ran.report.line
    assert f"version 2 replaces {third}" in ran.report.line
    assert (ran.report.decision, ran.report.production) == ("promoted", "2")


def test_when_production_moved_and_the_evidence_is_gone_an_approval_promotes_nothing_yet(asking: Scene) -> None:
    third = another_version(asking)
    ran = answer(asking, ASKED + 2.9, **ADA, policy=asking.policy("short", approval=APPROVAL, shadow={"window": "1d"}))
    assert (ran.report.decision, ran.report.production, ran.state.name) == ("approved", third, "Approved")
    assert facts(asking) == {"approved"}


def another_version(scene: Scene) -> str:
    """Put a copy of version 1 into Production through the ledger, as a person would."""
    case = opened(scene, ASKED + 0.5)
    with case.ledger:
        made = scene.client.get_model_version("churn", "1")
        version = str(scene.client.create_model_version("churn", made.source, run_id=made.run_id).version)
        case.registry().move(
            *(case.ledger, case.standing()),
            action="promote",
            version=version,
            actor="Bob",
            reason="another one",
            at=case.now,
            trail="t",
        )
    return version


def opened(scene: Scene, at: float) -> Case:
    return open_case(load_policy(policy(scene)), actor="a test", now=day(at), stores=Stores.at(scene.home))


# The deadline.


def test_the_watch_keeps_the_deadline_and_tells_a_person(asking: Scene) -> None:
    assert "expired" not in tick(asking, ASKED + 2.99)
    assert facts(asking) == {"awaiting"}
    told = tick(asking, ASKED + 3)
    assert "nobody approved version 2 within the deadline; version 1 stays in Production" in told["expired"]
    assert len(told) == 2, "the health watch went on"
    assert (asking.view.production, asking.version("2").current_stage) == (("1",), "Archived")
    assert "churn: approval of version 2 expired, version 1 stays in Production" in asking.told()
    assert "expired" not in tick(asking, ASKED + 3.01)
    late = answer(asking, ASKED + 3.1, **ADA)
    assert (late.report.decision, late.report.production) == ("answered", "1")


def test_an_answer_after_the_deadline_is_none_even_where_no_tick_came(asking: Scene) -> None:
    ran = answer(asking, ASKED + 3, **ADA)
    assert (ran.report.decision, ran.report.production, ran.state.name) == ("expired", "1", "Expired")
    assert "approved" not in facts(asking)


def test_the_next_retraining_keeps_the_deadline_too(asking: Scene) -> None:
    ran = asking.run(retrain, ASKED + 3, policy=policy(asking))
    assert (ran.report.decision, ran.report.production) == ("expired", "1")


# Killed in between.


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow  # the version is tried out in a fresh process
def test_a_word_that_was_taken_and_not_carried_out_is_carried_out_by_the_watch(asking: Scene) -> None:
    killed_after_the_fact(asking, "approved", ASKED + 1)
    assert facts(asking) == {"approved"}
    assert "promoted" not in tick(asking, ASKED + 1.0001), "whoever took it may be at it"
    assert "version 2 replaces 1" in tick(asking, ASKED + 1.01)["promoted"]
    assert (asking.view.production, asking.history[-1].actor) == (("2",), "Ada")
    assert moves(asking).count(("promote", "2")) == 1


@pytest.mark.slow  # see above
def test_a_word_that_was_taken_and_not_carried_out_is_carried_out_by_the_next_run(asking: Scene) -> None:
    killed_after_the_fact(asking, "approved", ASKED + 1)
    ran = answer(asking, ASKED + 1.0001)
    assert (ran.report.decision, asking.history[-1].actor) == ("promoted", "Ada")


def test_a_deadline_that_was_put_down_and_not_carried_out_is_carried_out_by_the_next_tick(asking: Scene) -> None:
    killed_after_the_fact(asking, "expired", ASKED + 3)
    assert asking.standing.staged == "2"
    assert answer(asking, ASKED + 3.001, **ADA).report.decision == "expired", "too late stays too late"
    assert (asking.view.production, asking.standing.staged) == (("1",), None)


def killed_after_the_fact(scene: Scene, fact: str, at: float) -> None:
    """An answer whose process ends right after the fact is committed."""
    from tasks import promotion

    case = opened(scene, at)
    whole = Ledger.answer

    def answered(self: Ledger, model: str, version: str, said: str, **given: Any) -> bool:
        whole(self, model, version, said, **given)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, case.ledger:
        patch.setattr(Ledger, "answer", answered)
        with pytest.raises(Killed):
            promotion.answered(named(case), case.standing(), "2", "approve", "looked at the report")
    assert fact in facts(scene)


def named(case: Case) -> Case:
    from dataclasses import replace

    return replace(case, actor="Ada", trail=str(case.standing().staged_trail))


def test_of_two_answers_at_once_the_ledger_takes_one(asking: Scene) -> None:
    first, second = opened(asking, ASKED + 1), opened(asking, ASKED + 1)
    with first.ledger, second.ledger:
        took = [first.answer("2", "approved", "yes"), second.answer("2", "expired", "nobody came")]
    assert took == [True, False]
    assert facts(asking) == {"approved"}


# The run that asks.


def test_the_tick_ends_a_run_that_asks_what_has_expired(asking: Scene) -> None:
    run_id = asyncio.run(suspended_run("churn", "2"))
    tick(asking, ASKED + 1)
    assert asyncio.run(state_of(run_id)) == "Suspended"
    tick(asking, ASKED + 3)
    assert asyncio.run(state_of(run_id)) == "Expired"


def test_the_tick_ends_a_run_that_asks_what_was_answered_elsewhere(asking: Scene) -> None:
    run_id, other = asyncio.run(suspended_run("churn", "2")), asyncio.run(suspended_run("churn-of-others", "2"))
    answer(asking, ASKED + 1, **{**ADA, "decision": "reject"})
    tick(asking, ASKED + 1.01)
    assert asyncio.run(state_of(run_id)) == "Answered"
    assert asyncio.run(state_of(other)) == "Suspended", "that is another model's"


async def suspended_run(model: str, version: str) -> UUID:
    """A run of approve that waits, as the server has it."""
    async with get_client() as client:
        flow_id = await client.create_flow_from_name("approve")
        deployment = await client.create_deployment(flow_id, "by-event", parameter_openapi_schema={})
        run = await client.create_flow_run_from_deployment(deployment, tags=[tag(model, version)], state=Pending())
        await client.set_flow_run_state(run.id, Running())
        await client.set_flow_run_state(run.id, Suspended(pause_key="approve-2"))
        return run.id


async def state_of(run_id: UUID) -> str | None:
    async with get_client() as client:
        return (await client.read_flow_run(run_id)).state_name
