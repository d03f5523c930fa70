"""Columns: what a source holds becomes numbers or texts, with no more work than that takes."""

from __future__ import annotations

import math
import tracemalloc
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks import columns, held
from tasks import profile as profiles
from tasks.columns import codes_of, meaning, nested, of_decimals, text_of, tidy, tidy_column
from tasks.texts import Texts

ROWS = 20_000
KINDS = ["str", object, pd.StringDtype("python"), pd.ArrowDtype(pa.string()), "category"]
NUMBERS = [repr(number) for number in np.random.default_rng(0).normal(size=ROWS).tolist()]
TAILS: dict[str, list[str | None]] = {
    "nothing else": [],
    "a word": ["ERR"],
    "spaces and signs": [" 3", "4 ", "\t5\n", "+7"],
    "words for a null": ["NA", " n/a ", "\x1fNA", "?"],
    "blanks": ["", " ", "\x85", None],
    "no number that is called one": ["+nan"],
    "other digits": ["１"],  # noqa: RUF001  that is the point
    "infinite": ["inf", "-Infinity", "1e999"],
}


def naively(texts: list[str | None], *, parse: bool = True) -> pd.Series:
    """One by one, each as pandas reads it."""
    words = [None if text is None or not text.strip() else text for text in texts]
    said = [None if word is None or word.strip().lower() in columns.NULL_WORDS else word for word in words]
    numbers = pd.to_numeric(pd.Series(said, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    if parse and not any(math.isnan(number) for number, word in zip(numbers, said, strict=True) if word is not None):
        return pd.Series(numbers)
    return pd.Series(words, dtype=object)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("rows", [5, ROWS])
@pytest.mark.parametrize("parse", [True, False])
def test_texts_are_numbers_where_all_of_them_are(kind: Any, tail: str, rows: int, parse: bool) -> None:
    texts = [*NUMBERS[: rows // 2], *TAILS[tail], *NUMBERS[rows // 2 : rows]]
    found = tidy(pd.DataFrame({"x": pd.Series(texts, dtype=kind)}), parse=parse)["x"]
    wanted = naively(texts, parse=parse)
    assert found.dtype == wanted.dtype
    pd.testing.assert_series_equal(found, wanted, check_names=False, check_exact=True)
    assert not any(value is not None for value in found[found.isna()]) or found.dtype == np.float64


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["1.0", "-2.0", None, " "], ["1", "-2", None, None]),
        (["1.0", "2.5", "x"], ["1.0", "2.5", "x"]),
        ([*(f"{rank}.0" for rank in range(ROWS))], [*map(str, range(ROWS))]),
        ([*(f"{rank}.0" for rank in range(ROWS)), "x"], [*(f"{rank}.0" for rank in range(ROWS)), "x"]),
        ([*(f"{rank:05d}" for rank in range(ROWS)), ""], [*(f"{rank:05d}" for rank in range(ROWS)), None]),
    ],
)
def test_codes_are_one_of_whole_floats_only_where_all_are(kind: Any, given: list, wanted: list) -> None:
    assert tidy_column(pd.Series(given, dtype=kind), as_text=True).tolist() == wanted


@pytest.mark.parametrize("rows", [3, ROWS])
@pytest.mark.parametrize("kind", ["int64", "uint64", "Int64", "int64[pyarrow]"])
def test_identifiers_are_written_out(rows: int, kind: str) -> None:
    numbers = [2**60 + 7 * rank for rank in range(rows)]
    found = tidy_column(pd.Series(numbers, dtype=kind))
    assert found.dtype == object
    assert found.tolist() == [text_of(number) for number in numbers]


def test_a_column_that_is_tidy_is_not_copied_and_one_that_is_not_is_made_once() -> None:
    rows = 200_000
    words = np.array(["a", "b", "c"], dtype=object)[np.arange(rows) % 3]
    frame = pd.DataFrame(
        {
            "number": np.arange(rows) / 7,
            "flag": np.arange(rows) % 2 == 0,
            "level": pd.Categorical(words),
        }
    )
    tidy(frame.head(10))
    tracemalloc.start()
    found = tidy(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(found["number"].to_numpy(), frame["number"].to_numpy())
    assert found["flag"].tolist()[:3] == [1.0, 0.0, 1.0]
    assert found["level"].tolist() == words.tolist()
    assert peak < 5 * 8 * rows  # eight bytes for each flag and each level, and what counting the levels takes


def test_objects_that_are_texts_stay_the_ones_they_are() -> None:
    names = [f"name {rank}" for rank in range(ROWS)]
    found = tidy_column(pd.Series([*names, None, " "], dtype=object))
    assert all(one is other for one, other in zip(found[:ROWS], names, strict=True))
    assert found[ROWS:].tolist() == [None, None]


def test_frames_of_many_columns_are_put_together_so_that_one_more_can_be_added() -> None:
    frame = tidy(pd.DataFrame(np.zeros((columns._SMALL + 1, columns._BLOCKS + 1))))
    frame["one more"] = 1.0  # pandas would warn of this


@pytest.mark.parametrize("index", [range(5, 11, 2), [0, 0, 0], pd.date_range("2026-01-01", periods=3)])
def test_rows_are_counted_from_zero(index: Any) -> None:
    found = tidy(pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": ["a", None, "b"]}, index=index))
    assert found.index.equals(pd.RangeIndex(3))
    assert found["y"].tolist() == ["a", None, "b"]


def test_numbers_of_python_are_what_they_are() -> None:
    given = pd.Series([Decimal("0.1"), None, Decimal("NaN"), Decimal("1e400"), Decimal(repr(1 / 3))], dtype=object)
    found = tidy_column(given).tolist()
    assert math.isnan(found[1])
    assert math.isnan(found[2])
    assert [found[0], *found[3:]] == [0.1, math.inf, 1 / 3]
    assert tidy_column(pd.Series([True, None, 2, 2.5], dtype=object)).fillna(-1).tolist() == [1.0, -1.0, 2.0, 2.5]


@pytest.mark.parametrize("scale", [0, 2, 22, 30])
def test_decimals_of_few_digits_are_rounded_once_and_others_one_by_one(scale: int) -> None:
    digits = [0, 1, -1, 7, 2**53, -(2**53), 2**53 + 1, -(2**53) - 1, 10**16 + 7, 2**63, -(2**63) - 1, 2**64 + 5]
    values = [*(Decimal(one).scaleb(-scale) for one in digits), None]
    for array in (pa.array(values, pa.decimal128(38, scale)), pa.array(values, pa.decimal256(60, scale))):
        for part, wanted in ((array, values), (array.slice(5), values[5:])):
            found = of_decimals(part).tolist()
            assert found[:-1] == [float(one) for one in wanted[:-1] if one is not None]
            assert math.isnan(found[-1])


def test_many_levels_mean_what_few_of_them_do() -> None:
    for levels in (["1", "2.5", "NA"], ["1", "x", " "], ["a", 1], [b"a"], ["\ud800", "1"], [Decimal("1.5"), "2"]):
        for parse in (True, False):
            few = meaning(levels, parse=parse)
            many = meaning(levels * 200, parse=parse)
            assert few.dtype == many.dtype
            pd.testing.assert_series_equal(
                pd.Series(many, dtype=few.dtype), pd.Series(np.tile(few, 200), dtype=few.dtype)
            )
        assert codes_of(levels * 200).tolist() == codes_of(levels).tolist() * 200


def test_a_word_among_numbers_makes_texts_of_them_without_telling_them_apart() -> None:
    column = pd.Series([*NUMBERS, "ERR", " 3 ", ""], dtype="str")
    found = held.read(column)
    assert isinstance(found, Texts)
    assert (found.rows, found.present, found.nulls) == (None, ROWS + 2, 1)
    assert isinstance(held.read(column.str.replace("ERR", "4")), held.Plain)


def test_many_levels_of_a_file_are_counted_as_arrow_does() -> None:
    levels = dict.fromkeys([*NUMBERS, "ERR", " "], 2)
    found = held.Levels(levels, 5, "parsed").held()
    assert isinstance(found, Texts)
    assert (found.present, found.nulls) == (2 * ROWS + 2, 7)
    assert found.of(["ERR", NUMBERS[0], "gone"]) == [2, 2, 0]
    assert found.most(2) == tuple(sorted([*NUMBERS, "ERR"])[:2])


def test_a_view_of_texts_holds_single_values() -> None:
    views = pd.Series(pd.arrays.ArrowExtensionArray(pa.array(["a", None], pa.string_view())))
    assert nested(pd.DataFrame({"x": views, "y": [[1], [2]]})) == {"y": "list"}


def test_a_name_that_is_there_twice_is_told() -> None:
    with pytest.raises(ValueError, match=r"same name as text: 1 and '1'; rename all but one"):
        tidy(pd.DataFrame([[1, 2, 3]], columns=[1, "1", "x"]))
    twice = pd.DataFrame([[1, 2]], columns=["x", "x"])
    with pytest.raises(ValueError, match=r"'x' and 'x'; rename"):
        tidy(twice)
    with pytest.raises(ValueError, match=r"'x' and 'x'; rename"):
        profiles.describe(twice)


def test_complex_numbers_are_two_and_not_made_one() -> None:
    frame = pd.DataFrame({"x": [1 + 2j, 3], "y": [1, 2]})
    assert nested(frame) == {"x": "complex128"}
    for work in (tidy, profiles.describe):
        with pytest.raises(ValueError, match=r"column 'x' holds complex128.*make a column of each"):
            work(frame)
