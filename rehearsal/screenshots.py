"""Prefect's pages as a person sees them, in a real browser: for the pictures of the documents, and for tests.

The pages are those that Prefect 3.8 opens by default (below ``/v2``).

``python -m rehearsal.screenshots`` takes the pictures of ``docs/images`` from a server that runs, as after ``make up``
and one question that waits for an answer. It needs Debian's chromium and Playwright for Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
LIMIT = 150_000
"""Bytes of a picture: all of them are fetched with the repository."""
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_PATIENCE = 60_000.0
"""Milliseconds that a page may take."""


class NoBrowser(RuntimeError):
    """Chromium or Playwright is not on this machine; says which, and how to get it."""


@dataclass(frozen=True, slots=True)
class Browser:
    """Prefect's pages.

    Attributes:
        page: Playwright's.
        url: Of the server, without ``/api``.
    """

    page: Page
    url: str

    def call(self, path: str, **body: Any) -> Any:
        """What the API answers; with a body it is asked by POST."""
        request = urllib.request.Request(  # noqa: S310  the address is the one that was given
            f"{self.url}/api{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  see above
            return json.loads(answer.read())

    def form(self, deployment: str) -> None:
        """Open the form that starts a run of a deployment, by ``flow/deployment``."""
        found = self.call(f"/deployments/name/{deployment}")
        self._open(f"/deployments/deployment/{found['id']}/run")
        self.field("policy").wait_for()

    def runs(self, search: str = "") -> None:
        """Open the list of runs, of all or of those with this in their name."""
        self._open(f"/runs?flow-run-search={search}")
        self.page.get_by_role("link").filter(has_text=search or "policies").first.wait_for()

    def run(self, run_id: str, tab: str = "Logs") -> None:
        """Open the page of a run, on one of its tabs."""
        self._open(f"/runs/flow-run/{run_id}?tab={tab}")
        self.page.get_by_role("tab", name=tab).wait_for()

    def question(self, run_id: str) -> None:
        """Open the form of a run that waits for an answer; it is in the run's menu."""
        self.run(run_id, "Artifacts")
        self.page.locator("button[aria-haspopup=menu]").last.click()
        self.page.get_by_role("menuitem", name="Resume").click()
        self.field("Decision").wait_for()

    def artifact(self, artifact_id: str) -> None:
        """Open a report."""
        self._open(f"/artifacts/artifact/{artifact_id}")
        self.page.get_by_text("What was looked at").first.wait_for()

    def field(self, name: str) -> Locator:
        """A field of a form, with its label, its description and what is wrong with it."""
        label = self.page.locator("label", has_text=re.compile(rf"^{re.escape(name)}$"))
        return self.page.locator("div.group").filter(has=label).last

    def write(self, name: str, text: str) -> None:
        """Fill a field of text."""
        self.field(name).locator("textarea, input").first.fill(text)

    def choose(self, name: str, choice: str) -> None:
        """Choose one of the values of a field."""
        self.field(name).get_by_role("button", name=f"Select {name}").click()
        self.page.get_by_role("option", name=choice).click()
        self.field(name).get_by_role("button", name=choice).or_(self.field(name).get_by_text(choice)).first.wait_for()

    def submit(self) -> None:
        """Send the form, of a run that shall start or of one that waits."""
        self.page.get_by_role("button", name=re.compile("^(Submit|Resume)$")).last.click()

    def _open(self, path: str) -> None:
        self.page.goto(f"{self.url}/v2{path}")

    def picture(self, path: Path) -> None:
        """Keep what is seen, with few colours: text on a plain ground needs no more."""
        from PIL import Image  # noqa: PLC0415  only pictures need it

        self.page.wait_for_timeout(800)  # transitions of the page
        image = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        image.quantize(96).save(path, optimize=True)
        if path.stat().st_size > LIMIT:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than {LIMIT:,}; show less on it")


def chromium() -> str:
    """Path of the browser.

    Raises:
        NoBrowser: When there is none.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise NoBrowser("chromium is not on this machine; on Debian: apt-get install chromium")
    return found


@contextmanager
def browser(url: str, *, width: int = 1280, height: int = 1000) -> Iterator[Browser]:
    """A headless browser that looks at one Prefect server.

    Args:
        url: Of the server, with or without ``/api``.
        width: Of its window, in pixels.
        height: Of its window.

    Raises:
        NoBrowser: When chromium or Playwright is missing.
    """
    path = chromium()
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  only those who look need it
    except ImportError as missing:
        raise NoBrowser("Playwright is not installed: pip install playwright (its own browsers are not needed)") from (
            missing
        )
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            page = program.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(_PATIENCE)
            yield Browser(page, url.rstrip("/").removesuffix("/api"))
        finally:
            program.close()


def take(look: Browser, folder: Path) -> list[Path]:
    """Take all pictures that the server has something to show for.

    Args:
        look: At the server.
        folder: To put them into.

    Returns:
        Those that were taken.
    """
    taken: list[Path] = []

    def keep(name: str) -> None:
        look.picture(folder / f"{name}.png")
        taken.append(folder / f"{name}.png")

    look.form("rollback/by-hand")
    keep("form-rollback")
    look.runs("churn")
    look.page.get_by_placeholder("Search by flow run name").hover()
    look.page.mouse.wheel(0, 560)  # past the diagram, to the runs
    keep("runs")
    paused = {"state": {"type": {"any_": ["PAUSED"]}}}
    for run in look.call("/flow_runs/filter", flow_runs=paused, flows={"name": {"any_": ["approve"]}}, limit=1):
        look.question(run["id"])
        keep("approval-form")
    wanted = {"type": {"any_": ["markdown"]}, "key": {"like_": "retrain-"}}
    reports = look.call("/artifacts/filter", artifacts=wanted, sort="UPDATED_DESC", limit=50)
    # One in which something happened says more.
    for report in sorted(reports, key=lambda one: "Retrain model: false" in (one["description"] or ""))[:1]:
        look.artifact(report["id"])
        keep("report")
    return taken


def main(
    url: Annotated[str, typer.Option(help="Of Prefect's server.")] = "",
    folder: Annotated[Path, typer.Option(help="To put the pictures into.")] = IMAGES,
) -> None:
    """Take the pictures of the documents from a server that runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser(url or os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200")) as look:
        for path in take(look, folder):
            typer.echo(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
