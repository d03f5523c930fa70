"""Lifetime: what random sequences of moves are played in, and a model of what should hold in them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.tracking._model_registry.utils import _get_store
from sqlalchemy import event

from tasks.ledger import Ledger
from tasks.policy import Policy
from tasks.records import Transition
from tasks.stores import Stores

BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)
LIMIT, WINDOW = 2, timedelta(days=3)
"""So many rollbacks are allowed in this window."""

FLOW, PERSON = "flows.watch", "Ada"


def policy(model: str, external: str) -> Policy:
    """One that says how many rollbacks there may be, and what is done about a click."""
    return Policy.model_validate(
        {
            "model": model,
            "data": {"source": "churn.csv", "target": "churned", "timestamp": "at"},
            "training": {"estimator": "sklearn.linear_model:LogisticRegression"},
            "health": {"max_rollbacks": LIMIT, "rollback_window": WINDOW},
            "external": external,
        }
    )


class Killed(BaseException):
    """The process ends here; no code of its own may see it come."""


@dataclass
class Fate:
    """Ends the process at the n-th thing that it does outside of itself, before or after the thing is done."""

    left: int | None = None

    def meet(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise Killed

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.meet()
            answer = function(*args, **kwargs)
            self.meet()
            return answer

        return call


class Mortal:
    """MLflow's client in a process that may die at every call."""

    def __init__(self, client: MlflowClient, fate: Fate) -> None:
        self._client, self._fate = client, fate

    def __getattr__(self, name: str) -> Any:
        return self._fate.watched(getattr(self._client, name))


@dataclass
class World:
    """What all sequences share: one ledger and one MLflow; every sequence has a model of its own in them."""

    stores: Stores
    client: MlflowClient
    fate: Fate = field(default_factory=Fate)
    now: datetime = BEGIN
    names: Iterator[int] = field(default_factory=itertools.count)

    broken: set[tuple[str, str]] = field(default_factory=set)
    registered: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.stores.ledger, clock=lambda: self.now)

    def register(self, model: str) -> str:
        """A new version, with files."""
        self.registered[model] += 1
        number = str(self.registered[model])
        folder = self.stores.home / "artifacts" / model / number
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(f"flavors: {number}", encoding="utf-8")
        assert str(self.client.create_model_version(model, source=folder.as_uri()).version) == number
        return number

    def answers(self, model: str, version: str) -> bool:
        """Whether a version is there, loads and answers."""
        there = {str(one.version) for one in self.client.search_model_versions(f"name='{model}'")}
        return version in there and (model, version) not in self.broken


@dataclass
class Expected:
    """What should hold, told by the rows that were settled; a row that should not be there is an error."""

    production: str | None = None
    staged: str | None = None
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    served: list[tuple[datetime, str | None]] = field(default_factory=list)
    automatic: list[datetime] = field(default_factory=list)
    rollbacks: list[datetime] = field(default_factory=list)
    left: set[str] = field(default_factory=set)

    def targets(self) -> list[str]:
        """Versions to which a rollback may go, in the order in which they are tried."""
        return [version for version in self.good if version not in self.bad and version != self.production]

    def exhausted(self, now: datetime) -> bool:
        """No rollback may happen without a person."""
        return sum(moment >= now - WINDOW for moment in self.rollbacks) >= LIMIT

    def release(self, version: str) -> None:
        """A person's word."""
        if version in self.bad:
            self.bad.remove(version)
        self.left.discard(version)

    def finish(self, row: Transition) -> None:
        """A row became effective."""
        getattr(self, f"_{row.action}")(row)
        if row.action in {"promote", "rollback", "external"} and row.applied_at is not None:
            self.served.append((row.applied_at, self.production))
        if row.action != "stage" and row.version == self.staged:
            self.staged = None

    def _stage(self, row: Transition) -> None:
        assert row.version != self.production
        self.staged = row.version

    def _promote(self, row: Transition) -> None:
        assert row.version not in self.bad
        self.production = row.version

    def _reject(self, row: Transition) -> None:
        assert row.version != self.production

    def _external(self, row: Transition) -> None:
        self.production = row.evidence["production"]

    def _rollback(self, row: Transition) -> None:
        assert row.version in self.targets(), "known good, not quarantined, not serving"
        if row.actor == FLOW:
            assert row.version not in self.left, "nobody said that a version that was left may come back"
            assert sum(moment >= row.at - WINDOW for moment in self.automatic) < LIMIT
            self.automatic.append(row.at)
        self.rollbacks.append(row.at)
        if self.production is not None:
            self.good = [version for version in self.good if version != self.production]
            self.bad = [self.production, *(version for version in self.bad if version != self.production)]
            self.left.add(self.production)
        self.production = row.version


@contextmanager
def small_world(template: Path) -> Iterator[World]:
    """In memory where the machine has such a place: nothing here has to survive a power cut."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of its own is made in it
    home = Path(tempfile.mkdtemp(prefix="backstop-", dir=memory if memory.is_dir() else None))
    try:
        shutil.copy(template, home / "mlflow.db")
        stores = Stores.at(home)
        store = _get_store(stores.tracking)
        event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        client = MlflowClient(tracking_uri=stores.tracking, registry_uri=stores.tracking)
        # Before every tag MLflow asks whether the model is a prompt, which is half of all time here.
        client._raise_if_prompt = lambda _name: None
        world = World(stores, client)
        yield world
        world.ledger.close()
        store.engine.dispose()
    finally:
        shutil.rmtree(home)
