"""The automations of the repository on a real server: they are set up once, and events become runs, or a message."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect_live import Live
from servers import until

from flows.automations import MARK, AutomationsError, Names, entries, rendered
from flows.events import Event
from live.reactions import ELSEWHERE, FOLDER, MODEL, Sink, automations, command, ids, nobody_works, put, reacting, since

ON_EVENT = "retrain/on-event"


@pytest.fixture(scope="module")
def on_call(live: Live) -> Iterator[Sink]:
    with reacting(live) as told:
        yield told


def names(live: Live) -> list[str]:
    return sorted(one["name"] for one in automations(live))


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "automations"
    shutil.copytree(FOLDER, folder)
    return folder


def test_to_set_them_up_again_leaves_one_of_each_and_says_so(live: Live, on_call: Sink) -> None:
    before = {one["id"]: one["updated"] for one in automations(live)}
    code, said = command(live, BACKSTOP_NOTIFY=on_call.url)
    assert code == 0, said
    assert {one["id"]: one["updated"] for one in automations(live)} == before
    assert names(live) == sorted(str(one.raw["name"]) for one in entries(FOLDER))
    assert said.count("as it is") == len(before)
    assert "on-call-7f3a" not in said


def test_what_differs_is_told_and_then_mended_and_nothing_of_anybody_else_is_touched(
    live: Live, on_call: Sink, tmp_path: Path
) -> None:
    folder = copied(tmp_path)
    tell = yaml.safe_load((folder / "tell.yaml").read_text())
    (folder / "tell.yaml").write_text(yaml.safe_dump([{**tell[0], "description": "Changed."}, *tell[2:]]))
    trigger = {"type": "event", "posture": "Reactive", "expect": ["nothing.at-all"]}
    theirs = {"name": "backstop react: mine", "trigger": trigger, "actions": []}
    mine = live.call("/automations/", "POST", **theirs)
    off = next(one for one in automations(live) if one["name"] == "backstop react: data landed")
    live.call(f"/automations/{off['id']}", "PATCH", enabled=False)
    try:
        assert put(live, folder, on_call, check=True)["backstop tell: watch failed or crashed"] == "removed"
        assert len(names(live)) == len(entries(FOLDER)) + 1  # it only looked
        put(live, folder, on_call)
        there = {one["name"]: one for one in automations(live)}
        assert "backstop tell: watch failed or crashed" not in there
        assert there[tell[0]["name"]]["description"] == f"Changed. {MARK}"
        assert theirs["name"] in there
        assert there[off["name"]]["enabled"] is False  # whoever switched it off had a reason
        code, said = command(live, "--check")
        assert code == 1, said
        put(live, FOLDER, on_call)
        assert set(put(live, FOLDER, on_call, check=True).values()) == {"as it is"}
    finally:
        live.call(f"/automations/{mine['id']}", "DELETE")
        live.call(f"/automations/{off['id']}", "PATCH", enabled=True)


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_changed(
    live: Live, on_call: Sink, tmp_path: Path
) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    trigger = {"type": "event", "posture": "Reactive", "expects": ["x"]}
    action = {"type": "run-deployment", "deployment": "retrain/nobody", "parameter": {}}
    (folder / "a.yaml").write_text(
        yaml.safe_dump(
            [
                {"name": "one", "trigger": trigger, "actions": [action]},
                {"name": "two", "trigger": {"type": "event", "posture": "Sideways"}, "actions": [{"type": "shout"}]},
            ]
        )
    )
    before = automations(live)
    with pytest.raises(AutomationsError) as refused:
        put(live, folder, on_call)
    for word in ("'expects'", "'retrain/nobody'", "parameter", "'shout'", "posture"):
        assert word in str(refused.value)
    assert automations(live) == before


def test_a_server_that_is_not_there_is_told_in_a_sentence(live: Live) -> None:
    code, said = command(live, PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert code == 1
    assert "were not set up" in said
    assert "Traceback" not in said


def test_without_anybody_to_tell_the_reactions_are_there_and_it_is_said_loudly() -> None:
    deployments = {name: UUID(int=1) for name in (ON_EVENT, "approve/by-event", "recover/by-event")}
    found = rendered(entries(FOLDER), Names(deployments, None, timedelta(days=1)))
    left_out = {name for name, core in found.items() if core is None}
    assert left_out == {name for name in found if name.startswith("backstop tell: ")}
    assert len(left_out) == 3


def test_what_other_systems_and_backstop_itself_say_becomes_runs_with_typed_parameters(
    live: Live, on_call: Sink
) -> None:
    said = {"model": "churn", "policy": "churn", "rows": None, "source": "a test", "urgency": None, "dry_run": False}
    before, asked = ids(live, ON_EVENT), ids(live, "approve/by-event")
    with nobody_works(live):
        # What Backstop's own evaluation says of drift must not start itself again.
        live.emit("backstop.drift.detected", MODEL, {**said, "reason": "of its own", "fired": ["drift"]})
        live.emit("backstop.drift.detected", ELSEWHERE, {**said, "reason": "PSI 0.4", "urgency": "critical"})
        live.emit("backstop.model.rolled-back", MODEL, {**said, "reason": "errors", "previous": "7", "version": "6"})
        live.emit("backstop.approval.requested", MODEL, {**said, "reason": "asked", "version": "8"})
        until(lambda: len(since(live, ON_EVENT, before)) == 2, told="not two retrainings", seconds=180)
        until(lambda: since(live, "approve/by-event", asked), told="nobody is asked", seconds=180)
        live.emit("backstop.data.landed", MODEL, {**said, "reason": "the last of all events"})
        until(lambda: len(since(live, ON_EVENT, before)) == 3, told="not three", seconds=180)
        by_reason = {run["parameters"].get("reason"): run for run in since(live, ON_EVENT, before)}
        (question,) = since(live, "approve/by-event", asked)
    assert question["parameters"]["version"] == "8"
    drift, landed = by_reason["PSI 0.4"], by_reason["the last of all events"]
    assert drift["parameters"] == {"policy": "churn", "force": True, "reason": "PSI 0.4", "urgency": "critical"}
    assert landed["parameters"] == {"policy": "churn", "reason": "the last of all events"}
    (late,) = set(by_reason) - {"PSI 0.4", "the last of all events"}
    assert "version 7 was rolled back; errors" in str(late)
    start, made = (datetime.fromisoformat(by_reason[late][name]) for name in ("expected_start_time", "created"))
    # The cool-down of a day, in which every trigger is refused, is over by then.
    assert timedelta(days=1) < start - made < timedelta(days=1, minutes=2)


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        ({"reason": "no policy"}, "field 'policy'. Failure reason: None is not of type 'string'"),
        ({"policy": ["churn"], "reason": "a list"}, "field 'policy'. Failure reason: ['churn'] is not"),
        ({"policy": "churn", "reason": 7}, "field 'reason'. Failure reason: 7 is not of type 'string'"),
    ],
)
def test_a_payload_that_does_not_fit_makes_no_run_and_a_person_is_told(
    live: Live, on_call: Sink, payload: dict[str, object], word: str
) -> None:
    before, on_call.messages[:] = ids(live, ON_EVENT), []
    live.emit("backstop.data.landed", MODEL, payload)
    message = on_call.told("No run was made by backstop react: data landed")
    assert word in message["message"]
    assert since(live, ON_EVENT, before) == []


def test_a_model_that_nobody_knows_and_a_policy_file_that_vanished_are_told_to_a_person(
    live: Live, on_call: Sink, tmp_path: Path
) -> None:
    before, on_call.messages[:] = ids(live, ON_EVENT), []
    gone = str(tmp_path / "gone.yaml")
    for policy in ("churm", gone):
        live.emit("backstop.data.landed", MODEL, {"policy": policy, "reason": "1200 rows"})
    until(lambda: len(since(live, ON_EVENT, before)) == 2, told="not two runs", seconds=180)
    runs = {run["parameters"]["policy"]: live.ended(run["id"]) for run in since(live, ON_EVENT, before)}
    assert {run["state_type"] for run in runs.values()} == {"FAILED"}
    assert "there are: bike, churn" in runs["churm"]["state"]["message"]
    assert f"{gone}: cannot be read" in runs[gone]["state"]["message"]
    on_call.told("retrain failed", "no such file for the model 'churm'")
    on_call.told("retrain failed", "gone.yaml")


def test_no_event_of_backstops_own_carries_the_label_that_starts_a_retraining() -> None:
    drift = Event("backstop.drift.detected", "churn", datetime.now(UTC), {"trail": "t", "fired": ["drift"]})
    (reaction,) = (one.raw for one in entries(FOLDER) if "drift" in str(one.raw["name"]))
    wanted = set(reaction["trigger"]["match"])
    assert wanted - set(drift.plain()["resource"]) == {"backstop.source"}
    assert wanted <= set(ELSEWHERE)


def test_two_entries_of_one_name_and_a_file_that_is_no_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {name: one}\n- {name: one}\n")
    (tmp_path / "b.yaml").write_text("name: one\n")
    with pytest.raises(AutomationsError) as refused:
        entries(tmp_path)
    assert len(refused.value.problems) == 2
