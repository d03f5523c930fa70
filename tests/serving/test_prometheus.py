"""The gateway's own metrics through a real Prometheus server: exact counts, and a rollback that rests on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from scene import run
from scraping import Prometheus, prometheus
from servers import NotInstalled, until
from shops import GOOD, NOW, POLICY, Server, Shop, serving

from flows.watch import watch
from tasks.case import Case, open_case
from tasks.health_sources import RequestLogSource, source
from tasks.policy_file import load as load_policy
from tasks.records import HealthEvidence, Report

HEALTH: dict[str, Any] = {"tick": "1s", "watch": "30m", "accuracy": "off", "latency_p95": "1s", "silence": "20s"}
FAILING = {**GOOD, "tenure_months": -9999}
"""A row on which the brittle version fails."""


@dataclass(frozen=True, slots=True)
class Scraped:
    """A shop whose gateway a Prometheus looks at every second, and whose policy asks that one."""

    shop: Shop
    gateway: Server
    scraper: Prometheus


@contextmanager
def scraped(template: Shop, home: Path) -> Iterator[Scraped]:
    """Version 1 is known good, version 4 fails on some rows and has just come to Production."""
    shop = template.copy(home)
    assert shop.train("brittle:build") == "4"
    shop.move("promote", "4")
    with shop.case().ledger as ledger:
        told = {"at": NOW, "reason": "a test", "actor": "a test", "trail": "t"}
        ledger.state_fact("churn", "1", "known-good", **told)  # type: ignore[arg-type]
    try:
        with (
            serving(shop, version="4") as gateway,
            prometheus(home / "prometheus", f"127.0.0.1:{gateway.port}") as scraper,
        ):
            section = {"url": scraper.url, "settle": "2s", "stale": "5s"}
            changed = {"health": {**HEALTH, "prometheus": section}, "notify": [f"file:{home}/told.jsonl"]}
            shop.policy.write_text(yaml.safe_dump({**POLICY, **changed}), "utf-8")
            until(lambda: scraper.value("up") == 1, told="the gateway is not scraped")
            yield Scraped(shop, gateway, scraper)
    except NotInstalled as missing:
        pytest.skip(f"{missing}")


@pytest.fixture(scope="module")
def counted(shop_template: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """For the tests that only count: the last of them leaves the gateway stopped."""
    with scraped(shop_template, tmp_path_factory.mktemp("counted") / "home") as place:
        yield place


def opened(shop: Shop) -> Case:
    return open_case(load_policy(shop.policy), actor="a test", stores=shop.stores)


def evidence(shop: Shop, version: str, now: datetime, *, log: bool = False) -> HealthEvidence:
    """By Prometheus, or by the request log."""
    case = opened(shop)
    with case.ledger:
        since = case.standing().since
    assert since is not None
    health = case.policy.health
    asked = RequestLogSource(shop.stores.requests) if log else source(shop.stores, case.policy)
    return asked.evidence("churn", version, started=since, now=now, health=health, problem="binary")


def sums(found: HealthEvidence) -> tuple[int, int, int]:
    assert found.unavailable is None, found.unavailable
    looks = found.looks
    return sum(one.requests for one in looks), sum(one.errors for one in looks), sum(one.slow for one in looks)


def ask(gateway: Server, number: int, *, failing: int = 0) -> None:
    for one in range(number):
        gateway.post("/predict", {"features": FAILING if one < failing else GOOD})


def test_every_request_is_counted_once_also_over_a_restart(counted: Scraped) -> None:
    shop, gateway, scraper = counted.shop, counted.gateway, counted.scraper
    ask(gateway, 40, failing=7)
    # What a process counts after it was scraped and before its end is lost with it.
    until(lambda: scraper.value("sum(backstop_requests_total)") == 40, told="what was asked is not scraped")
    gateway.stop()
    gateway.start()
    gateway.wait(lambda: gateway.serving() == "4", "version 4 is not served")
    until(lambda: scraper.value("up") == 1, told="the gateway is not scraped again")
    ask(gateway, 25, failing=2)
    time.sleep(4)
    now = datetime.now(UTC)
    found, logged = evidence(shop, "4", now), evidence(shop, "4", now, log=True)
    assert sums(found) == sums(logged) == (65, 9, 0)
    assert (found.partial, found.last_request is not None) == (None, True)
    ask(gateway, 10)
    time.sleep(2.5)
    assert evidence(shop, "4", now).looks == found.looks, "the same moment is counted the same whoever asks when"
    later = evidence(shop, "4", datetime.now(UTC)).looks
    assert later[: len(found.looks)] == found.looks


def test_a_gateway_that_is_gone_is_no_evidence(counted: Scraped) -> None:
    shop, gateway, scraper = counted.shop, counted.gateway, counted.scraper
    ask(gateway, 20)
    time.sleep(3)
    gateway.stop()
    until(lambda: scraper.value("up") == 0, told="the gateway is still there")
    time.sleep(3)
    found = evidence(shop, "4", datetime.now(UTC))
    assert found.unavailable is not None
    assert "cannot be scraped since" in found.unavailable
    assert found.last_request is not None


def watched(shop: Shop) -> Report:
    ran = run(watch, policy=str(shop.policy))
    assert ran.error is None, ran.error
    return ran.report


@pytest.mark.slow
def test_a_bad_version_is_rolled_back_on_what_prometheus_counted_and_nothing_moves_without_it(
    shop_template: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_api: None
) -> None:
    with scraped(shop_template, tmp_path / "home") as place:
        rolled_back_on_what_was_counted(place, monkeypatch)


def rolled_back_on_what_was_counted(place: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, gateway, scraper = place.shop, place.gateway, place.scraper
    monkeypatch.setenv("BACKSTOP_HOME", str(shop.home))
    ask(gateway, 5)
    time.sleep(4)
    assert watched(shop).decision == "watching"
    scraper.stop()
    ask(gateway, 60, failing=40)
    away = watched(shop)
    assert (away.decision, away.production) == ("watching", "4")
    assert "health could not be read: Prometheus at http://127.0.0.1" in away.line
    time.sleep(21)
    held = watched(shop)
    assert (held.decision, held.production) == ("held", "4")
    assert "no evidence about version 4" in (shop.home / "told.jsonl").read_text("utf-8")
    scraper.start()
    # It answers from what it had before, and finds out only after five seconds what it has to look at.
    until(lambda: (scraper.value("time() - timestamp(up)") or 99) < 2, told="it does not scrape again")
    ask(gateway, 60, failing=40)
    time.sleep(4)
    back = watched(shop)
    assert (back.decision, back.production) == ("rolled-back", "1"), back.line
    assert "error_rate:" in back.line
    gateway.wait(lambda: gateway.serving() == "1", "version 1 is not served")
