"""A stream: a world that turns slowly, a model that was trained once, and the feedback that comes back.

Two numbers decide who leaves; day by day the line between the two groups turns a little. A model of the first days is
wrong on half of everybody in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scene import Ran, Scene, day, merged

from rehearsal.traffic import serve
from tasks.case import open_case
from tasks.data import load as load_rows
from tasks.policy_file import load as load_policy
from tasks.records import Report
from tasks.requests import Label, RequestLog
from tasks.scoring import classes_of, score
from tasks.watch import tick

PER_DAY = 150
TRAINED, END = 8, 40
"""Days: of the first model, and of the last row."""
TURN = 3.0
"""Degrees a day."""

STREAM: dict[str, Any] = {
    "model": "churn",
    "problem": "binary",
    "data": {
        "source": "stream.csv",
        "target": "churned",
        "positive": "yes",
        "timestamp": "observed_at",
        "drop": ["amount"],
        "lookback": "20d",
        "holdout": "25%",
    },
    "training": {
        "estimator": "sklearn.linear_model:SGDClassifier",
        "params": {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.05},
    },
    "gate": {
        "performance": {"metric": "accuracy", "at_least": 0.75},
        "regression": {"metric": "accuracy", "margin": "5pt"},
        "latency": "off",
        "fresh_process": False,
    },
    "shadow": "off",
    "learn": {"batch": 50, "most": 600, "holdout": 200},
    "health": {"watch": "6h", "tick": "1h", "min_requests": 20, "accuracy": "off", "silence": "30d"},
    "notify": ["file:told.jsonl"],
}

AMOUNTS: dict[str, Any] = {
    "problem": "regression",
    "data": {"target": "amount", "positive": None, "drop": ["churned"]},
    "training": {
        "estimator": "sklearn.linear_model:SGDRegressor",
        "params": {"loss": "squared_error", "eta0": 0.01},
    },
    "gate": {"performance": {"metric": "r2", "at_least": 0.5}, "regression": {"metric": "r2", "margin": "5pt"}},
}
"""The same stream, of which an amount is to be said."""

Truth = Callable[[str], str]


def right(label: str) -> str:
    """As it was."""
    return label


def flipped(label: str) -> str:
    """The opposite."""
    return {"yes": "no", "no": "yes"}[label]


def customers(*, turn: float = TURN, seed: int = 5) -> pd.DataFrame:
    """Everybody who ever comes."""
    draw = np.random.default_rng(seed)
    rows = PER_DAY * END
    days = np.arange(rows) / PER_DAY
    angle = np.radians(turn * np.maximum(days - TRAINED, 0))
    first, second = draw.normal(size=rows), draw.normal(size=rows)
    side = np.cos(angle) * first + np.sin(angle) * second + 0.2 * draw.normal(size=rows)
    return pd.DataFrame(
        {
            "observed_at": [day(number) for number in days],
            "first": first.round(6),
            "second": second.round(6),
            "plan": draw.choice(["a", "b"], rows),
            "churned": np.where(side > 0, "yes", "no"),
            "amount": side.round(6),
        }
    )


def policy(scene: Scene, name: str = "stream", **changes: Any) -> str:
    """The policy of the stream, with some keys changed; then it has a name of its own."""
    path: Path = scene.home / f"{name}.variant"
    path.write_text(yaml.safe_dump(merged(STREAM, changes), sort_keys=False), "utf-8")
    return str(path)


def asked(
    scene: Scene,
    start: float,
    end: float,
    *,
    truth: Truth | None = right,
    late: float = 0.0,
    path: str | None = None,
) -> list[Label]:
    """Requests of some days, answered by what is in Production, and their labels so many days later; None: no labels.

    Returns:
        The labels that were put down.
    """
    case = scene.case(end, path or policy(scene))
    with case.ledger:
        rows = load_rows(case.policy, scene.stores, start=day(start), end=day(end), remember=False)
        serve(case, rows, labels=False)
    if truth is None:
        return []
    return labelled(scene, start, end, truth=truth, late=late, path=path)


def labelled(
    scene: Scene, start: float, end: float, *, truth: Truth = right, late: float = 0.0, path: str | None = None
) -> list[Label]:
    """The labels of the requests of some days, put down so many days after each request."""
    case = scene.case(end, path or policy(scene))
    with case.ledger:
        rows = load_rows(case.policy, scene.stores, start=day(start), end=day(end), remember=False)
    known = dict(zip(rows.time, rows.target, strict=True))
    with RequestLog.open(scene.stores.requests) as log:
        found = log.window("churn", start=day(start), end=day(end), limit=10**6)
        labels = [
            Label(request_id=one, model="churn", label=truth(known[pd.Timestamp(at)]), at=at + timedelta(days=late))
            for one, at in zip(found.request_ids, found.times, strict=True)
        ]
        log.label(labels)
    return labels


def accuracy(scene: Scene, version: str, start: float, end: float) -> float:
    """Of a version, on everybody who came on some days."""
    case = scene.case(end, policy(scene))
    with case.ledger:
        rows = load_rows(case.policy, scene.stores, start=day(start), end=day(end), remember=False)
        model = case.registry().load(case.ledger, case.policy, version)
    scores = score(model, rows, classes=classes_of(model, rows, case.policy))
    return float((scores.truth == scores.prediction).mean())


def directly(function: Callable[..., Any], **_: Any) -> Callable[..., Awaitable[Any]]:
    """A step as what it is, and not as a Prefect task."""

    async def call(*given: Any, **options: Any) -> Any:
        return function(*given, **options)

    return call


@contextmanager
def without_tasks() -> Iterator[None]:
    """The flows' own functions need no server within this block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("flows.learn", "flows.follow", "flows.steps"):
            patch.setattr(import_module(name), "step", directly)
        yield


def learned(scene: Scene, at: float, path: str | None = None) -> Report:
    """What the flow decides and does, without what it leaves in Prefect's pages."""
    learn = import_module("flows.learn")
    case = open_case(load_policy(path or policy(scene)), actor="flows.learn", now=day(at), stores=scene.stores)
    with case.ledger, without_tasks():
        report: Report = asyncio.run(learn._learn(case))[0]
        return report


def watched(scene: Scene, at: float) -> str:
    """One tick of the watch."""
    case = open_case(load_policy(policy(scene)), actor="flows.watch", now=day(at), stores=scene.stores)
    with case.ledger:
        return tick(case, case.standing()).decision


def run(scene: Scene, flow: Any, at: float, **options: Any) -> Ran:
    """A flow with the policy of the stream."""
    return scene.run(flow, at, policy=options.pop("policy", None) or policy(scene), **options)
