"""Beside: the watch asks a canary, or a live shadow, before it takes Production back; from the ledger and the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks import rollout as rolling
from tasks import watch
from tasks.beside import beside
from tasks.case import Case
from tasks.ledger import Ledger
from tasks.policy import Policy
from tasks.records import Action, Rollout
from tasks.requests import Label, RequestLog, Role, Served
from tasks.stores import Stores

T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOW = T0 + 10 * MINUTE


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores.at(tmp_path)


@pytest.fixture
def ledger(stores: Stores) -> Iterator[Ledger]:
    """Version 1 is in Production, version 2 in Staging."""
    with Ledger.open(stores.ledger, clock=lambda: T0) as opened:
        move(opened, "promote", "1")
        move(opened, "stage", "2")
        yield opened


def move(ledger: Ledger, action: Action, version: str) -> None:
    told = {"actor": "ada", "reason": "because", "at": T0, "trail": f"t{version}"}
    based_on = ledger.standing("churn").seq
    begun = ledger.intend(model="churn", based_on=based_on, action=action, version=version, **told)  # type: ignore[arg-type]
    ledger.settle(begun, "applied")


def canary(ledger: Ledger) -> None:
    fields = {"id": 0, "model": "churn", "version": "2", "baseline": "1", "weight": 25, "state": "running"}
    fields |= {"started": T0, "at": T0, "reason": "it passed", "actor": "flows.retrain", "trail": "t2"}
    ledger.weigh(Rollout(**fields), after=None)  # type: ignore[arg-type]


def case(stores: Stores, ledger: Ledger, **sections: object) -> Case:
    policy = Policy.model_validate(
        {
            "model": "churn",
            "data": {"source": "rows.csv", "target": "y", "timestamp": "at"},
            "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
            **sections,
        }
    )
    return Case(policy, stores, ledger, NOW, "test", "t")


def served(stores: Stores, version: str, role: Role, *, failed: int = 0, wrong: int = 0, per_minute: int = 60) -> None:
    """Ten minutes of requests; of every minute's so many failed, or were answered wrongly and labelled at once."""
    rows, labels = [], []
    asked = "1" if role == "shadow" else version  # a shadow answers the requests of Production
    for number in range(10 * per_minute):
        minute, place = divmod(number, per_minute)
        request = f"{asked}-{number}"
        bad = place < failed
        rows.append(
            Served(
                request_id=request,
                model="churn",
                version=version,
                at=T0 + minute * MINUTE + timedelta(milliseconds=place),
                seconds=0.01,
                features={"x": 1},
                prediction=None if bad else "no" if place < failed + wrong else "yes",
                failed=bad,
                role=role,
            )
        )
        labels.append(Label(model="churn", request_id=request, label="yes", at=NOW))
    with RequestLog.open(stores.requests) as log:
        log.record(rows)
        log.label(labels)


def test_an_incident_of_both_arms_is_frozen_and_pages_once(stores: Stores, ledger: Ledger) -> None:
    canary(ledger)
    served(stores, "1", "production", failed=30)
    served(stores, "2", "canary", failed=10, per_minute=20)
    asked = case(stores, ledger)
    seen = watch.tick(asked, asked.standing())
    assert (seen.decision, seen.news, seen.transition) == ("held", True, None)
    kept = ledger.decisions("churn", "health")[0]
    assert kept.verdict.decision == "frozen"
    assert "version 2, a canary, is bad at the same time" in kept.verdict.reason
    assert ledger.has_fact("churn", "1", "paged")
    assert ledger.standing("churn").production == "1"
    again = watch.tick(asked, asked.standing())
    assert (again.decision, again.news) == ("held", False)
    assert len(ledger.decisions("churn", "health")) == 1


def test_as_long_as_it_is_frozen_the_canary_gets_no_more(stores: Stores, ledger: Ledger) -> None:
    canary(ledger)
    served(stores, "1", "production", failed=30)
    served(stores, "2", "canary", failed=10, per_minute=20)
    asked = case(stores, ledger, rollout={"hold": "5m"})
    watch.tick(asked, asked.standing())
    held = rolling.tick(asked, asked.standing())
    assert held.decision == "holding"
    assert "version 1 in Production is bad as well since" in held.reason


def test_a_canary_that_has_gone_since_is_still_asked_for_what_both_went_through(stores: Stores, ledger: Ledger) -> None:
    canary(ledger)
    served(stores, "1", "production", failed=30)
    served(stores, "2", "canary", failed=10, per_minute=20)
    running = ledger.rollout("churn")
    assert running is not None
    ledger.weigh(replace(running, weight=0, state="aborted", at=NOW - MINUTE), after=running)
    asked = case(stores, ledger)
    found, _ = beside(asked, asked.standing(), start=T0, end=NOW)
    assert found is not None
    assert not found.serving
    assert watch.tick(asked, asked.standing()).verdicts[0].decision == "frozen"
    later, _ = beside(asked, asked.standing(), start=NOW, end=NOW + MINUTE)
    assert later is None, "of what came after it had gone it knows nothing"


def test_a_canary_that_does_well_leaves_no_excuse(stores: Stores, ledger: Ledger) -> None:
    canary(ledger)
    served(stores, "1", "production", failed=30)
    served(stores, "2", "canary", per_minute=20)
    asked = case(stores, ledger)
    assert watch.tick(asked, asked.standing()).verdicts[0].decision == "unhealthy"


def test_a_shadow_that_errs_on_the_same_requests_shares_the_cause(stores: Stores, ledger: Ledger) -> None:
    served(stores, "1", "production", wrong=40)
    served(stores, "2", "shadow", wrong=40)
    asked = case(stores, ledger, shadow={"live": "on"})
    seen = watch.tick(asked, asked.standing())
    assert (seen.decision, seen.verdicts[0].decision) == ("held", "frozen")
    assert "version 2, answering unseen, is bad at the same time" in seen.reason


def test_nobody_is_asked_as_long_as_all_is_well(
    stores: Stores, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_for(*_: object, **__: object) -> None:
        raise AssertionError("a quiet tick read what nobody needs")

    monkeypatch.setattr(watch, "beside", asked_for)
    canary(ledger)
    served(stores, "1", "production", failed=1)
    asked = case(stores, ledger)
    assert watch.tick(asked, asked.standing()).decision == "watching"


def test_without_another_version_it_is_said_why(stores: Stores, ledger: Ledger) -> None:
    asked = case(stores, ledger)
    assert beside(asked, asked.standing(), start=T0, end=NOW) == (None, "no other version answers at the same time")


def test_a_log_that_cannot_be_read_is_said_to_be_so(stores: Stores, ledger: Ledger) -> None:
    canary(ledger)
    (stores.home / "requests.db").write_text("no database")
    found, why = beside(case(stores, ledger), ledger.standing("churn"), start=T0, end=NOW)
    assert found is None
    assert "what version 2 did at the same time could not be read (the request log could not be read" in (why or "")
