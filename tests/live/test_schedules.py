"""Schedules and limits on a real server with a real worker: runs come into being, none pile up, no event is lost."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import yaml
from prefect_live import FINAL, ROOT, Live, named
from scene import Scene
from servers import until

WATCH, EVENT = "watch/all-models", "retrain/on-event"


@contextmanager
def every(live: Live, seconds: int, home: Scene) -> Iterator[None]:
    """The watch is scheduled as prefect.yaml does it, only more often, over one home."""
    found = live.deployment(WATCH)
    usual = {"parameters": found["parameters"], "job_variables": found["job_variables"]}
    place = f"/deployments/{found['id']}"
    live.call(place, "PATCH", parameters={"policy": home.policy()}, job_variables=variables(home))
    (made,) = live.send(f"{place}/schedules", [{"schedule": {"interval": seconds}, "active": True}])
    try:
        yield
    finally:
        live.call(f"{place}/schedules/{made['id']}", "DELETE")
        live.call(place, "PATCH", **usual)
        nothing_runs(live, WATCH)


def nothing_runs(live: Live, name: str) -> None:
    """Wait until the slot is free: who ends the worker under a run leaves the slot taken until its lease is over."""
    until(
        lambda: live.deployment(name)["global_concurrency_limit"]["active_slots"] == 0,
        told=f"the slot of {name} is not given back: {[one['state_name'] for one in live.runs(name)]}",
        seconds=240,
    )


def variables(home: Scene) -> dict[str, dict[str, str]]:
    # The shared version may have been without requests for long by the time that a test comes to it.
    return {"env": {"BACKSTOP_HOME": str(home.home), "BACKSTOP_CHURN__HEALTH__SILENCE": "1d"}}


def test_scheduled_runs_come_into_being_and_the_worker_runs_them(live: Live, home: Scene) -> None:
    """With sqlalchemy 2.1 the server looked healthy, flows ran, and no scheduled run was ever made."""
    known = {run["id"] for run in live.runs(WATCH)}
    with every(live, 15, home):
        until(
            lambda: [one for one in live.runs(WATCH) if one["id"] not in known and one["state_type"] == "COMPLETED"],
            told=f"no scheduled tick was run; the server says {live.server.said()[-800:]}",
        )
        fresh = [one for one in live.runs(WATCH) if one["id"] not in known]
    ran = next(one for one in fresh if one["state_type"] == "COMPLETED")
    assert ran["auto_scheduled"]
    assert ran["state_name"] == "Watching"
    starts = sorted(datetime.fromisoformat(one["expected_start_time"]) for one in fresh)
    assert {after - before for before, after in pairwise(starts)} == {timedelta(seconds=15)}


def test_a_worker_ran_what_prefect_yaml_deploys_and_left_its_report(live: Live) -> None:
    """The first model of the shared scene: from the run of a deployment to Production and to the page."""
    wanted = {named(one) for one in yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]}
    assert all(live.deployment(name)["enforce_parameter_schema"] for name in wanted)
    form = live.deployment("promote/by-hand")["parameter_openapi_schema"]["properties"]
    assert form["reason"]["description"] == "Why. It is kept."
    first = live.scene.history[-1].flow_run_id
    assert (live.scene.view.production, live.scene.standing.production) == (("1",), "1")
    found = live.call("/artifacts/filter", "POST", artifacts={"key": {"any_": ["retrain-churn"]}})
    assert "first promoted" in next(one["data"] for one in found if one["flow_run_id"] == first)


def test_a_deployed_flow_runs_where_the_repository_is(live: Live) -> None:
    (step,) = live.deployment("retrain/churn")["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == str(ROOT)


def test_ticks_that_nobody_ran_at_night_are_not_all_run_in_the_morning(live: Live, home: Scene) -> None:
    """The first one sees everything that the others would have seen; they are cancelled without a process."""
    nothing_runs(live, WATCH)
    live.worker.end()
    begin = datetime.now(UTC) - timedelta(minutes=12)
    late = [
        live.run(WATCH, home=home.home, at=begin + timedelta(minutes=number), policy=home.policy())
        for number in range(12)
    ]
    live.start_worker()
    until(lambda: all(live.flow_run(one)["state_type"] in FINAL for one in late), told="the late ticks did not end")
    ended = [live.flow_run(one) for one in late]
    states = Counter(one["state_type"] for one in ended)
    # A poll of the worker takes all that are late; those that it takes while one runs find the slot taken.
    assert 1 <= states["COMPLETED"] <= 2, states
    assert states["CANCELLED"] == len(late) - states["COMPLETED"], states
    assert all(one["run_count"] == 0 for one in ended if one["state_type"] == "CANCELLED"), "no process was started"


def test_an_event_that_comes_during_an_evaluation_waits_for_its_turn_even_when_that_one_is_killed(
    live: Live, home: Scene
) -> None:
    first = live.run(EVENT, home=home.home, policy=home.policy(), force=True, reason="the first event")
    live.reached(first, "RUNNING")
    os.kill(live.process_of(first), signal.SIGSTOP)  # it evaluates until the second has come, however long that takes
    second = live.run(EVENT, home=home.home, policy=home.policy())
    live.reached(second, "AwaitingConcurrencySlot")
    os.kill(live.process_of(first), signal.SIGKILL)
    assert live.ended(first)["state_type"] == "CRASHED"
    ended = live.ended(second)
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "Kept"), ended["state"]
    assert home.standing.production == "1"


@pytest.mark.parametrize("name", [WATCH, EVENT])
def test_the_server_has_the_limit_of_the_file(live: Live, name: str) -> None:
    found = live.deployment(name)
    assert found["global_concurrency_limit"]["limit"] == 1
    wanted = {WATCH: "CANCEL_NEW", EVENT: "ENQUEUE"}[name]
    assert found["concurrency_options"]["collision_strategy"] == wanted
