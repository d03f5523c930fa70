"""A folder of Parquet files is one table, as if its rows were in one file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import parquet, streamed
from tasks import profile as profiles
from tasks.columns import tidy
from tasks.drift import compare
from tasks.sources import DataError

ROWS = 6000


def rows(n: int = ROWS, *, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "number": np.where(draw.random(n) < 0.1, np.nan, draw.normal(size=n)),
            "whole": draw.integers(0, 10**9, n),
            "gaps": pd.Series(draw.integers(2**54, 2**60, n)).astype("Int64").mask(draw.random(n) < 0.1),
            "plan": draw.choice(["basic", "plus", "pro"], n),
            "customer": [f"c{rank}" for rank in draw.permutation(n)],
            "when": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(draw.integers(0, 10**6, n), unit="s"),
            "late": pd.Series([None] * (n // 2) + ["x", "y"] * (n // 4), dtype=object),
        }
    )


def split(frame: pd.DataFrame, folder: Path, parts: int = 4) -> Path:
    """Into files of several folders, beside what engines leave there."""
    for number, places in enumerate(np.array_split(np.arange(len(frame)), parts)):
        inside = folder / f"month={number // 2}"
        inside.mkdir(parents=True, exist_ok=True)
        part = frame.iloc[places].reset_index(drop=True)
        part.to_parquet(inside / f"part-{number}.parquet", row_group_size=700)
    (folder / "_SUCCESS").touch()
    (folder / "_spark_metadata").mkdir()
    (folder / "_spark_metadata" / "note.parquet").write_text("no Parquet")
    (folder / ".tmp.parquet").write_text("half a file")
    return folder


def test_its_profile_is_that_of_all_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 1000)
    frame, other = rows(), rows(seed=1)
    frame.to_parquet(tmp_path / "one.parquet")
    folder, recent = split(frame, tmp_path / "many"), split(other, tmp_path / "recent", parts=3)
    found = streamed.describe(folder, ks=True)
    assert found == streamed.describe(tmp_path / "one.parquet", ks=True)
    assert found == profiles.describe(tidy(frame), ks=True)
    assert streamed.count(recent, found) == profiles.count(tidy(other), found)
    coded = streamed.describe(folder, text=["whole", "gaps"])
    assert coded == profiles.describe(tidy(frame, text=["whole", "gaps"]))


def test_a_column_without_a_value_in_one_part_has_the_type_of_the_others(tmp_path: Path) -> None:
    split(rows(), tmp_path / "many")
    first = pq.read_schema(tmp_path / "many" / "month=0" / "part-0.parquet")
    assert pa.types.is_null(first.field("late").type)
    table = parquet.opened(tmp_path / "many")
    assert parquet.is_text(table.schema.field("late").type)
    (late,) = streamed.describe(tmp_path / "many", ["late"])
    assert (late.categories, late.counts, late.nulls) == (("x", "y"), (ROWS // 4, ROWS // 4, 0), ROWS // 2)


def test_files_that_do_not_hold_the_same_columns_are_refused_with_all_that_differs(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1], "b": ["x"], "c": [1.0]}).to_parquet(tmp_path / "1.parquet")
    pd.DataFrame({"a": [1.5], "b": ["x"], "d": [1]}).to_parquet(tmp_path / "2.parquet")
    said = r"1\.parquet and 2\.parquet of one folder do not hold the same columns: c is only in one of them; "
    with pytest.raises(ValueError, match=said + r"d is only in one of them; a is int64 and double; write them alike"):
        parquet.opened(tmp_path)
    with pytest.raises(DataError, match=r"do not hold the same columns"):
        compare(tmp_path, tmp_path)


def test_a_folder_without_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"the folder .* has no Parquet file in it"):
        compare(tmp_path, tmp_path)


def test_two_folders_are_compared(tmp_path: Path) -> None:
    moved = rows(seed=1).assign(number=lambda frame: frame["number"] + 2)
    found = compare(split(moved, tmp_path / "july"), split(rows(), tmp_path / "june"), drop=["when", "gaps"])
    assert found.finding.evidence["features"] == ["number"]
    assert found.against == "june"


def test_columns_that_only_the_names_of_folders_have_are_said_not_to_be_compared(tmp_path: Path) -> None:
    june, frame = split(rows(), tmp_path / "june"), rows().assign(month=0)
    frame.to_parquet(tmp_path / "one.parquet")
    note = "not compared, since only the names of folders have them: month"
    assert compare(june, june).notes == (note,)
    assert compare(june, june, drop=["month"]).notes == ()
    found = compare(june, tmp_path / "one.parquet")
    assert found.columns[0].reason == "month: the column is not in the recent data"
    assert found.notes == ()


def test_no_rows_of_a_folder_are_left_out_because_of_a_name(tmp_path: Path) -> None:
    whole, folder = streamed.describe(split(rows(), tmp_path / "june")), tmp_path / "other"
    folder.mkdir()
    parts = sorted((tmp_path / "june").rglob("month*/*.parquet"))
    for number, name in enumerate(("part.PARQUET", "part.parq", "part")):
        parts[number].rename(folder / name)
    (tmp_path / "beside").mkdir()
    parts[3].rename(tmp_path / "beside" / "part.parquet")
    for link in ("link", "again", "link/back"):
        (folder / link).symlink_to(folder if link == "link/back" else tmp_path / "beside", target_is_directory=True)
    (folder / "README").write_text("no Parquet")
    assert streamed.describe(folder) == whole


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    split(rows(), tmp_path / "many")
    (tmp_path / "many" / "month=1" / "part-9.parquet").touch()
    with pytest.raises(DataError, match=r"part-9\.parquet is no Parquet that can be read: .*; write it anew"):
        compare(tmp_path / "many", tmp_path / "many")


def test_a_page_that_is_not_what_was_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": np.arange(9000.0)}), path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    written = bytearray(path.read_bytes())
    written[20_000:20_050] = b"\xff" * 50  # which would be read as NaN
    path.write_bytes(written)
    with pytest.raises(DataError, match=r"x\.parquet: .*CRC checksum"):
        compare(path, path)


def test_a_folder_that_cannot_be_looked_into_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(rows(), tmp_path / "many")
    look = os.scandir

    def refused(path: str) -> Any:  # as for whoever may not read it; root may read everything
        if str(path).endswith("month=1"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"Permission denied.*month=1"):
        compare(tmp_path / "many", tmp_path / "many")


def test_a_column_that_is_there_twice_is_told(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1.0, 2.0]), pa.array([1, 2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: column 'a' is there twice; rename one of them"):
        compare(tmp_path / "x.parquet", tmp_path / "x.parquet")


def test_a_name_with_a_dot_is_no_field_of_a_struct(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": 1}] * 30, "a.b": list(range(30))}), tmp_path / "x.parquet")
    (found,) = streamed.describe(tmp_path / "x.parquet", ["a.b"])
    assert (found.low, found.high) == (0, 29)


def test_an_index_is_no_column(tmp_path: Path) -> None:
    frame = rows().set_index("customer")
    frame.to_parquet(tmp_path / "x.parquet")
    assert streamed.describe(tmp_path / "x.parquet") == profiles.describe(tidy(frame))
    folder = tmp_path / "many"
    folder.mkdir()
    rows().to_parquet(folder / "whole.parquet")
    rows().query("whole > 5").to_parquet(folder / "some.parquet")  # whose index says which rows they were
    assert [column.name for column in streamed.describe(folder)] == list(rows(4).columns)


def opened_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every opening of a file for its rows, written down as it comes."""
    seen: list[Path] = []
    opening = pq.ParquetFile.__init__

    def seen_too(self: pq.ParquetFile, source: Path, **said: Any) -> None:
        if said.get("metadata") is not None:  # else it is opened for its footer alone
            seen.append(source)
        opening(self, source, **said)

    monkeypatch.setattr(pq.ParquetFile, "__init__", seen_too)
    return seen


@pytest.mark.parametrize("columns", [2, 40])
def test_a_file_is_opened_as_often_however_many_columns_it_has(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.concat([rows(300).add_prefix(f"{number} ") for number in range(columns)], axis=1)
    folder = split(frame, tmp_path / "many")
    seen = opened_files(monkeypatch)
    found = streamed.describe(folder)
    assert found == profiles.describe(tidy(frame))
    once = len(set(seen))
    assert (once, len(seen)) == (4, 2 * 4)  # texts come as dictionaries from one handle, and as texts from the other
    streamed.count(folder, found)
    assert len(seen) == 4 * 4


def test_a_folder_of_more_files_than_may_be_open_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_OPEN", 3)
    frame = rows()
    folder = split(frame, tmp_path / "many", parts=9)
    found = streamed.describe(folder)
    assert found == profiles.describe(tidy(frame))
    assert streamed.count(folder, found) == profiles.count(tidy(frame), found)


def batches(table: pa.Table, path: Path, name: str = "text", **said: Any) -> list[pa.Array]:
    pq.write_table(table, path, **said)
    with parquet.opened(path).reader() as reader:
        return list(reader.batches(name))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_batch_of_long_values_has_fewer_rows(kind: pa.DataType, tmp_path: Path) -> None:
    long = pa.array([f"{rank} " * 2000 for rank in range(3000)], kind)
    table = pa.table({"flat": range(3000), "inside": [{"a": 1, "b": 2}] * 3000, "text": long})
    for said in ({"row_group_size": 500}, {"row_group_size": 20}, {}):
        found = batches(table, tmp_path / "x.parquet", **said)
        assert all(not pa.types.is_dictionary(one.type) for one in found)
        assert max(one.nbytes for one in found) < 1.5 * parquet.BYTES < long.nbytes
        assert pa.chunked_array(found) == pa.chunked_array([long])


def test_long_texts_that_a_file_has_once_are_read_once(tmp_path: Path) -> None:
    few = pa.array([f"{rank % 5} " * 20_000 for rank in range(2000)])
    (found,) = batches(pa.table({"text": few}), tmp_path / "x.parquet")
    assert found.nbytes < few.nbytes / 100
    assert found.dictionary_decode() == few
    # Row groups of both kinds, in one file.
    with pq.ParquetWriter(tmp_path / "both.parquet", pa.schema({"text": pa.string()})) as file:
        file.write_table(pa.table({"text": few}))
        file.write_table(pa.table({"text": [f"{rank} " * 10_000 for rank in range(100)]}))
    with parquet.opened(tmp_path / "both.parquet").reader() as reader:
        assert [pa.types.is_dictionary(one.type) for one in reader.batches("text")] == [True, False]
