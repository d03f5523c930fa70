"""What runs most weighs little: the quiet tick and the quiet evaluation import, ask and keep next to nothing."""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import prefect
import pytest
from prefect import flow
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_RESULTS_PERSIST_BY_DEFAULT,
    temporary_settings,
)
from scene import FIRST, QUIET, Scene, day, run
from told import LATER, Told

from flows import steps
from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from tasks.records import Report

ROOT = Path(__file__).resolve().parents[2]

QUIETLY = """
import asyncio, sys
from datetime import datetime
import tasks.case
class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromisoformat(sys.argv[2])
tasks.case.datetime = Clock
from flows.retrain import retrain
from flows.watch import watch
print(asyncio.run(retrain(policy=sys.argv[1])).line)
print([report.decision for report in asyncio.run(watch(policy=sys.argv[1]))])
heavy = {"mlflow", "sklearn", "scipy", "numpy", "pandas", "matplotlib", "pyarrow", "joblib", "skops"}
heavy |= {"alembic", "apprise"}
print("loaded", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def told(first: Scene) -> Told:
    """An evaluation that said keep, of a table."""
    one = Told(first, "table")
    one.changes["notify"] = None
    assert one.evaluate().decision == "keep"
    return one


def test_a_quiet_evaluation_and_a_quiet_tick_import_nothing_that_is_slow(told: Told) -> None:
    told.scene.traffic(QUIET, LATER, requests=50, policy=told.policy())  # silence would be news
    run(watch, policy=told.policy(), as_of=day(LATER))  # the day before is over, which is looked at once
    done = subprocess.run(
        [sys.executable, "-c", QUIETLY, told.policy(), day(LATER).isoformat()],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)},
        cwd=told.scene.home,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    line, decisions, loaded = done.stdout.splitlines()
    assert line.startswith("nothing new in customers since")
    assert decisions == "['watching']"
    assert loaded == "loaded []"


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of Prefect's API meanwhile."""
    asked: list[str] = []
    plain = httpx.AsyncClient.send

    async def send(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        told = f"{request.method} {request.url.path}"
        # Threads of Prefect's own send logs every two seconds, of other runs too, and ask for the flow of an event.
        if not told.startswith(("POST /api/logs/", "GET /api/flows/")):
            asked.append(told)
        return await plain(client, request, **options)

    with patch.context() as within:
        within.setattr(httpx.AsyncClient, "send", send)
        yield asked


def test_a_quiet_run_asks_the_api_for_little_more_than_a_flow_that_does_nothing(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    async def nothing(policy: str) -> None:
        """Nothing."""

    told.scene.traffic(QUIET, LATER, requests=50, policy=told.policy())
    with counted(monkeypatch) as least:
        asyncio.run(nothing("x"))
    with counted(monkeypatch) as ticking:
        seen = run(watch, policy=told.policy(), as_of=day(LATER))
    monkeypatch.setattr("tasks.case.datetime", type("Clock", (), {"now": staticmethod(lambda _: day(LATER))}))
    with counted(monkeypatch) as evaluating:
        kept = run(retrain, policy=told.policy())
    assert seen.report.decision == "watching"
    assert kept.report.line.startswith("nothing new in")
    assert len(ticking) <= len(least) + 1, (least, ticking)
    # Beside the report it has a name that says which model it is about, and then one that says what came of it.
    assert len(evaluating) <= len(least) + 3, f"{least}\n{evaluating}"
    assert [one for one in evaluating if "artifacts" in one] != []
    assert asyncio.run(tasks_of(seen.state.state_details.flow_run_id)) == []
    assert asyncio.run(tasks_of(kept.state.state_details.flow_run_id)) == []


async def tasks_of(flow_run_id: Any) -> list[str]:
    """Names of the task runs of a flow run."""
    async with get_client() as client:
        found = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
        return [one.name for one in found]


# Data and models stay out of Prefect's stores.


def test_every_task_of_prefects_is_made_in_one_place() -> None:
    users = {
        path.name
        for path in (ROOT / "flows").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("prefect")
        and {alias.name for alias in node.names} & {"task", "Task"}
    }
    assert users == {"steps.py"}


@pytest.mark.parametrize("one", [retrain, watch, promote, rollback], ids=lambda one: one.name)
def test_a_flow_takes_words_and_switches_and_no_data(one: Any) -> None:
    for name, field in one.parameters.model_dump()["properties"].items():
        kinds = {part.get("type", "string") for part in field.get("anyOf", [field])}
        assert kinds <= {"string", "boolean", "null", "integer"}, name
    assert one.persist_result is None
    assert one.result_storage is None


def test_where_prefect_keeps_every_result_by_default_it_keeps_a_report_and_nothing_else(
    empty: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, made = tmp_path / "results", []

    def task(**options: Any) -> Any:
        made.append(options)
        return prefect.task(**options)

    monkeypatch.setattr(steps, "task", task)
    with temporary_settings({PREFECT_RESULTS_PERSIST_BY_DEFAULT: True, PREFECT_LOCAL_STORAGE_PATH: store}):
        ran = empty.run(retrain, FIRST)
    assert ran.report.decision == "first-promoted"
    assert len(made) > 4
    assert all(one["cache_policy"] is NO_CACHE and one["persist_result"] is False for one in made)
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) <= 1
    assert all(path.stat().st_size < 64_000 for path in files), files
    assert len(pickle.dumps(ran.report)) < 64_000
    assert isinstance(ran.report, Report)
    stored = asyncio.run(state_of(ran.state.state_details.flow_run_id))
    assert len(stored) < 4_000, stored


async def state_of(flow_run_id: Any) -> str:
    """The final state of a flow run as the server has it, as JSON."""
    async with get_client() as client:
        run_ = await client.read_flow_run(flow_run_id)
        return run_.state.model_dump_json() if run_.state else ""
