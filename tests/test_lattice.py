"""Many points beside many numbers without an order: exactly what an order would have told."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import bins, grid
from tasks import profile as profiles
from tasks.held import ranked
from tasks.lattice import lattice

NEAR = (1.0, math.nextafter(1, 2), math.nextafter(1, 0), -0.0, 0.0, 5e-324, -5e-324, math.inf, -math.inf, math.nan)
MOST = float(np.finfo(np.float64).max)
SHAPES = {
    "normal": lambda draw, n: draw.normal(size=n),
    "single": lambda draw, n: draw.normal(size=n).astype(np.float32),
    "half": lambda draw, n: draw.normal(size=n).astype(np.float16),
    "whole": lambda draw, n: draw.integers(-(2**40), 2**40, n),
    "cauchy": lambda draw, n: draw.standard_cauchy(n),
    "skewed": lambda draw, n: draw.lognormal(0, 1, n),
    "very skewed": lambda draw, n: draw.lognormal(0, 5, n),
    "zeros": lambda draw, n: draw.exponential(size=n) * (draw.random(n) < 0.3),
    "ties": lambda draw, n: draw.normal(size=n).round(1),
    "far away": lambda draw, n: 1.7e9 + draw.random(n) * 1e6,
    "infinite": lambda draw, n: np.where(draw.random(n) < 0.2, np.inf, draw.normal(size=n)),
    "infinite below": lambda draw, n: np.where(draw.random(n) < 0.2, -np.inf, draw.normal(size=n)),
    "nulls": lambda draw, n: np.where(draw.random(n) < 0.2, np.nan, draw.normal(size=n)),
    "constant": lambda _draw, n: np.full(n, 5.0),
    "tiny": lambda draw, n: draw.normal(size=n) * 1e-310,
    "huge": lambda draw, n: draw.normal(size=n) * 1e307,
    "two crowds": lambda draw, n: draw.normal(size=n) + 1e9 * draw.integers(0, 2, n),
    "many crowds": lambda draw, n: draw.normal(size=n) + 1e9 * draw.integers(0, 5, n) ** 2,
    "far ends": lambda draw, n: draw.standard_cauchy(n) ** 3,
    "far ends elsewhere": lambda draw, n: 1e3 + draw.standard_cauchy(n) ** 3,
    "both ends": lambda draw, n: draw.uniform(-1, 1, n) * 1.7e308,
    "two values": lambda draw, n: draw.integers(0, 2, n).astype(np.float64),
    "mostly zeros": lambda draw, n: draw.exponential(size=n) * (draw.random(n) < 0.1),
    "near each other": lambda draw, n: np.array(NEAR)[draw.integers(0, len(NEAR), n)],
    "nothing": lambda _draw, n: np.full(n, np.nan),
}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.integers(-50, 50).map(float)), min_size=5, max_size=60, unique=True),
    st.lists(st.one_of(st.floats(), st.sampled_from(NEAR)), max_size=40),
)
def test_numbers_below_and_at_every_point_are_those_of_a_naive_count(points: list, values: list) -> None:
    at = np.unique(np.array(points))
    made = lattice(at)
    if made is None:
        return
    numbers = np.array([*values, *at, *np.nextafter(at, np.inf), *np.nextafter(at, -np.inf)])
    below, upto = made.below_and_upto(numbers)
    assert below.tolist() == [int((numbers < point).sum()) for point in at]
    assert upto.tolist() == [int((numbers <= point).sum()) for point in at]


@pytest.mark.parametrize("before", SHAPES)
def test_bins_and_steps_are_those_of_the_numbers_in_their_order(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "_FEW", 0)
    monkeypatch.setattr(bins, "_sorting", lambda: 1.0)
    draw = np.random.default_rng(1)
    (reference,) = profiles.describe(pd.DataFrame({"x": SHAPES[before](draw, 20_000)}), ks=True)
    assert reference.steps is not None
    for name, after in SHAPES.items():
        values = after(draw, 70_001)
        edges = (*reference.edges, MOST)
        wanted = bins.fill_and_step(ranked(values), edges, reference.steps.at)
        filled, steps = bins.fill_and_step(bins.Plain(values), edges, reference.steps.at)
        assert filled.counts.tolist() == wanted[0].counts.tolist(), name
        assert (filled.nulls, filled.low, filled.high) == (wanted[0].nulls, wanted[0].low, wanted[0].high), name
        assert steps == wanted[1], name


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=60, unique=True),
    st.lists(st.one_of(st.floats(allow_nan=False), st.sampled_from(NEAR[:-1])), min_size=1, max_size=60),
    st.sampled_from(("_even", "_graded", "_crowds")),
)
def test_a_larger_number_never_lies_in_a_cell_before_that_of_a_smaller_one(
    points: list, values: list, kind: str
) -> None:
    numbers = np.sort(np.array([*values, *points]))
    for made in getattr(grid, kind)(np.unique(np.array(points)), 256):
        cells = made.cells(numbers, grid.Room(numbers.size))
        assert (np.diff(cells) >= 0).all()
        assert cells.min() >= 0
        assert cells.max() < made.size
        equal = numbers[1:] == numbers[:-1]
        assert not np.diff(cells)[equal].any(), "0 and -0 are one number"
        nulls = np.array([math.nan, -math.nan, *np.array([0x7FF0 << 48 | 1, 0xFFF0 << 48 | 1], "u8").view("f8")])
        assert set(made.cells(nulls, grid.Room(4)).tolist()) <= {0, made.size - 1}


def test_edges_that_are_neighbours_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bins, "_FEW", 0)
    monkeypatch.setattr(bins, "_sorting", lambda: 1.0)
    values = np.r_[np.random.default_rng(0).normal(size=70_000), [1.0, NEAR[1], NEAR[2]] * 10]
    edges = (-0.5, NEAR[2], 1.0, NEAR[1])
    points = tuple(np.unique(values[::70]).tolist())
    found, _ = bins.fill_and_step(bins.Plain(values), edges, points)
    naive = np.bincount(np.searchsorted(edges, values), minlength=5)
    assert found.counts.tolist() == naive.tolist()


def test_it_is_taken_wherever_the_distance_costs_most() -> None:
    draw = np.random.default_rng(2)
    for name in SHAPES.keys() - {"constant", "nothing", "near each other", "two values"}:
        (reference,) = profiles.describe(pd.DataFrame({"x": SHAPES[name](draw, 20_000)}), ks=True)
        assert reference.steps is not None
        assert lattice(np.array(reference.steps.at)) is not None, name
