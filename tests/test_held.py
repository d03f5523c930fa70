"""Columns read where they lie: the counts of what ``tidy`` would have made of them, to the last row."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from tasks import parquet, streamed
from tasks import profile as profiles
from tasks.bins import fill
from tasks.columns import tidy
from tasks.decide import drift
from tasks.held import Plain, Ranked, ranked, read, whole
from tasks.policy import DriftTrigger
from tasks.records import ColumnProfile

LARGE = 2**53 + 1
COLUMNS: dict[str, pd.Series] = {
    "double": pd.Series([0.1, math.nan, math.inf, -math.inf, -0.0, 1e300, 0.1]),
    "single": pd.Series([0.1, 1e-40, math.nan, 3.0, 1 / 3, -math.inf, 0.1], dtype=np.float32),
    "half": pd.Series([0.1, 0.25, math.nan, 7.0, 0.1, 0.1, 65504.0], dtype=np.float16),
    "tiny": pd.Series([-128, 127, 0, 1, 1, 1, 5], dtype=np.int8),
    "whole": pd.Series([1, -5, 7, 7, 7, 2**40, 3]),
    "unsigned": pd.Series([0, 1, 2, 2**40, 3, 3, 3], dtype=np.uint64),
    "too large": pd.Series([LARGE, LARGE, 1, 2, 3, LARGE + 1, 3]),
    "flag": pd.Series([True, False, True, True, True, False, True]),
    "always": pd.Series([True] * 7),
    "perhaps": pd.Series([True, None, False, True, True, None, True], dtype="boolean"),
    "nullable": pd.Series([1, None, 3, 3, 3, 4, 5], dtype="Int64"),
    "nullable float": pd.Series([1.5, None, 3, 3, 3, 4, 5], dtype="Float64"),
    "text": pd.Series(["a", "b", None, "a", " ", "a", "c"], dtype="str"),
    "numbers as text": pd.Series(["1", "2.5", "NA", "1", "", None, "1e3"], dtype="str"),
    "one as two texts": pd.Series(["1", "1.0", "x", "01", "1", None, "x"], dtype="str"),
    "category": pd.Series(["a", "b", None, "a", "a", "b", "a"], dtype="category"),
    "category of numbers": pd.Series([3, 1, 3, 3, None, 1, 2], dtype="category"),
    "category nobody is in": pd.Series(pd.Categorical(["a"] * 6 + [None], categories=["a", "7", "z"])),
    "moment": pd.Series(pd.date_range("2026-01-01", periods=7, freq="h", tz="UTC")),
    "span": pd.Series(pd.to_timedelta([1, 2, 3, None, 5, 5, 5], unit="h")),
    "no value": pd.Series([math.nan] * 7),
    "Arrow's day": pd.Series([date(2026, 1, 1), None, date(2026, 1, 2)] * 2, dtype=pd.ArrowDtype(pa.date32())),
    "Arrow's dictionary": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(["a", None, "b"] * 2).dictionary_encode())),
    "Arrow's dictionary of numbers": pd.Series(
        pd.arrays.ArrowExtensionArray(pa.array([3, None, 7] * 2).dictionary_encode())
    ),
    "Arrow's whole numbers": pd.Series([1, None, 3, 3, 5], dtype=pd.ArrowDtype(pa.int64())),
    "Arrow's floats": pd.Series([1.5, None, 3, 3], dtype=pd.ArrowDtype(pa.float32())),
    "Arrow's text": pd.Series(["a", None, " ", "b", "a"], dtype=pd.ArrowDtype(pa.string())),
    "Arrow's flags": pd.Series([True, None, False], dtype=pd.ArrowDtype(pa.bool_())),
    "Arrow's moment": pd.Series([0, None, 10**15], dtype=pd.ArrowDtype(pa.timestamp("us", "UTC"))),
    "Arrow's money": pd.Series([Decimal("1.50"), None, Decimal(2)], dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
    "no text": pd.Series([None] * 7, dtype="str"),
    "Arrow's span": pd.Series([3, None, 10**7], dtype=pd.ArrowDtype(pa.duration("us"))),
    "Arrow's bytes": pd.Series([b"a", None, b"b", b"a"], dtype=pd.ArrowDtype(pa.binary())),
    "view of texts": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(["a", None, "b", "a"], pa.string_view()))),
    "view of bytes": pd.Series(pd.arrays.ArrowExtensionArray(pa.array([b"a", None, b"b"], pa.binary_view()))),
    "no end": pd.Series(np.array(["9999-12-31", "NaT", "0001-01-01", "2026-01-01T12:00"], dtype="datetime64[us]")),
    "seconds": pd.Series(np.array(["9999-12-31", "1960-01-01"], dtype="datetime64[s]")).dt.tz_localize("UTC"),
    "month": pd.Series(pd.period_range("2026-01", periods=5, freq="M")),
    "interval": pd.Series(pd.interval_range(0, 5)),
    "sparse": pd.Series(pd.arrays.SparseArray([0, 0, 1, 0, 5])),
    "no whole number": pd.Series([None] * 5, dtype="Int64"),
}


NO_FILE = {
    "half",
    "Arrow's dictionary",
    "Arrow's dictionary of numbers",
    "view of texts",
    "view of bytes",
    "sparse",
    "Arrow's bytes",
}
"""Parquet has no such type, or pandas does not read what it wrote."""


def alike(one: ColumnProfile, other: ColumnProfile) -> bool:
    return replace(one, name="") == replace(other, name="")


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("ks", [False, True])
def test_a_column_of_any_type_is_counted_as_if_it_had_been_tidied_first(name: str, ks: bool) -> None:
    raw = COLUMNS[name].to_frame("x")
    (reference,) = profiles.describe(tidy(raw), ks=ks)
    assert profiles.describe(raw, ks=ks) == (reference,)
    for others in COLUMNS.values():
        other = others.to_frame("x")
        assert profiles.count(other, [reference]) == profiles.count(tidy(other), [reference])


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in NO_FILE])
def test_a_file_is_profiled_as_its_rows_are_however_it_is_cut(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 2)
    frame = COLUMNS[name].to_frame("x")
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=3)
    rows = tidy(pd.read_parquet(tmp_path / "x.parquet"))
    reference = profiles.describe(rows, ks=True)
    assert streamed.describe(tmp_path / "x.parquet", ks=True) == reference
    for number, other in enumerate(COLUMNS):
        if other in NO_FILE:
            continue
        path = tmp_path / f"{number}.parquet"
        COLUMNS[other].to_frame("x").to_parquet(path, row_group_size=3)
        assert streamed.count(path, reference) == profiles.count(tidy(pd.read_parquet(path)), reference), other


@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in NO_FILE])
@pytest.mark.parametrize("rows", [0, 9])
def test_codes_of_a_file_of_any_type_and_of_no_rows(name: str, rows: int, tmp_path: Path) -> None:
    COLUMNS[name].to_frame("x").head(rows).to_parquet(tmp_path / "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    for text in ((), ("x",)):
        wanted = profiles.describe(tidy(frame, text=text))
        assert streamed.describe(tmp_path / "x.parquet", text=text) == wanted
        assert streamed.count(tmp_path / "x.parquet", wanted, text=text) == wanted


def test_a_moment_that_nanoseconds_do_not_reach_is_days_like_any_other() -> None:
    found = tidy(COLUMNS["no end"].to_frame("x"))["x"].tolist()
    assert found[0] == (date(9999, 12, 31) - date(1970, 1, 1)).days
    assert math.isnan(found[1])
    assert found[2:] == [(date(1, 1, 1) - date(1970, 1, 1)).days, (date(2026, 1, 1) - date(1970, 1, 1)).days + 0.5]


def test_a_moment_is_the_same_number_in_whatever_unit_it_is_held(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    often = rng.integers(1_700_000_000_000, 1_800_000_000_000, 20)  # milliseconds
    held = pa.array(np.where(rng.random(5000) < 0.5, often[rng.integers(0, 20, 5000)], often[0]), pa.timestamp("ms"))
    held = pa.concat_arrays([held, pa.nulls(3, held.type)])
    pq.write_table(pa.table({"x": held.cast(pa.timestamp("us"))}), tmp_path / "us.parquet")
    reference = streamed.describe(tmp_path / "us.parquet", ks=True)
    for unit in ("ms", "us", "ns"):
        pq.write_table(pa.table({"x": held.cast(pa.timestamp(unit))}), tmp_path / "x.parquet")
        assert streamed.describe(tmp_path / "x.parquet", ks=True) == reference
        assert streamed.count(tmp_path / "x.parquet", reference) == reference


def test_codes_of_a_file_stay_text_where_the_policy_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 2)
    frame = pd.DataFrame({"code": [1.0, None, 3.0, 1.0], "word": ["007", "7", None, "x"], "n": [1, 2, 3, 4]})
    frame.to_parquet(tmp_path / "x.parquet")
    wanted = profiles.describe(tidy(pd.read_parquet(tmp_path / "x.parquet"), text=("code", "word")))
    found = streamed.describe(tmp_path / "x.parquet", text=("code", "word"))
    assert found == wanted
    assert found[0].categories == ("1", "3")
    assert streamed.count(tmp_path / "x.parquet", found, text=("code", "word")) == wanted


def test_types_that_only_a_file_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 2)
    table = pa.table(
        {
            "flag": pa.array([True, None, False, True]),
            "whole": pa.array([1, None, LARGE, 4]),
            "identifier": pa.array([1, 2, LARGE, 4]),
            "money": pa.array([Decimal("1.50"), None, Decimal("2.25"), Decimal("1.50")]),
            "day": pa.array([19000, None, 19001, 19000], type=pa.date32()),
            "nothing": pa.nulls(4),
            "words": pa.array(["a", "b", "a", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    wanted = profiles.describe(tidy(pd.read_parquet(tmp_path / "x.parquet")))
    assert streamed.describe(tmp_path / "x.parquet") == wanted
    assert streamed.count(tmp_path / "x.parquet", wanted) == wanted
    kinds = {column.name: column.kind for column in wanted}
    assert [name for name, kind in kinds.items() if kind == "category"] == ["identifier", "day", "words"]


def test_a_column_that_names_rows_is_described_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    monkeypatch.setattr(streamed, "MOST", 4)
    monkeypatch.setattr(streamed, "HELD", 0)
    reference = profiles.describe(pd.DataFrame({"x": pd.Series(["a", "b", "b"], dtype=object)}))
    values = [*(f"row {number}" for number in range(20)), "b", "a", None, "b"]
    pd.DataFrame({"x": values}).to_parquet(tmp_path / "x.parquet")
    assert streamed.describe(tmp_path / "x.parquet") == profiles.describe(pd.DataFrame({"x": values}))
    (found,) = streamed.count(tmp_path / "x.parquet", reference)
    assert (found.categories, found.counts, found.nulls) == (("b", "a"), (2, 1, 20), 1)


def test_a_column_of_lists_is_named_with_the_remedy(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0, 2.0], "y": [[1], [2]]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"column 'y' holds values of type list<.*leave it out"):
        streamed.describe(tmp_path / "x.parquet")


def test_only_the_columns_that_are_asked_for_are_read_and_progress_is_told(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0, 2.0], "y": [[1], [2]], "z": ["a", "b"]}).to_parquet(tmp_path / "x.parquet")
    told: list[tuple[int, int, str]] = []
    found = streamed.describe(tmp_path / "x.parquet", ["z", "x"], progress=lambda *said: told.append(said))
    assert [column.name for column in found] == ["z", "x"]
    assert [done for done, _, _ in told] == [0, 1, 2]
    assert [c.name for c in streamed.count(tmp_path / "x.parquet", [*found, replace(found[0], name="gone")])] == [
        "z",
        "x",
    ]


@settings(max_examples=150, deadline=None)
@example([-np.inf, 0.0], [float(np.nextafter(np.float64(np.finfo(np.float32).min), -np.inf))], np.float32)
@given(
    st.lists(st.floats(width=32), max_size=40),
    st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), max_size=9, unique=True),
    st.sampled_from([np.float64, np.float32]),
)
def test_bins_are_those_of_a_search_for_every_value(values: list, edges: list, kind: type) -> None:
    numbers, limits = np.array(values, dtype=kind), sorted(edges)
    present = numbers[~np.isnan(numbers)].astype(np.float64)
    naive = np.bincount(np.searchsorted(np.array(limits), present, side="left"), minlength=len(limits) + 1)
    for held in (Plain(numbers), ranked(numbers)):
        found = fill(held, limits)
        assert found.counts.tolist() == naive.tolist()
        assert found.nulls == numbers.size - present.size
        finite = present[np.isfinite(present)]
        if finite.size:
            assert (found.low, found.high) == (finite.min(), finite.max())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-128, 127), max_size=40),
    st.lists(st.floats(-1e30, 1e30), max_size=9, unique=True),
    st.sampled_from([np.int8, np.int16, np.int64]),
)
def test_whole_numbers_are_held_against_edges_between_them(values: list, edges: list, kind: type) -> None:
    limits = sorted(edges)
    naive = np.bincount(np.searchsorted(np.array(limits), np.array(values)), minlength=len(limits) + 1)
    assert fill(Plain(np.array(values, dtype=kind)), limits).counts.tolist() == naive.tolist()


def test_rows_that_lie_apart_in_memory_are_counted_too() -> None:
    values = np.random.default_rng(0).normal(size=(100_001, 3))
    frame = pd.DataFrame(values, columns=["a", "b", "c"])
    assert profiles.describe(frame) == profiles.describe(pd.DataFrame({n: frame[n].to_numpy().copy() for n in frame}))


def test_the_quantiles_are_those_of_numpy() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 2, 9, 10, 11, 99, 100, 1000, 12345):
        values = draw.normal(size=size).round(1)
        shares = np.arange(1, 10) / 10
        found = ranked(values)
        levels, rows = np.unique(values, return_counts=True)
        assert isinstance(found, Ranked)
        wanted = np.quantile(values, shares, method="inverted_cdf")
        for held in (found, Ranked(levels, np.cumsum(rows), 0)):
            ranks = np.ceil(held.present * shares - 1).clip(0).astype(np.int64)
            assert (held.at(ranks) == wanted).all(), size


SHAPES = {
    "normal": lambda draw, n: draw.normal(size=n),
    "shifted": lambda draw, n: draw.normal(0.3, 1.4, size=n),
    "heavy": lambda draw, n: draw.standard_cauchy(size=n),
    "zeros": lambda draw, n: draw.exponential(size=n) * (draw.random(n) < 0.3),
    "ones": lambda draw, n: np.where(draw.random(n) < 0.2, 0.5, draw.normal(size=n)),
    "few": lambda draw, n: draw.integers(0, 4, n).astype(float),
    "constant": lambda _draw, n: np.full(n, 0.5),
    "infinite": lambda draw, n: np.where(draw.random(n) < 0.3, np.inf, draw.normal(size=n)),
}


@pytest.mark.parametrize("before", SHAPES)
@pytest.mark.parametrize("after", SHAPES)
def test_the_distance_of_kolmogorov_and_smirnov_is_within_a_thousandth_of_the_exact_one(
    before: str, after: str
) -> None:
    draw = np.random.default_rng(1)
    old, new = SHAPES[before](draw, 20_000), SHAPES[after](draw, 7_000)
    (reference,) = profiles.describe(pd.DataFrame({"x": old}), ks=True)
    halves = [profiles.count(pd.DataFrame({"x": part}), [reference])[0] for part in (new[:3000], new[3000:])]
    found = drift.ks(reference, profiles.merge(*halves))
    assert found is not None
    assert abs(found - ks_2samp(old, new).statistic) <= 1e-3
    assert found <= ks_2samp(old, new).statistic + 1e-12


def test_the_distance_is_reported_and_fires_nothing() -> None:
    draw = np.random.default_rng(2)
    old, new = (
        pd.DataFrame({"x": draw.normal(size=5000), "w": ["a"] * 5000}).assign(x=draw.normal(at, 1, 5000))
        for at in (0, 0.2)
    )
    plain, stepped = profiles.describe(old), profiles.describe(old, ks=True)
    assert [column.steps for column in plain] == [None, None]
    rules = DriftTrigger(ks=True)
    without = {one.name: one for one in drift.judge_columns(plain, profiles.count(new, plain), rules)}
    found = {one.name: one for one in drift.judge_columns(stepped, profiles.count(new, stepped), rules)}
    assert 0.05 < found["x"].evidence["ks"] < 0.12
    assert "ks" not in found["w"].evidence
    assert found["x"].outcome == "ok"
    for name, finding in found.items():
        same = replace(finding, evidence={key: value for key, value in finding.evidence.items() if key != "ks"})
        assert same == without[name]


def test_steps_survive_json_and_are_not_added_to_others() -> None:
    (first,) = profiles.describe(pd.DataFrame({"x": [1.0, 2.0, 2.0, math.nan]}), ks=True)
    assert profiles._column(profiles.to_plain(first)) == first
    (without,) = profiles.count(pd.DataFrame({"x": [1.0]}), profiles.describe(pd.DataFrame({"x": [1.0, 2.0, 2.0]})))
    with pytest.raises(ValueError, match="different steps"):
        profiles.merge(first, replace(without, edges=first.edges))
    (nothing,) = profiles.count(pd.DataFrame({"x": [math.nan]}), [first])
    assert profiles.merge(first, nothing).steps == first.steps
    assert drift.ks(first, nothing) is None


def test_objects_stay_text_for_they_were_looked_at_before() -> None:
    codes = pd.Series(["1", "2", None], dtype=object)
    held = read(codes)
    assert (held.kind, held.present, held.nulls) == ("category", 2, 1)
    assert read(codes.astype("str")).kind == "number"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("rows", [1 << 18, (1 << 19) + 3])
@pytest.mark.parametrize("every", [1, 2])
def test_many_bytes_are_counted_as_few_are(dtype: type, rows: int, every: int) -> None:
    ends = np.iinfo(dtype)
    values = np.random.default_rng(rows).integers(ends.min, ends.max, rows * every, dtype=dtype, endpoint=True)[::every]
    found, (known, counts) = ranked(values), np.unique(values, return_counts=True)
    assert found.values.tolist() == known.tolist()
    assert found.ends is not None
    assert found.ends.tolist() == np.cumsum(counts).tolist()


@pytest.mark.parametrize(
    ("last", "dtype"),
    [(3, np.int64), (-1, np.int64), (1 << 16, np.int64), (-(1 << 40), np.int64), (-1, np.int32), (1 << 31, np.uint32)],
)
def test_small_whole_numbers_are_counted_whatever_comes_last(last: int, dtype: type) -> None:
    values = np.append(np.random.default_rng(1).poisson(20, 200_000), last).astype(dtype)
    found, (known, counts) = ranked(values), np.unique(values, return_counts=True)
    ends = np.arange(1, found.values.size + 1) if found.ends is None else found.ends
    at = np.searchsorted(found.values, known, side="right") - 1
    assert found.values[at].tolist() == known.tolist()
    assert ends[at].tolist() == np.cumsum(counts).tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    values=st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.5]), max_size=40),
    points=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
def test_both_counts_at_once_are_those_one_after_the_other(
    dtype: type, values: list[float], points: list[float]
) -> None:
    found = ranked(np.array(values, dtype=dtype))
    at = np.unique([*points, *(value for value in values if math.isfinite(value))])
    below, upto = found.below_and_upto(at)
    assert below.tolist() == found.below(at).tolist() == [sum(value < one for value in values) for one in at]
    assert upto.tolist() == found.upto(at).tolist() == [sum(value <= one for value in values) for one in at]


@pytest.mark.parametrize("dtype", ["string[pyarrow]", "string[python]"])
@pytest.mark.parametrize("last", ["0.5", "a word"])
def test_texts_in_chunks_are_read_as_those_in_one(dtype: str, last: str) -> None:
    values = [str(value) for value in np.random.default_rng(0).normal(size=40_000)]
    values[-1] = last
    together = pd.Series(values, dtype=dtype)
    parts = pd.concat([pd.Series(values[start : start + 9_000], dtype=dtype) for start in range(0, 40_000, 9_000)])
    one, several = read(together), read(parts)
    assert (one.kind, one.present, one.nulls) == (several.kind, several.present, several.nulls)
    assert one.kind == ("category" if last == "a word" else "number")
    assert profiles.describe_held("x", one) == profiles.describe_held("x", several)


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "i8", ">i2", ">u4", ">i8"])
@pytest.mark.parametrize("odd", [None, -1, 32_767, -32_768])
def test_small_whole_numbers_are_counted_in_every_type_and_order_of_bytes(dtype: str, odd: int | None) -> None:
    if odd is not None and odd < 0 and "u" in dtype:
        pytest.skip("no negative ones in this type")
    values = (np.arange(200_000) % 300).astype(dtype)
    if odd is not None:
        values[-1] = odd
    found = whole(values)
    assert found is not None
    assert found.ends is not None
    known, rows = np.unique(values, return_counts=True)
    assert found.values.tolist() == known.tolist()
    assert np.diff(found.ends, prepend=0).tolist() == rows.tolist()


@pytest.mark.parametrize("dtype", [">i2", ">i4", ">i8", ">f4", ">f8"])
def test_numbers_in_the_bytes_of_another_processor_are_read_as_ones_own(dtype: str) -> None:
    values = np.random.default_rng(0).integers(-10_000, 10_000, 50_000)
    own = pd.DataFrame({"x": values.astype(dtype.replace(">", "<"))})
    foreign = pd.DataFrame({"x": values.astype(dtype)})
    assert profiles.describe(foreign, ks=True) == profiles.describe(own, ks=True)


@pytest.mark.parametrize("slowly", [True, False])
@pytest.mark.parametrize("first", [0.0, -0.0])
def test_a_zero_is_told_without_a_sign_however_it_was_found(
    slowly: bool, first: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.bins._sorts_slowly", lambda *_: slowly)
    values = np.concatenate(([first], np.random.default_rng(0).permutation(np.arange(80_000) - 40_000.0) / 2))
    values[np.abs(values) < 2_000] = -first
    for part in (values, -np.abs(values), np.abs(values)):
        (found,) = profiles.describe(pd.DataFrame({"x": part}), ks=True)
        assert found.steps is not None
        zeros = [one for one in (*found.edges, *found.steps.at, found.low, found.high) if one == 0]
        assert zeros
        assert all(math.copysign(1, zero) == 1 for zero in zeros if zero is not None)


@pytest.mark.parametrize("slowly", [True, False])
@pytest.mark.parametrize("dtype", ["i4", "u4", "i8"])
def test_the_steps_of_whole_numbers_in_crowds_are_exact(
    dtype: str, slowly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.bins._sorts_slowly", lambda *_: slowly)
    draw = np.random.default_rng(0)
    crowds = 2_000_000_000 + draw.integers(0, 40, 100_000) * 1_000_000 + draw.integers(0, 2_000, 100_000)
    days = pd.date_range("2010-01-01", "2024-12-31")
    dates = draw.choice((days.year * 10_000 + days.month * 100 + days.day).to_numpy(), 100_000)
    for values in (crowds, dates):
        rows = pd.DataFrame({"x": values.astype(dtype)})
        described = profiles.describe(rows, ks=True)
        counted = profiles.count(rows, described)
        ordered = np.sort(values)
        for found in (described[0].steps, counted[0].steps):
            assert found is not None
            assert found.below == tuple(np.searchsorted(ordered, found.at, side="left").tolist())
            assert found.upto == tuple(np.searchsorted(ordered, found.at, side="right").tolist())
        assert drift.ks(described[0], counted[0]) == 0


def test_what_is_below_a_point_of_another_type_is_counted_exactly() -> None:
    held = Ranked(np.array([-3, 0, 16_777_217, 16_777_219], dtype=np.int32), None, 0)
    points = np.array([-np.inf, -3.5, -3.0, -2.5, 16_777_218.0, 16_777_218.5, 16_777_219.0, np.inf])
    assert held.below(points).tolist() == [0, 0, 0, 1, 3, 3, 3, 4]
    below, upto = held.below_and_upto(points)
    assert (below.tolist(), upto.tolist()) == (held.below(points).tolist(), held.upto(points).tolist())
    assert upto.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]
