"""Profiles: exact counts, however the rows are cut, and nothing that slips through the bins."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import profile as profiles
from tasks.columns import tidy
from tasks.records import ColumnProfile, Measurement, Profile, Scores, Span

NUMBERS = st.lists(
    st.one_of(
        st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from([0.0, 1.0, math.nan, math.inf])
    ),
    min_size=1,
    max_size=60,
)
WORDS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)


def numbers(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"x": np.array(values, dtype=np.float64)})


def words(*values: str | None) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.Series(values, dtype=object)})


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS, st.integers(0, 60))
def test_how_the_rows_are_cut_into_batches_does_not_change_a_count(first: list, values: list, cut: int) -> None:
    (reference,) = profiles.describe(numbers(*first))
    (whole,) = profiles.count(numbers(*values), [reference])
    parts = [profiles.count(numbers(*part), [reference])[0] for part in (values[:cut], values[cut:])]
    assert profiles.merge(*parts) == whole
    assert profiles.merge(*reversed(parts)) == whole
    assert whole.rows == len(values)
    assert whole.nulls == sum(math.isnan(value) for value in values)


@settings(max_examples=30, deadline=None)
@given(WORDS, WORDS, st.integers(0, 60))
def test_categories_are_counted_exactly_too(first: list, values: list, cut: int) -> None:
    (reference,) = profiles.describe(words(*first, "a"))
    (whole,) = profiles.count(words(*values), [reference])
    parts = [profiles.count(words(*part), [reference])[0] for part in (values[:cut], values[cut:])]
    assert profiles.merge(*parts) == whole
    assert whole.rows == len(values)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_every_value_lies_in_the_first_bin_whose_edge_is_not_below_it(values: list) -> None:
    (profile,) = profiles.describe(numbers(*values))
    expected = [0] * (len(profile.edges) + 1)
    for value in values:
        if not math.isnan(value):
            expected[next((i for i, e in enumerate(profile.edges) if value <= e), len(profile.edges))] += 1
    assert profile.counts == tuple(expected)


def test_blocks_are_added_up() -> None:
    values = np.random.default_rng(0).normal(size=100_001)
    (profile,) = profiles.describe(pd.DataFrame({"x": values}))
    assert len(profile.edges) == 9
    assert profile.present == values.size
    assert max(profile.counts) - min(profile.counts) <= 1


def test_infinities_lie_in_the_outer_bins_and_do_not_become_edges() -> None:
    (profile,) = profiles.describe(numbers(*range(100), math.inf, -math.inf))
    assert all(math.isfinite(edge) for edge in profile.edges)
    assert (profile.low, profile.high) == (0.0, 99.0)
    (recent,) = profiles.count(numbers(math.inf, -math.inf, -math.inf), [profile])
    assert (recent.counts[0], recent.counts[-1]) == (2, 1)


def test_a_constant_has_three_bins_so_that_leaving_it_shows_in_both_directions() -> None:
    (profile,) = profiles.describe(numbers(*[5.0] * 50))
    assert profile.counts == (0, 50, 0)
    (recent,) = profiles.count(numbers(4.9, 5.0, 5.1, 6.0), [profile])
    assert recent.counts == (1, 1, 2)


def test_a_heavy_value_has_a_bin_of_its_own() -> None:
    (profile,) = profiles.describe(numbers(*[0.0] * 80, *range(1, 21)))
    (recent,) = profiles.count(numbers(-1.0, -2.0, 0.0), [profile])
    assert recent.counts[:2] == (2, 1)


def test_a_column_that_vanished_is_left_out() -> None:
    reference = profiles.describe(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}))
    assert [column.name for column in profiles.count(numbers(1.0), reference)] == ["x"]


def test_a_column_that_changed_its_kind_says_so() -> None:
    reference = profiles.describe(numbers(1.0, 2.0))
    (recent,) = profiles.count(words("a", "b", None), reference)
    assert (recent.kind, recent.present, recent.nulls) == ("category", 2, 1)


def test_a_column_of_nothing_but_nulls_keeps_its_kind_and_counts_them() -> None:
    reference = profiles.describe(words("a", "b", "b"))
    (recent,) = profiles.count(tidy(pd.DataFrame({"x": [None, None]})), reference)
    assert (recent.kind, recent.nulls, recent.present) == ("category", 2, 0)
    assert recent.categories == reference[0].categories


def test_levels_beyond_the_hundred_most_frequent_share_the_last_count() -> None:
    (profile,) = profiles.describe(words(*[f"v{number:03d}" for number in range(150)], "v000"))
    assert len(profile.categories) == 100
    assert profile.categories[0] == "v000"
    assert profile.counts[-1] == 50
    (recent,) = profiles.count(words("v000", "unheard of"), [profile])
    assert (recent.counts[0], recent.counts[-1]) == (1, 1)


def named_without(texts: list[str], left_out: int) -> bool:
    """Whether a row's level is among the hundred most frequent of the other rows."""
    (others,) = profiles.describe(words(*texts[:left_out], *texts[left_out + 1 :]))
    return texts[left_out] in others.categories


@pytest.mark.parametrize("levels", [30, 101, 120, 200])
def test_what_is_expected_outside_is_what_lies_there_when_each_row_is_left_out(levels: int) -> None:
    texts = [f"v{number:03d}" for number in np.random.default_rng(levels).integers(0, levels, 400)]
    (profile,) = profiles.describe(words(*texts))
    left_out = sum(not named_without(texts, place) for place in range(len(texts)))
    assert (profile.outside or (0, 0))[0] == left_out
    (again,) = profiles.count(words(*texts), [profile])
    assert again == profile


def test_where_every_level_is_there_twice_nothing_else_is_expected() -> None:
    (profile,) = profiles.describe(words("a", "a", "b", "b", "b"))
    assert profile.outside is None


@pytest.mark.parametrize("ks", [False, True])
@pytest.mark.parametrize("size", [50, 200_000])
def test_infinite_values_are_told_apart_however_they_are_counted(size: int, ks: bool) -> None:
    values = np.random.default_rng(0).normal(size=size)
    reference = profiles.describe(pd.DataFrame({"x": values}), ks=ks)
    assert reference[0].infinite == 0
    values[::10], values[5::50] = np.inf, -np.inf
    (own,) = profiles.describe(pd.DataFrame({"x": values}), ks=ks)
    assert own.infinite == np.isinf(values).sum()
    for column in (values, values.astype(np.float32), np.sort(values)):
        (recent,) = profiles.count(pd.DataFrame({"x": column}), reference)
        assert recent.infinite == np.isinf(values).sum()
    halves = [profiles.count(pd.DataFrame({"x": half}), reference)[0] for half in np.split(values, 2)]
    assert profiles.merge(*halves).infinite == np.isinf(values).sum()


def test_profiles_with_different_bins_are_not_added() -> None:
    (first,), (second,) = profiles.describe(numbers(1.0, 2.0)), profiles.describe(numbers(1.0, 3.0))
    with pytest.raises(ValueError, match="different edges"):
        profiles.merge(first, second)


def test_empty_rows_and_empty_columns_are_no_crash() -> None:
    (nothing,) = profiles.describe(numbers())
    assert (nothing.counts, nothing.nulls) == ((0,), 0)
    (empty,) = profiles.describe(numbers(math.nan, math.nan))
    assert (empty.counts, empty.nulls, empty.low) == ((0,), 2, None)


def test_answers_are_profiled_by_probability_value_or_class() -> None:
    truth = np.array([0, 1, 1, 0])
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    binary = Scores(truth=truth, prediction=truth, probability=probability, classes=("no", "yes"))
    assert profiles.describe_prediction(binary).high == 0.8
    several = Scores(truth=truth, prediction=np.array([0, 2, 2, -1]), classes=("a", "b", "c"))
    reference = profiles.describe_prediction(several)
    assert (reference.kind, reference.counts, reference.nulls) == ("category", (1, 0, 2, 0), 1)
    fewer = Scores(truth=truth, prediction=np.array([0, 1, 1, 1]), classes=("b", "d"))
    assert profiles.count_prediction(fewer, reference).counts == (0, 1, 0, 3)
    amounts = Scores(truth=truth * 1.0, prediction=np.array([1.0, math.nan, 2.0, 3.0]))
    assert (profiles.describe_prediction(amounts).nulls, profiles.describe_prediction(amounts).kind) == (1, "number")


def test_a_profile_survives_json_exactly() -> None:
    now = datetime(2024, 4, 1, 12, 30, 0, 5, tzinfo=UTC)
    frame = pd.DataFrame({"x": [0.1, 0.2, 1 / 3], "w": pd.Series(["a", None, "b"], dtype=object), "c": [7.0] * 3})
    profile = Profile(
        columns=profiles.describe(frame),
        prediction=ColumnProfile(name="(prediction)", kind="number", edges=(0.5,), counts=(1, 2), score=0.25),
        metrics=(Measurement(metric="rmse", value=0.1, error=None, n=3, greater_is_better=False),),
        rows=3,
        labelled=4,
        trained_at=now,
        trained=Span(start=now, end=now),
        holdout=Span(start=now, end=now),
        fingerprint="f" * 64,
    )
    assert profiles.from_json(profiles.to_json(profile)) == profile


def test_what_is_no_profile_is_an_error_and_not_an_empty_profile() -> None:
    with pytest.raises(ValueError, match="no profile"):
        profiles.from_plain({"columns": []})
