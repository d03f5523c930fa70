"""The story of one version: everything on its trail and what happened to it on others, in order, and safe to open."""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dossiers
import pytest
from rich.console import Console

from flows import trail
from tasks.dossier import Dossier, pack
from tasks.ledger import Ledger
from tasks.places import Places
from tasks.plots import pictures_of
from tasks.records import Candidate, Lesson, Verdict
from tasks.retrial import reach
from tasks.story import Annals, NotTold, Story, tell
from tasks.story_page import page

NASTY = '<img src=x onerror="alert(1)"> & <script>alert("2")</script> [red]$x$'
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def ledger_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version that was made, promoted, and rolled back from on its own trail; another one before it."""
    path = tmp_path_factory.mktemp("story") / "ledger.db"
    with Annals.open(f"sqlite:///{path}") as ledger:
        moved(ledger, "first", "stage", "1")
        moved(ledger, "first", "promote", "1")
        judged(ledger, "second", dossiers.triggers(), None)
        made(ledger, "2")
        judged(ledger, "second", dossiers.gate(n=600), "2")
        moved(ledger, "second", "stage", "2")
        judged(ledger, "second", dossiers.shadow(), "2")
        moved(ledger, "second", "promote", "2")
        told(ledger, "second", "churn: version 2 promoted")
        judged(ledger, "second", dossiers.health(60), "2")
        moved(ledger, "second", "rollback", "1", reason=NASTY)
    return path


@pytest.fixture
def annals(ledger_file: Path, tmp_path: Path) -> Iterator[Annals]:
    """A copy of it."""
    shutil.copy(ledger_file, tmp_path / "ledger.db")
    with Annals.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield ledger


def judged(ledger: Ledger, on: str, dossier: Dossier, version: str | None, at: datetime = dossiers.NOW) -> Verdict:
    verdict = reach(dossier)
    ledger.record("churn", verdict, trail=on, at=at, version=version, flow_run_id="run-1", dossier=pack(dossier))
    return verdict


def moved(ledger: Ledger, on: str, action: Any, version: str, reason: str = "it is better", actor: str = "ada") -> None:
    intent = ledger.intend(
        model="churn",
        based_on=ledger.standing("churn").seq,
        action=action,
        version=version,
        actor=actor,
        reason=reason,
        at=dossiers.NOW,
        trail=on,
    )
    ledger.settle(intent, "applied")


def state(ledger: Ledger, on: str, version: str, fact: str, reason: str = NASTY) -> None:
    ledger.state_fact("churn", version, fact, at=dossiers.NOW, reason=reason, actor="flows.watch", trail=on)


def told(ledger: Ledger, on: str, title: str) -> None:
    ledger.note_notification("churn", trail=on, at=dossiers.NOW, sink="slack://***", title=title, ok=True)


def made(ledger: Ledger, version: str) -> None:
    profile = dossiers.triggers().given["signals"].profile
    ledger.describe(
        Candidate(model="churn", version=version, run_id="r" * 32, digest="d" * 64, size=9_000, profile=profile)
    )


def titles(story: Story) -> list[str]:
    return [step.title for step in story.steps]


SECOND = [
    "triggers: retrain",
    "version 2 trained",
    "gate: pass",
    "version 2 to Staging",
    "shadow: promote",
    "version 2 to Production",
    "told slack://***",
    "health: unhealthy",
    "version 1 back to Production",
    "version 2: quarantined",
]


@pytest.mark.parametrize("asked", ["second", "churn:2", " churn:2 "])
def test_a_story_has_everything_in_the_order_in_which_it_was_written(annals: Annals, asked: str) -> None:
    story = tell(annals, asked)
    assert titles(story) == SECOND  # all at one moment: only the ledger's chain tells the order
    assert (story.model, story.version, story.trail) == ("churn", "2", "second")
    assert story.fate == "version 2 was rolled back from and is quarantined; version 1 serves"
    assert story.run_id == "r" * 32


def test_a_model_is_the_story_of_what_serves_with_what_brought_it_back(annals: Annals) -> None:
    story = tell(annals, "churn")
    assert titles(story) == [
        "version 1 to Staging",
        "version 1 to Production",
        "version 2 to Staging",
        "version 2 to Production",
        "version 1 back to Production",
    ]
    assert story.fate == "version 1 is in Production"


def test_a_rollback_by_hand_is_part_of_the_story_of_the_version_that_it_took_away(annals: Annals) -> None:
    moved(annals, "third", "stage", "3")
    moved(annals, "third", "promote", "3")
    judged(annals, "by-hand", dossiers.rollback(), "1")
    moved(annals, "by-hand", "rollback", "1", reason="customers complain")
    assert titles(tell(annals, "by-hand")) == titles(tell(annals, "churn:3"))
    assert titles(tell(annals, "churn:3"))[-3:] == [
        "rollback: back",
        "version 1 back to Production",
        "version 3: quarantined",
    ]
    assert "customers complain" not in page(tell(annals, "churn:2"), {}, Places())


def test_a_trail_that_made_no_version_says_so(annals: Annals) -> None:
    judged(annals, "quiet", dossiers.triggers(0, 0.81), None)
    story = tell(annals, "quiet")
    assert (story.version, titles(story)) == (None, ["triggers: keep"])
    assert story.fate == "no version was made: triggers: keep"


def test_what_a_version_learned_and_what_nobody_did_are_part_of_the_story(annals: Annals) -> None:
    def lesson(version: str | None, requests: int, on: str) -> Lesson:
        names = tuple(f"r{number}" for number in range(requests))
        return Lesson(
            model="churn", version=version, base="1", requests=names, at=dossiers.NOW, reason="it came in", trail=on
        )

    profile = dossiers.triggers().given["signals"].profile
    candidate = Candidate(model="churn", version="3", run_id="r" * 32, digest="d" * 64, size=9_000, profile=profile)
    annals.describe(candidate, lesson(candidate.version, 50, "third"))
    learned = next(step for step in tell(annals, "churn:3").steps if step.kind == "lesson")
    assert learned.title == "version 3 learned 50 labelled requests, as a copy of version 1"
    judged(annals, "aside", dossiers.triggers(0, 0.81), None)
    annals.set_aside(lesson(None, 1, "aside"))
    assert titles(tell(annals, "aside"))[-1] == "1 labelled request set aside: learned by nobody"


def test_a_model_of_which_nothing_was_ever_promoted_has_a_story_too(tmp_path: Path) -> None:
    with Annals.open(f"sqlite:///{tmp_path / 'other.db'}") as ledger:
        judged(ledger, "one", dossiers.gate(production=None, baseline=None), "1")
        story = tell(ledger, "churn")
        assert (story.trail, story.version, len(story.steps)) == ("one", "1", 1)
        assert story.fate == "version 1 is not in Production; nothing is in Production"


@pytest.mark.parametrize("asked", ["nobody", "nobody:3", "churn:99", ""])
def test_what_the_ledger_does_not_know_is_an_error_that_says_what_it_knows(annals: Annals, asked: str) -> None:
    with pytest.raises(NotTold, match="churn"):
        tell(annals, asked)


def test_an_intent_that_was_never_settled_is_told_as_what_it_is(annals: Annals) -> None:
    annals.intend(
        model="churn",
        based_on=annals.standing("churn").seq,
        action="stage",
        version="4",
        actor="ada",
        reason="next",
        at=dossiers.NOW,
        trail="fourth",
    )
    (step,) = tell(annals, "fourth").steps
    assert (step.title, step.mark) == ("version 4 to Staging (intended)", "unsure")


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_page_shows_what_users_wrote_as_text_and_nothing_of_it_as_html(annals: Annals) -> None:
    state(annals, "second", "2", "paged", reason=NASTY)
    html = page(tell(annals, "churn:2"), {}, Places(mlflow="http://mlflow:5000", prefect="http://prefect:4200"))
    seen = read(html)
    assert NASTY in seen.text
    assert not {"script", "img"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    links = {value for name, value in seen.attributes if name == "href"}
    assert links == {
        "http://mlflow:5000/#/models/churn/versions/2",
        f"http://mlflow:5000/#/runs/{'r' * 32}",
        "http://prefect:4200/runs/flow-run/run-1",
    }


def test_the_page_has_the_pictures_in_itself_and_asks_nobody_for_anything(annals: Annals) -> None:
    story = tell(annals, "churn:2")
    html = page(story, pictures_of(annals, "churn", story.steps), Places())
    seen = read(html)
    sources = [str(value) for name, value in seen.attributes if name == "src"]
    assert len(sources) == 7  # drift, inputs, curves, calibration, agreement, shadow, health
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in html.replace("data:", "")
    assert "default-src 'none'" in html
    assert len(html) < 400_000


def test_evidence_that_was_changed_or_lost_costs_its_pictures_and_not_the_story(
    annals: Annals, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as raw:
        raw.execute("UPDATE backstop_evidence SET body = x'00'")
        raw.commit()
    story = tell(annals, "churn:2")
    assert pictures_of(annals, "churn", story.steps) == {}
    assert "was changed in the ledger" in caplog.text
    assert titles(story) == SECOND


def test_of_a_watch_the_pictures_show_its_verdict_and_not_the_first_minute_of_the_next_one(annals: Annals) -> None:
    judged(annals, "second", dossiers.health(0, 1), "2", at=dossiers.NOW + timedelta(minutes=1))
    story = tell(annals, "churn:2")
    health = [step.evidence for step in story.steps if step.title.startswith("health")]
    shown = pictures_of(annals, "churn", [step for step in story.steps if step.evidence in health])
    assert list(shown) == health[:1]


def test_the_terminal_tells_it_as_text_with_what_decided_against_it(annals: Annals) -> None:
    console = Console(width=400, record=True, file=io.StringIO())
    for line in trail.lines(tell(annals, "churn:2"), Places()):
        console.print(line)
    text = console.export_text()
    assert text.startswith("churn version 2: version 2 was rolled back from and is quarantined; version 1 serves")
    assert NASTY in text
    assert "error_rate unhealthy (value 60%" in text
    assert "data fingerprint x" in text
    assert text.index("gate: pass") < text.index("version 1 back to Production by ada")


def test_the_command_prints_the_story_writes_the_page_and_makes_no_ledger(annals: Annals, tmp_path: Path) -> None:
    where = {"BACKSTOP_HOME": str(tmp_path / "nowhere"), "PATH": "", "NO_COLOR": "1", "COLUMNS": "300"}
    html = tmp_path / "story.html"

    def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.trail", *options]
        return subprocess.run(
            command, cwd=ROOT, env={**where, **environment}, capture_output=True, text=True, check=False
        )

    ledger = f"sqlite:///{tmp_path / 'ledger.db'}"
    done = run("churn:2", "--html", str(html), BACKSTOP_LEDGER=ledger)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rolled back from" in done.stdout
    assert "data:image/png" in html.read_text("utf-8")
    unknown = run("churn:2")
    assert unknown.returncode == 2
    assert "no model at all" in unknown.stderr
    assert not (tmp_path / "nowhere").exists()


def test_only_addresses_of_servers_are_linked_and_without_password(tmp_path: Path) -> None:
    from tasks.stores import Stores

    stores = Stores.at(tmp_path)
    assert Places.from_environment(stores, {}) == Places()
    known = {"BACKSTOP_MLFLOW_UI": "https://ada:secret@mlflow/x/?token=1", "PREFECT_API_URL": "http://prefect/api"}
    assert Places.from_environment(stores, known) == Places(mlflow="https://mlflow/x", prefect="http://prefect")
    assert Places.from_environment(stores, {"BACKSTOP_MLFLOW_UI": "javascript:alert(1)"}) == Places()
    assert Places(mlflow="http://m").version("a/b", "1") == "http://m/#/models/a/b/versions/1"
