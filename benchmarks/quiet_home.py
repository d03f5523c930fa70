"""A home in which nothing happens: models that serve well, and rows that do not change.

``python -m benchmarks.quiet_home FOLDER`` makes it: a table of customers, one policy for a weekly retraining, and a
folder of policies for the watch. Every model was trained, judged and promoted through the product's own steps a day and
a half ago, has served since, and is known to be good.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine

from rehearsal.churn import customers
from rehearsal.traffic import serve, spread
from tasks import candidate, promotion, watch
from tasks.case import Case, open_case
from tasks.data import load as load_rows
from tasks.dossier import Dossier
from tasks.policy_file import load
from tasks.retrial import reach
from tasks.signals import observe
from tasks.stores import Stores

ROWS, DAYS = 50_000, 60
AGO = timedelta(hours=36)
"""Since when the models serve: their first watch is over, and the present one has hundreds of looks."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where it is.

    Attributes:
        folder: With the stores, the customers and the policies.
    """

    folder: Path

    @property
    def stores(self) -> Stores:
        """What BACKSTOP_HOME=folder gives."""
        return Stores.at(self.folder)

    @property
    def policy(self) -> Path:
        """Of the one model with all the rows."""
        return self.folder / "one" / "m0.yaml"

    @property
    def many(self) -> Path:
        """Folder of the other models' policies."""
        return self.folder / "many"


def make(folder: Path, *, models: int, rows: int = ROWS, now: datetime | None = None, ago: timedelta = AGO) -> Home:
    """Make it.

    Args:
        folder: Empty, or not there yet.
        models: Beside the one.
        rows: Of the one; the others have a fiftieth of them.
        now: Its present; empty: this moment.
        ago: Since when the models serve; the requests are those of the first day and a half.
    """
    home, moment = Home(folder), now or datetime.now(UTC)
    for place in (home.policy.parent, home.many):
        place.mkdir(parents=True)
    for table, count in (("customers", rows), ("few", max(2_000, rows // 50))):
        _fill(folder, table, count, moment - ago)
    _write(home.policy, "m0", folder, "customers")
    for number in range(1, models + 1):
        _write(home.many / f"m{number}.yaml", f"m{number}", folder, "few")
    for path in (home.policy, *sorted(home.many.iterdir())):
        _first(home, path, moment, ago)
    return home


def _fill(folder: Path, table: str, rows: int, until: datetime) -> None:
    """Customers until shortly before the models were trained."""
    frame = customers(rows, start=until - timedelta(days=DAYS), days=DAYS, seed=1)
    frame["observed_at"] = frame["observed_at"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    engine = create_engine(f"sqlite:///{folder / 'customers.db'}")
    with engine.begin() as connection:
        frame.to_sql(table, connection, index=False, if_exists="replace")
        connection.exec_driver_sql(f"CREATE INDEX {table}_by_time ON {table} (observed_at)")
    engine.dispose()


def _write(path: Path, model: str, folder: Path, table: str) -> None:
    policy: dict[str, Any] = {
        "model": model,
        "data": {
            "source": f"sqlite:///{folder / 'customers.db'}",
            "table": table,
            "target": "churned",
            "positive": "yes",
            "timestamp": "observed_at",
            "drop": ["customer_id"],
            "key": ["customer_id"],
            "lookback": "90d",
        },
        "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
        "triggers": {"volume": "off"},
        "gate": {"performance": {"at_least": 0.8}, "latency": "off", "fresh_process": False},
        "shadow": "off",
        "health": {"silence": "7d"},  # it stays quiet for as long as the measuring takes
    }
    path.write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")


def _first(home: Home, path: Path, now: datetime, ago: timedelta) -> None:
    """Train, promote, serve, and watch until it is known good."""
    begun = now - ago
    case = _case(home, path, begun)
    with case.ledger, tempfile.TemporaryDirectory() as scratch:
        standing = case.standing()
        observed = observe(case, standing)
        dossier = Dossier("triggers", {"signals": observed.signals, "rules": case.policy.triggers})
        made = candidate.make(case, candidate.divide(case, observed.dataset, None), reach(dossier), Path(scratch))
        version = made.candidate.version if made.candidate else ""
        promotion.advance(case, promotion.stage(case, standing, version, reach(dossier)))
    later = _case(home, path, now)
    with later.ledger:
        rows = load_rows(later.policy, home.stores, start=begun - timedelta(days=DAYS), end=now, remember=False)
        minutes = AGO // timedelta(minutes=1)
        rows = spread(rows.take(slice(-min(minutes, len(rows)), None)), begun, AGO)
        serve(later, rows)
    for moment in (begun + timedelta(minutes=31), begun + AGO):
        seen = _case(home, path, moment)
        with seen.ledger:
            watch.tick(seen, seen.standing())
    with _case(home, path, now).ledger as ledger:
        if (good := ledger.standing(case.model).known_good) != ("1",):
            raise RuntimeError(f"{case.model} should be quiet, and {good or 'nothing'} is known good")


def _case(home: Home, path: Path, at: datetime) -> Case:
    return open_case(load(path), actor="benchmarks.quiet_home", now=at, stores=home.stores)


def main() -> None:
    """Make one where it is asked for."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked.add_argument("folder", type=Path)
    asked.add_argument("--models", type=int, default=50)
    asked.add_argument("--rows", type=int, default=ROWS)
    given = asked.parse_args()
    os.environ["BACKSTOP_HOME"] = str(given.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MLflow's stages are deprecated
        home = make(given.folder.resolve(), models=given.models, rows=given.rows)
    print(f"BACKSTOP_HOME={home.folder}  one: {home.policy}  many: {home.many}")


if __name__ == "__main__":
    main()
