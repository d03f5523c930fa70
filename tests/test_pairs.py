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
