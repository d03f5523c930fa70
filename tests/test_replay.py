"""The real data sets, played window by window through the real flows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from rehearsal.replay import markdown, means, play, retrains, summary
from rehearsal.window import Window
from tasks.ledger import Ledger
from tasks.stores import Stores

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]

POLICIES = Path(__file__).parent.parent / "policies"
Played = Callable[..., list[Window]]


@pytest.fixture
def played(public_data: Path, stores: Stores, prefect_api: None, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("BACKSTOP_HOME", str(stores.home))
    monkeypatch.setenv("BACKSTOP_TEST_DATA", str(public_data))

    def play_it(model: str, windows: int = 4) -> list[Window]:
        # Neither changes what is decided here, and each costs seconds per window.
        monkeypatch.setenv(f"BACKSTOP_{model.upper()}__GATE__LATENCY", "off")
        monkeypatch.setenv(f"BACKSTOP_{model.upper()}__GATE__FRESH_PROCESS", "false")
        policy = str(POLICIES / f"{model}.yaml")
        return asyncio.run(play(Console(quiet=True), policy, windows=windows, first=0.15))

    return play_it


def no_promotion_that_the_gate_calls_worse(stores: Stores, model: str) -> None:
    with Ledger.open(stores.ledger) as ledger:
        promoted = [step for step in ledger.history(model) if step.action == "promote" and step.state == "applied"]
        assert promoted
        for step in promoted:
            assert ledger.gate_decision(model, step.version) == "pass"
            (judged,) = (d for d in ledger.decisions(model, "gate") if d.version == step.version)
            (regression,) = (f for f in judged.verdict.findings if f.name == "regression")
            assert regression.outcome in {"ok", "exempt"}
            assert (regression.outcome == "exempt") == (step.previous is None)


def served_by_the_ledger(windows: Sequence[Window]) -> list[str]:
    return [window.version for window in windows]


def test_on_bike_it_keeps_up_with_retraining_every_window(played: Played, stores: Stores) -> None:
    windows = played("bike", windows=6)
    frozen, served, every = means(windows)
    assert served >= every - 0.03, summary(windows)
    assert served > frozen + 0.2, "the demand grows: a frozen model is far behind"
    assert retrains(windows) <= len(windows)
    no_promotion_that_the_gate_calls_worse(stores, "bike")


def test_on_telco_where_nothing_drifts_it_retrains_for_nothing(played: Played, stores: Stores) -> None:
    windows = played("telco")
    assert retrains(windows) == 0, markdown("telco", windows)
    assert served_by_the_ledger(windows) == ["1"] * len(windows)
    no_promotion_that_the_gate_calls_worse(stores, "telco")


def test_on_weather_it_is_no_worse_than_leaving_the_model_alone(played: Played, stores: Stores) -> None:
    windows = played("weather")
    frozen, served, _ = means(windows)
    assert served >= frozen - 0.01, summary(windows)
    no_promotion_that_the_gate_calls_worse(stores, "weather")
