"""The real server and worker that the tests of this folder share, see ``tests/prefect_live.py``; and a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_live import Live, standing
from scene import Scene

from rehearsal.screenshots import Browser, NoBrowser, browser, chromium


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, prefect_template: Path) -> Iterator[Live]:
    """One for all tests of a process: every deployment, a worker, version 1 of churn in Production; nothing scheduled.

    What a test changes for the others (a schedule, a policy file, an automation) it takes back.
    """
    with standing(tmp_path_factory.mktemp("live"), mlflow_template, prefect_template) as live:
        yield live


@pytest.fixture
def home(live: Live, tmp_path: Path) -> Scene:
    """A copy of the home for one test: ``live.run(..., home=home.home, policy=home.policy())``."""
    return live.scene.copy(tmp_path / "home")


@pytest.fixture(scope="session")
def program() -> str:
    """The browser that is on this machine."""
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install playwright")
    try:
        return chromium()
    except NoBrowser as missing:
        pytest.skip(str(missing))


@pytest.fixture
def look(program: str, live: Live) -> Iterator[Browser]:
    """A browser of its own for each test."""
    with browser(live.url) as look:
        yield look
