"""What a person does in Prefect's pages: fill a form, be refused, run it, read what it came to, answer a question."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import pytest
from playwright.sync_api import TimeoutError as PageTimeoutError
from prefect_live import Live
from scene import Scene
from servers import until

from rehearsal.screenshots import Browser

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def newest(live: Live, name: str, seconds: float = 180) -> dict[str, Any]:
    """The newest run of a deployment, once there is one."""
    until(lambda: live.runs(name), told=f"no run of {name} was made", seconds=seconds)
    return live.runs(name)[0]


def sent(live: Live, look: Browser, name: str) -> dict[str, Any]:
    """The run that a form made; it may have to be sent again.

    After a complaint about a field of several types the page only looks at it again, and sends with a later click.
    """
    for _ in range(6):
        look.submit()
        with contextlib.suppress(TimeoutError):
            return newest(live, name, seconds=30)
    raise TimeoutError(f"the form of {name} was sent six times, and no run was made")


def test_a_form_explains_itself_refuses_nonsense_and_its_run_is_read_in_the_page(live: Live, look: Browser) -> None:
    look.form("rollback/by-hand")
    told = look.page.inner_text("body")
    assert "Why the present version has to go. It is kept." in told
    assert "Show what would happen and change nothing." in told
    look.submit()
    look.page.get_by_text("'reason' is a required property", exact=True).wait_for()
    look.write("policy", live.scene.policy())
    look.write("reason", "     ")
    look.submit()
    look.field("reason").get_by_text("does not match").wait_for()
    look.write("reason", "complaints from the north")
    look.field("to (Optional)").get_by_role("tab", name="str").click()
    look.write("to (Optional)", "abc")
    look.submit()
    look.field("to (Optional)").get_by_text("'abc' is not valid").wait_for()
    assert live.runs("rollback/by-hand") == [], "nothing was run by what was refused"

    look.write("to (Optional)", "1")
    run = live.ended(sent(live, look, "rollback/by-hand")["id"])
    assert (run["state_name"], run["parameters"]["to"]) == ("DryRun", "1")
    assert run["parameters"]["dry_run"] is True
    look.run(run["id"])
    look.page.get_by_text("DryRun").first.wait_for()
    assert live.scene.view.production == ("1",), "a dry run is what the form offers"
    (report,) = live.call("/artifacts/filter", "POST", artifacts={"flow_run_id": {"any_": [run["id"]]}})[:1]
    look.artifact(report["id"])
    look.page.get_by_text("Dry run: nothing was changed.").first.wait_for()  # the page shows a report piece by piece


def test_a_question_outlives_a_restart_of_everything_and_is_answered_in_the_page(
    live: Live, look: Browser, home: Scene
) -> None:
    scene, place = home, home.home
    policy = asks(scene)
    asked = live.ended(live.run("retrain/churn", home=place, policy=policy, force=True, reason="the season begins"))
    assert (asked["state_name"], scene.view.production) == ("AwaitingApproval", ("1",)), asked["state"]
    run_id = live.run("approve/by-event", home=place, policy=policy, version="2")
    live.reached(run_id, "Suspended", seconds=240)
    again = live.ended(live.run("approve/by-event", home=place, policy=policy, version="2"))
    assert again["state_name"] == "Waiting", "one question is asked once"
    assert run_id in again["state"]["message"]

    live.worker.end(signal.SIGKILL)
    live.server.end(signal.SIGKILL)
    live.start_server()
    live.start_worker()

    look.question(run_id)
    look.page.get_by_role("dialog").get_by_text("May version 2 of churn").wait_for()  # it comes after the fields
    dialog = look.page.get_by_role("dialog").inner_text()
    assert "May version 2 of churn replace version 1 in Production?" in dialog
    assert "Gate: pass" in dialog
    assert str(digest(scene, "2"))[:16] in dialog
    look.submit()
    look.page.get_by_text("'decision' is a required property").first.wait_for()  # in a message that goes again
    look.choose("Decision", "approve")
    look.write("Name", "   ")
    look.write("Reason", "better on the new contracts")
    look.submit()
    look.page.get_by_text("Validation failed for field 'name'").first.wait_for()
    assert live.flow_run(run_id)["state_name"] == "Suspended", "an answer that is refused answers nothing"

    look.question(run_id)
    look.choose("Decision", "approve")
    look.write("Name", "Ada")
    look.write("Reason", "better on the new contracts")
    look.submit()
    until(lambda: answered(live, look, run_id), seconds=120, told="the answer is not taken")
    done = live.ended(run_id, seconds=240)
    assert done["state_name"] == "Promoted", (done["state"], live.worker.said())
    look.run(run_id)
    look.page.get_by_text("Promoted").first.wait_for()
    assert (scene.view.production, scene.standing.production) == (("2",), "2")
    last = scene.history[-1]
    assert (last.action, last.actor, last.flow_run_id) == ("promote", "Ada", run_id)
    assert "better on the new contracts" in last.reason
    assert [one.version for one in scene.history if one.action == "promote"] == ["1", "2"]


def answered(live: Live, look: Browser, run_id: str) -> bool:
    """Whether the answer was taken; pressed again where the server's database was too busy, as a person would."""
    try:
        look.page.get_by_role("dialog").wait_for(state="hidden", timeout=20_000)
    except PageTimeoutError:
        if live.flow_run(run_id)["state_name"] != "Suspended":
            return True
        look.submit()
        return False
    return True


def asks(scene: Scene) -> str:
    """A policy that asks a person, and compares nothing on requests."""
    return scene.policy("asks", approval={"required": True, "deadline": "3d"}, shadow="off")


def digest(scene: Scene, version: str) -> str | None:
    with scene.case(0).ledger as ledger:
        return ledger.digest("churn", version)
