"""Processes are killed for real: a crashed run is started once more, one that nobody saw dying is found and ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_live import Live, wait
from servers import until

from live.reactions import FOLDER, ids, process_of, reacting, removed, since

RETRAIN, RECOVER = "retrain/churn", "recover/by-event"


@pytest.fixture
def endless(live: Live, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What a run is given that reads its data for ever."""
    (tmp_path / "endless.py").write_text("import time\n\n\ndef rows(start, end):\n    time.sleep(600)\n")
    source = {"source": "endless:rows", "key": None}
    variant = live.scene.policy(f"endless-{tmp_path.name}", data=source)
    environment = {"BACKSTOP_HOME": str(live.scene.home), "PYTHONPATH": str(tmp_path)}
    yield {"parameters": {"policy": variant}, "job_variables": {"env": environment}}
    Path(variant).unlink()


def start(live: Live, given: dict[str, Any]) -> str:
    made = live.call(f"/deployments/{live.deployment(RETRAIN)['id']}/create_flow_run", "POST", **given)
    live.reached(made["id"], "RUNNING")
    return str(made["id"])


def kill(run_id: str) -> None:
    os.kill(process_of(run_id), signal.SIGKILL)


def answer(live: Live, before: set[str]) -> dict[str, Any]:
    """The newest run of the flow that recovers, when it has ended."""
    until(lambda: since(live, RECOVER, before), told="nobody recovers", seconds=150)
    return live.ended(since(live, RECOVER, before)[0]["id"])


def about(live: Live, before: set[str], crashed: str) -> list[dict[str, Any]]:
    """The runs of the flow that recovers which were asked about this crash."""
    return [run for run in since(live, RECOVER, before) if run["parameters"]["flow_run_id"] == crashed]


@pytest.mark.slow
@pytest.mark.timeout(600)  # four processes of flows, each seconds or, on a busy machine, a minute
def test_a_killed_run_is_started_once_more_with_the_same_parameters_and_never_a_third_time(
    live: Live, endless: dict[str, Any]
) -> None:
    runs, recoveries = ids(live, RETRAIN), ids(live, RECOVER)
    with reacting(live) as told:
        first = start(live, endless)
        kill(first)
        assert live.ended(first)["state_type"] == "CRASHED"
        assert answer(live, recoveries)["state_name"] == "StartedAgain"
        told.told("retrain crashed")
        (second,) = (run for run in since(live, RETRAIN, runs) if run["id"] != first)
        assert second["parameters"] == live.flow_run(first)["parameters"]
        assert second["job_variables"] == endless["job_variables"]
        # An action of an automation may come twice: asked again, no further run comes of it.
        again = live.ended(live.run(RECOVER, flow_run_id=first))
        assert again["state_name"] == "StartedAgain"
        live.reached(second["id"], "RUNNING")
        kill(second["id"])
        assert live.ended(second["id"])["state_type"] == "CRASHED"
        # The first crash may be told of twice, too; what is asked about here is the answer to the second one.
        until(lambda: about(live, recoveries, second["id"]), told="nobody answers the second crash", seconds=150)
        refused = live.ended(about(live, recoveries, second["id"])[0]["id"])
        assert refused["state_type"] == "FAILED", refused["state"]
        told.told("recover failed", "was a second try already")
        assert len(since(live, RETRAIN, runs)) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)  # four processes of flows, each seconds or, on a busy machine, a minute
def test_a_run_whose_process_and_worker_died_is_ended_by_the_server_and_one_that_waits_for_a_person_is_left_alone(
    live: Live, endless: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "automations"
    shutil.copytree(FOLDER, folder)
    text = (folder / "recover.yaml").read_text()
    assert "within: 120" in text
    (folder / "recover.yaml").write_text(text.replace("within: 120", "within: 35"))  # the heartbeats come every 30 s
    runs, recoveries = ids(live, RETRAIN), ids(live, RECOVER)
    with reacting(live, folder):
        waiting = waits_for_a_person(live)
        lost = start(live, endless)
        victim = process_of(lost)
        until(lambda: heartbeats(live, lost), told="the run gave no sign of life")
        os.kill(victim, signal.SIGSTOP)  # writing to a log that nobody reads would end it, and it would say so
        live.worker.end(signal.SIGKILL, group=False)
        os.kill(victim, signal.SIGKILL)
        try:
            wait(3)
            assert live.flow_run(lost)["state_name"] == "Running"  # nobody was there to say anything else
            ended = live.ended(lost, seconds=90)
            assert ended["state_type"] == "CRASHED"
            assert "No heartbeat" in ended["state"]["message"]
            assert live.flow_run(waiting)["state_name"] == "Suspended"
        finally:
            live.start_worker()
        assert answer(live, recoveries)["state_name"] == "StartedAgain"
        (second,) = (run for run in since(live, RETRAIN, runs) if run["id"] != lost)
        assert "second-try" in second["tags"]
        for run in (second["id"], waiting):
            removed(live, f"/flow_runs/{run}")


def heartbeats(live: Live, run: str) -> Any:
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    return live.call("/events/filter", "POST", filter=wanted)["events"]


def waits_for_a_person(live: Live) -> str:
    """A run that was alive, and then suspended."""
    deployment = live.deployment("approve/by-event")["id"]
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    made = live.call(
        f"/deployments/{deployment}/create_flow_run",
        "POST",
        state=state,
        parameters={"policy": "churn", "version": "1"},
    )
    run = str(made["id"])
    live.call(f"/flow_runs/{run}/set_state", "POST", state={"type": "RUNNING"}, force=True)
    tag = {"prefect.resource.id": "prefect.tag.backstop", "prefect.resource.role": "tag"}
    live.emit("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"}, {}, [tag])
    wait(1)
    live.call(f"/flow_runs/{run}/set_state", "POST", state={"type": "PAUSED", "name": "Suspended"}, force=True)
    return run
