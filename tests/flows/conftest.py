"""Scenes that several tests begin with. Each is made once in a run, by the real flows, and copied for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prepared import prepared
from scene import CHANGED, FIRST, Scene, at_home, everybody

if TYPE_CHECKING:
    from tasks.policy import Policy
    from tasks.tryout import Answer


class TriedHere:
    """Loads a version and asks it in this process."""

    def __init__(self, policy: Policy) -> None:
        self._training = policy.training

    def of(self, folder: Path, **_: float) -> Answer:
        from tasks import fresh

        pickle = self._training.serialization == "pickle"
        return fresh.attempt(folder, trusted_types=self._training.trusted_types, allow_pickle=pickle)

    def close(self) -> None:
        """There is nothing to end."""


@pytest.fixture(autouse=True)
def tried_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds a test: that a fresh process answers as well is left to the tests marked ``fresh``."""
    if request.node.get_closest_marker("fresh") is None:
        monkeypatch.setattr("tasks.tryout.Tryout", TriedHere)


@pytest.fixture(scope="session")
def empty_scene(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Scene:
    """Customers and a policy; nothing was ever trained."""
    home = tmp_path_factory.mktemp("empty") / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    scene = Scene(home)
    scene.write(everybody())
    scene.policy()
    return scene


@pytest.fixture(scope="session")
def first_scene(empty_scene: Scene, tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Scene:
    """Version 1 is in Production since day FIRST, and was watched until it was known good."""
    from flows.retrain import retrain
    from flows.watch import watch

    def make(folder: Path) -> None:
        scene = empty_scene.copy(folder / "home")
        with at_home(scene.home):
            # A machine that is busy with other things is not what is tested: hence the two seconds.
            full = scene.policy("full", gate={"latency": {"p99": "2s", "calls": 299}, "fresh_process": True})
            assert scene.run(retrain, FIRST, policy=full).report.decision == "first-promoted"
            scene.traffic(FIRST, FIRST + 1 / 48, requests=600)
            assert scene.run(watch, FIRST + 1 / 48).report.decision == "healthy"

    return Scene(prepared(tmp_path_factory, "first-scene", make) / "home")


@pytest.fixture(scope="session")
def second_scene(first_scene: Scene, tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Scene:
    """The world changed, and version 2 replaced version 1 on day CHANGED; its watch has just begun."""
    from flows.retrain import retrain

    def make(folder: Path) -> None:
        scene = first_scene.copy(folder / "home")
        with at_home(scene.home):
            scene.traffic(CHANGED - 14, CHANGED)
            assert scene.run(retrain, CHANGED).report.decision == "promoted"

    return Scene(prepared(tmp_path_factory, "second-scene", make) / "home")


@pytest.fixture(scope="session")
def waiting_scene(first_scene: Scene, tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Scene:
    """The world changed, version 2 passed the gate on day CHANGED and waits in Staging: no request was recorded."""
    from flows.retrain import retrain

    def make(folder: Path) -> None:
        scene = first_scene.copy(folder / "home")
        with at_home(scene.home):
            assert scene.run(retrain, CHANGED).report.decision == "waiting"

    return Scene(prepared(tmp_path_factory, "waiting-scene", make) / "home")


@pytest.fixture
def empty(empty_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`empty_scene`, as the home of the flows."""
    scene = empty_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene


@pytest.fixture
def first(first_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`first_scene`, as the home of the flows."""
    scene = first_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene


@pytest.fixture
def second(second_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`second_scene`, as the home of the flows."""
    scene = second_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene


@pytest.fixture
def waiting(waiting_scene: Scene, tmp_path: Path) -> Iterator[Scene]:
    """A copy of :func:`waiting_scene`, as the home of the flows."""
    scene = waiting_scene.copy(tmp_path / "home")
    with at_home(scene.home):
        yield scene
