"""Selection: the values at ranks are those of an order of all values, and so are the profiles made of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks import bins, selection, ties
from tasks.held import Plain, ranked
from tasks.profile import describe_held
from tasks.selection import at_ranks

ROWS = 70_001
Draw = np.random.Generator

SHAPES: dict[str, Callable[[Draw], NDArray[np.floating]]] = {
    "normal": lambda draw: draw.normal(size=ROWS),
    "single": lambda draw: draw.normal(size=ROWS).astype(np.float32),
    "skewed": lambda draw: draw.lognormal(0, 5, ROWS),
    "far ends": lambda draw: draw.standard_cauchy(ROWS),
    "three values": lambda draw: draw.integers(0, 3, ROWS).astype(np.float64),
    "one value": lambda _: np.full(ROWS, 0.1),
    "mostly one value": lambda draw: np.where(draw.random(ROWS) < 0.97, 0.0, draw.normal(size=ROWS)),
    "lowest fills a tenth": lambda draw: np.maximum(draw.normal(size=ROWS), 0.0),
    "half one value": lambda draw: np.where(draw.random(ROWS) < 0.6, -1.5, draw.normal(size=ROWS)),
    "decimals": lambda draw: draw.normal(size=ROWS).round(1),
    "prices": lambda draw: draw.lognormal(3, 1, ROWS).round(2),
    "two crowds": lambda draw: draw.normal(size=ROWS) + 1e9 * draw.integers(0, 2, ROWS),
    "farther ends": lambda draw: draw.standard_cauchy(ROWS) ** 3,
    "half": lambda draw: draw.normal(size=ROWS).astype(np.float16),
    "sorted": lambda draw: np.sort(draw.random(ROWS)),
    "largest": lambda draw: (2 * draw.random(ROWS) - 1) * 1.7e308,
    "smallest": lambda draw: draw.random(ROWS) * 1e-310,
    "near": lambda draw: 1 + draw.integers(0, 50, ROWS) * 2.0**-52,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ranks", [1, 9, 1025])
def test_what_is_at_a_rank_is_what_an_order_has_there(shape: str, ranks: int) -> None:
    values = SHAPES[shape](np.random.default_rng(5))
    before, asked = values.copy(), np.linspace(0, ROWS - 1, ranks).astype(np.int64)
    found, ordered = at_ranks(values, asked), np.sort(values)
    assert found.values.tolist() == ordered[asked].astype(np.float64).tolist()
    assert found.below.tolist() == np.searchsorted(ordered, ordered[asked], side="left").tolist()
    assert found.upto.tolist() == np.searchsorted(ordered, ordered[asked], side="right").tolist()
    assert at_ranks(values, asked[::-1]).values.tolist() == found.values.tolist()[::-1], "in any order"
    assert np.array_equal(values, before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spoilt", ["", "nulls", "infinities", "both"])
@pytest.mark.parametrize("ks", [False, True])
def test_a_profile_is_the_same_whether_its_rows_were_put_in_order_or_not(
    shape: str, spoilt: str, ks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(6)
    values = SHAPES[shape](draw)
    if spoilt in {"infinities", "both"}:
        values[draw.integers(0, ROWS, 40)] = math.inf
        values[draw.integers(0, ROWS, 40)] = -math.inf
    if spoilt in {"nulls", "both"}:
        values[draw.random(ROWS) < 0.05] = math.nan
    monkeypatch.setattr(bins, "_sorting", lambda: 1.0)
    assert bins.outline(values, ks=ks) is not None, "nothing is put in order"
    assert describe_held("x", Plain(values), ks=ks) == describe_held("x", ranked(values), ks=ks)


@pytest.mark.parametrize("shape", sorted(SHAPES.keys() - {"near"}))
def test_nothing_is_put_in_order_because_of_its_shape(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError(shape)

    monkeypatch.setattr(selection, "_ordered", refuse)
    values = SHAPES[shape](np.random.default_rng(8))
    for ranks in (9, 1025):
        at_ranks(values, np.linspace(0, ROWS - 1, ranks).astype(np.int64))


@pytest.mark.parametrize("shape", ["one value", "three values", "half"])
def test_a_few_values_are_counted_whatever_stands_among_them(shape: str) -> None:
    draw = np.random.default_rng(9)
    values = SHAPES[shape](draw)
    for spoilt in (0.0, -0.0, math.nan, math.inf, -math.inf):
        values[draw.integers(0, ROWS, 4000)] = spoilt
        found, wanted = ties.few(values), ranked(values)
        if shape == "three values" and spoilt == -math.inf:
            assert found is None, "they are more than a few now"
            continue
        assert found is not None
        points = np.unique(wanted.values).astype(np.float64)
        assert (found.nulls, found.present) == (wanted.nulls, wanted.present)
        assert found.below(points).tolist() == wanted.below(points).tolist()
        assert found.upto(points).tolist() == wanted.upto(points).tolist()
    values[-1] = 0.3
    assert shape == "half" or ties.few(values) is None, "a single one that is no other is not lost"


def test_the_value_that_most_rows_hold_is_taken_out() -> None:
    values = SHAPES["mostly one value"](np.random.default_rng(10))
    found = ties.apart(values)
    assert found is not None
    assert (found.value, found.rows) == (0.0, int((values == 0).sum()))
    assert found.others.tolist() == values[values != 0].tolist()
    assert ties.apart(SHAPES["normal"](np.random.default_rng(10))) is None
    assert ties.apart(np.full(9, math.nan)) is None
    assert ties.apart(np.zeros(0)) is None


def test_the_lowest_number_of_all_has_no_edge_beneath_it() -> None:
    lowest = -float(np.finfo(np.float64).max)
    column = describe_held("x", Plain(np.full(9, lowest)), ks=True)
    assert (column.edges, column.counts) == ((lowest,), (9, 0))


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_few_rows_and_whole_numbers_that_can_be_counted_are_not_selected_from(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("selected from")

    draw = np.random.default_rng(7)
    monkeypatch.setattr(bins, "_sorting", lambda: seconds)
    monkeypatch.setattr(bins, "at_ranks", refuse)
    for values in (draw.random(1000), draw.integers(0, 9, ROWS), np.full(ROWS, math.nan), np.full(ROWS, math.inf)):
        assert describe_held("x", Plain(values)) == describe_held("x", ranked(values))


def test_where_sorting_is_quick_nothing_is_selected_from() -> None:
    values = np.random.default_rng(7).normal(size=ROWS)
    cases = ((15e-9, False, True), (15e-9, True, False), (5e-9, False, False), (60e-9, True, True))
    for seconds, ks, selected in cases:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(bins, "_sorting", lambda seconds=seconds: seconds)
            assert (bins.outline(values, ks=ks) is not None) == selected
