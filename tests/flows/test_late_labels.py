"""Labels that come days after their requests, through the real request log and the real decisions: watch and shadow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene import Scene, at_home, day
from stream import asked, flipped, labelled, learned, policy
from test_learn import FULL, full_scene, stream_scene

from tasks.case import open_case
from tasks.policy_file import load
from tasks.requests import Label, RequestLog
from tasks.watch import Tick, tick

__all__ = ["full_scene", "stream_scene"]

pytestmark = pytest.mark.usefixtures("prefect_api")

ENDED = FULL + 0.25
"""Day on which the watch of version 2 is over; its days begin and end there."""


@pytest.fixture(scope="session")
def second_stream(full_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Version 2 serves since day FULL, and answered for two days; nobody has said yet what was right."""
    scene = full_scene.copy(tmp_path_factory.mktemp("second-stream") / "home")
    with at_home(scene.home):
        assert learned(scene, FULL).production == "2"
        asked(scene, FULL, FULL + 2, truth=None)
    return scene


@pytest.fixture
def second(second_stream: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`second_stream`, as the home of the flows."""
    scene = second_stream.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene


def watched(scene: Scene, at: float) -> Tick:
    path = policy(scene, "watched", health={"accuracy": "80%", "silence": "30d"})
    case = open_case(load(path), actor="flows.watch", now=day(at), stores=scene.stores)
    with case.ledger:
        return tick(case, case.standing())


def shuffled(labels: list[Label], scene: Scene, *, seed: int = 1) -> None:
    """Put labels down again in another order, some of them twice, and older ones that say the opposite."""
    draw = np.random.default_rng(seed)
    again = [labels[int(place)] for place in draw.integers(0, len(labels), 2 * len(labels))]
    wrong = [
        Label(request_id=one.request_id, model=one.model, label=flipped(str(one.label)), at=day(0)) for one in labels
    ]
    with RequestLog.open(scene.stores.requests) as log:
        log.label(again)
        log.label(wrong)


def test_a_version_that_was_wrong_days_ago_is_taken_back_when_the_labels_arrive(second: Scene) -> None:
    assert watched(second, ENDED).decision == "healthy"
    for days in (1, 2, 3):
        assert watched(second, ENDED + days).decision in {"healthy", "watching"}
    shuffled(labelled(second, FULL, FULL + 2, truth=flipped, late=3.0), second)
    next(second.artifact("1").glob("*.skops")).write_bytes(b"rubbish")  # it would be taken back, and cannot
    assert watched(second, ENDED + 3.5).decision == "watching", "the days before are looked at when a day is over"
    seen = watched(second, ENDED + 4)
    assert seen.decision == "held"
    assert "were answered wrongly, shown to be more than the 20% tolerated" in seen.verdicts[-2].reason
    assert any("version 2 is unhealthy" in title for title in second.told())


def test_labels_that_were_right_days_ago_take_nothing_back(second: Scene) -> None:
    assert watched(second, ENDED).decision == "healthy"
    shuffled(labelled(second, FULL, FULL + 2, late=3.0), second)
    for days in (1, 4, 9):
        assert watched(second, ENDED + days).decision in {"healthy", "watching"}


def test_labels_are_looked_at_again_for_two_weeks_and_no_longer(second: Scene) -> None:
    assert watched(second, ENDED).decision == "healthy"
    labelled(second, FULL, FULL + 2, truth=flipped, late=20.0)
    next(second.artifact("1").glob("*.skops")).write_bytes(b"rubbish")
    assert watched(second, ENDED + 20).decision == "watching"


def test_a_shadow_that_found_no_labels_decides_when_they_come_days_later(full: Scene) -> None:
    rules: dict[str, Any] = {"window": "14d", "tolerate": "2.5pt", "max_requests": 700}
    path = policy(full, "shadowed", shadow=rules)
    assert learned(full, FULL, path).decision == "waiting", "two hundred labelled requests do not suffice"
    asked(full, FULL, FULL + 4, truth=None)
    asked(full, FULL + 4, FULL + 9, truth=None)
    report = learned(full, FULL + 9, path)
    assert (report.decision, report.production) == ("waiting", "1")
    shuffled(labelled(full, FULL, FULL + 4, late=4.9), full)
    report = learned(full, FULL + 9.01, path)
    assert (report.decision, report.production) == ("promoted", "2"), report.line
    (shadow,) = [one for one in report.verdicts if one.judge == "shadow"]
    assert max(finding.n or 0 for finding in shadow.findings) == 700, "the newest seven hundred have no label at all"


@pytest.fixture
def full(full_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of the scene in which feedback enough for an update has come, as the home of the flows."""
    scene = full_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene
