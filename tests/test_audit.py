"""The audit: who served, since when, decided by what; and whether the ledger is intact."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from benchmarks import history
from tasks import audit
from tasks.ledger import Ledger
from tasks.outbox import Message
from tasks.records import Finding, Verdict
from tasks.registry import Registry
from tasks.stores import Stores

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOCS = Path(__file__).resolve().parents[1] / "docs" / "ledger.md"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def moved(stores: Stores) -> Iterator[Ledger]:
    """Version 1 from T0, version 2 from T0 + 2 h with a verdict, back to 1 from T0 + 5 h; in MLflow too."""
    clock = Clock()
    registry = Registry(stores)
    registry._client.create_registered_model("churn")
    for _ in range(3):
        registry._client.create_model_version("churn", source=str(stores.home))
    with Ledger.open(stores.ledger, clock=clock) as ledger:

        def move(after: int, action: str, version: str, trail: str) -> None:
            clock.now = T0 + after * HOUR
            registry.move(
                ledger,
                ledger.standing("churn"),
                action=action,  # type: ignore[arg-type]
                version=version,
                actor="ada",
                reason=f"{action} it [sic]",
                at=clock.now,
                trail=trail,
            )

        move(0, "promote", "1", "t1")
        ledger.state_fact("churn", "1", "known-good", at=T0, reason="r", actor="a", trail="t1")
        finding = Finding(name="performance", outcome="ok", reason="0.9")
        verdict = Verdict(judge="gate", decision="pass", reason="it is good", findings=(finding,))
        ledger.record("churn", verdict, trail="t2", at=T0 + HOUR, version="2", dossier=b"scores")
        move(2, "promote", "2", "t2")
        later = Verdict(judge="health", decision="unhealthy", reason="errors", findings=())
        ledger.record("churn", later, trail="t2", at=T0 + 4 * HOUR, version="2", dossier=b"counts")
        move(5, "rollback", "1", "t2")
        yield ledger


def run(stores: Stores, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.audit", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"BACKSTOP_HOME": str(stores.home), "PATH": "", "COLUMNS": "200", "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=DOCS.parents[1],
    )


def test_what_no_sink_has_taken_is_shown(moved: Ledger, stores: Stores) -> None:
    told = {"model": "churn", "trail": "t2", "at": T0, "sink": "slack://***", "address": "d", "body": "b", "due": T0}
    (one, other) = moved.outbox.put(
        Message(kind="notification", title=title, **told) for title in ("churn: rolled back", "churn: held")
    )
    moved.outbox.settle(one, T0, ok=False)
    moved.outbox.settle(other, T0, ok=False, final=True)
    shown = run(stores, "churn", "--no-mlflow").stdout
    assert "not delivered to slack://***, tried again after 2026-01-05 12:01:00 UTC: churn: rolled back" in shown
    assert "not delivered to slack://***, given up: churn: held (of 2026-01-05 12:00:00 UTC, trail t2)" in shown


def test_who_served_since_when_until_when_on_what(moved: Ledger) -> None:
    found = audit.account(moved, "churn", T0 + 3 * HOUR)
    assert found is not None
    assert (found.transition.version, found.transition.applied_at) == ("2", T0 + 2 * HOUR)
    assert found.until == T0 + 5 * HOUR
    (decided,) = found.decisions
    assert (decided.verdict.judge, decided.verdict.decision) == ("gate", "pass")
    assert decided.evidence is not None
    assert moved.evidence(decided.evidence) == b"scores"
    now = audit.account(moved, "churn", T0 + 9 * HOUR)
    assert now is not None
    assert (now.transition.version, now.transition.action, now.until) == ("1", "rollback", None)
    assert [one.verdict.decision for one in now.decisions] == ["pass", "unhealthy"]
    assert audit.account(moved, "churn", T0 - HOUR) is None


def test_the_query_in_the_docs_gives_the_same_answer(moved: Ledger, stores: Stores) -> None:
    block = re.search(r"```sql\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert block is not None
    engine = create_engine(stores.ledger)
    with engine.connect() as connection:
        asked = {"model": "churn", "moment": "2026-01-05 15:00:00"}
        (row,) = connection.execute(text(block[1]), asked)
    engine.dispose()
    assert (row.version, row.actor, row.judge, row.decision) == ("2", "ada", "gate", "pass")
    assert row.evidence is not None


def test_the_python_in_the_docs_runs(moved: Ledger, stores: Stores) -> None:
    block = re.search(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert block is not None
    code = block[1].replace(".backstop", str(stores.home))
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=DOCS.parents[1], env={"PATH": ""}
    )
    assert ran.stdout.startswith("1 2026-01-05 17:00:00+00:00 None rollback it [sic]")


def test_the_command_answers_for_a_moment(moved: Ledger, stores: Stores) -> None:
    ran = run(stores, "churn", "--at", "2026-01-05T15:00Z")
    assert ran.returncode == 0
    assert "Version 2 of churn served at 2026-01-05 15:00:00 UTC" in ran.stdout
    assert "since 2026-01-05 14:00:00 UTC until 2026-01-05 17:00:00 UTC" in ran.stdout
    assert "promote by ada (transition 2, trail t2): promote it [sic]" in ran.stdout
    assert "gate pass (evidence " in ran.stdout
    told = json.loads(run(stores, "churn", "--at", "2026-01-05T15:00Z", "--json").stdout)
    assert (told["transition"]["version"], told["until"]) == ("2", "2026-01-05T17:00:00+00:00")
    assert "Nothing of churn was in Production" in run(stores, "churn", "--at", "2025-01-05T15:00Z").stdout


def test_a_model_of_which_every_candidate_was_refused_has_no_history_and_its_last_decision(stores: Stores) -> None:
    refused = Verdict(judge="gate", decision="fail", reason="accuracy [0.5] is below the floor", findings=())
    with Ledger.open(stores.ledger) as ledger:
        ledger.record("loans", refused, trail="t9", at=T0)
    told = run(stores, "loans")
    assert told.returncode == 0
    assert "loans: nothing was ever in Production or Staging. The last decision" in told.stdout
    assert "gate fail: accuracy [0.5] is below the floor" in told.stdout
    assert "`make trail ID=loans`" in told.stdout
    assert json.loads(run(stores, "loans", "--json").stdout)["history"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("chrun",), "'chrun' has no history in this ledger; it knows churn"),
        (("churn", "--at", "yesterday"), "--at 'yesterday'"),
        (("churn", "--at", "2026-01-05T15:00"), "write it as 2026-05-01T03:00Z"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_as_such(
    moved: Ledger, stores: Stores, arguments: tuple[str, ...], told: str
) -> None:
    ran = run(stores, *arguments)
    assert ran.returncode == 2
    assert told in " ".join(re.sub(r"[│\n]", " ", ran.stderr).split())


def test_a_ledger_that_was_written_anew_differs_from_mlflow(moved: Ledger, stores: Stores) -> None:
    from tasks import chain

    registry = Registry(stores)
    assert [one.outcome for one in audit.compare(moved, registry, "churn")] == ["ok", "ok"]
    engine = create_engine(stores.ledger)
    with engine.begin() as connection:
        connection.execute(text("UPDATE backstop_transitions SET actor = 'nobody' WHERE seq = 1"))
        connection.execute(text("DELETE FROM backstop_chain"))
    engine.dispose()
    with moved.holding("churn") as held:
        chain.seal(held._connection)
    assert moved.misfits("churn") == ()
    assert {one.outcome for one in audit.compare(moved, registry, "churn")} == {"breach"}


def test_a_change_behind_its_back_ends_the_command_with_an_error(moved: Ledger, stores: Stores) -> None:
    engine = create_engine(stores.ledger)
    with engine.begin() as connection:
        connection.execute(text("UPDATE backstop_transitions SET reason = 'it was fine' WHERE seq = 2"))
    engine.dispose()
    ran = run(stores, "churn", "--no-mlflow")
    assert ran.returncode == 1
    assert "broken chain: transition 2" in ran.stdout


def test_the_benchmark_of_the_history_answers_right_in_a_smaller_form(tmp_path: Path, mlflow_template: Path) -> None:
    found, _ = history.measure(f"sqlite:///{tmp_path / 'ledger.db'}", 150, 100)
    assert (found.wrong, found.misfits, len(found.milliseconds)) == (0, 0, 100)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    assert history.peer(tmp_path, 20, 20) > 0.5
