"""A rollout whose weights are put onto somebody else's server: the ledger leads, the server follows, or it is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import TOKEN, Cluster, cluster
from shops import POLICY, Shop

from tasks import rollout as rolling
from tasks.case import Case, open_case
from tasks.policy_file import load as load_policy
from tasks.records import Action, Rollout
from tasks.registry import Registry
from tasks.requests import RequestLog, Served

BEGUN = datetime(2126, 3, 2, tzinfo=UTC)
"""After everything that the template did by the clock of the machine."""
MINUTE = timedelta(minutes=1)
TOLD: dict[str, Any] = {"actor": "a test", "reason": "a test", "trail": "t"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Version 2 is deployed beside version 1, and gets nothing."""
    monkeypatch.setenv("KUBE_TOKEN", TOKEN)
    with cluster() as one:
        one.deploy("2", beside="1")
        yield one


@pytest.fixture
def shop(shop_template: Shop, tmp_path: Path, api: Cluster) -> Shop:
    """Version 1 serves, version 2 is a canary with 5 % since BEGUN."""
    one = shop_template.copy(tmp_path / "home")
    kserve = {"service": "churn", "namespace": "models", "url": api.url, "token": "${KUBE_TOKEN}", "timeout": "30s"}
    rollout = {"steps": ["5%", "50%", "100%"], "hold": "15m", "deadline": "4h", "router": {"kserve": kserve}}
    changes = {"rollout": rollout, "health": {"accuracy": "off"}, "notify": [f"file:{one.home}/told.jsonl"]}
    one.policy.write_text(yaml.safe_dump({**POLICY, **changes}), "utf-8")
    with case(one, 0).ledger as ledger:
        first = {"model": "churn", "version": "2", "baseline": "1", "weight": 5, "state": "running"}
        move(one, 0, "stage", "2")
        ledger.weigh(Rollout(id=0, started=BEGUN, at=BEGUN, **first, **TOLD), after=None)  # type: ignore[arg-type]
    return one


def move(shop: Shop, minute: float, action: Action, version: str) -> None:
    """A transition, and who is rolled back to is known good."""
    moment = BEGUN + minute * MINUTE
    with case(shop, minute).ledger as ledger:
        ledger.state_fact("churn", version, "known-good", at=moment, **TOLD)
        standing = ledger.standing("churn")
        Registry(shop.stores).move(ledger, standing, action=action, version=version, at=moment, **TOLD)


def case(shop: Shop, minute: float, *, dry_run: bool = False) -> Case:
    moment = BEGUN + minute * MINUTE
    policy = load_policy(shop.policy)
    return open_case(policy, actor="a test", now=moment, stores=shop.stores, dry_run=dry_run)


def tick(shop: Shop, minute: float, **options: Any) -> rolling.Tick:
    one = case(shop, minute, **options)
    with one.ledger:
        return rolling.tick(one, one.standing())


def serve(shop: Shop, first: int, last: int, *, weight: int, each: int = 600, failing: float = 0.0) -> None:
    """Requests of some minutes, as the server splits them; a share of the canary's fail."""
    rows = []
    for number in range(first * each, last * each):
        ours = number % each < weight * each // 100
        failed = ours and number % each < failing * weight * each / 100
        rows.append(
            Served(
                request_id=f"r{first}-{number}",
                model="churn",
                version="2" if ours else "1",
                role="canary" if ours else "production",
                at=BEGUN + number / each * MINUTE,
                seconds=0.01,
                features={},
                prediction=None if failed else "no",
                failed=failed,
            )
        )
    with RequestLog.open(shop.stores.requests) as log:
        log.record(rows)


def told(shop: Shop) -> str:
    path = shop.home / "told.jsonl"
    return path.read_text("utf-8") if path.is_file() else ""


def test_the_server_has_the_ledgers_weights_from_step_to_step(shop: Shop, api: Cluster) -> None:
    assert tick(shop, 1).decision == "holding"
    assert api.percent == 5
    serve(shop, 0, 16, weight=5)
    assert tick(shop, 16).decision == "stepped"
    assert api.percent == 50, "with the same tick"
    serve(shop, 17, 33, weight=50, each=200)
    assert tick(shop, 33).decision == "promoted"
    assert api.percent == 100
    assert len(api.patches) == 3
    assert tick(shop, 34).decision == "idle"


def test_a_bad_canary_loses_its_share_there_with_the_same_tick(shop: Shop, api: Cluster) -> None:
    tick(shop, 1)
    serve(shop, 0, 4, weight=5, failing=0.3)
    assert tick(shop, 4).decision == "aborted"
    assert api.percent == 0


def test_a_server_that_is_away_holds_the_step_and_says_so(shop: Shop, api: Cluster) -> None:
    tick(shop, 1)
    serve(shop, 0, 16, weight=5)
    api.failing = {"GET": 503}
    held = tick(shop, 16)
    assert held.decision == "holding"
    assert "not all is seen: the InferenceService models/churn: the Kubernetes API" in held.reason
    api.failing = {}
    assert tick(shop, 17).decision == "stepped"


def test_a_bad_canary_is_out_in_the_ledger_although_the_server_is_away_and_a_person_is_told(
    shop: Shop, api: Cluster
) -> None:
    tick(shop, 1)
    serve(shop, 0, 4, weight=5, failing=0.3)
    api.failing = {"PATCH": 500}
    seen = tick(shop, 4)
    assert seen.decision == "aborted"
    assert "answers 500" in seen.reason
    assert "does not split the requests as the ledger says" in told(shop)
    assert api.percent == 5
    api.failing = {}
    assert tick(shop, 5).decision == "idle"
    assert api.percent == 0, "the next tick makes up for it"


def test_mlflow_that_is_away_keeps_no_bad_canary_in_service_there(
    shop: Shop, api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(shop, 1)
    serve(shop, 0, 4, weight=5, failing=0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    one = case(shop, 4)
    away = replace(one, stores=replace(one.stores, tracking="http://127.0.0.1:9"))
    with one.ledger, pytest.raises(Exception, match=r"127\.0\.0\.1"):
        rolling.tick(away, one.standing())
    assert api.percent == 0


def test_a_server_that_stays_away_is_told_after_the_deadline_and_once(shop: Shop, api: Cluster) -> None:
    tick(shop, 1)
    api.failing = {"GET": 500}
    for minute in (2, 10, 17):
        tick(shop, minute)
    assert told(shop) == ""
    for minute in (18, 19, 20):
        tick(shop, minute)
    assert told(shop).count("does not split the requests") == 1
    api.failing = {}
    tick(shop, 21)
    api.failing = {"GET": 500}
    tick(shop, 22)
    assert told(shop).count("does not split the requests") == 1, "another outage has a deadline of its own"


def test_a_dry_run_changes_nothing_there(shop: Shop, api: Cluster) -> None:
    tick(shop, 1, dry_run=True)
    assert api.patches == []


def test_what_was_changed_there_by_hand_is_put_back_also_when_no_rollout_runs(shop: Shop, api: Cluster) -> None:
    tick(shop, 1)
    serve(shop, 0, 4, weight=5, failing=0.3)
    tick(shop, 4)
    api.change({"spec": {"predictor": {"canaryTrafficPercent": 90}}})
    assert tick(shop, 5).decision == "idle"
    assert api.percent == 0


def test_a_rollback_of_production_reaches_the_server(shop: Shop, api: Cluster) -> None:
    tick(shop, 1)
    move(shop, 2, "promote", "2")
    assert tick(shop, 2).decision == "idle"
    assert api.percent == 100
    move(shop, 3, "rollback", "1")
    tick(shop, 3)
    assert api.percent == 0
    move(shop, 4, "promote", "3")
    seen = tick(shop, 4)
    assert (seen.decision, api.percent) == ("holding", 0), "version 3 was never deployed there"
    assert "Deploy the version that is missing" in seen.reason
