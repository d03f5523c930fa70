"""Flows on disks that are full or that nobody may write to: a clear word to a person, and no half of anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import mounted, read_only
from scene import CHANGED, Ran, Scene

from tasks.case import LedgerError
from tasks.database import Full
from tasks.estimators import TrainingError
from tasks.records import Transition
from tasks.registry import Registry

pytestmark = pytest.mark.slow

SOON = CHANGED + 1 / 1440
"""A minute after version 2 came into Production."""


def retrained(scene: Scene, at: float) -> Ran:
    from flows.retrain import retrain

    return scene.run(retrain, at, force=True, reason="the disk is tried")


def back(scene: Scene) -> Ran:
    from flows.rollback import rollback

    return scene.run(rollback, SOON, reason="too many complaints", dry_run=False)


def watched(scene: Scene) -> Ran:
    from flows.watch import watch

    return scene.run(watch, SOON)


def refused(scene: Scene, ran: Ran, before: tuple[object, object], *said: str) -> None:
    """The training failed with these words, a person was told, and nothing has moved or was begun in MLflow."""
    assert isinstance(ran.error, TrainingError)
    title, body = scene.messages()[-1]
    assert title == "churn: retrain failed, Production unchanged"
    for words in (*said, str(scene.home / "artifacts"), "run again"):
        assert words in str(ran.error)
        assert words in body
    assert (scene.view, scene.standing) == before
    assert {run.info.status for run in scene.runs()} == {"FINISHED"}, "the room is needed before a run is begun"


def test_a_candidate_that_the_artifact_store_has_no_room_for_is_no_candidate(first: Scene, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        disk.hold(first.home / "artifacts")
        before = (first.view, first.standing)
        disk.full()
        refused(first, retrained(first, CHANGED), before, "No space left on device", "Make room")
        disk.room()
        assert retrained(first, CHANGED).report.candidate == "2"


def test_a_store_that_cannot_be_written_stops_a_training_and_no_rollback(second: Scene) -> None:
    before = (second.view, second.standing)
    with read_only(second.home / "artifacts"):
        refused(second, retrained(second, CHANGED), before, "let the user write there")
        assert back(second).report.decision == "rolled-back"
    assert second.view.production == ("1",)
    assert retrained(second, SOON).report.candidate == "3"


@pytest.fixture
def filled_before_it_settles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The disks in this list are full from the moment on at which MLflow was told and read back."""
    disks: list[object] = []
    read_back = Registry._read_back

    def read_and_fill(registry: Registry, transition: Transition) -> None:
        read_back(registry, transition)
        for disk in disks:
            disk.full()  # type: ignore[attr-defined]

    monkeypatch.setattr(Registry, "_read_back", read_and_fill)
    yield disks
    disks.clear()


def test_a_rollback_that_the_ledger_has_no_room_to_settle_is_completed_by_the_next_watch(
    second: Scene, tmp_path: Path, filled_before_it_settles: list[object]
) -> None:
    with mounted(tmp_path / "disk") as disk:
        disk.hold(second.home / "ledger.db")
        filled_before_it_settles.append(disk)
        ran = back(second)
        assert isinstance(ran.error, Full)
        assert "no room" in str(ran.error)
        assert "ledger.db" in str(ran.error)
        assert "run again" in str(ran.error)
        title, body = second.messages()[-1]
        assert title.startswith("churn: rollback failed, ")
        assert "Production unchanged" not in title, "MLflow was told already"
        assert "no room" in body
        disk.room()
        filled_before_it_settles.clear()
        assert second.standing.pending is not None
        assert watched(second).report.production == "1"
        assert (second.view.production, second.view.champion) == (("1",), "1")
        assert (second.standing.production, second.standing.quarantined) == ("1", ("2",))
        assert [row.state for row in second.history if row.action == "rollback"] == ["applied"]


def test_a_watch_that_finds_no_room_to_read_the_ledger_says_so_and_goes_on_later(second: Scene, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        disk.hold(second.home / "ledger.db")
        disk.full()
        ran = watched(second)
        assert "not watched" in str(ran.error)
        assert LedgerError.__name__ in str(ran.error)
        title, body = second.messages()[-1]
        assert title == "churn: watch could not begin, Production unchanged"
        assert "no room" in body
        disk.room()
        assert watched(second).report.decision == "watching"
