"""A home with one model of very many features, whose rows are in a file: a table of SQL has no room for them."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.quiet_home import Home
from tasks import candidate, promotion
from tasks.case import open_case
from tasks.dossier import Dossier
from tasks.policy_file import load
from tasks.retrial import reach
from tasks.signals import observe

ROWS = 2_000
"""Before the training, and as many again in the day after it."""
AGO = timedelta(hours=30)
"""Since when the model serves."""
_MODEL = "m0"


def make(folder: Path, features: int, *, renamed: bool = False) -> Home:
    """Train and promote a model of so many features, and put down the rows that came after.

    Args:
        folder: Empty, or not there yet.
        features: Columns of numbers.
        renamed: In the rows that came after, every one of them has another name.
    """
    home, now = Home(folder), datetime.now(UTC)
    home.policy.parent.mkdir(parents=True)
    begun, rows = now - AGO, folder / "rows.parquet"
    before = _drawn(features, begun - timedelta(days=60), timedelta(days=60), seed=1)
    before.to_parquet(rows)
    _write(home.policy, rows)
    _serve(home, begun)
    after = _drawn(features, begun + timedelta(hours=1), timedelta(hours=28), seed=2)
    if renamed:
        after.rename(columns=lambda name: name.replace("feature_", "renamed_")).to_parquet(rows)
    else:
        pd.concat([before, after]).to_parquet(rows)
    return home


def _drawn(features: int, start: datetime, span: timedelta, *, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(ROWS, features))
    frame = pd.DataFrame(values, columns=[f"feature_{number}" for number in range(features)])
    answer = np.where(values[:, 0] + 0.3 * draw.normal(size=ROWS) > 0, "yes", "no")
    when = pd.date_range(start, start + span, periods=ROWS)
    return frame.assign(answer=answer, at=when)


def _write(path: Path, rows: Path) -> None:
    policy = {
        "model": _MODEL,
        "data": {
            "source": str(rows),
            "target": "answer",
            "positive": "yes",
            "timestamp": "at",
            "lookback": "90d",
            "history": False,
        },
        "training": {"estimator": "sklearn.linear_model:LogisticRegression", "params": {"max_iter": 1000}},
        "triggers": {"volume": "off"},
        "gate": {"performance": {"at_least": 0.5}, "latency": "off", "fresh_process": False},
        "shadow": "off",
    }
    path.write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")


def _serve(home: Home, now: datetime) -> None:
    case = open_case(load(home.policy), actor="benchmarks.wide_home", now=now, stores=home.stores)
    with case.ledger, tempfile.TemporaryDirectory() as scratch:
        standing, observed = case.standing(), observe(case, case.standing())
        verdict = reach(Dossier("triggers", {"signals": observed.signals, "rules": case.policy.triggers}))
        made = candidate.make(case, candidate.divide(case, observed.dataset, None), verdict, Path(scratch))
        version = made.candidate.version if made.candidate else ""
        promotion.advance(case, promotion.stage(case, standing, version, verdict))
        if case.standing().production != "1":
            raise RuntimeError(f"a model of {home.folder.name} features should serve, and {case.standing()} is so")
