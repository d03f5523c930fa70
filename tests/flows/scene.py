"""A scene: generated customers, a policy and a home folder, in which the real flows run on a clock of their own.

The world of the customers changes on day :data:`CHANGE`: prices rise, and what made people leave no longer does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.schemas import State

from rehearsal.churn import PRICE_RISE, STEADY, World, customers
from rehearsal.traffic import HEALTHY, Faults, serve, spread
from tasks.case import Case, open_case
from tasks.data import load as load_rows
from tasks.policy_file import load as load_policy
from tasks.records import Report, Standing, Transition
from tasks.registry import Registry, View
from tasks.requests import Label, RequestLog
from tasks.stores import Stores

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PER_DAY = 60
ELSEWHERE = ("MLFLOW_TRACKING_URI", "BACKSTOP_LEDGER", "BACKSTOP_REQUESTS")
FIRST, QUIET, CHANGE, CHANGED, END = 60, 66, 70, 106, 150
"""Days: of the first model, of an evaluation on which nothing is new, of the price rise, of the retraining after it,
and of the last row."""

POLICY: dict[str, Any] = {
    "model": "churn",
    "problem": "binary",
    "data": {
        "source": "churn.csv",
        "target": "churned",
        "positive": "yes",
        "timestamp": "observed_at",
        "drop": ["customer_id"],
        "key": ["customer_id"],
        "lookback": "40d",
        "holdout": "25%",
    },
    "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
    "triggers": {
        "retrain_when": "age or volume or (drift and performance)",
        "age": "90d",
        "performance": {"drop": "3pt", "floor": 0.8, "min_labels": 200},
    },
    "gate": {
        "performance": {"metric": "accuracy", "at_least": 0.85},
        "latency": "off",  # three seconds, and the fresh process five: the first model is judged with them
        "fresh_process": False,
    },
    "shadow": {"window": "14d", "tolerate": "2pt"},
    "notify": ["file:told.jsonl"],
}


def day(number: float) -> datetime:
    """The moment so many days after the first row."""
    return BEGIN + timedelta(days=number)


def arrivals(first: int, last: int, *, seed: int, world: World = STEADY) -> pd.DataFrame:
    """The customers of some days."""
    return customers(PER_DAY * (last - first), start=day(first), days=last - first, seed=seed, world=world)


def everybody() -> pd.DataFrame:
    """All customers that will ever have come, oldest first."""
    return pd.concat([arrivals(0, CHANGE, seed=1), arrivals(CHANGE, END, seed=2, world=PRICE_RISE)])


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with single keys replaced, section by section; None takes a key out."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


@contextmanager
def at_home(folder: Path) -> Iterator[None]:
    """Everything that lasts is kept in this folder, whatever the environment said before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSTOP_HOME", str(folder))
        for name in ELSEWHERE:
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("BACKSTOP_CHURN__")]:
            patch.delenv(name)
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """A flow run that has ended.

    Attributes:
        state: Its final state.
        reports: What it returned; empty when it failed.
        error: What it failed with, or None.
    """

    state: State[Any]
    reports: tuple[Report, ...] = ()
    error: BaseException | None = None

    @property
    def report(self) -> Report:
        """The one report."""
        assert self.error is None, self.error
        assert len(self.reports) == 1
        return self.reports[0]


def run(flow: Any, **options: Any) -> Ran:
    """Run a flow to its end, under the API of the session."""

    async def to_the_end() -> Ran:
        state = await flow(**options, return_state=True)
        answer = await state.aresult(raise_on_failure=False)
        if isinstance(answer, BaseException):
            return Ran(state=state, error=answer)
        return Ran(state=state, reports=(answer,) if isinstance(answer, Report) else tuple(answer))

    return asyncio.run(to_the_end())


@dataclass(frozen=True, slots=True)
class Scene:
    """One home folder.

    Attributes:
        home: With the ledger, the request log, MLflow's database, the artifacts, the customers and the policies.
    """

    home: Path

    def copy(self, target: Path) -> Scene:
        """The same scene elsewhere; nothing that happens there is seen here."""
        shutil.copytree(self.home, target)
        _move_artifacts(target / "mlflow.db", self.home, target)
        return Scene(target)

    # What a team writes.

    def write(self, frame: pd.DataFrame, name: str = "churn.csv") -> str:
        """Put customers into a file of the scene."""
        frame.to_csv(self.home / name, index=False)
        return name

    def policy(self, name: str = "", **changes: Any) -> str:
        """Write the policy with some keys changed, and return its path; changed ones have a file of their own.

        Those do not end in .yaml: one model has one policy in a folder.
        """
        path = self.home / (f"{name or 'changed'}.variant" if name or changes else "churn.yaml")
        path.write_text(yaml.safe_dump(merged(POLICY, changes), sort_keys=False), encoding="utf-8")
        return str(path)

    # What the flows do.

    def run(self, flow: Any, at: float, *, policy: str | None = None, **options: Any) -> Ran:
        """Run a flow as of a day."""
        return run(flow, policy=policy or self.policy(), as_of=day(at), **options)

    # What the users do.

    def case(self, at: float, policy: str | None = None) -> Case:
        """To act on the outside world with; the caller closes its ledger."""
        loaded = load_policy(policy or self.policy())
        return open_case(loaded, actor="a test", now=day(at), stores=self.stores)

    def traffic(
        self,
        start: float,
        end: float,
        *,
        requests: int | None = None,
        faults: Faults = HEALTHY,
        labels: bool = True,
        policy: str | None = None,
    ) -> int:
        """Requests of some days, answered by what is in Production: its customers, or so many at even steps."""
        case = self.case(end, policy)
        with case.ledger:
            rows = load_rows(case.policy, self.stores, start=day(start - 20), end=day(end), remember=False)
            if requests is None:
                return serve(case, rows.between(day(start), day(end)), faults=faults, labels=labels)
            rows = spread(rows.take(slice(-requests, None)), day(start), timedelta(days=end - start))
            return serve(case, rows, faults=faults, labels=labels)

    def label_all(self, start: float, end: float, *, wrong: float) -> None:
        """Labels for all requests of some days, of which this share contradicts the answer."""
        draw = np.random.default_rng(3)
        with RequestLog.open(self.stores.requests) as log:
            seen = log.window("churn", start=day(start), end=day(end), limit=100_000)
            other = {"yes": "no", "no": "yes"}
            log.label(
                Label(request_id=one, model="churn", label=other[said] if draw.random() < wrong else said, at=day(end))
                for one, said in zip(seen.request_ids, seen.predictions, strict=True)
            )

    def click(self, version: str, stage: str) -> None:
        """Change a stage in MLflow by hand, beside Backstop."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated
            archive = stage == "Production"
            self.client.transition_model_version_stage("churn", version, stage, archive_existing_versions=archive)

    # What is there afterwards.

    @property
    def stores(self) -> Stores:
        """Of the home."""
        return Stores.at(self.home)

    @property
    def client(self) -> MlflowClient:
        """To look at MLflow without Backstop."""
        return MlflowClient(tracking_uri=self.stores.tracking, registry_uri=self.stores.tracking)

    @property
    def view(self) -> View:
        """What MLflow says."""
        return Registry(self.stores).view("churn")

    @property
    def standing(self) -> Standing:
        """What the ledger says."""
        with self.case(0).ledger as ledger:
            return ledger.standing("churn")

    @property
    def history(self) -> tuple[Transition, ...]:
        """The ledger's transitions."""
        with self.case(0).ledger as ledger:
            return ledger.history("churn")

    def decisions(self, judge: Any = None) -> list[tuple[str, str | None]]:
        """(decision, version) of everything that was judged, oldest first."""
        with self.case(0).ledger as ledger:
            return [(one.verdict.decision, one.version) for one in reversed(ledger.decisions("churn", judge))]

    def version(self, number: str) -> Any:
        """A version as MLflow has it."""
        return self.client.get_model_version("churn", number)

    def runs(self) -> list[Any]:
        """All MLflow runs, newest first."""
        ids = [one.experiment_id for one in self.client.search_experiments()]
        return list(self.client.search_runs(ids))

    def artifact(self, version: str) -> Path:
        """The folder of the artifact of a version."""
        return Registry(self.stores).download("churn", version)

    def told(self) -> list[str]:
        """Titles of the notifications, oldest first."""
        return [title for title, _ in self.messages()]

    def messages(self) -> list[tuple[str, str]]:
        """(title, body) of the notifications, oldest first."""
        path = self.home / "told.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        return [(line["title"], line["body"]) for line in map(json.loads, lines)]

    def mark(self) -> tuple[Any, ...]:
        """Everything that lasts, to be compared with the same later: rows of both databases, and the files."""
        tables = (_rows(self.home / name) for name in ("ledger.db", "mlflow.db"))
        files = {
            str(path): path.stat().st_mtime_ns
            for path in self.home.rglob("*")
            if path.is_file() and path.suffix in {".parquet", ".jsonl", ".skops"}
        }
        return (*tables, files)


def _rows(database: Path) -> dict[str, list[Any]]:
    if not database.is_file():
        return {}
    connection = sqlite3.connect(database)
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    finally:
        connection.close()


def _move_artifacts(database: Path, old: Path, new: Path) -> None:
    """MLflow keeps absolute addresses; in a copy they have to point into the copy."""
    places = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "model_versions": "source",
        "logged_models": "artifact_location",
    }
    connection = sqlite3.connect(database)
    try:
        for table, column in places.items():
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(old), str(new)))
            if table == "model_versions":
                swap = f"UPDATE {table} SET storage_location = replace(storage_location, ?, ?)"
                connection.execute(swap, (str(old), str(new)))
        connection.commit()
    finally:
        connection.close()
