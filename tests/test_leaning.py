"""Leaning: what a model looks at is told from what it does not, whatever the model is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.data import Dataset
from tasks.leaning import measured
from tasks.profile import describe
from tasks.records import ColumnProfile

CLASSES = ("no", "yes")


class Rule:
    """Says yes where ``much`` and a little of ``some`` are large; never looks at ``none``."""

    classes_ = np.array(CLASSES)

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        plan = features["plan"].map({"basic": 1.0, "pro": -1.0}).astype(float)
        yes = 1 / (1 + np.exp(-(3 * features["much"] + 0.5 * features["some"] + 0.2 * plan)))
        return np.column_stack((1 - yes, yes))

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        return self.classes_[self.predict_proba(features).argmax(axis=1)]


class Amount(Rule):
    """The same as a number."""

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        return 10 * self.predict_proba(features)[:, 1]


class Blunt:
    """The same without probabilities."""

    classes_ = np.array(CLASSES)

    def predict(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        return Rule().predict(features)


class Touchy(Rule):
    """Fails on rows that it has not seen like that."""

    def predict_proba(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        if not np.allclose(features["none"], np.sort(features["none"])):
            raise ValueError("these rows do not fit together")
        return super().predict_proba(features)


def rows(n: int = 600, *, amounts: bool = False) -> Dataset:
    draw = np.random.default_rng(8)
    features = pd.DataFrame(
        {
            "much": draw.normal(size=n),
            "some": draw.normal(size=n),
            "none": np.sort(draw.normal(size=n)),
            "plan": pd.Series(draw.choice(["basic", "pro"], n), dtype=object),
        }
    )
    target = pd.Series(draw.normal(size=n) if amounts else draw.choice(CLASSES, n), dtype=object)
    return Dataset(features=features, target=target, time=pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC"))


def scores(model: Any, classes: tuple[str, ...] = CLASSES) -> dict[str, float | None]:
    data = rows(amounts=not classes)
    found: tuple[ColumnProfile, ...] = measured(describe(data.features), model, data, classes=classes, seed=0)
    return {column.name: column.score for column in found}


@pytest.mark.parametrize(("model", "classes"), [(Rule(), CLASSES), (Amount(), ()), (Blunt(), CLASSES)])
def test_columns_are_in_the_order_in_which_the_model_leans_on_them(model: Any, classes: tuple[str, ...]) -> None:
    found = {name: score or 0.0 for name, score in scores(model, classes).items()}
    assert found["none"] == 0
    assert 1 >= found["much"] > 0.5 > found["some"] > found["plan"] > 0


def test_the_same_seed_gives_the_same_numbers_and_the_rows_are_left_alone() -> None:
    before = rows().features
    assert scores(Rule()) == scores(Rule())
    pd.testing.assert_frame_equal(rows().features, before)


@pytest.mark.parametrize(("model", "classes"), [(Rule(), CLASSES), (Amount(), ()), (Blunt(), CLASSES)])
def test_columns_are_asked_for_together_and_the_numbers_are_those_of_each_alone(
    monkeypatch: pytest.MonkeyPatch, model: Any, classes: tuple[str, ...]
) -> None:
    together = scores(model, classes)
    monkeypatch.setattr("tasks.leaning._CELLS", 1)
    assert scores(model, classes) == together
    monkeypatch.setattr("tasks.leaning._CELLS", 3 * rows().features.size)
    assert scores(model, classes) == together


def test_a_model_that_cannot_be_asked_so_is_not_measured_and_still_trains() -> None:
    assert set(scores(Touchy()).values()) == {None}


def test_a_model_that_is_too_slow_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.leaning._SECONDS", 0.0)
    assert set(scores(Rule()).values()) == {None}
