"""Recency: after a change the newest rows teach alone, and where nothing changed all of them do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from samples import START, policy

from tasks import candidate, recency
from tasks.data import Dataset, Split
from tasks.decide.metrics import Unmeasurable
from tasks.decide.recency import longest
from tasks.plugins import PluginError
from tasks.policy import Policy
from tasks.records import Scores

LINEAR = {"estimator": "sklearn.linear_model:LogisticRegression", "params": {}}
WINDOWS = ["5d", "15d"]


def world(turned: float, n: int = 4000, *, days: int = 40, problem: str = "binary") -> Dataset:
    """So many days; in the newest ``turned`` of them the sign of everything is the other way round."""
    draw = np.random.default_rng(1)
    age = np.linspace(days, 0, n, endpoint=False)
    x = draw.normal(size=n)
    signal = np.where(age <= turned, -x, x) + 0.5 * draw.normal(size=n)
    labels = list(signal) if problem == "regression" else ["yes" if one > 0 else "no" for one in signal]
    time = pd.DatetimeIndex([pd.Timestamp(START) + pd.Timedelta(days=days - one) for one in age]).astype(
        "datetime64[us, UTC]"
    )
    features = pd.DataFrame({"x": x, "noise": draw.normal(size=n)})
    return Dataset(features=features, target=pd.Series(labels, dtype=object), time=time)


def of(windows: list[str] = WINDOWS, **changes: Any) -> Policy:
    return policy(
        data={"lookback": "60d", **changes.pop("data", {})},
        training={**LINEAR, "windows": windows, **changes.pop("training", {})},
        **changes,
    )


@pytest.mark.parametrize(
    ("turned", "days"),
    [(0.0, 40.0), (6.0, 5.0), (16.0, 15.0), (39.9, 40.0)],
    ids=["nothing changed", "a week ago", "a fortnight ago", "all of it is the new world"],
)
def test_the_longest_stretch_of_the_present_world_is_learned(turned: float, days: float) -> None:
    train = world(turned)
    stretch = recency.learned(of(), train)
    assert (stretch.rows.time[-1] - stretch.rows.time[0]) / timedelta(days=1) == pytest.approx(days, abs=0.05)
    assert stretch.rows.time[-1] == train.time[-1]
    assert "log_loss" in stretch.told
    assert "250 training rows" in stretch.told or "125 training rows" in stretch.told


def test_amounts_are_told_apart_by_how_far_off_they_are() -> None:
    training = {"estimator": "sklearn.linear_model:Ridge"}
    stretch = recency.learned(of(problem="regression", training=training), world(6.0, problem="regression"))
    assert stretch.told.startswith("newest 5d: mae")


def test_a_model_without_probabilities_is_told_apart_by_its_right_answers() -> None:
    stretch = recency.learned(of(training={"estimator": "sklearn.svm:LinearSVC"}), world(6.0))
    assert stretch.told.startswith("newest 5d: accuracy")


def test_the_rows_that_choose_are_learned_from_too_and_the_holdout_never_is() -> None:
    rows = world(10.0)
    parts = Split(train=rows.take(slice(0, 3500)), holdout=rows.take(slice(3500, None)))
    tried = candidate.attempt(of(), parts, rows.time[-1].to_pydatetime())
    assert tried.fitted.window.startswith("newest 5d")
    assert tried.split.train.time[-1] == parts.train.time[-1]
    assert tried.split.holdout is parts.holdout
    assert tried.profile.rows == len(tried.split.train) == 500
    assert tried.profile.trained.start == tried.split.train.time[0]
    assert tried.profile.labelled == 1000


def test_without_windows_everything_is_learned_and_nothing_is_tried() -> None:
    train = world(6.0)
    assert recency.learned(of([]), train) == recency.Stretch(train)


def test_a_stretch_that_is_too_short_or_of_one_class_is_not_tried() -> None:
    few = recency.learned(of(["1d"], data={"min_rows": 200}), world(0.5))
    assert few.told.startswith("all rows")
    assert "; not tried: newest 1d (0 rows before those that compare, of data.min_rows 200)" in few.told
    train = world(0.0)
    same = replace(train, target=pd.Series([*train.target[:3400], *["yes"] * 600], dtype=object))
    told = recency.learned(of(), same).told
    assert told.endswith("; not tried: newest 5d (without no)")


def test_a_class_that_is_rare_of_late_is_not_forgotten_and_hides_no_other_stretch() -> None:
    train = world(16.0)
    labels = train.target.copy()
    labels[:2800:7] = "apart"
    labels[3000] = "apart"  # within a fortnight, and not within five days
    stretch = recency.learned(of(problem="multiclass"), replace(train, target=labels))
    assert stretch.told.startswith("newest 15d: log_loss")
    assert stretch.told.endswith("; not tried: newest 5d (without apart)")


class Moody:
    """Cannot answer where it learned from fewer than 1,000 rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.classes_ = rows, np.array(["no", "yes"])

    def predict(self, features: pd.DataFrame) -> Any:
        if self.rows < 1000 and len(features) < 500:
            raise KeyError("a level that it has never seen")
        return np.where(features["x"] > 0, "yes", "no")


def moody(features: pd.DataFrame, _labels: Any) -> Moody:
    return Moody(len(features))


def test_a_stretch_that_cannot_answer_is_told_and_stops_nothing() -> None:
    policy_ = of(training={"estimator": None, "trainer": "test_recency:moody", "params": {}})
    stretch = recency.learned(policy_, world(0.0))
    assert stretch.told.startswith("all rows: accuracy")
    assert "not tried: newest 5d (" in stretch.told
    assert "a level that it has never seen" in stretch.told


def test_an_estimator_that_is_not_there_is_an_error_and_no_reason_to_learn_from_everything() -> None:
    with pytest.raises(PluginError):
        recency.learned(of(training={"estimator": "sklearn.linear_model:Nothing"}), world(6.0))


def test_every_fit_is_told() -> None:
    told: list[tuple[int, int]] = []
    recency.learned(of(), world(6.0), lambda done, total, _what: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_windows_are_named_where_they_cannot_be() -> None:
    with pytest.raises(ValidationError, match=r"training\.windows 90d: .* shorter than data\.lookback 60d"):
        of(["5d", "90d"])
    with pytest.raises(ValidationError, match="no two alike"):
        of(["5d", "5d"])


def test_no_answers_choose_nothing() -> None:
    with pytest.raises(Unmeasurable):
        longest([])
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(Unmeasurable):
        longest([Scores(truth=nothing, prediction=nothing, classes=("no", "yes"))])


def test_within_one_standard_error_the_longer_one_goes_on() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 400)

    def scores(wrong: int) -> Scores:
        prediction = truth.copy()
        prediction[:wrong] = 1 - prediction[:wrong]
        return Scores(truth=truth, prediction=prediction, classes=("no", "yes"))

    assert longest([scores(41), scores(40), scores(45)]).place == 0
    assert longest([scores(80), scores(41), scores(40)]).place == 1
