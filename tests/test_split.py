"""The split of the requests is the ledger's word: it sums to 100, goes to versions with a place, and moves by steps."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.ledger import Ledger, StaleDecision
from tasks.records import Action, Arm, Rollout, Standing
from tasks.requests import Label, RequestLog, Served
from tasks.split import arms
from tasks.story import Annals, tell

ROOT = Path(__file__).resolve().parents[1]
T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def row(weight: int = 5, **changes: object) -> Rollout:
    fields = {"id": 0, "model": "churn", "version": "2", "baseline": "1", "weight": weight, "state": "running"}
    fields |= {"started": T0, "at": T0, "reason": "it passed", "actor": "flows.retrain", "trail": "t2"}
    return Rollout(**fields | changes)  # type: ignore[arg-type]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """Version 1 is in Production, version 2 in Staging."""
    with Ledger.open(url, clock=lambda: T0) as opened:
        move(opened, "promote", "1")
        move(opened, "stage", "2")
        yield opened


def move(ledger: Ledger, action: Action, version: str) -> None:
    based_on = ledger.standing("churn").seq
    told = {"actor": "ada", "reason": "because", "at": T0, "trail": f"t{version}"}
    begun = ledger.intend(model="churn", based_on=based_on, action=action, version=version, **told)  # type: ignore[arg-type]
    ledger.settle(begun, "applied")


def state(ledger: Ledger) -> tuple[str, int]:
    newest = ledger.rollout("churn")
    assert newest is not None
    return newest.state, newest.weight


# Arms.


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    production=st.sampled_from([None, "1", "2", "3"]),
    staged=st.sampled_from([None, "1", "2", "3"]),
    quarantined=st.sampled_from([(), ("2",)]),
    weight=st.integers(-5, 105),
    said=st.sampled_from(["running", "promoted", "aborted", "ended"]),
)
def test_weights_sum_to_100_and_go_to_versions_that_have_a_place(
    production: str | None, staged: str | None, quarantined: tuple[str, ...], weight: int, said: str
) -> None:
    standing = Standing(model="churn", production=production, staged=staged, quarantined=quarantined)
    found = arms(standing, row(weight, state=said))
    assert sum(arm.weight for arm in found) == (100 if production else 0)
    assert all(0 < arm.weight <= 100 for arm in found)
    assert [arm.version for arm in found[:1]] == ([production] if production else [])
    if len(found) > 1:
        assert (found[1], staged, production, said, quarantined) == (Arm("2", weight), "2", "1", "running", ())


def test_a_gateway_reads_the_split_that_was_put_down(ledger: Ledger) -> None:
    assert ledger.arms("churn") == (Arm("1", 100),)
    first = ledger.weigh(row(5), after=None)
    assert ledger.arms("churn") == (Arm("1", 95), Arm("2", 5))
    ledger.weigh(row(25, at=T0 + MINUTE), after=first)
    assert ledger.arms("churn") == (Arm("1", 75), Arm("2", 25))
    assert ledger.arms("fraud") == ()
    assert [(one.weight, one.state) for one in ledger.rollouts("churn")] == [(5, "running"), (25, "running")]


# One step at a time.


def test_of_two_ticks_at_once_one_takes_the_step(ledger: Ledger, url: str) -> None:
    first = ledger.weigh(row(5), after=None)
    barrier, won, lost = threading.Barrier(4), [], []

    def step(number: int) -> None:
        with Ledger.open(url) as own:
            barrier.wait()
            try:
                won.append(own.weigh(row(25, actor=f"tick {number}"), after=first).actor)
            except StaleDecision as stale:
                lost.append(str(stale))

    threads = [threading.Thread(target=step, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (len(won), len(lost)) == (1, 3)
    assert all("somebody else got in first" in one for one in lost)
    assert [one.weight for one in ledger.rollouts("churn")] == [5, 25]


@pytest.mark.parametrize("weight", [-1, 100, 101])
def test_production_is_given_by_a_promotion_and_by_no_weight(ledger: Ledger, weight: int) -> None:
    with pytest.raises(ValueError, match="0 to 99 percent"):
        ledger.weigh(row(weight), after=None)


@pytest.mark.parametrize("changes", [{"version": "3"}, {"baseline": "9"}])
def test_no_share_goes_to_a_version_without_a_place(ledger: Ledger, changes: dict[str, str]) -> None:
    with pytest.raises(StaleDecision):
        ledger.weigh(row(5, **changes), after=None)
    assert ledger.rollouts("churn") == ()


def test_while_a_version_moves_no_share_is_given(ledger: Ledger) -> None:
    told = {"actor": "ada", "reason": "because", "at": T0, "trail": "t"}
    begun = ledger.intend(model="churn", based_on=2, action="reject", version="2", **told)  # type: ignore[arg-type]
    with pytest.raises(StaleDecision):
        ledger.weigh(row(5), after=None)
    ledger.settle(begun, "abandoned")
    assert ledger.weigh(row(5), after=None).weight == 5


# What ends it, ends it in the same transaction.


@pytest.mark.parametrize(
    ("moves", "ended", "words"),
    [
        ([("promote", "2")], ("promoted", 100), "version 2 is in Production: promote of version 2 by ada"),
        ([("promote", "3")], ("ended", 0), "version 3 is in Production, no longer version 1 that 2 was compared with"),
        ([("rollback", "0")], ("ended", 0), "version 0 is in Production, no longer version 1"),
        ([("rollback", "0"), ("promote", "3")], ("ended", 0), "rollback of version 0 by ada"),
        ([("stage", "3")], ("ended", 0), "version 2 is superseded by version 3, which passed the gate"),
        ([("reject", "2")], ("ended", 0), "version 2 was taken out of Staging: reject of version 2 by ada"),
    ],
)
def test_a_move_that_takes_its_place_ends_a_rollout_with_the_reason(
    ledger: Ledger, moves: list[tuple[Action, str]], ended: tuple[str, int], words: str
) -> None:
    ledger.weigh(row(25), after=None)
    for action, version in moves:
        move(ledger, action, version)
        assert len(ledger.arms("churn")) == 1
    assert state(ledger) == ended
    newest = ledger.rollout("churn")
    assert newest is not None
    assert words in newest.reason
    assert newest.actor == "ada"
    assert len(ledger.rollouts("churn")) == 2
    assert ledger.misfits("churn") == ()


def test_what_was_only_intended_ends_nothing(ledger: Ledger) -> None:
    ledger.weigh(row(25), after=None)
    told = {"actor": "ada", "reason": "because", "at": T0, "trail": "t"}
    begun = ledger.intend(model="churn", based_on=2, action="promote", version="3", **told)  # type: ignore[arg-type]
    assert state(ledger) == ("running", 25)
    ledger.settle(begun, "abandoned")
    assert ledger.arms("churn") == (Arm("1", 75), Arm("2", 25))


def test_a_change_outside_that_is_adopted_ends_it_too(ledger: Ledger) -> None:
    ledger.weigh(row(25), after=None)
    with ledger.holding("churn") as held:
        held.adopt(action="external", version="7", production="7", reason="clicked", at=T0, trail="t")
    assert state(ledger) == ("ended", 0)
    assert ledger.arms("churn") == (Arm("7", 100),)


def test_production_that_goes_and_comes_back_does_not_bring_the_canary_back(ledger: Ledger) -> None:
    ledger.weigh(row(25), after=None)
    move(ledger, "promote", "3")
    move(ledger, "promote", "1")
    assert ledger.standing("churn").staged == "2"
    assert ledger.arms("churn") == (Arm("1", 100),)


def test_an_abort_and_its_quarantine_are_one(ledger: Ledger) -> None:
    first = ledger.weigh(row(25), after=None)
    ledger.weigh(replace(first, weight=0, state="aborted", reason="it fails"), after=first)
    assert ledger.standing("churn").quarantined == ("2",)
    assert ledger.arms("churn") == (Arm("1", 100),)
    with pytest.raises(ValueError, match="quarantined"):
        move(ledger, "promote", "2")


def test_a_weight_that_is_changed_behind_the_ledgers_back_is_noticed(ledger: Ledger) -> None:
    ledger.weigh(row(5), after=None)
    assert ledger.misfits("churn") == ()
    with ledger._database.writing() as connection:
        connection.execute(text("UPDATE backstop_rollouts SET weight = 50"))
    (found,) = ledger.misfits("churn")
    assert "step of a rollout 1" in found


def test_the_story_of_a_version_has_its_shares_in_it(ledger: Ledger, url: str) -> None:
    first = ledger.weigh(row(5), after=None)
    ledger.weigh(replace(first, weight=0, state="aborted", reason="it fails"), after=first)
    with Annals.open(url) as annals:
        told = [(step.title, step.text, step.mark) for step in tell(annals, "churn:2").steps if step.kind == "rollout"]
    assert told == [
        ("version 2 answers 5% of the requests", "it passed", "plain"),
        ("version 2 answers 0% of the requests, the rollout was aborted", "it fails", "bad"),
    ]


# Whose requests are whose.


def test_what_a_canary_answered_is_counted_as_the_canarys_and_not_as_productions(tmp_path: Path) -> None:
    def one(number: int, role: str, version: str, *, failed: bool) -> Served:
        answered = {"prediction": None if failed else "no", "failed": failed, "role": role, "version": version}
        at = T0 + number * timedelta(seconds=1)
        return Served(request_id=f"{number}", model="churn", at=at, seconds=0.1, features={}, **answered)  # type: ignore[arg-type]

    with RequestLog.open(f"sqlite:///{tmp_path / 'log.db'}") as log:
        log.record(one(number, "canary", "2", failed=number < 3) for number in range(10))
        log.record(one(number, "production", "1", failed=False) for number in range(10, 40))
        log.label(Label(request_id=f"{number}", model="churn", label="yes", at=T0) for number in range(5))
        window = {"start": T0, "until": T0 + MINUTE, "tick": MINUTE, "slow_after": 1.0, "problem": "binary"}
        (ours,) = log.looks("churn", "2", role="canary", **window)  # type: ignore[arg-type]
        (theirs,) = log.looks("churn", "1", **window)  # type: ignore[arg-type]
        assert (ours.requests, ours.errors, ours.labelled, ours.wrong) == (10, 3, 2, 2)
        assert (theirs.requests, theirs.errors) == (30, 0)
        assert set(log.window("churn", start=T0, end=T0 + MINUTE, limit=99).versions) == {"1"}
        assert log.last_request("churn", "2") is None
        assert log.last_request("churn", "2", role="canary") == T0 + timedelta(seconds=9)


def test_a_tick_that_finds_no_rollout_imports_neither_mlflow_nor_numpy() -> None:
    code = "import sys, tasks.rollout, tasks.split, tasks.canary; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.split())
    assert "tasks.rollout" in loaded
    assert not loaded & {"mlflow", "numpy", "pandas", "sklearn", "prefect"}
