"""prefect.yaml and the strategies: what they say is what the flows say, and what the limits are for."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools import validate
from prefect_live import named

from tasks.policy_file import load

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = sorted(path.parent for path in (ROOT / "strategies").glob("*/prefect.yaml"))
PROJECTS = [ROOT, *STRATEGIES]
CONTRACT = {
    "retrain/churn",
    "retrain/on-event",
    "learn/on-event",
    "watch/all-models",
    "rollout/all-models",
    "rollback/by-hand",
    "promote/by-hand",
    "approve/by-event",
    "recover/by-event",
}
"""Names that automations and documents use."""


def deployments(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((folder / "prefect.yaml").read_text("utf-8"))["deployments"]
    return found


EVERY = [(folder, one) for folder in PROJECTS for one in deployments(folder)]


def test_the_names_that_others_rely_on_are_there() -> None:
    assert {named(one) for one in deployments(ROOT)} == CONTRACT


@pytest.mark.parametrize(
    ("folder", "deployment"), EVERY, ids=lambda one: one.name if isinstance(one, Path) else named(one)
)
def test_a_description_is_the_docstring_of_its_flow(
    folder: Path, deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))  # Prefect puts the folder of the file in front
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    told = (inspect.getdoc(flow.fn) or "").partition("\n\nArgs:")[0].strip()
    assert deployment["description"].strip() == told
    validate(deployment.get("parameters", {}), flow.parameters.model_dump(), raise_on_error=True, ignore_required=True)


@pytest.mark.parametrize(
    ("folder", "deployment"), EVERY, ids=lambda one: one.name if isinstance(one, Path) else named(one)
)
def test_a_tick_may_be_cancelled_and_an_event_may_not(folder: Path, deployment: dict[str, Any]) -> None:
    """The next tick sees what a cancelled one would have seen; an event that is cancelled is seen by nobody."""
    limit = deployment.get("concurrency_limit")
    flow = named(deployment).partition("/")[0]
    if flow in {"watch", "rollout", "learn"}:
        assert limit["limit"] == 1
        assert ConcurrencyLimitStrategy(limit["collision_strategy"]) is ConcurrencyLimitStrategy.CANCEL_NEW
    elif flow == "retrain":
        assert ConcurrencyLimitStrategy(limit["collision_strategy"]) is ConcurrencyLimitStrategy.ENQUEUE
    else:  # a person's word is neither queued nor cancelled behind another one's
        assert limit is None


@pytest.mark.parametrize("folder", STRATEGIES, ids=lambda one: one.name)
def test_a_strategy_can_be_loaded_and_says_when_it_is_right(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    policy = load(str(folder / "policy.yaml"))
    assert policy.model == "churn"
    text = (folder / "README.md").read_text("utf-8")
    for heading in ("When it is right", "When it is not", "Deploy it"):
        assert heading in text, folder
    named_there = {one.get("parameters", {}).get("policy") for one in deployments(folder)} - {None}
    assert str((folder / "policy.yaml").relative_to(ROOT)) in named_there
    assert "watch" in {named(one).partition("/")[0] for one in deployments(folder)}, "every strategy is watched"


def test_there_are_four_strategies_and_what_tells_them_apart_is_who_asks_for_an_evaluation() -> None:
    assert [folder.name for folder in STRATEGIES] == ["continuous", "hybrid", "scheduled", "trigger-based"]
    every = {folder.name: {named(one): one for one in deployments(folder)} for folder in STRATEGIES}
    reacts = {name for name, found in every.items() if "retrain/on-event" in found}
    assert reacts == {"continuous", "hybrid", "trigger-based"}
    when = {folder.name: load(str(folder / "policy.yaml")).triggers.retrain_when for folder in STRATEGIES}
    assert when["scheduled"] == "age"
    assert "age" not in when["trigger-based"]
    assert {name for name, found in every.items() if "learn/churn" in found} == {"continuous"}
    assert [name for name in when if load(str(ROOT / "strategies" / name / "policy.yaml")).learn] == ["continuous"]
    assert {"age", "drift", "performance"} <= set(when["hybrid"].replace("(", " ").replace(")", " ").split())
