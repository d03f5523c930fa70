"""A watch that cannot read its evidence: it waits, calls after the deadline, and makes up for what it missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from shops import POLICY, Shop

from tasks.case import open_case
from tasks.policy_file import load as load_policy
from tasks.requests import RequestLog, Served
from tasks.watch import Tick, tick

MINUTE = timedelta(minutes=1)


@pytest.fixture
def shop(shop_template: Shop, tmp_path: Path) -> Shop:
    one = shop_template.copy(tmp_path / "home")
    changes = {"health": {"accuracy": "off"}, "notify": [f"file:{one.home}/told.jsonl"]}
    one.policy.write_text(yaml.safe_dump({**POLICY, **changes}), "utf-8")
    return one


def since(shop: Shop) -> datetime:
    with shop.case().ledger as ledger:
        moment = ledger.standing("churn").since
    assert moment is not None
    return moment


def serve(shop: Shop, first: int, last: int) -> None:
    served: dict[str, Any] = {"model": "churn", "version": "1", "seconds": 0.01, "features": {}, "prediction": "no"}
    begun = since(shop)
    with RequestLog.open(shop.stores.requests) as log:
        log.record(
            Served(
                request_id=f"r{number}",
                at=begun + number / 20 * MINUTE,
                **served,
            )
            for number in range(first * 20, last * 20)
        )


def watched(shop: Shop, minute: float, *, away: bool = False) -> Tick:
    moment = since(shop) + minute * MINUTE
    case = open_case(load_policy(shop.policy), actor="a test", now=moment, stores=shop.stores)
    if away:
        case = replace(case, stores=replace(case.stores, requests="sqlite:////dev/null/nowhere/requests.db"))
    with case.ledger:
        return tick(case, case.standing())


def told(shop: Shop) -> int:
    path = shop.home / "told.jsonl"
    return path.read_text("utf-8").count("no evidence about version 1") if path.is_file() else 0


def decisions(shop: Shop) -> list[str]:
    with shop.case().ledger as ledger:
        return [one.verdict.decision for one in reversed(ledger.decisions("churn", "health"))]


def test_an_outage_is_told_once_it_has_lasted_and_not_when_it_begins(shop: Shop) -> None:
    serve(shop, 0, 60)
    assert watched(shop, 20).decision == "watching"
    first = watched(shop, 21, away=True)
    assert (first.decision, told(shop)) == ("watching", 0)
    assert "health could not be read: the request log could not be read" in first.reason
    assert watched(shop, 35, away=True).decision == "watching"
    late = watched(shop, 37, away=True)
    assert (late.decision, told(shop)) == ("held", 1)
    assert "(16 minutes), longer than 15 minutes: a person should look" in late.reason
    assert watched(shop, 38, away=True).decision == "held"
    assert told(shop) == 1
    assert decisions(shop) == ["unknown", "unknown"], "what was seen first, and that nothing is seen any more"


def test_a_watch_whose_end_was_not_seen_is_judged_once_it_can_be(shop: Shop) -> None:
    serve(shop, 0, 60)
    watched(shop, 20)
    for minute in (29, 30.5, 31):
        assert watched(shop, minute, away=True).decision == "watching"
    assert watched(shop, 33).decision == "healthy"
    with shop.case().ledger as ledger:
        assert ledger.standing("churn").known_good == ("1",)
    assert watched(shop, 34).decision == "watching"
    assert told(shop) == 0


def test_another_outage_has_a_deadline_of_its_own(shop: Shop) -> None:
    serve(shop, 0, 60)
    watched(shop, 2)
    watched(shop, 3, away=True)
    watched(shop, 5)
    assert watched(shop, 19, away=True).decision == "watching", "not sixteen minutes, but the first one"
    assert watched(shop, 28, away=True).decision == "watching"
    assert told(shop) == 0
