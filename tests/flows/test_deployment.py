"""prefect.yaml: what it names is there and fits, and its forms explain themselves; tests/live has a worker run it."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import yaml
from fastapi import Body, FastAPI
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.flows import load_flow_from_entrypoint
from prefect.server.api.dependencies import LimitBody
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError, is_valid_schema

from flows.approve import approve
from flows.learn import learn
from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.rollout import rollout
from flows.watch import watch

ROOT = Path(__file__).resolve().parents[2]
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = PROJECT["deployments"]
FLOWS = [retrain, learn, watch, rollout, promote, rollback, approve]


def named(deployment: dict[str, Any]) -> str:
    return f"{Path(deployment['entrypoint'].partition(':')[0]).stem}/{deployment['name']}"


def properties(flow: Any) -> dict[str, dict[str, Any]]:
    """What the form is made of."""
    found: dict[str, dict[str, Any]] = flow.parameters.model_dump()["properties"]
    return found


def facets(field: dict[str, Any]) -> dict[str, Any]:
    """The bounds of a field, also of one that may be empty."""
    return {**next((one for one in field.get("anyOf", ()) if one.get("type") != "null"), {}), **field}


# The forms.


@pytest.mark.parametrize("flow", FLOWS, ids=lambda one: one.name)
def test_every_field_of_a_form_explains_itself_and_the_policy_comes_first(flow: Any) -> None:
    fields = properties(flow)
    is_valid_schema(flow.parameters.model_dump())
    assert min(fields, key=lambda name: fields[name]["position"]) == "policy"
    for name, field in fields.items():
        description = field.get("description") or ""
        assert len(description) > 8, name
        assert description.endswith((".", "now.")), name


def test_the_forms_are_bounded() -> None:
    bounded = {
        name: {key: facets(field) for key, field in properties(flow).items()} for name, flow in by_name().items()
    }
    assert bounded["retrain"]["urgency"]["enum"] == ["low", "medium", "high", "critical"]
    assert bounded["retrain"]["reason"]["maxLength"] == 500
    for name, key in (("promote", "version"), ("rollback", "to")):
        assert bounded[name][key]["pattern"] == r"^\d+$"
    for name in ("promote", "rollback"):
        assert (bounded[name]["reason"]["minLength"], bounded[name]["reason"]["maxLength"]) == (3, 500)
        assert bounded[name]["dry_run"]["default"] is True
        assert by_name()[name].parameters.required == ["policy", "reason"]
    for name in ("retrain", "learn", "watch", "rollout"):
        assert bounded[name]["dry_run"]["default"] is False
        assert by_name()[name].parameters.required == ["policy"]
    assert bounded["promote"]["decision"]["enum"] == ["promote", "reject"]
    assert all(flow["as_of"]["format"] == "date-time" for flow in bounded.values())


def by_name() -> dict[str, Any]:
    return {flow.name: flow for flow in FLOWS}


# The file.


FORMS = [one for one in DEPLOYMENTS if not named(one).startswith("recover/")]
"""What a person may start; a recovery is started by an automation, and its only field is a run's id."""


@pytest.mark.parametrize("deployment", FORMS, ids=named)
def test_what_a_deployment_names_is_there_and_fits(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))  # Prefect puts the folder of the file in front
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == named(deployment).partition("/")[0]
    assert properties(flow) == properties(by_name()[flow.name])
    schema = flow.parameters.model_dump()
    given = deployment.get("parameters", {})  # what an event starts has none: they come with the event
    validate(given, schema, raise_on_error=True, ignore_required=True)
    assert list(given)[:1] in ([], ["policy"])
    assert (ROOT / given.get("policy", "")).exists()
    with pytest.raises(ValidationError, match="perhaps"):
        validate({**given, "dry_run": "perhaps"}, schema, raise_on_error=True, ignore_required=True)


def test_names_are_not_given_twice_and_every_flow_has_a_deployment() -> None:
    names = [named(deployment) for deployment in DEPLOYMENTS]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == {*by_name(), "recover"}
    assert all(deployment["description"] and deployment["tags"] for deployment in DEPLOYMENTS)
    assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS} == {"backstop"}


def test_ticks_do_not_pile_up_and_no_event_is_lost() -> None:
    """The next tick sees what a cancelled one would have seen; an event that is cancelled is seen by nobody."""
    cancelled, queued = ConcurrencyLimitStrategy.CANCEL_NEW, ConcurrencyLimitStrategy.ENQUEUE
    wanted = {"watch": cancelled, "rollout": cancelled, "learn": cancelled, "retrain": queued}
    for deployment in DEPLOYMENTS:
        strategy = wanted.get(named(deployment).partition("/")[0])
        if strategy is not None:
            limit = deployment["concurrency_limit"]
            assert limit["limit"] == 1
            assert ConcurrencyLimitStrategy(limit["collision_strategy"]) is strategy


def test_the_retraining_is_weekly_and_watch_and_rollout_are_every_minute() -> None:
    schedules = {named(deployment): deployment["schedules"] for deployment in DEPLOYMENTS if "schedules" in deployment}
    assert {name.partition("/")[0] for name in schedules} == {"retrain", "watch", "rollout"}
    friday = datetime(2026, 1, 2, 9, tzinfo=UTC)
    weekly = asyncio.run(CronSchedule(**schedules["retrain/churn"][0]).get_dates(n=2, start=friday))
    assert weekly == [datetime(2026, 1, 4, 2, tzinfo=UTC), datetime(2026, 1, 11, 2, tzinfo=UTC)]
    for name in ("watch", "rollout"):
        (tick,) = schedules[f"{name}/all-models"]
        every = IntervalSchedule(interval=timedelta(seconds=tick["interval"]), anchor_date=friday)
        first, second = asyncio.run(every.get_dates(n=2, start=friday))
        assert second - first == timedelta(seconds=60)


# The real thing.


def test_the_installed_fastapi_takes_the_nulls_that_prefects_client_sends() -> None:
    """From FastAPI 0.151 on they are refused, and `prefect deploy` ends with an error after the first deployment."""
    api = FastAPI()

    @api.post("/filter")
    async def found(limit: Annotated[int, LimitBody()], offset: Annotated[int, Body()] = 0) -> list[int]:
        return [limit, offset]

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://api") as client:
            return await client.post("/filter", json={"limit": None, "offset": None})

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
