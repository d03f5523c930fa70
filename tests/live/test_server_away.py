"""Prefect's server goes away at the beginning and in the middle of a run: a clear state, nothing lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prefect_live import ROOT, Live
from scene import Scene
from servers import free_port, until

EVENT = "retrain/on-event"


def agreed(home: Scene) -> str:
    """MLflow and the ledger have the same one version in Production; which."""
    (version,) = home.view.production
    assert home.standing.production == version
    assert home.standing.pending is None
    return version


def test_a_run_that_finds_no_server_says_so_and_changes_nothing(live: Live, home: Scene) -> None:
    before = home.mark()
    address = f"http://127.0.0.1:{free_port()}/api"
    environment = live.environment | {"PREFECT_API_URL": address, "BACKSTOP_HOME": str(home.home)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.retrain", home.policy(), "--force", "--reason", "nobody listens"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert address in done.stdout + done.stderr
    assert home.mark() == before


@pytest.mark.slow  # the server is stopped and started again in the middle of a training
def test_a_server_that_is_started_again_in_the_middle_finds_the_run_ended(live: Live, home: Scene) -> None:
    run = live.run(EVENT, home=home.home, policy=home.policy(shadow="off"), force=True, reason="in the middle")
    live.reached(run, "RUNNING")
    # Its slot was renewed by then; the next time is in four minutes, and a server that is away at that moment costs
    # the run: Prefect 3.8 ends it itself (docs/deploy.md).
    only = {"id": {"any_": [run]}}
    until(lambda: live.call("/task_runs/filter", "POST", flow_runs=only), told="the flow began no step")
    live.server.end()
    assert live.process_of(run)  # the flow goes on without it
    live.start_server()
    ended = live.ended(run)
    assert (ended["state_type"], ended["state_name"]) == ("COMPLETED", "Promoted"), ended["state"]
    assert agreed(home) == "2"
    assert [one.flow_run_id for one in home.history[-2:]] == [run, run]
