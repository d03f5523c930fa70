"""What happened is told to Prefect: in order, with what a reaction needs, and later when no server is there."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scene import CHANGED, QUIET, Scene
from sqlalchemy import select

from flows import events
from flows.promote import promote
from flows.retrain import retrain
from flows.watch import watch
from rehearsal.traffic import Faults
from tasks import schema
from tasks.records import Report

MINUTE = 1 / 1440
ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = {"model", "policy", "trail", "decision", "reason", "at", "production", "version", "dry_run"}


def told(scene: Scene) -> list[tuple[str, dict[str, Any]]]:
    """(what became of it, event) of everything that was written down, oldest first."""
    with scene.case(0).ledger as ledger, ledger._database.reading() as connection:
        rows = connection.execute(select(schema.messages).order_by(schema.messages.c.id)).all()
    return [(row.state, json.loads(row.body)) for row in rows if row.kind == "event"]


def names(scene: Scene) -> list[str]:
    return [event["event"].removeprefix("backstop.") for _, event in told(scene)]


def test_a_models_life_is_told_in_order_and_accepted_by_the_server(second: Scene) -> None:
    known = ["retrain.decided", "gate.passed", "model.promoted"]
    assert names(second) == [*known, "model.known-good", "retrain.decided", "drift.detected", *known[1:]]
    assert {state for state, _ in told(second)} == {"sent"}
    drifted = told(second)[5][1]
    assert drifted["payload"]["fired"][0].startswith("drift")
    promoted = told(second)[-1][1]
    assert promoted["payload"] | {"previous": "1", "version": "2", "production": "2"} == promoted["payload"]
    assert promoted["resource"]["prefect.resource.id"] == "backstop.model.churn"
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in promoted["related"]}
    assert related["model-version"] == "backstop.model-version.churn.2"
    assert related["previous-version"] == "backstop.model-version.churn.1"
    assert related["trail"] == f"backstop.trail.{promoted['payload']['trail']}"
    assert re.fullmatch(r"prefect\.flow-run\.[0-9a-f-]{36}", related["flow-run"])


def test_every_event_has_what_a_reaction_needs(second: Scene) -> None:
    for _, event in told(second):
        assert set(event["payload"]) >= EVERYWHERE, event["event"]
        assert Path(event["payload"]["policy"]).is_absolute()
        assert event["payload"]["dry_run"] is False
        assert datetime.fromisoformat(event["occurred"]).tzinfo is not None
    ids = [event["id"] for _, event in told(second)]
    assert len(set(ids)) == len(ids)


def test_a_rollback_is_told_with_the_version_that_went(second: Scene) -> None:
    before = len(told(second))
    second.traffic(CHANGED, CHANGED + 10 * MINUTE, requests=600, faults=Faults(errors=0.4), labels=False)
    assert second.run(watch, CHANGED + 10 * MINUTE).report.decision == "rolled-back"
    assert second.run(watch, CHANGED + 11 * MINUTE).report.decision == "watching"
    ((state, event),) = told(second)[before:]
    assert (state, event["event"]) == ("sent", "backstop.model.rolled-back")
    assert (event["payload"]["version"], event["payload"]["previous"]) == ("1", "2")


def test_a_server_that_is_away_at_the_end_hears_of_it_later_and_in_order(
    first: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(told(first))
    monkeypatch.setenv("BACKSTOP_CHURN__GATE__PERFORMANCE__AT_LEAST", "0.999")
    with monkeypatch.context() as away:

        async def refused(_: object) -> str:
            return "ConnectError: All connection attempts failed"

        away.setattr(events, "_post", refused)
        ran = first.run(retrain, QUIET, force=True, reason="the season begins")
    assert ran.report.decision == "gate-failed"
    left = told(first)[before:]
    assert [(state, event["event"]) for state, event in left] == [
        ("waiting", "backstop.retrain.decided"),
        ("waiting", "backstop.gate.failed"),
    ]
    assert "performance" in left[1][1]["payload"]["failed"]
    first.run(watch, QUIET + 2 * MINUTE)
    after = told(first)[before:]
    assert [event["event"] for state, event in after if state == "sent"][:2] == [event["event"] for _, event in left]
    assert [event["id"] for _, event in after][:2] == [event["id"] for _, event in left]


def test_a_failure_is_told_once_and_a_dry_run_never(first: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(first)
    first.run(promote, QUIET, reason="a rehearsal", version="1", override=True)
    assert names(first) == before
    monkeypatch.setattr("tasks.watch.tick", lambda *_: 1 / 0)
    for minute in range(3):
        assert first.run(watch, QUIET + minute * MINUTE).error is not None
    assert names(first)[len(before) :] == ["run.failed"]
    assert "ZeroDivisionError" in told(first)[-1][1]["payload"]["reason"]


def test_the_document_names_every_event_and_every_value() -> None:
    page = (ROOT / "docs" / "events.md").read_text("utf-8")
    source = (ROOT / "flows" / "events.py").read_text("utf-8")
    written = {
        f"backstop.{name}"
        for name in re.findall(r'"((?:retrain|drift|shadow|approval|rollout|model|run)\.[a-z-]+)"', source)
    }
    written |= {"backstop.gate.passed", "backstop.gate.failed", "backstop.data.landed"}
    assert len(written) == 19
    assert set(re.findall(r"^### `(backstop\.[a-z.-]+)`", page, re.MULTILINE)) == written
    for value in (*EVERYWHERE, "fired", "urgency", "failed", "previous", "deadline", "by", "flow", "rows", "source"):
        assert f"`{value}`" in page, value


def test_an_evaluation_that_stands_from_before_is_not_told_again(first: Scene) -> None:
    run = first.case(QUIET)
    with run.ledger:
        kept = Report(model="churn", flow="retrain", decision="kept", line="as before", at=datetime.now(UTC), trail="x")
        assert events.of(kept, run) == ()
        assert events.of(kept, run.on_trail("x")) == (), "and one that looked at nothing has nothing to tell"
