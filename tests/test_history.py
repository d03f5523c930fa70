"""A file that is overwritten with newer rows only does not lose the older ones."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from samples import END, START, policy, rows

from tasks.data import DataError, Dataset, fingerprint, load
from tasks.stores import Stores


@pytest.fixture
def place(tmp_path: Path) -> Stores:
    return Stores.at(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def read(source: Path, place: Stores, *, remember: bool = True) -> Dataset:
    return load(policy(source), place, start=START, end=END, remember=remember)


def kept(place: Stores) -> Path:
    return place.kept("sample")


def test_an_overwritten_file_does_not_lose_the_older_rows(source: Path, place: Stores) -> None:
    everything = rows()
    everything.head(400).to_csv(source, index=False)
    read(source, place)
    everything.tail(300).to_csv(source, index=False)
    dataset = read(source, place)
    everything.to_csv(source, index=False)
    assert len(dataset) == 600
    assert fingerprint(dataset) == fingerprint(read(source, Stores.at(place.home.parent / "other")))
    assert "300 kept rows since 2024-01-01" in " ".join(dataset.notes)


def test_inside_its_own_range_the_file_is_the_truth(source: Path, place: Stores) -> None:
    everything = rows()
    everything.to_csv(source, index=False)
    read(source, place)
    corrected = everything.tail(300).assign(size=9.0)
    corrected.to_csv(source, index=False)
    dataset = read(source, place)
    assert (dataset.features["size"] == 9.0).sum() == 300
    assert len(dataset) == 600


def test_rows_that_silently_vanish_from_the_file_are_told(source: Path, place: Stores) -> None:
    everything = rows()
    everything.to_csv(source, index=False)
    assert read(source, place).notes == ()
    everything.drop(index=range(100, 300)).to_csv(source, index=False)
    (note,) = read(source, place).notes
    assert "400 rows" in note
    assert "600 before" in note
    assert "shrinking window" in note


def test_a_dry_run_uses_what_is_kept_and_keeps_nothing(source: Path, place: Stores) -> None:
    everything = rows()
    everything.head(300).to_csv(source, index=False)
    assert len(read(source, place, remember=False)) == 300
    assert not kept(place).exists()
    read(source, place)
    before = kept(place).read_bytes()
    everything.tail(300).to_csv(source, index=False)
    assert len(read(source, place, remember=False)) == 600
    assert kept(place).read_bytes() == before


def test_an_older_file_that_comes_back_loses_no_kept_row(source: Path, place: Stores) -> None:
    everything = rows()
    everything.to_csv(source, index=False)
    read(source, place)
    everything.head(200).to_csv(source, index=False)
    dataset = read(source, place)
    assert len(dataset) == 200
    assert "400 rows newer than the file's last one" in " ".join(dataset.notes)
    everything.tail(10).to_csv(source, index=False)
    assert len(read(source, place)) == 600


def test_an_emptied_file_leaves_what_is_kept(source: Path, place: Stores) -> None:
    everything = rows()
    everything.to_csv(source, index=False)
    whole = read(source, place)
    everything.head(0).to_csv(source, index=False)
    dataset = read(source, place)
    assert fingerprint(dataset) == fingerprint(whole)
    assert "the file holds no rows; 600 kept rows" in " ".join(dataset.notes)


def test_nulls_types_and_new_columns_survive_the_keeping(source: Path, place: Stores) -> None:
    old, new = rows(200), rows(200, seed=1, start=START + timedelta(hours=200))
    old.loc[3, "plan"], old.loc[4, "size"] = None, np.nan
    old.assign(level=[1, 2] * 100).to_csv(source, index=False)
    read(source, place)
    new.assign(level=["one", "two"] * 100, added=1.5).to_csv(source, index=False)
    features = read(source, place).features
    assert features["plan"][3] is None
    assert np.isnan(features["size"][4])
    assert features["level"].tolist()[:2] == ["1", "2"]
    assert features["level"].tolist()[-2:] == ["one", "two"]
    assert (features["added"].isna().sum(), features["added"].iloc[-1]) == (200, 1.5)


def test_a_parquet_file_is_kept_too_and_sql_and_loaders_are_not(tmp_path: Path, place: Stores) -> None:
    frame = rows()
    path = tmp_path / "rows.parquet"
    frame.head(300).to_parquet(path)
    load(policy(path), place, start=START, end=END)
    frame.tail(300).to_parquet(path)
    assert len(load(policy(path), place, start=START, end=END)) == 600
    load(policy(model="other"), place, start=START, end=END)
    assert [file.name for file in kept(place).parent.iterdir()] == ["sample.parquet"]


def test_history_can_be_turned_off(source: Path, place: Stores) -> None:
    rows().to_csv(source, index=False)
    load(policy(source, data={"history": False}), place, start=START, end=END)
    assert not kept(place).exists()


def test_nothing_is_written_when_nothing_is_new(source: Path, place: Stores) -> None:
    rows().to_csv(source, index=False)
    read(source, place)
    before = kept(place).stat().st_ino
    read(source, place)
    assert kept(place).stat().st_ino == before


def test_a_crash_while_writing_leaves_the_old_history_whole(
    source: Path, place: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = rows()
    everything.head(300).to_csv(source, index=False)
    read(source, place)
    everything.tail(300).to_csv(source, index=False)

    def crash(descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as injected:
        injected.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="disk is full"):
            read(source, place)
    assert [file.name for file in kept(place).parent.iterdir()] == ["sample.parquet"]
    assert len(read(source, place)) == 600


def test_a_damaged_history_is_told_and_not_overwritten(source: Path, place: Stores) -> None:
    rows().to_csv(source, index=False)
    read(source, place)
    kept(place).write_bytes(b"no parquet")
    with pytest.raises(DataError, match="restore it from a backup"):
        read(source, place)
    assert kept(place).read_bytes() == b"no parquet"


def test_a_window_is_cut_from_both(source: Path, place: Stores) -> None:
    everything = rows()
    everything.head(400).to_csv(source, index=False)
    read(source, place)
    everything.tail(200).to_csv(source, index=False)
    window = load(policy(source), place, start=START + timedelta(hours=350), end=START + timedelta(hours=450))
    assert window.time[0] == pd.Timestamp(START + timedelta(hours=350))
    assert len(window) == 100
