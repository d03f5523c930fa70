"""Texts counted two at a time: every row, whatever its neighbour is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import pairs

TEXTS = st.lists(st.sampled_from(["", "a", "aa", "b", "ab", "ba", "é", "\0"]), min_size=2, max_size=80)
KINDS = (pa.string(), pa.large_string())


def naive(values: list[str | None]) -> dict[str, int]:
    return dict(Counter(value for value in values if value is not None))


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 5), st.booleans(), st.sampled_from(KINDS))
def test_texts_that_look_alike_side_by_side_are_told_apart(
    values: list, others: list, skipped: int, nulls: bool, kind: pa.DataType
) -> None:
    array = pa.array(values * 3 + others + [None] * nulls, kind).slice(skipped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_FEW", 1)
        patch.setattr(pairs, "_SEEN", 4)
        patch.setattr(pairs, "_BLOCK", 17)
        patch.setattr(pairs, "_OTHERS", 1.0)
        assert pairs.rows_by_text(array) == naive(array.to_pylist())
        assert pairs.rows_by_text(pa.chunked_array([array, array])) == naive(array.to_pylist() * 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strange", [0.0, 0.01, 0.5])
def test_texts_that_were_not_expected_are_counted_too(kind: pa.DataType, strange: float) -> None:
    draw = np.random.default_rng(0)
    values = [f"level {number}" for number in draw.zipf(1.5, 300_001) % 20]
    for row in np.flatnonzero(draw.random(len(values)) < strange):
        values[row] = f"row {row}"
    assert pairs.rows_by_text(pa.array(values, kind)) == naive(values)


def test_pairs_are_looked_up_where_there_are_few_short_texts_only() -> None:
    few = pa.array(["a", "b"] * 50_000)
    expected = pairs._expected(few)
    assert expected is not None
    assert pairs._by_pairs(few, expected) == {"a": 50_000, "b": 50_000}
    assert pairs._expected(pa.array([str(number) for number in range(100_000)])) is None
    long = pa.array(["a" * 100, "b" * 100] * 50_000)
    assert pairs._ends(long) is None


def test_a_null_may_lie_on_bytes_that_mean_nothing() -> None:
    rows = 100_000
    bits = np.packbits(np.arange(rows) % 2 == 0, bitorder="little")
    ends, text = np.arange(rows + 1, dtype=np.int32), b"ab" * (rows // 2)
    buffers = [pa.py_buffer(bits), pa.py_buffer(ends), pa.py_buffer(text)]
    assert pairs.rows_by_text(pa.Array.from_buffers(pa.string(), rows, buffers)) == {"a": rows // 2}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.booleans(), st.integers(0, 90)), max_size=5), st.sampled_from(KINDS))
def test_chunks_are_counted_each_whatever_the_one_before_held(
    chunks: list[tuple[list[str], bool, int]], kind: pa.DataType
) -> None:
    whole = pa.chunked_array([pa.array(texts + [None] * null, kind).slice(cut) for texts, null, cut in chunks], kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_FEW", 20)
        patch.setattr(pairs, "_SEEN", 4)
        patch.setattr(pairs, "_BLOCK", 16)
        assert pairs.rows_by_text(whole) == naive(whole.to_pylist())


def test_what_to_expect_is_found_out_once_for_chunks_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, known = [], pairs._expected
    monkeypatch.setattr(pairs, "_expected", lambda chunk: asked.append(len(chunk)) or known(chunk))
    alike, other = pa.array(["a", "b"] * 40_000), pa.array(["c", "d"] * 40_000)
    found = pairs.rows_by_text(pa.chunked_array([alike, alike, alike, other, other, other]))
    assert found == {"a": 120_000, "b": 120_000, "c": 120_000, "d": 120_000}
    assert len(asked) == 2, "once for each sort"
