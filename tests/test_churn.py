"""The generated customers keep the promises that the demo and other tests rest on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from rehearsal.churn import PRICE_RISE, STEADY, World, chance_to_leave, corrupt_labels, customers

START = datetime(2024, 1, 1, tzinfo=UTC)
FEATURES = ["tenure_months", "monthly_charges", "total_charges", "contract", "payment", "support_calls"]


def drawn(rows: int, seed: int, world: World = STEADY) -> pd.DataFrame:
    return customers(rows, start=START, days=60, seed=seed, world=world)


def fitted(frame: pd.DataFrame) -> Pipeline:
    columns = make_column_transformer((OrdinalEncoder(), ["contract", "payment"]), remainder="passthrough")
    model = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, max_leaf_nodes=15, random_state=0)
    return make_pipeline(columns, model).fit(frame[FEATURES], frame["churned"])


def accuracy(model: Pipeline, frame: pd.DataFrame) -> float:
    return float(model.score(frame[FEATURES], frame["churned"]))


def psi(before: pd.Series, after: pd.Series) -> float:
    """Population stability index over the deciles, or the levels, of ``before``."""
    if before.dtype.kind in "if":
        edges = np.unique(np.quantile(before, np.linspace(0.1, 0.9, 9)))
        counts = [np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) for part in (before, after)]
    else:
        levels = sorted(set(before) | set(after))
        counts = [np.array([(part == level).sum() for level in levels]) for part in (before, after)]
    p, q = ((count + 0.5) / (count + 0.5).sum() for count in counts)
    return float(((p - q) * np.log(p / q)).sum())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine cost more than they bring for so few rows."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def old() -> Pipeline:
    return fitted(drawn(6000, 1))


def test_columns_types_order_and_time() -> None:
    frame = drawn(500, 1)
    assert list(frame) == ["customer_id", "observed_at", *FEATURES, "churned"]
    assert str(frame["observed_at"].dt.tz) == "UTC"
    assert frame["observed_at"].is_monotonic_increasing
    assert frame["observed_at"].min() >= START
    assert frame["observed_at"].max() < START + timedelta(days=60)
    assert frame["customer_id"].is_unique
    assert set(frame["churned"]) == {"yes", "no"}
    assert not frame.isna().any().any()


def test_the_same_seed_gives_the_same_customers_and_another_seed_others() -> None:
    pd.testing.assert_frame_equal(drawn(200, 7), drawn(200, 7))
    assert set(drawn(200, 7)["customer_id"]).isdisjoint(drawn(200, 8)["customer_id"])
    assert not drawn(200, 7)["monthly_charges"].equals(drawn(200, 8)["monthly_charges"])


def test_another_zone_is_turned_into_utc_and_none_is_refused() -> None:
    local = START.astimezone(timezone(timedelta(hours=5)))
    pd.testing.assert_frame_equal(
        customers(50, start=local, days=1, seed=1), customers(50, start=START, days=1, seed=1)
    )
    with pytest.raises(ValueError, match="has no time zone"):
        customers(50, start=START.replace(tzinfo=None), days=1, seed=1)


@pytest.mark.parametrize(("rows", "days"), [(0, 10), (10, 0), (-1, 10)])
def test_no_rows_or_no_days_are_refused(rows: int, days: float) -> None:
    with pytest.raises(ValueError, match=f"rows={rows} and days={days}"):
        customers(rows, start=START, days=days, seed=1)


def test_about_three_of_ten_leave_and_a_good_model_clearly_passes_the_floor(old: Pipeline) -> None:
    frame = drawn(2000, 2)
    assert 0.25 <= (frame["churned"] == "yes").mean() <= 0.32
    assert 0.88 <= accuracy(old, frame) <= 0.94


def test_the_best_possible_model_is_not_perfect() -> None:
    for world in (STEADY, PRICE_RISE):
        chance = chance_to_leave(drawn(5000, 3, world), world)
        assert 0.90 <= np.maximum(chance, 1 - chance).mean() <= 0.94


def test_two_draws_of_the_steady_world_do_not_drift() -> None:
    before, after = drawn(6000, 1), drawn(2000, 2)
    assert max(psi(before[name], after[name]) for name in FEATURES) < 0.03


def test_the_price_rise_drifts_and_hurts_and_a_retraining_cures_it(old: Pipeline) -> None:
    before, after = drawn(6000, 1), drawn(2000, 4, PRICE_RISE)
    assert sum(psi(before[name], after[name]) > 0.1 for name in FEATURES) >= 4
    assert accuracy(old, drawn(2000, 2)) - accuracy(old, after) > 0.06
    assert accuracy(fitted(drawn(4000, 3, PRICE_RISE)), after) > 0.88


def test_a_retraining_that_still_sees_old_rows_passes_the_floor_too() -> None:
    mixed = pd.concat([drawn(6000, 1), drawn(3000, 3, PRICE_RISE)])
    assert accuracy(fitted(mixed), drawn(2000, 4, PRICE_RISE)) > 0.865


def test_the_rule_itself_changed_and_not_only_the_customers() -> None:
    frame = drawn(3000, 5)
    assert np.abs(chance_to_leave(frame, STEADY) - chance_to_leave(frame, PRICE_RISE)).mean() > 0.05


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_exactly_the_share_of_labels_is_turned_and_nothing_else(share: float) -> None:
    frame = drawn(400, 6)
    turned = corrupt_labels(frame, share, seed=1)
    assert (turned["churned"] != frame["churned"]).sum() == round(400 * share)
    assert set(turned["churned"]) <= {"yes", "no"}
    pd.testing.assert_frame_equal(turned.drop(columns="churned"), frame.drop(columns="churned"))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"is outside 0\.\.1"):
        corrupt_labels(drawn(20, 6), share, seed=1)
