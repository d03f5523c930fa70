"""What a person finds in Prefect's pages after a run: name, trail, the report with its pictures, the gate's table."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from mlflow.tracking._tracking_service import utils
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact
from scene import CHANGED, FIRST, QUIET, Ran, Scene, day, run

from flows import pages
from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from rehearsal.traffic import Faults
from tasks import canvas, promotion, tracking
from tasks import watch as watching
from tasks.case import Case
from tasks.progress import Course

pytestmark = pytest.mark.usefixtures("prefect_api", "coarse_pictures")


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow remembers by the run's id where its files are, and the copies of a scene have the ids of the original."""
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())


@dataclass(frozen=True)
class Page:
    """What Prefect has of one flow run.

    Attributes:
        name: Of the run.
        tags: Of the run.
        artifacts: By key; Markdown as text.
        steps: Names of the task runs, sorted.
        bars: Percent, by what was done.
    """

    name: str
    tags: list[str]
    artifacts: dict[str, Any]
    steps: list[str]
    bars: dict[str, float]


def progress_of(artifacts: list[Artifact]) -> dict[str, float]:
    """Percent, by what was done."""
    return {str(one.description): float(one.data) for one in artifacts if one.type == "progress"}  # type: ignore[arg-type]


def page(ran: Ran) -> Page:
    async def ask() -> Page:
        key = UUID(str(ran.state.state_details.flow_run_id))
        async with get_client() as client:
            flow_run = await client.read_flow_run(key)
            mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[key]))
            artifacts = await client.read_artifacts(artifact_filter=mine)
            steps = await client.read_task_runs(
                task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[key]))
            )
        return Page(
            name=flow_run.name,
            tags=flow_run.tags,
            artifacts={str(one.key): one.data for one in artifacts},
            steps=sorted(step.name for step in steps),
            bars=progress_of(artifacts),
        )

    return asyncio.run(ask())


def plots(scene: Scene, version: str) -> set[str]:
    run_id = scene.version(version).run_id
    return {one.path.removeprefix("plots/") for one in scene.client.list_artifacts(run_id, "plots")}


def test_a_promotion_and_its_rollback_can_be_read_from_prefects_pages_alone(waiting: Scene) -> None:
    waiting.traffic(CHANGED - 14, CHANGED)
    promoted = waiting.run(retrain, CHANGED + 0.1)
    assert promoted.report.decision == "promoted"
    seen = page(promoted)
    trail = promoted.report.trail
    assert seen.name == "retrain churn: version 2 promoted"
    assert seen.tags == [f"trail:{trail}"]
    assert "shadow and promote churn" in seen.steps
    told = seen.artifacts["retrain-churn"]
    assert told.startswith("# churn: promoted")
    assert told.count("](data:image/png;base64,") == 1
    assert f"`{waiting.version('2').run_id}`; `make mlflow-ui` shows it" in told
    assert plots(waiting, "2") >= {"drift.png", "inputs.png", "curves.png", "calibration.png", "shadow.png"}

    waiting.traffic(CHANGED + 0.1, CHANGED + 0.11, requests=400, faults=Faults(errors=0.5))
    back = waiting.run(watch, CHANGED + 0.11)
    assert back.report.decision == "rolled-back"
    seen = page(back)
    assert (seen.name, seen.tags) == ("watch churn: rolled back", [f"trail:{trail}"])
    assert seen.artifacts["watch-churn"].count("](data:image/png;base64,") == 1
    assert "health.png" in plots(waiting, "2")
    assert "health.png" not in plots(waiting, "1")
    assert waiting.version("2").tags["backstop.trail"] == trail


def test_a_training_is_named_after_its_triggers_while_it_goes_on(first: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import candidate

    names: list[str] = []
    make = candidate.make

    def watched(*given: Any, **named: Any) -> Any:
        names.extend(one.name for one in asyncio.run(_running()))
        return make(*given, **named)

    watched.__name__ = "make"
    monkeypatch.setattr(candidate, "make", watched)
    monkeypatch.setattr(pages, "_PACE", 0.02)
    seen = page(first.run(retrain, CHANGED))
    assert "retrain churn: drift + performance + concept" in names
    wanted = ("evaluation of churn", "candidate of churn", "evidence about the candidate of churn")
    assert {what: seen.bars[what] for what in wanted} == dict.fromkeys(wanted, 100.0)
    assert set(seen.bars) <= {*wanted, "shadow and promotion of churn"}
    assert seen.name == "retrain churn: drift + performance + concept"
    assert {"observe churn", "split rows churn", "train churn", "gate churn"} <= set(seen.steps)
    rows = json.loads(seen.artifacts["gate-churn"])
    assert rows[0].keys() == {"check", "outcome", "value", "limit", "n"}
    assert seen.artifacts["retrain-churn"].count("](data:image/png;base64,") >= 5


async def _running() -> list[Any]:
    async with get_client() as client:
        return await client.read_flow_runs()


def test_a_quiet_evaluation_draws_nothing_and_a_quiet_tick_is_not_even_renamed(
    first: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is to be drawn")

    monkeypatch.setattr(canvas, "drawn", refused)
    seen = page(first.run(retrain, QUIET))
    assert seen.name == "retrain churn: kept"
    assert "data:image" not in seen.artifacts["retrain-churn"]
    ticked = page(first.run(watch, FIRST + 1 / 48 + 0.002))
    assert (ticked.tags, ticked.artifacts) == ([], {})
    assert ticked.name.startswith("watch /")


def test_a_dry_run_says_so_in_its_name_and_leaves_nothing_in_mlflow(first: Scene) -> None:
    before = first.mark()
    seen = page(first.run(retrain, QUIET, force=True, reason="to see", dry_run=True))
    assert seen.name.endswith("(dry run)")
    assert "Dry run: nothing was changed." in seen.artifacts["retrain-churn"]
    assert first.mark() == before


def test_a_person_is_named_and_a_run_that_failed_has_its_trail(second: Scene) -> None:
    seen = page(second.run(rollback, CHANGED + 0.1, reason="customers complain", actor="ada <b>", dry_run=False))
    assert seen.name == "roll back churn to 1 by ada <b>"
    failed = second.run(promote, CHANGED + 0.2, reason="once more", version="2", dry_run=False)
    assert isinstance(failed.error, ValueError)
    seen = page(failed)
    assert seen.name == "promote churn: failed"
    assert [tag[:6] for tag in seen.tags] == ["trail:"]
    assert any(f"trail {seen.tags[0][6:]}" in body for _, body in second.messages())


def test_pictures_that_mlflow_does_not_take_and_a_page_that_cannot_be_left_change_no_decision(
    waiting: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionError("gone")

    waiting.traffic(CHANGED - 14, CHANGED)
    monkeypatch.setattr(tracking, "log_pictures", broken)
    monkeypatch.setattr(pages, "acreate_markdown_artifact", broken)
    ran = waiting.run(retrain, CHANGED + 0.1)
    assert ran.report.decision == "promoted"
    assert ran.state.name == "Promoted"
    assert "could not be kept in MLflow run" in caplog.text
    assert "the report of churn could not be left in Prefect" in caplog.text


def bars(first: Scene, doing: Callable[[Any], None], last: float | None = None) -> dict[str, float]:
    """What a step leaves in the artifacts that tells how far it is; the last word is said beside it, and waited for."""
    from prefect import flow
    from prefect.runtime import flow_run

    from flows.steps import step

    @flow
    async def working() -> list[Any]:
        case = first.case(QUIET)
        with case.ledger:
            await step(told)(case, pages.progress(case.model))
            for _ in range(10 if last is None else 400):
                await asyncio.sleep(0.05)
                if last is not None and last in await said():
                    break
        return []

    async def said() -> list[float]:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(flow_run.id))]))
        async with get_client() as client:
            return list(progress_of(await client.read_artifacts(artifact_filter=mine)).values())

    def told(_case: Case, progress: Any) -> None:
        doing(progress)

    return page(run(working)).bars


def test_progress_of_a_search_is_one_bar_that_ends_at_a_hundred(
    first: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pages, "_PACE", 0.05)

    def search(progress: Any) -> None:
        for done in range(1, 41):
            progress(done, 40, "search of churn's parameters")
            time.sleep(0.01)

    assert bars(first, search, 100) == {"search of churn's parameters": 100}
    lines = [one.getMessage() for one in caplog.records if "search of churn's parameters" in one.getMessage()]
    assert len(lines) == 2, "one when it begins and one at its end, for it took less than ten seconds"
    assert lines[-1] == "search of churn's parameters: 100 %"


def test_what_is_done_again_under_its_name_is_told_from_its_beginning_and_a_hundred_is_its_end(
    first: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pages, "_PACE", 0.05)
    monkeypatch.setattr(pages, "_LINES", 0.0)

    def search(progress: Any) -> None:
        for _ in range(2):
            for done in (500, 997, 1_000):
                progress(done, 1_000, "columns of churn")
                time.sleep(0.3)
        progress(1, 1, "columns of churn")  # over at once: no line

    assert bars(first, search, 100) == {"columns of churn": 100}
    lines = [one.getMessage() for one in caplog.records if one.getMessage().startswith("columns of churn: ")]
    assert [line.rpartition(": ")[2] for line in lines] == ["50 %", "99 %", "100 %"] * 2


def test_what_stands_still_for_two_seconds_has_a_bar_and_what_is_over_has_none(
    first: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bars(first, lambda progress: progress(4, 4, "candidate of churn")) == {}
    monkeypatch.setattr(pages, "_PACE", 0.05)

    def fit(progress: Any) -> None:
        course = Course(progress, "candidate of churn", 4)
        course.past()
        time.sleep(0.3)  # and never comes to its end

    assert bars(first, fit, 25) == {"candidate of churn": 25}


def slowly(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Something that takes its time before it does what it does."""
    real = getattr(owner, name)

    def slow(*given: Any, **named: Any) -> Any:
        time.sleep(0.6)
        return real(*given, **named)

    monkeypatch.setattr(owner, name, functools.wraps(real)(slow))


def test_a_shadow_that_takes_long_has_a_bar(waiting: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_PACE", 0.05)
    slowly(monkeypatch, promotion, "advance")
    assert "shadow and promotion of churn" in page(waiting.run(retrain, CHANGED + 1)).bars


def test_a_watch_over_several_models_says_how_many_it_has_looked_at(
    first: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = first.policy("other", model="other", data={"source": "churn.csv"})
    quick = page(run(watch, policy=f"{other},{first.policy()}", as_of=day(FIRST + 1)))
    assert quick.bars == {}
    monkeypatch.setattr(pages, "_PACE", 0.05)
    slowly(monkeypatch, watching, "tick")
    shown = page(run(watch, policy=f"{other},{first.policy()}", as_of=day(FIRST + 2))).bars
    assert list(shown) == ["models watched, of 2"]
