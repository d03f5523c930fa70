"""Columns of many different texts: the counts that telling all of them apart gives, to the last row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks import held, parquet, streamed
from tasks import profile as profiles
from tasks.columns import tidy
from tasks.records import ColumnProfile
from tasks.tally import Tally
from tasks.texts import Texts, counted, many, texts_of

ROWS = 20_000
BLANKS = ["", " ", "\t\n", "\x1f", "\x85", "\u3000", "\u2003 "]


def named(levels: int, *, seed: int = 0) -> list[str | None]:
    return [f"name {rank}" for rank in np.random.default_rng(seed).integers(0, levels, ROWS)]


def with_gaps(values: list[str | None]) -> list[str | None]:
    return [None if place % 7 == 0 else BLANKS[place % 5] if place % 11 == 0 else v for place, v in enumerate(values)]


def skewed() -> list[str]:
    return [f"name {rank}" for rank in np.random.default_rng(0).zipf(1.3, ROWS)]


def in_pieces(values: list[str | None]) -> pd.Series:
    pieces = pa.chunked_array([values[:5], [], values[5:9000], values[9000:]], pa.string())
    return pd.Series(pieces, dtype=pd.ArrowDtype(pa.string()))


IDENTIFIERS = np.random.default_rng(0).integers(2**54, 2**62, ROWS)
COLUMNS: dict[str, Callable[[], pd.Series]] = {
    "every one another": lambda: pd.Series([f"id {rank}" for rank in range(ROWS)], dtype="str"),
    "some thousand": lambda: pd.Series(named(3000), dtype="str"),
    "few that are frequent": lambda: pd.Series(skewed(), dtype="str"),
    "nulls and blanks": lambda: pd.Series(with_gaps(named(5000)), dtype="str"),
    "other letters": lambda: pd.Series([f"имя\u3000{rank}" for rank in range(ROWS)], dtype="str"),
    "Python's own texts": lambda: pd.Series(named(50_000), dtype=pd.StringDtype("python")),
    "Arrow's, in pieces": lambda: in_pieces(with_gaps(named(5000))),
    "objects": lambda: pd.Series(named(50_000), dtype=object).where(np.arange(ROWS) % 9 > 0, None),
    "categories": lambda: pd.Series(with_gaps(named(5000)), dtype="category"),
    "categories nobody is in": lambda: pd.Series(named(5000), dtype="category").iloc[:17_000].reset_index(drop=True),
    "identifiers": lambda: pd.Series(IDENTIFIERS),
    "unsigned identifiers": lambda: pd.Series(IDENTIFIERS.astype(np.uint64) * 2),
    "identifiers with nulls": lambda: pd.Series(IDENTIFIERS).astype("Int64").mask(np.arange(ROWS) % 9 == 0),
}
NUMBERS: dict[str, Callable[[], pd.Series]] = {
    "numbers": lambda: pd.Series([str(rank / 7) for rank in range(ROWS)], dtype="str"),
    "numbers and nulls": lambda: pd.Series(with_gaps([str(rank / 7) for rank in range(ROWS)]), dtype="str"),
    "numbers and words for nulls": lambda: pd.Series([*map(str, range(ROWS)), "NA", " n/a", "?", "-"], dtype="str"),
    "numbers, and some are infinite": lambda: pd.Series([*map(str, range(ROWS)), "inf", "-inf", "1e999"], dtype="str"),
}
ALL_TOGETHER: dict[str, Callable[[], pd.Series]] = {
    "few": lambda: pd.Series(named(40), dtype="str"),
    "numbers that Arrow does not read": lambda: pd.Series([f" {rank / 8}" for rank in range(ROWS)], dtype="str"),
    "numbers, and one that is called none": lambda: pd.Series([*map(str, range(ROWS)), "+nan"], dtype="str"),
    "numbers and, at last, a word": lambda: pd.Series([*map(str, range(ROWS)), "x"], dtype="str"),
    "others among the objects": lambda: pd.Series([*named(50_000), 3, True], dtype=object),
    "bytes among the objects": lambda: pd.Series([*named(50_000), b"name 3"], dtype=object),
    "half a character": lambda: pd.Series([*named(50_000), "\ud800"], dtype=object),
    "numbers as categories": lambda: pd.Series(range(ROWS), dtype="category"),
    "whole numbers": lambda: pd.Series(range(ROWS)),
}


EVERY = {**COLUMNS, **NUMBERS, **ALL_TOGETHER}


def naively(frame: pd.DataFrame, reference: tuple[ColumnProfile, ...] | None, coded: bool) -> ColumnProfile:
    """Of the tidy column, every text of it told apart."""
    column = tidy(frame, text=["x"] if coded else [])["x"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "many", lambda *_args, **_named: None)
        read = held.read(column)
        return profiles.describe_held("x", read) if reference is None else profiles.count_held(read, reference[0])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("coded", [False, True])
def test_the_counts_are_those_of_all_texts_told_apart(name: str, coded: bool) -> None:
    column = EVERY[name]()
    frame, other = column.to_frame("x"), column.iloc[: len(column) * 9 // 10].iloc[::-1].to_frame("x")
    read = held.read(frame["x"], text=coded)
    reference = profiles.describe_held("x", read)
    assert reference == naively(frame, None, coded)
    recent = profiles.count_held(held.read(other["x"], text=coded), reference)
    assert recent == naively(other, (reference,), coded)
    assert recent.rows == len(other)


@pytest.mark.parametrize("name", COLUMNS)
def test_they_are_not_told_apart(name: str) -> None:
    assert isinstance(held.read(COLUMNS[name]()), Texts)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_written_as_texts_are_read_at_once(name: str) -> None:
    assert isinstance(many(NUMBERS[name]()), np.ndarray)
    assert isinstance(held.read(NUMBERS[name]()), held.Plain)


@pytest.mark.parametrize("name", ALL_TOGETHER)
def test_where_only_all_of_them_tell_what_they_mean_they_are(name: str) -> None:
    assert many(ALL_TOGETHER[name]()) is None


def test_codes_stay_as_they_are_written() -> None:
    codes = pd.Series([f"{rank:05d}" for rank in range(ROWS)], dtype="str")
    assert isinstance(many(codes, coded=True), Texts)
    assert not isinstance(many(codes), Texts)  # numbers, where the policy does not say otherwise
    whole = pd.Series(np.arange(ROWS))
    assert isinstance(many(whole, coded=True), Texts)
    assert many(codes + ".0", coded=True) is None  # whether all of them are whole numbers shows in all of them only


def test_a_reference_of_other_texts_counts_them_as_new() -> None:
    reference = profiles.describe(pd.DataFrame({"x": [f"old {rank}" for rank in range(ROWS)]}))
    (recent,) = profiles.count(pd.DataFrame({"x": [f"new {rank}" for rank in range(ROWS)]}), reference)
    assert recent.counts[-1] == ROWS
    assert sum(recent.counts) == ROWS


NO_FILE = {"others among the objects", "bytes among the objects", "half a character"}


@pytest.mark.parametrize("name", [name for name in EVERY if name not in NO_FILE])
@pytest.mark.parametrize("coded", [False, True])
def test_a_file_holds_them_as_its_rows_do(
    name: str, coded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 4500)
    path, text = tmp_path / "x.parquet", ["x"] if coded else []
    EVERY[name]().to_frame("x").to_parquet(path, row_group_size=7000)
    frame = pd.read_parquet(path)
    wanted = naively(frame, None, coded)
    assert streamed.describe(path, text=text) == (wanted,)
    for reference in (wanted, *profiles.describe(pd.DataFrame({"x": np.arange(9.0)}))):
        assert streamed.count(path, [reference], text=text) == (naively(frame, (reference,), coded),)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in NO_FILE])
@pytest.mark.parametrize("coded", [False, True])
def test_nor_does_it_matter_how_many_of_them_are_held(
    name: str, coded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 4500)
    monkeypatch.setattr(streamed, "MOST", 30)
    monkeypatch.setattr(streamed, "HELD", 1000)
    path, text = tmp_path / "x.parquet", ["x"] if coded else []
    EVERY[name]().to_frame("x").to_parquet(path, row_group_size=7000)
    frame = pd.read_parquet(path)
    wanted = naively(frame, None, coded)
    assert streamed.describe(path, text=text) == (wanted,)
    assert streamed.count(path, [wanted], text=text) == (naively(frame, (wanted,), coded),)


LATE: dict[str, pa.Array] = {
    "a word after numbers that all differ": pa.array([*map(str, range(ROWS)), "x"]),
    "numbers after words for nulls": pa.array([*["NA"] * ROWS, *map(str, range(ROWS))]),
    "only words for nulls in the middle": pa.array([*map(str, range(ROWS)), *["NA", " n/a"] * ROWS, "7.5"]),
    "words after a few numbers": pa.array([*["1", "2"] * ROWS, *(f"name {rank}" for rank in range(ROWS))]),
    "numbers that pandas alone reads": pa.array([*map(str, range(ROWS)), *(f" {rank} " for rank in range(9))]),
    "codes that were floats": pa.array([f"{rank}.0" for rank in range(ROWS)]),
    "codes of which one was no float": pa.array([*(f"{rank}.0" for rank in range(ROWS)), "5", " "]),
    "bytes": pa.array([b"%d" % rank for rank in range(ROWS)]),
    "times of the day": pa.array(range(ROWS), pa.time64("us")),
    "days": pa.array([*range(ROWS), None], pa.date32()),
}


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("coded", [False, True])
def test_what_shows_late_is_seen_in_a_column_that_is_not_held(
    name: str, coded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 4500)
    monkeypatch.setattr(streamed, "MOST", 5000)
    monkeypatch.setattr(streamed, "HELD", 1000)
    path, text = tmp_path / "x.parquet", ["x"] if coded else []
    pq.write_table(pa.table({"x": LATE[name]}), path, row_group_size=7000)
    tidied = tidy(pd.read_parquet(path), text=text)
    wanted = profiles.describe(tidied)
    assert streamed.describe(path, text=text) == wanted
    numbers = profiles.describe(pd.DataFrame({"x": np.arange(9.0)}))
    for reference in (wanted, numbers):
        assert streamed.count(path, reference, text=text) == profiles.count(tidied, reference)


@pytest.mark.parametrize("levels", [1, 5, 20, 300, 10**6])
def test_a_tally_finds_the_most_frequent_and_the_first_among_equals(levels: int) -> None:
    draw = np.random.default_rng(levels)
    parts = [pa.array([f"t{rank}" for rank in draw.integers(0, levels, 1000)]) for _ in range(7)]
    parts.append(pa.array([None, "t1", "only once"]))
    # As a file has them: one by one, and as different ones of which some rows hold none.
    texts = [texts_of(part) for part in parts[:4]] + [counted(part.dictionary_encode()) for part in parts[4:]]
    tally = Tally()
    for part in texts:
        tally.add(part)
    rows = Counter(text for part in parts for text in part.to_pylist() if text is not None)
    for few in (1, 20, 100):
        wanted = sorted(rows.items(), key=lambda item: (-item[1], item[0]))[:few]
        assert list(tally.most(few, texts).items()) == wanted
    assert (tally.present, tally.nulls) == (7002, 1)


def test_arrow_and_python_have_the_same_blanks() -> None:
    letters = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    found = pc.utf8_is_space(pa.array(letters)).to_pylist()
    assert found == [not letter.strip() for letter in letters]


@pytest.mark.parametrize(
    ("kind", "digits"),
    [
        (pa.decimal128(9, 2), 9),
        (pa.decimal128(15, 7), 15),
        (pa.decimal128(15, 0), 15),
        (pa.decimal128(5, -2), 5),
        (pa.decimal128(38, 10), 18),
        (pa.decimal256(9, 3), 9),
    ],
)
def test_a_decimal_is_the_float_next_to_it(kind: pa.DataType, digits: int) -> None:
    draw = np.random.default_rng(0).integers(-(10**digits) + 1, 10**digits, 3000)
    array = pa.array([None if n % 9 == 0 else Decimal(int(n)).scaleb(-kind.scale) for n in draw], kind)
    for held_as in (array, array[3:1500], pa.chunked_array([array[:7], array[7:7], array[7:]]), array[:0]):
        column = pd.Series(held_as, dtype=pd.ArrowDtype(kind)).to_frame("x")
        wanted = [np.nan if value is None else float(value) for value in held_as.to_pylist()]
        np.testing.assert_array_equal(tidy(column)["x"].to_numpy(dtype=np.float64), np.array(wanted, dtype=np.float64))
