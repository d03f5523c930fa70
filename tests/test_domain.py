"""Domain: inputs that moved together are found by a real classifier, and those that did not are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.data import Dataset
from tasks.decide.domain import judge
from tasks.decide.drift import judge_columns
from tasks.decide.influence import Unmeasurable
from tasks.domain import compared
from tasks.policy import DriftTrigger, MultivariateTrigger
from tasks.profile import count, describe
from tasks.records import Domain, Measurement

RULES = MultivariateTrigger(rows=1000)


def rows(n: int, *, together: float, seed: int) -> Dataset:
    """Two columns that go together so closely, one that has nothing to do with them, and a word."""
    draw = np.random.default_rng(seed)
    left, noise = draw.normal(size=n), draw.normal(size=n)
    features = pd.DataFrame(
        {
            "left": left,
            "right": together * left + np.sqrt(1 - together**2) * noise,
            "other": np.where(draw.random(n) < 0.1, np.nan, draw.normal(size=n)),
            "word": pd.Series(draw.choice(["a", "b", None], n), dtype=object),
        }
    )
    time = pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC")
    return Dataset(features=features, target=pd.Series([None] * n, dtype=object), time=time)


def test_columns_that_no_longer_go_together_are_found_where_each_alone_looks_as_ever() -> None:
    then, now = rows(1000, together=0.9, seed=1), rows(1000, together=-0.9, seed=2)
    alone = judge_columns(describe(then.features), count(now.features, describe(then.features)), DriftTrigger())
    assert {one.outcome for one in alone} == {"ok"}
    found = judge(compared(then, now, RULES, seed=0), RULES)
    assert (found.outcome, found.urgency) == ("breach", "medium")
    assert set(found.evidence["features"][:2]) == {"left", "right"}
    assert "mostly by " in found.reason


@pytest.mark.parametrize("n", [200, 1000])
def test_rows_of_the_same_kind_cannot_be_told_apart(n: int) -> None:
    then, now = rows(n, together=0.5, seed=3), rows(n, together=0.5, seed=4)
    found = judge(compared(then, now, RULES, seed=0), RULES)
    assert found.outcome == "ok"
    assert found.interval is not None
    assert found.interval[0] <= 0.52


def test_the_same_rows_and_the_same_seed_give_the_same_answer() -> None:
    then, now = rows(250, together=0.5, seed=5), rows(250, together=0.0, seed=6)
    assert compared(then, now, RULES, seed=1) == compared(then, now, RULES, seed=1)


def test_too_few_rows_and_no_column_in_common_are_unknown() -> None:
    many, few = rows(300, together=0.5, seed=7), rows(199, together=0.5, seed=8)
    with pytest.raises(Unmeasurable, match="300 rows of the training are still in the lookback window, and 199 recent"):
        compared(many, few, RULES, seed=0)
    other = Dataset(features=pd.DataFrame({"x": np.zeros(300)}), target=many.target, time=many.time)
    with pytest.raises(Unmeasurable, match="no column"):
        compared(many, other, RULES, seed=0)
    thin = Domain(auc=Measurement(metric="roc_auc", value=0.9, error=0.01, n=199), reference=199, recent=5000)
    with pytest.raises(Unmeasurable, match="199 rows on one side"):
        judge(thin, RULES)


def test_an_effect_that_is_too_small_to_act_on_does_not_fire_however_many_rows_show_it() -> None:
    huge = Domain(auc=Measurement(metric="roc_auc", value=0.55, error=0.0005, n=10**6), reference=10**6, recent=10**6)
    assert judge(huge, RULES).outcome == "ok"
