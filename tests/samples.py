"""Rows, policies and user code that several tests use. The numbers are drawn from seeded generators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.policy import Policy

START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2025, 1, 1, tzinfo=UTC)


def policy(source: str | Path = "samples:loader", **changes: Any) -> Policy:
    """A policy for :func:`rows`; sections are given as dicts and replace single keys."""
    regression = changes.get("problem") == "regression"
    data = {
        "source": str(source),
        "target": "amount" if regression else "left",
        "timestamp": "at",
        "drop": ["id", "left" if regression else "amount"],
        "lookback": "3650d",
    }
    kind = "Regressor" if regression else "Classifier"
    training = {"estimator": f"sklearn.ensemble:HistGradientBoosting{kind}", "params": {"max_iter": 20}}
    return Policy.model_validate(
        {
            "model": "sample",
            **changes,
            "data": {**data, **changes.get("data", {})},
            "training": {**training, **changes.get("training", {})},
        }
    )


def rows(n: int = 600, *, seed: int = 0, start: datetime = START) -> pd.DataFrame:
    """One row an hour: ``left`` follows size and plan, ``amount`` follows size; both with noise."""
    draw = np.random.default_rng(seed)
    size, plan = draw.normal(size=n), draw.choice(["basic", "plus", "pro"], n)
    inclination = 2 * size + (plan == "basic") - (plan == "pro")
    return pd.DataFrame(
        {
            "id": [f"c{number:05d}" for number in range(n)],
            "at": [(start + timedelta(hours=number)).isoformat() for number in range(n)],
            "size": size,
            "plan": pd.Series(plan, dtype=object),
            "noise": draw.normal(size=n),
            "left": np.where(inclination + draw.normal(size=n) > 0, "yes", "no"),
            "amount": 3 * size + draw.normal(size=n),
        }
    )


def loader(start: datetime, end: datetime) -> pd.DataFrame:
    """A user's loader."""
    frame = rows()
    moments = pd.to_datetime(frame["at"])
    return frame[(moments >= start) & (moments < end)]


def broken_loader(start: datetime, end: datetime) -> pd.DataFrame:
    """A user's loader that fails."""
    raise RuntimeError("the warehouse is closed")


def list_loader(start: datetime, end: datetime) -> list[int]:
    """A user's loader that returns something else."""
    return [1, 2, 3]


class Guess:
    """A user's model without classes_ and without probabilities."""

    def __init__(self, answer: Any = "yes") -> None:
        self.answer = answer

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.array([self.answer] * len(features))


class Nothing(Guess):
    """Answers every row with NaN."""

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.full(len(features), np.nan)


def train_guess(features: pd.DataFrame, labels: np.ndarray[Any, Any], *, answer: str = "yes") -> Guess:
    """A user's trainer."""
    return Guess(answer)


def train_nothing(features: pd.DataFrame, labels: np.ndarray[Any, Any]) -> Nothing:
    """A user's trainer whose model answers with NaN."""
    return Nothing()
