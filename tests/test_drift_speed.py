"""What the benchmarks of drift check beside time: equal counts, exact distances, memory that does not grow."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from benchmarks import drift_speed, exponent
from benchmarks.drift_data import KINDS, SHAPES, shaped, table, write
from tasks import streamed
from tasks.profile import count, describe


def test_counts_are_those_of_a_naive_count_and_distances_within_a_thousandth() -> None:
    lines = drift_speed.exact(20_000, len(KINDS))
    assert [line.what for line in lines if not line.ok] == []
    assert {line.limit for line in lines} == {0, 1e-3}


@pytest.mark.parametrize("shape", SHAPES)
def test_less_usual_columns_are_counted_as_naively(shape: str) -> None:
    before, after = (shaped(shape, 20_000, 1, seed=seed) for seed in (1, 2))
    (reference,) = describe(before)
    (found,) = count(after, (reference,))
    values = after["x0"].astype(float) if shape == "numbers as texts" else after["x0"]
    assert found.counts == drift_speed.naive(values, reference)


def test_a_file_of_mixed_columns_has_the_profile_of_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", 30_000, len(KINDS), seed=3)
    rows = table(30_000, len(KINDS), seed=3)
    reference = describe(rows, ks=True)
    assert streamed.describe(path, ks=True) == reference
    assert streamed.count(path, reference) == count(rows, reference)


def test_a_streamed_file_takes_the_memory_of_one_column_and_no_more(tmp_path: Path) -> None:
    grown = []
    for rows in (300_000, 1_500_000):
        path = str(write(tmp_path / f"{rows}.parquet", rows, 4, seed=3))
        found = drift_speed.measured(sys.executable, "streamed", path, path)
        assert found["columns"] == 4
        grown.append(found["extra"])
    # A column of the rows that came on top has 10 MB, and the whole table 38; what reads the file takes some sixty.
    assert grown[1] - grown[0] < 25e6, grown


def test_a_contender_that_fails_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        drift_speed.measured(sys.executable, "streamed", "nothing.parquet", "nothing.parquet")


@pytest.mark.parametrize("there", [True, False])
def test_a_peer_that_fails_keeps_no_limit_and_one_that_is_missing_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "evidently.py").write_text("raise ImportError('of another pandas')\n", "utf-8")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("DRIFT_PEERS", sys.executable if there else "")
    monkeypatch.setattr(drift_speed, "PEERS", {"evidently": drift_speed.PEERS["evidently"]})
    (line,) = drift_speed.beside_peers(tmp_path, 1000, 1)
    assert math.isnan(line.value)
    assert (line.limit is None, line.ok) == (not there, not there)
    assert ("of another pandas" if there else "not installed") in line.told


def test_the_exponent_is_that_of_the_growth() -> None:
    sizes = [1e4, 1e5, 1e6]
    assert exponent.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent.exponent(sizes, [2.0, 2.0, 2.0]) == pytest.approx(0)
    for costs in ([1.0, 0.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match="all positive"):
            exponent.exponent(sizes, costs)


def test_growth_is_drawn(tmp_path: Path) -> None:
    curve = ([1.0, 10.0], [1.0, 20.0])
    path = exponent.picture(
        "x", {"rows": ("seconds", {"a": curve, "b": curve}), "features": ("MB", {"a": curve})}, tmp_path
    )
    assert path.name == "bench-x.png"
    assert path.stat().st_size > 5000
