"""prefect.yaml: what it names is there and fits, its forms explain themselves, and a real worker runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

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
from scene import FIRST, Scene, day

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch

ROOT = Path(__file__).resolve().parents[2]
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = PROJECT["deployments"]
FLOWS = [retrain, watch, promote, rollback]


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
    for name in ("retrain", "watch"):
        assert bounded[name]["dry_run"]["default"] is False
        assert by_name()[name].parameters.required == ["policy"]
    assert bounded["promote"]["decision"]["enum"] == ["promote", "reject"]
    assert all(flow["as_of"]["format"] == "date-time" for flow in bounded.values())


def by_name() -> dict[str, Any]:
    return {flow.name: flow for flow in FLOWS}


# The file.


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_what_a_deployment_names_is_there_and_fits(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))  # Prefect puts the folder of the file in front
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == named(deployment).partition("/")[0]
    assert properties(flow) == properties(by_name()[flow.name])
    schema = flow.parameters.model_dump()
    validate(deployment["parameters"], schema, raise_on_error=True, ignore_required=True)
    assert next(iter(deployment["parameters"])) == "policy"
    assert (ROOT / deployment["parameters"]["policy"]).exists()
    with pytest.raises(ValidationError, match="perhaps"):
        validate({**deployment["parameters"], "dry_run": "perhaps"}, schema, raise_on_error=True, ignore_required=True)


def test_names_are_not_given_twice_and_every_flow_has_a_deployment() -> None:
    names = [named(deployment) for deployment in DEPLOYMENTS]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == set(by_name())
    assert all(deployment["description"] and deployment["tags"] for deployment in DEPLOYMENTS)
    assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS} == {"backstop"}


def test_what_is_scheduled_does_not_pile_up() -> None:
    for deployment in DEPLOYMENTS:
        if "schedules" in deployment:
            limit = deployment["concurrency_limit"]
            assert limit["limit"] == 1
            assert ConcurrencyLimitStrategy(limit["collision_strategy"]) is ConcurrencyLimitStrategy.CANCEL_NEW


def test_the_retraining_is_weekly_and_the_watch_is_every_minute() -> None:
    schedules = {named(deployment): deployment["schedules"] for deployment in DEPLOYMENTS if "schedules" in deployment}
    assert {name.partition("/")[0] for name in schedules} == {"retrain", "watch"}
    friday = datetime(2026, 1, 2, 9, tzinfo=UTC)
    weekly = asyncio.run(CronSchedule(**schedules["retrain/churn"][0]).get_dates(n=2, start=friday))
    assert weekly == [datetime(2026, 1, 4, 2, tzinfo=UTC), datetime(2026, 1, 11, 2, tzinfo=UTC)]
    (tick,) = schedules["watch/all-models"]
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


class Server:
    """A real Prefect server with a home of its own, and the commands of a person who uses it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = folder / "server.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {**kept, "PREFECT_HOME": str(folder), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1"}
        self.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("w", encoding="utf-8") as log:
            # A group of its own, so that its children can be ended with it and nothing else is.
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        for _ in range(360):
            if self.process.poll() is None and self.healthy():
                return self
            time.sleep(0.5)
        self.__exit__()
        raise TimeoutError(f"the server did not become healthy: {self.log.read_text('utf-8')[-2000:]}")

    def __exit__(self, *_: object) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(timeout=20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def healthy(self) -> bool:
        try:
            return bool(self.call("/health"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def call(self, path: str, method: str = "GET", **body: Any) -> Any:
        """One request to the API."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(  # noqa: S310  the address is our own
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  see above
            text = answer.read()
        return json.loads(text) if text else None

    def prefect(self, *arguments: str, **environment: str) -> str:
        """A command of Prefect's own, as a person types it in this folder."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the work pool and every deployment of prefect.yaml."""
    with Server(tmp_path_factory.mktemp("prefect")) as running:
        running.call("/work_pools/", "POST", name="backstop", type="process")
        running.prefect("deploy", "--all")
        # Its tick every minute is not what the test waits for.
        watching = running.call("/deployments/name/watch/all-models")
        running.call(f"/deployments/{watching['id']}", "PATCH", paused=True)
        yield running


@pytest.mark.slow
def test_a_worker_runs_what_prefect_yaml_deploys(server: Server, empty: Scene) -> None:
    assert {named(deployment) for deployment in DEPLOYMENTS} == {
        f"{server.call('/flows/' + one['flow_id'])['name']}/{one['name']}"
        for one in server.call("/deployments/filter", "POST", limit=50)
    }
    deployed = server.call("/deployments/name/promote/by-hand")
    assert deployed["parameter_openapi_schema"]["properties"]["reason"]["description"] == "Why. It is kept."
    assert deployed["enforce_parameter_schema"] is True

    parameters = ["-p", f"policy={empty.policy()}", "-p", f"as_of={day(FIRST).isoformat()}"]
    asked = server.prefect("deployment", "run", "retrain/churn", *parameters)
    run_id = str(re.findall(r"UUID: ([0-9a-f-]{36})", asked)[0])
    worked = server.prefect(
        *("worker", "start", "--pool", "backstop", "--type", "process", "--run-once"),
        BACKSTOP_HOME=str(empty.home),
    )
    run = server.call(f"/flow_runs/{run_id}")
    state = run["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Promoted"), worked
    assert state["message"].startswith("version 1 is the first in Production")
    assert (empty.view.production, empty.standing.production) == (("1",), "1")
    assert empty.history[-1].flow_run_id == run["id"]
    (report,) = server.call("/artifacts/filter", "POST", artifacts={"key": {"any_": ["retrain-churn"]}})
    assert report["flow_run_id"] == run["id"]
    assert "first promoted" in report["data"]
