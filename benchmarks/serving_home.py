"""A home whose gateway has something to serve, for the benchmarks of serving.

The rows are numbers only, so that a model of it can also be served by those who know nothing of tables.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import yaml
from mlflow import MlflowClient

from benchmarks.moody import Moody
from benchmarks.process import Process, running
from tasks import artifact
from tasks.candidate import make
from tasks.case import Case, open_case
from tasks.data import load, split
from tasks.policy_file import load as load_policy
from tasks.records import Action, Verdict
from tasks.registry import Registry
from tasks.stores import Stores
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = tuple(f"x{number}" for number in range(10))
LOGISTIC: dict[str, Any] = {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}}
FOREST: dict[str, Any] = {
    "estimator": "sklearn.ensemble:RandomForestClassifier",
    "params": {"n_estimators": 200, "n_jobs": 1, "random_state": 0},
}
_ROWS = 3000


@dataclass(frozen=True, slots=True)
class Home:
    """One folder with ledger, request log, MLflow's database and the files of all versions.

    Attributes:
        folder: Of it all.
        changes: Of the policy, by section.
    """

    folder: Path
    changes: dict[str, Any]

    @property
    def policy(self) -> Path:
        """The policy's file."""
        return self.folder / "loan.yaml"

    @property
    def stores(self) -> Stores:
        """Where things are kept."""
        return Stores.at(self.folder)

    def begin(self) -> None:
        """Write rows and policy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        numbers = draw.normal(size=(_ROWS, len(NAMES))) * np.geomspace(0.1, 1000, len(NAMES))
        score = (numbers / np.geomspace(0.1, 1000, len(NAMES))) @ np.linspace(-1, 1, len(NAMES))
        table = pd.DataFrame(numbers, columns=list(NAMES))
        table["repaid"] = np.where(score + draw.normal(size=_ROWS) > 0, "yes", "no")
        table["asked_at"] = [NOW - timedelta(minutes=20 * number) for number in range(_ROWS)][::-1]
        table.to_csv(self.folder / "loan.csv", index=False)
        self.write(LOGISTIC)

    def write(self, training: dict[str, Any]) -> None:
        """Write the policy, with this section ``training``."""
        policy = {
            "model": "loan",
            "problem": "binary",
            "data": {
                "source": "loan.csv",
                "target": "repaid",
                "positive": "yes",
                "timestamp": "asked_at",
                "lookback": "60d",
            },
            "training": {**training, "trusted_types": ["benchmarks.moody.Moody"]},
            **self.changes,
        }
        self.policy.write_text(yaml.safe_dump(policy), "utf-8")

    def case(self) -> Case:
        """The caller closes its ledger."""
        return open_case(load_policy(self.policy), actor="a benchmark", now=NOW, stores=self.stores)

    def train(self, training: dict[str, Any]) -> str:
        """One more version; returns its number."""
        self.write(training)
        case = self.case()
        with case.ledger as ledger, tempfile.TemporaryDirectory() as scratch:
            rows = load(case.policy, self.stores, start=NOW - timedelta(days=60), end=NOW, remember=False)
            why = Verdict(judge="triggers", decision="retrain", reason="a benchmark", findings=())
            made = make(case, split(rows, case.policy, trained_until=None), why, Path(scratch))
            if made.candidate is None:
                raise RuntimeError("the training made no version")
            ledger.describe(made.candidate)
            return made.candidate.version

    def move(self, action: Action, version: str) -> None:
        """Carry out one transition now."""
        case = self.case()
        with case.ledger as ledger:
            if action == "rollback":
                told = {"reason": "a benchmark", "actor": "a benchmark", "trail": "t"}
                ledger.state_fact("loan", version, "known-good", at=NOW, **told)
            Registry(self.stores).move(
                ledger,
                ledger.standing("loan"),
                action=action,
                version=version,
                actor="a benchmark",
                reason="a benchmark",
                at=datetime.now(UTC),
                trail="t",
            )

    def moody(self, like: str, mood: str) -> str:
        """One more version, made of another one's files, which misbehaves once it is in service."""
        folder = self.folder / "made" / mood
        shutil.copytree(self.artifact(like), folder)
        path = next(folder.glob("*.skops"))
        pipeline = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        name, last = pipeline.steps[-1]
        pipeline.steps[-1] = (name, Moody(last, mood))
        skops.io.dump(pipeline, path)
        client = MlflowClient(tracking_uri=self.stores.tracking, registry_uri=self.stores.tracking)
        version = str(client.create_model_version("loan", folder.as_uri()).version)
        case = self.case()
        with case.ledger as ledger:
            ledger.describe_external("loan", version, digest=artifact.digest(folder), size=1)
        return version

    def artifact(self, version: str) -> Path:
        """Where the store keeps the files of a version."""
        return Registry(self.stores).download("loan", version)

    @contextmanager
    def gateway(self, *options: str, **environment: str) -> Iterator[Process]:
        """A gateway in a process of its own, which answers."""
        port = free_port()
        command = [sys.executable, "-m", "serving", "--policy", str(self.policy), "--port", str(port), *options]
        variables = {"BACKSTOP_HOME": str(self.folder), **environment}
        with running(command, port, self.folder / f"gateway-{port}.log", ready="/readyz", **variables) as process:
            yield process


def rows(count: int, *, seed: int = 1) -> list[dict[str, float]]:
    """Rows as they come in, by name."""
    numbers = np.random.default_rng(seed).normal(size=(count, len(NAMES))) * np.geomspace(0.1, 1000, len(NAMES))
    return [dict(zip(NAMES, map(float, row), strict=True)) for row in numbers]
