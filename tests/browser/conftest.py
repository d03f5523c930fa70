"""A real server with a worker, and a real browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_live import Live, standing

from rehearsal.screenshots import Browser, NoBrowser, browser, chromium


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Live]:
    """Every deployment, a worker, version 1 of churn in Production; nothing is scheduled."""
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install playwright")
    try:
        chromium()
    except NoBrowser as missing:
        pytest.skip(str(missing))
    with standing(tmp_path_factory.mktemp("browser"), mlflow_template) as live:
        yield live


@pytest.fixture
def look(live: Live) -> Iterator[Browser]:
    """A browser of its own for each test."""
    with browser(live.url) as look:
        yield look
