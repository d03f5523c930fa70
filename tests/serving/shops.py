"""A shop: a trained model with several versions in a folder of its own, and a gateway in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from servers import free_port, until

from rehearsal.churn import customers
from tasks.candidate import make
from tasks.case import Case, open_case
from tasks.data import load, split
from tasks.policy_file import load as load_policy
from tasks.records import Action, Transition, Verdict
from tasks.registry import Registry
from tasks.requests import Recorded, RequestLog
from tasks.stores import Stores

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY: dict[str, Any] = {
    "model": "churn",
    "problem": "binary",
    "data": {
        "source": "churn.csv",
        "target": "churned",
        "positive": "yes",
        "timestamp": "observed_at",
        "drop": ["customer_id"],
        "lookback": "60d",
    },
    "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
}
GOOD: dict[str, Any] = {
    "tenure_months": 12,
    "monthly_charges": 70.5,
    "total_charges": 840.0,
    "contract": "one year",
    "payment": "card",
    "support_calls": 2,
}
"""A row that every version answers."""


@dataclass(frozen=True, slots=True)
class Shop:
    """One home folder.

    Attributes:
        home: With ledger, request log, MLflow's database, artifacts, customers and policy.
        requests: URL of another request log; empty: the one of the home.
    """

    home: Path
    requests: str = ""

    @property
    def stores(self) -> Stores:
        return Stores.at(self.home)

    @property
    def policy(self) -> Path:
        return self.home / "churn.yaml"

    def begin(self) -> None:
        """Customers and a policy."""
        customers(900, start=NOW - timedelta(days=50), days=50, seed=1).to_csv(self.home / "churn.csv", index=False)
        self.policy.write_text(yaml.safe_dump(POLICY), "utf-8")

    def copy(self, target: Path) -> Shop:
        """The same elsewhere."""
        shutil.copytree(self.home, target)
        connection = sqlite3.connect(target / "mlflow.db")  # MLflow keeps absolute addresses
        try:
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("model_versions", "source"),
                ("model_versions", "storage_location"),
            ):
                swap = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                connection.execute(swap, (str(self.home), str(target)))
            connection.commit()
        finally:
            connection.close()
        return Shop(target)

    def case(self) -> Case:
        """The caller closes its ledger."""
        return open_case(load_policy(self.policy), actor="a test", now=NOW, stores=self.stores)

    def train(self, estimator: str = POLICY["training"]["estimator"], **params: Any) -> str:
        """One more version; returns its number."""
        policy = {**POLICY, "training": {"estimator": estimator, "params": {"max_iter": 1000, **params}}}
        self.policy.write_text(yaml.safe_dump(policy), "utf-8")
        case = self.case()
        with case.ledger as ledger, tempfile.TemporaryDirectory() as scratch:
            rows = load(case.policy, self.stores, start=NOW - timedelta(days=60), end=NOW, remember=False)
            why = Verdict(judge="triggers", decision="retrain", reason="a test", findings=())
            made = make(case, split(rows, case.policy, trained_until=None), why, Path(scratch))
            assert made.candidate is not None
            ledger.describe(made.candidate)
            return made.candidate.version

    def move(self, action: Action, version: str) -> Transition:
        """Promote a version, or roll back to it."""
        case = self.case()
        with case.ledger as ledger:
            if action == "rollback":
                ledger.state_fact("churn", version, "known-good", at=NOW, reason="a test", actor="a test", trail="t")
            return Registry(self.stores).move(
                ledger,
                ledger.standing("churn"),
                action=action,
                version=version,
                actor="a test",
                reason="a test",
                at=datetime.now(UTC),
                trail="t",
            )

    def artifact(self, version: str) -> Path:
        """Where the store keeps the files of a version."""
        return Registry(self.stores).download("churn", version)

    def logged(self) -> Recorded:
        """Everything that Production answered."""
        with RequestLog.open(self.requests or self.stores.requests) as log:
            return log.window("churn", start=NOW - timedelta(days=9), end=NOW + timedelta(days=9999), limit=10**6)


@dataclass
class Server:
    """A gateway in a process of its own."""

    shop: Shop
    log: Path
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("BACKSTOP_", "MLFLOW_TR"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "error::DeprecationWarning:serving", "-m", "serving"),
                    *("--policy", str(self.shop.policy), "--port", str(self.port), *self.options),
                ],
                cwd=ROOT,
                env={**known, "BACKSTOP_HOME": str(self.shop.home), **self.environment},
                stdout=log,
                stderr=log,
            )
        until(lambda: self.get("/healthz").status_code == 200, told=f"the gateway did not answer: {self.said()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, by default in order."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(40)
            self.process = None

    def said(self) -> str:
        return self.log.read_text("utf-8")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Plain values as JSON, bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return httpx.post(self.url + path, content=content, headers=headers, timeout=30, **options)

    def ready(self) -> dict[str, Any]:
        return dict(self.get("/readyz").json())

    def serving(self) -> str | None:
        version: str | None = self.ready()["models"]["churn"]["serving"]
        return version

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
                total += float(value)
        return total

    def wait(self, what: Any, told: str, seconds: float = 150) -> float:
        """Wait until something holds; returns how long that took."""
        begun = time.monotonic()
        try:
            until(what, told=told, seconds=seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; readyz says {self.ready()}") from error
        return time.monotonic() - begun


@contextmanager
def serving(shop: Shop, *options: str, version: str | None = "1", **environment: str) -> Iterator[Server]:
    """A gateway that serves a version."""
    server = Server(shop, shop.home / "gateway.log", options, environment)
    try:
        server.start()
        if version is not None:
            server.wait(lambda: server.serving() == version, f"version {version} is not served")
        yield server
    finally:
        server.stop()
