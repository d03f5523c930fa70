"""The demo as a person runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.ledger import Ledger
from tasks.stores import Stores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of this machine but the interpreter: an own home, an own working folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BACKSTOP_", "PREFECT_"))}
    environment |= {"HOME": str(folder / "user"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "rehearsal.demo", *arguments],
        cwd=folder / "project",
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "policies", tmp_path / "project" / "policies")
    (tmp_path / "user").mkdir()
    return tmp_path


def test_the_demo_tells_the_whole_story_and_leaves_nothing_outside_its_folder(folder: Path) -> None:
    told = demo(folder)
    assert told.returncode == 0, told.stdout + told.stderr
    story = ["first-promoted", "healthy", "kept", "promoted", "healthy", "gate-failed", "promoted", "rolled-back"]
    lines = [line.strip() for line in told.stdout.splitlines()]
    # A long sentence is folded, and the folded part may begin with a date or a number.
    told_at = [re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d (?P<decision>[a-z-]+) ", line) for line in lines]
    decisions = [found["decision"] for found in told_at if found and found["decision"] != "watching"]
    assert decisions == story, told.stdout
    assert "BACKSTOP_HOME=.demo make mlflow-ui" in told.stdout
    assert "make prefect-ui" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
    with Ledger.open(Stores.at(folder / "project" / ".demo").ledger) as ledger:
        steps = [step.action for step in ledger.history("churn")]
        standing = ledger.standing("churn")
    assert steps == ["stage", "promote"] * 3 + ["rollback"]
    assert standing.production == "2"
    assert standing.quarantined == ("4",)
    assert sorted(path.name for path in (folder / "project").iterdir()) == [".demo", "policies"]
    assert not [path for path in (folder / "user").rglob("*") if path.is_file() and "matplotlib" not in str(path)]


def test_a_folder_that_is_not_the_demos_is_not_deleted(folder: Path) -> None:
    mine = folder / "project" / ".demo" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    told = demo(folder)
    assert told.returncode == 1
    assert "not made by the demo" in told.stderr
    assert mine.read_text() == "years of work"


def test_data_that_does_not_exist_is_one_sentence(folder: Path) -> None:
    told = demo(folder, "--data", "nowhere.csv")
    assert told.returncode == 1
    assert "nowhere.csv" in told.stdout.replace("\n", "")
    assert "Traceback" not in told.stdout + told.stderr
