"""A dry run says what would happen and changes nothing: no run, no version, no row, no file, no word to anybody."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scene import CHANGED, FIRST, QUIET, Ran, Scene

from flows.promote import promote
from flows.retrain import retrain
from flows.rollback import rollback
from flows.watch import watch
from rehearsal.traffic import Faults
from tasks.stores import Stores

pytestmark = pytest.mark.usefixtures("prefect_api")

WHY = {"force": True, "reason": "a test asks for it"}
NEVER = {"performance": {"metric": "accuracy", "at_least": 0.999}}


def contents(scene: Scene) -> dict[str, Any]:
    """Everything under the home: the rows of every table, the digests of the other files, the folders."""
    found: dict[str, Any] = {}
    for path in sorted(scene.home.rglob("*")):
        name = str(path.relative_to(scene.home))
        if path.suffix == ".db":
            found[name] = rows(path)
        elif not name.endswith(("-wal", "-shm")):  # SQLite's own, gone when the last reader is
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
    return found


def rows(database: Path) -> dict[str, Any]:
    connection = sqlite3.connect(database)
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    finally:
        connection.close()


def unchanged(scene: Scene, dry_run: Callable[[], Ran]) -> Ran:
    """The dry run, after which nothing is different."""
    before = contents(scene)
    assert {"churn.yaml", "churn.csv", "mlflow.db"} <= set(before)
    ran = dry_run()
    after = contents(scene)
    assert sorted(after) == sorted(before)
    assert {name for name in before if before[name] != after[name]} == set()
    return ran


def concluded(ran: Ran, decision: str) -> str:
    """The line of a dry run that would have come to this decision."""
    assert ran.state.is_completed()
    assert ran.state.name == "DryRun"  # an automation that waits for Promoted does not hear of it
    assert (ran.report.decision, ran.report.dry_run, ran.report.transition) == (decision, True, None)
    assert ran.report.line.startswith("dry run, nothing changed: ")
    return ran.report.line


def test_retrain_says_that_it_would_keep(first: Scene) -> None:
    path = first.policy()
    ran = unchanged(first, lambda: first.run(retrain, QUIET, policy=path, dry_run=True))
    assert "Retrain model: false" in concluded(ran, "kept")
    assert ran.report.production == "1"


def test_retrain_says_that_it_would_promote(first: Scene) -> None:
    first.traffic(CHANGED - 14, CHANGED)
    path = first.policy()
    ran = unchanged(first, lambda: first.run(retrain, CHANGED, policy=path, dry_run=True))
    assert "would be staged; shadow says promote" in concluded(ran, "promoted")
    assert [verdict.decision for verdict in ran.report.verdicts] == ["retrain", "pass", "promote"]
    assert (ran.report.production, ran.report.candidate) == ("1", None)
    assert first.run(retrain, CHANGED, policy=path).report.decision == "promoted"  # and so it does


def test_retrain_says_that_it_would_wait_for_requests_and_makes_no_request_log(first: Scene) -> None:
    path = first.policy()
    (first.home / "requests.db").unlink()
    ran = unchanged(first, lambda: first.run(retrain, CHANGED, policy=path, dry_run=True, **WHY))
    assert "shadow says wait" in concluded(ran, "waiting")


def test_retrain_says_that_the_gate_would_fail(first: Scene) -> None:
    path = first.policy(gate=NEVER)
    ran = unchanged(first, lambda: first.run(retrain, QUIET, policy=path, dry_run=True, **WHY))
    assert "0.999" in concluded(ran, "gate-failed")
    assert ran.report.production == "1"


def test_retrain_judges_a_waiting_candidate_and_leaves_it_waiting(first: Scene) -> None:
    path = first.policy()
    assert first.run(retrain, CHANGED, policy=path, **WHY).report.decision == "waiting"
    ran = unchanged(first, lambda: first.run(retrain, CHANGED + 1, policy=path, dry_run=True))
    assert "version 2 waits in Staging" in concluded(ran, "waiting")
    assert first.view.staging == ("2",)


def test_a_first_dry_run_makes_no_home(empty: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, home = empty.policy(), tmp_path / "never"
    monkeypatch.setenv("BACKSTOP_HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    ran = unchanged(empty, lambda: empty.run(retrain, FIRST, policy=path, dry_run=True))
    assert "no baseline: this is the first model" in concluded(ran, "promoted")
    assert ran.report.production is None
    assert not home.exists()
    assert sorted(tmp_path.iterdir()) == before  # and what it needed meanwhile is gone


def test_bad_data_fails_a_dry_run_without_a_row_or_a_word(first: Scene) -> None:
    path = first.policy(data={"source": "nowhere.csv"})
    ran = unchanged(first, lambda: first.run(retrain, QUIET, policy=path, dry_run=True))
    assert ran.state.is_failed()
    assert "nowhere.csv" in str(ran.state.message)


def test_promote_is_a_dry_run_by_default(first: Scene) -> None:
    path = first.policy()
    first.run(retrain, CHANGED, policy=path, **WHY)
    ran = unchanged(first, lambda: first.run(promote, CHANGED, policy=path, reason="a test asks for it"))
    assert "version 2 replaces 1: a test asks for it" in concluded(ran, "promoted")
    assert (first.view.production, first.view.staging) == (("1",), ("2",))


def test_a_rejection_is_a_dry_run_by_default(first: Scene) -> None:
    path = first.policy()
    first.run(retrain, CHANGED, policy=path, **WHY)
    ran = unchanged(
        first, lambda: first.run(promote, CHANGED, policy=path, reason="a test asks for it", decision="reject")
    )
    assert "version 2" in concluded(ran, "rejected")
    assert first.view.staging == ("2",)


def test_rollback_is_a_dry_run_by_default(second: Scene) -> None:
    path = second.policy()
    ran = unchanged(second, lambda: second.run(rollback, CHANGED, policy=path, reason="a test asks for it"))
    assert "version 2 goes back to 1: a test asks for it" in concluded(ran, "rolled-back")
    assert second.view.production == ("2",)
    assert second.standing.quarantined == ()


def test_watch_says_that_it_would_roll_back(second: Scene) -> None:
    path, later = second.policy(), CHANGED + 20 / 1440
    second.traffic(CHANGED, later, requests=400, faults=Faults(errors=0.5))
    ran = unchanged(second, lambda: second.run(watch, later, policy=path, dry_run=True))
    assert "version 2 goes back to 1" in concluded(ran, "rolled-back")
    assert second.view.production == ("2",)
    assert second.standing.quarantined == ()


def test_watch_without_a_request_log_makes_none_and_pages_nobody(second: Scene) -> None:
    path = second.policy()
    (second.home / "requests.db").unlink()
    ran = unchanged(second, lambda: second.run(watch, CHANGED + 1, policy=path, dry_run=True))
    assert concluded(ran, "held")


def test_what_is_there_is_read_where_it_is_and_what_is_not_is_made_elsewhere(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    (home / "ledger.db").touch()
    stores = Stores.at(home)
    rehearsed = stores.rehearsed(scratch)
    assert (rehearsed.ledger, rehearsed.home, rehearsed.artifacts) == (stores.ledger, stores.home, stores.artifacts)
    assert {rehearsed.requests, rehearsed.tracking}.isdisjoint({stores.requests, stores.tracking, stores.ledger})
    assert rehearsed.requests != rehearsed.tracking
    shared = Stores.from_environment({"BACKSTOP_HOME": str(home), "BACKSTOP_LEDGER": f"sqlite:///{home / 'both.db'}"})
    assert (both := shared.rehearsed(scratch)).ledger == both.requests != shared.ledger
    server = Stores.from_environment({"BACKSTOP_LEDGER": "postgresql://ada@db/x", "MLFLOW_TRACKING_URI": "http://m:1"})
    assert server.rehearsed(scratch) == server
    shutil.rmtree(home)
