"""Every kind of problem, source and training, from the rows to a first model in Production and to the one after it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scene import BEGIN, FIRST, Ran, Scene, day, everybody, run
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flows.retrain import retrain
from tasks.registry import Registry

pytestmark = pytest.mark.usefixtures("prefect_api")

HOURS = 1500
"""Rows of the generated data, one an hour."""

# What users bring along.


def load_customers(start: datetime, end: datetime) -> pd.DataFrame:
    """A loader."""
    frame = everybody()
    return frame[(frame["observed_at"] >= start) & (frame["observed_at"] < end)]


def train(features: pd.DataFrame, labels: Any, *, strength: float, random_state: int = 0) -> Any:
    """A trainer that prepares the columns itself."""
    words = make_column_selector(dtype_exclude="number")
    numbers = make_column_selector(dtype_include="number")
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), words), (StandardScaler(), numbers), sparse_threshold=0
    )
    model = make_pipeline(prepare, LogisticRegression(C=strength, max_iter=500, random_state=random_state))
    return model.fit(features, labels)


def build(max_iter: int) -> Any:
    """A function that returns an unfitted estimator."""
    return HistGradientBoostingClassifier(max_iter=max_iter)


# Rows.


def rentals() -> pd.DataFrame:
    """Bicycles per hour: they follow the hour of the day, the temperature and the weather, with noise."""
    draw = np.random.default_rng(11)
    hour = np.arange(HOURS) % 24
    warm = 12 + 8 * np.sin((hour - 9) / 24 * 2 * np.pi) + draw.normal(0, 3, HOURS)
    weather = draw.choice(["clear", "mist", "rain"], HOURS, p=[0.6, 0.3, 0.1])
    rush = 80 * np.exp(-((hour - 8) ** 2) / 4) + 110 * np.exp(-((hour - 18) ** 2) / 6)
    count = 40 + rush + 4 * warm - 45 * (weather == "rain") + draw.normal(0, 12, HOURS)
    at = pd.date_range(BEGIN, periods=HOURS, freq="h").tz_localize(None)
    return pd.DataFrame(
        {"at": at, "hour": hour, "temperature": warm, "weather": weather, "count": np.maximum(0, count.round())}
    )


def tickets() -> pd.DataFrame:
    """Support tickets of three kinds, one of them rare, told apart by two numbers and a word."""
    draw = np.random.default_rng(12)
    kind = draw.choice(["question", "fault", "outage"], HOURS, p=[0.7, 0.27, 0.03])
    centre = pd.Series(kind).map({"question": 0.0, "fault": 3.0, "outage": 7.0}).to_numpy()
    product = np.where(draw.random(HOURS) < 0.7, np.where(kind == "question", "web", "network"), "phone")
    return pd.DataFrame(
        {
            "at": pd.date_range(BEGIN, periods=HOURS, freq="h"),
            "words": centre + draw.normal(0, 1, HOURS),
            "speed": -centre + draw.normal(0, 1.5, HOURS),
            "product": product,
            "kind": kind,
        }
    )


# Policies and runs.


def first_rows() -> pd.DataFrame:
    """The customers of the days before the first model."""
    frame = everybody()
    return frame[frame["observed_at"] < day(FIRST)].reset_index(drop=True)


def put_policy(scene: Scene, raw: dict[str, Any]) -> str:
    """A policy file of its own in the scene."""
    path = scene.home / f"{raw['model']}.yaml"
    raw["gate"] = {"latency": "off", "fresh_process": False} | raw.get("gate", {})
    path.write_text(yaml.safe_dump({"shadow": "off", **raw}, sort_keys=False), encoding="utf-8")
    return str(path)


def assert_in_production(scene: Scene, ran: Ran, model: str, decision: str, version: str) -> Any:
    """The decision, the registry and the ledger say the same; returns the MLflow run."""
    assert ran.report.decision == decision, ran.report.line
    view = Registry(scene.stores).view(model)
    assert (view.production, view.champion, ran.report.production) == ((version,), version, version)
    return scene.client.get_run(scene.client.get_model_version(model, version).run_id)


def test_a_regression_is_judged_by_r2_and_rmse(empty: Scene) -> None:
    frame = rentals()
    frame.head(1200).to_csv(empty.home / "rentals.csv", index=False)
    raw = {
        "model": "bike",
        "problem": "regression",
        "data": {"source": "rentals.csv", "target": "count", "timestamp": "at", "timezone": "UTC"},
        "training": {"estimator": "sklearn.tree:DecisionTreeRegressor", "params": {"min_samples_leaf": 10}},
        "gate": {
            "performance": {"metric": "r2", "at_least": 0.7},
            "regression": {"metric": "rmse", "margin": 4},
        },
    }
    path = put_policy(empty, raw)
    done = assert_in_production(
        empty, run(retrain, policy=path, as_of=BEGIN + timedelta(hours=1200)), "bike", "first-promoted", "1"
    )
    assert 0.7 < done.data.metrics["holdout_r2"] < 1
    assert 8 < done.data.metrics["holdout_rmse"] < 30
    assert done.data.params["estimator"] == "sklearn.tree:DecisionTreeRegressor"

    frame.to_csv(empty.home / "rentals.csv", index=False)
    later = run(retrain, policy=path, as_of=BEGIN + timedelta(hours=HOURS), force=True, reason="there are new rentals")
    assert_in_production(empty, later, "bike", "promoted", "2")
    gate = next(verdict for verdict in later.report.verdicts if verdict.judge == "gate")
    compared = next(finding for finding in gate.findings if finding.name == "regression")
    assert (compared.outcome, compared.margin) == ("ok", 4)
    assert "rmse" in compared.reason


def test_a_regression_that_is_too_coarse_does_not_pass(empty: Scene) -> None:
    rentals().to_csv(empty.home / "rentals.csv", index=False)
    raw = {
        "model": "bike",
        "problem": "regression",
        "data": {"source": "rentals.csv", "target": "count", "timestamp": "at", "timezone": "UTC"},
        "training": {"estimator": "sklearn.linear_model:Ridge"},
        "gate": {"performance": {"metric": "rmse", "at_least": 10}},  # noise alone has 12
    }
    ran = run(retrain, policy=put_policy(empty, raw), as_of=BEGIN + timedelta(hours=HOURS))
    assert (ran.report.decision, ran.state.name) == ("gate-failed", "GateFailed")
    assert Registry(empty.stores).view("bike").production == ()


def test_three_classes_with_a_rare_one(empty: Scene) -> None:
    frame = tickets()
    frame.head(1200).to_csv(empty.home / "tickets.csv", index=False)
    raw = {
        "model": "tickets",
        "problem": "multiclass",
        "data": {"source": "tickets.csv", "target": "kind", "timestamp": "at", "trusted": ["words"]},
        "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 500}},
        "gate": {"performance": {"metric": "f1_macro", "at_least": 0.6}, "regression": {"margin": "3pt"}},
    }
    path = put_policy(empty, raw)
    first = run(retrain, policy=path, as_of=BEGIN + timedelta(hours=1200))
    done = assert_in_production(empty, first, "tickets", "first-promoted", "1")
    assert {"holdout_f1_macro", "holdout_accuracy", "holdout_log_loss"} <= set(done.data.metrics)
    model = Registry(empty.stores)
    with empty.case(FIRST).ledger as ledger:
        stored = ledger.profile("tickets", "1")
    assert stored is not None
    assert sorted(stored["prediction"]["categories"]) == ["fault", "outage", "question"]

    frame.to_csv(empty.home / "tickets.csv", index=False)
    later = run(retrain, policy=path, as_of=BEGIN + timedelta(hours=HOURS), force=True, reason="there are new tickets")
    assert_in_production(empty, later, "tickets", "promoted", "2")
    assert model.view("tickets").versions == ("1", "2")


def csv(frame: pd.DataFrame, home: Path) -> dict[str, Any]:
    frame.to_csv(home / "source.csv", index=False)
    return {"source": "source.csv"}


def parquet(frame: pd.DataFrame, home: Path) -> dict[str, Any]:
    frame.to_parquet(home / "source.parquet")
    return {"source": "source.parquet"}


def sql_table(frame: pd.DataFrame, home: Path) -> dict[str, Any]:
    with sqlite3.connect(home / "shop.sqlite") as connection:
        frame.assign(observed_at=frame["observed_at"].astype(str)).to_sql("customers", connection, index=False)
    connection.close()
    return {"source": "sqlite:///shop.sqlite", "table": "customers"}


def sql_query(frame: pd.DataFrame, home: Path) -> dict[str, Any]:
    query = "SELECT * FROM customers WHERE observed_at >= :start AND observed_at < :end"
    return {"source": sql_table(frame, home)["source"], "query": query}


def loader(frame: pd.DataFrame, home: Path) -> dict[str, Any]:
    return {"source": "test_types_of_problem:load_customers"}


@pytest.mark.parametrize("source", [csv, parquet, sql_table, sql_query, loader])
def test_every_source_leads_to_the_same_first_model(
    empty: Scene, source: Callable[[pd.DataFrame, Path], dict[str, Any]]
) -> None:
    path = empty.policy(data=source(first_rows(), empty.home), gate={"latency": "off"})
    done = assert_in_production(empty, empty.run(retrain, FIRST, policy=path), "churn", "first-promoted", "1")
    expected = first_rows()
    inside = expected[expected["observed_at"] >= day(FIRST - 40)]  # the lookback of the policy
    assert int(done.data.tags["backstop.labelled"]) == len(inside)
    assert done.data.tags["backstop.trained"].startswith(inside["observed_at"].min().isoformat())
    kept = empty.home / "history"
    assert any(kept.rglob("*")) == (source in {csv, parquet})  # of what can be overwritten, and of nothing else


def test_an_overwritten_file_does_not_shrink_the_window(first: Scene) -> None:
    before = first.client.get_run(first.version("1").run_id).data.tags
    newest = everybody()
    first.write(newest[newest["observed_at"].between(day(FIRST), day(FIRST + 10), inclusive="left")])
    ran = first.run(retrain, FIRST + 10, force=True, reason="only the newest rows are delivered", policy=first.policy())
    tags = first.client.get_run(first.version(str(ran.report.candidate)).run_id).data.tags
    rows = everybody()
    inside = rows[rows["observed_at"].between(day(FIRST - 30), day(FIRST + 10), inclusive="left")]
    assert int(tags["backstop.labelled"]) == len(inside)
    assert tags["backstop.fingerprint"] != before["backstop.fingerprint"]


TRAININGS = {
    "a trainer": {"trainer": "test_types_of_problem:train", "params": {"strength": 2.0, "max_iter": None}},
    "a function that builds": {"estimator": "test_types_of_problem:build", "params": {"max_iter": 40}},
    "a halving search": {
        "estimator": "sklearn.linear_model:LogisticRegression",
        "search": {"when": "always", "method": "halving", "iterations": 9, "space": {"C": [0.01, 0.1, 1.0, 10.0]}},
    },
    "a random search": {
        "estimator": "sklearn.linear_model:LogisticRegression",
        "search": {"when": "always", "method": "random", "iterations": 3, "space": {"C": [0.01, 0.1, 1.0, 10.0]}},
    },
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_every_way_to_train_leads_to_a_first_model(empty: Scene, kind: str) -> None:
    training = TRAININGS[kind]
    path = empty.policy(training={"estimator": training.get("estimator"), **training}, gate={"latency": "off"})
    done = assert_in_production(empty, empty.run(retrain, FIRST, policy=path), "churn", "first-promoted", "1")
    assert done.data.params["estimator"] == training.get("trainer", training.get("estimator"))
    assert done.data.tags["backstop.searched"] == str("search" in training).lower()
    if "search" in training:
        assert float(done.data.params["C"]) in training["search"]["space"]["C"]
    if kind == "a trainer":
        assert done.data.params["strength"] == "2.0"
    answers = Registry(empty.stores)
    with empty.case(FIRST).ledger as ledger:
        model = answers.load(ledger, empty.case(FIRST, path).policy, "1")
    assert set(model.predict(first_rows().drop(columns=["customer_id", "observed_at", "churned"]).head(50))) <= {
        "yes",
        "no",
    }


def test_a_search_for_drift_is_made_when_drift_fired_and_not_before(first: Scene) -> None:
    search = {"when": "drift", "method": "random", "iterations": 2, "space": {"C": [0.5, 1.0]}}
    path = first.policy(training={"search": search}, gate={"latency": "off"}, shadow="off")
    quiet = first.run(retrain, FIRST + 6, policy=path, force=True, reason="a test asks for it")
    assert first.client.get_run(first.version(str(quiet.report.candidate)).run_id).data.tags["backstop.searched"] == (
        "false"
    )
    moved = first.run(retrain, FIRST + 46, policy=path, force=True, reason="a test asks for it")
    fired = [finding.name for finding in moved.report.verdicts[0].having("breach")]
    assert "drift" in fired
    assert first.client.get_run(first.version(str(moved.report.candidate)).run_id).data.tags["backstop.searched"] == (
        "true"
    )
