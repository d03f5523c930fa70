"""A shopfront: a home with three versions of one model, and a gateway in a process of its own that answers for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from rehearsal.churn import customers
from serving.loaded import Loader
from tasks import candidate
from tasks.case import Case, open_case
from tasks.data import load as load_rows
from tasks.data import split
from tasks.policy_file import load
from tasks.records import Action, Rollout, Verdict
from tasks.registry import Registry
from tasks.stores import Stores
from tests.servers import free_port, until

ROOT = Path(__file__).resolve().parents[1]
MODEL = "churn"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
VERSIONS = (1.0, 0.5, 0.25)
"""Strength of the regularisation of each version."""
_WHY = Verdict(judge="triggers", decision="retrain", reason="a benchmark", findings=())
_TOLD: dict[str, Any] = {"actor": "a benchmark", "reason": "a benchmark", "trail": "t"}


@dataclass(frozen=True, slots=True)
class Shopfront:
    """One home.

    Attributes:
        home: With ledger, MLflow's database, artifacts, customers and policy.
    """

    home: Path

    @property
    def stores(self) -> Stores:
        """Of the home."""
        return Stores.at(self.home)

    @property
    def policy(self) -> Path:
        """Its file."""
        return self.home / "churn.yaml"

    def begin(self) -> None:
        """Train three versions; the first is in Production, and the gateway has copies of all of them."""
        customers(900, start=NOW - timedelta(days=50), days=50, seed=1).to_csv(self.home / "churn.csv", index=False)
        for strength in VERSIONS:
            self._train(strength)
        self.move("promote", "1")
        with self.case().ledger as ledger:
            loader = Loader(load(self.policy), self.stores)
            for number in range(len(VERSIONS)):
                loader.load(ledger, str(number + 1))

    def case(self) -> Case:
        """The caller closes its ledger."""
        return open_case(load(self.policy), actor="a benchmark", now=NOW, stores=self.stores)

    def move(self, action: Action, version: str) -> None:
        """Carry out a transition; who is rolled back to is known good."""
        with self.case().ledger as ledger:
            if action == "rollback":
                ledger.state_fact(MODEL, version, "known-good", at=NOW, **_TOLD)
            at = datetime.now(UTC)
            Registry(self.stores).move(ledger, ledger.standing(MODEL), action=action, version=version, at=at, **_TOLD)

    def weigh(self, version: str, weight: int, state: str = "running") -> None:
        """Give the version in Staging a share of the requests, or take it away."""
        with self.case().ledger as ledger:
            last, now = ledger.rollout(MODEL), datetime.now(UTC)
            standing = ledger.standing(MODEL)
            begun = last.started if last is not None and last.state == "running" else now
            row: dict[str, Any] = {"baseline": standing.production, "state": state, "started": begun, "at": now}
            ledger.weigh(Rollout(id=0, model=MODEL, version=version, weight=weight, **row, **_TOLD), after=last)

    def _train(self, strength: float) -> None:
        policy = {
            "model": MODEL,
            "data": {
                "source": "churn.csv",
                "target": "churned",
                "positive": "yes",
                "timestamp": "observed_at",
                "drop": ["customer_id"],
                "lookback": "60d",
            },
            "training": {
                "estimator": "sklearn.linear_model:LogisticRegression",
                "params": {"max_iter": 1000, "C": strength},
            },
        }
        self.policy.write_text(yaml.safe_dump(policy), "utf-8")
        case = self.case()
        with case.ledger as ledger, tempfile.TemporaryDirectory() as scratch:
            rows = load_rows(case.policy, self.stores, start=NOW - timedelta(days=60), end=NOW, remember=False)
            made = candidate.make(case, split(rows, case.policy, trained_until=None), _WHY, Path(scratch))
            if made.candidate is None:
                raise RuntimeError(f"nothing could be trained: {made}")
            ledger.describe(made.candidate)


@dataclass
class Gateway:
    """The server of a shopfront.

    Attributes:
        shop: Whose.
        environment: Beside BACKSTOP_HOME.
        options: Of the command.
    """

    shop: Shopfront
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of it."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, version: str = "1") -> None:
        """Start it, and wait until it serves a version."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("BACKSTOP_", "MLFLOW_TR"))}
        with (self.shop.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving", "--policy", str(self.shop.policy)),
                    *("--port", str(self.port), *self.options),
                ],
                cwd=ROOT,
                env={**known, "BACKSTOP_HOME": str(self.shop.home), **self.environment},
                stdout=log,
                stderr=log,
            )
        until(lambda: self.arms() == {version: 100}, told=f"version {version} is not served")

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    @property
    def alive(self) -> bool:
        """It is the process that was started."""
        return self.process is not None and self.process.poll() is None

    def arms(self) -> dict[str, float]:
        """Who answers how many percent."""
        arms: dict[str, float] = httpx.get(f"{self.url}/readyz", timeout=10).json()["models"][MODEL]["arms"]
        return arms

    def metric(self, name: str, *labels: str) -> float:
        """The sum of the samples whose labels have these texts in them."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(one in head for one in labels):
                total += float(value)
        return total
