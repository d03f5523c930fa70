"""Pairs: how many rows hold each text, looking two neighbours up at once.

Looking a short text up costs about the same whether it has seven bytes or fifteen, and two rows that follow each other
lie in memory as one text. Whether a pair is the two texts it looks like shows in the length of the first; pairs that
are none of those expected are looked at row by row, so what is counted does not depend on what was expected.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BLOCK = 1 << 17
_FEW = 1 << 15
"""Rows for which finding out what to expect is not worth it."""
_SEEN = 1 << 10
"""Rows that are looked at to know what to expect."""
_LEVELS = 32
"""Different texts beyond which their pairs no longer fit into the processor's cache."""
_BYTES = 16
"""Bytes of a text, in the mean, above which hashing them takes longer than looking up."""
_OTHERS = 1 / 8
"""Share of rows in other pairs, above which all rows are counted one by one."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """Texts, and all pairs of them.

    Attributes:
        levels: k different texts.
        pairs: One after the other, different ones only; at most k * k.
        first: shape (m + 1,), bytes of the first text of each pair; none at all for what is no pair.
        ranks: shape (m, 2), the two texts of each.
    """

    levels: list[str]
    pairs: pa.Array
    first: NDArray[np.int64]
    ranks: NDArray[np.int64]


def rows_by_text(array: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """How many rows hold each text; nulls are left out.

    Args:
        array: shape (n,), of a string type.
    """
    rows: Counter[str] = Counter()
    expected: _Expected | None = None
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        if not _can_be_paired(chunk):
            rows.update(_one_by_one(chunk))
            continue
        if expected is None:
            expected = _expected(chunk)
        for start in range(0, len(chunk), _BLOCK):
            found = None if expected is None else _by_pairs(chunk.slice(start, _BLOCK), expected)
            if found is None:
                # Other texts will hardly be fewer further on, and all rows at once take less than block by block.
                rows.update(_one_by_one(chunk.slice(start)))
                expected = None
                break
            rows.update(found)
    return rows


def _one_by_one(block: pa.Array) -> dict[str, int]:
    found = pc.value_counts(block)
    values, counts = found.field("values"), found.field("counts").to_numpy()
    known = values.is_valid().to_numpy(zero_copy_only=False)  # dropping the nulls first would copy the rows
    return dict(zip(values.to_numpy(zero_copy_only=False)[known], counts[known].tolist(), strict=True))


def _by_pairs(block: pa.Array, expected: _Expected) -> Counter[str] | None:
    """None where it is better to look at row after row."""
    ends = _ends(block)
    if ends is None:
        return None
    found = _looked_up(block, ends, expected)
    wrong = np.take(expected.first, found, mode="clip") != ends[1::2][: found.size] - ends[:-1:2][: found.size]
    others = np.flatnonzero(wrong)
    if others.size > _OTHERS * found.size:
        return None
    counts = np.bincount(found[~wrong] if others.size else found, minlength=expected.first.size)[:-1]
    held = np.zeros(len(expected.levels), dtype=np.int64)
    np.add.at(held, expected.ranks, counts[:, None])
    rows = Counter(dict(zip(expected.levels, held.tolist(), strict=True)))
    if others.size or len(block) % 2:
        rest = block.take(pa.array(np.r_[2 * others, 2 * others + 1, np.arange(2 * found.size, len(block))]))
        rows.update(_one_by_one(rest))
    return +rows  # without the texts that were expected and did not come


def _ends(block: pa.Array) -> NDArray[Any] | None:
    """Where the texts begin and the last one ends, shape (n + 1,); None where no two can be read as one."""
    kind = np.int32 if pa.types.is_string(block.type) else np.int64
    ends = np.frombuffer(block.buffers()[1], dtype=kind)[block.offset : block.offset + len(block) + 1]
    if ends[-1] - ends[0] > _BYTES * len(block):
        return None
    return ends


def _can_be_paired(chunk: pa.Array) -> bool:
    """Telling a null from a text without bytes takes as long as is won."""
    return not chunk.null_count and bool(pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type))


def _expected(chunk: pa.Array) -> _Expected | None:
    """None where it is better to look at row after row."""
    if len(chunk) < _FEW:
        return None
    seen = pc.unique(chunk.take(pa.array(np.linspace(0, len(chunk) - 1, _SEEN).astype(np.int64))))
    levels = sorted(seen.to_pylist())
    if len(levels) > _LEVELS:
        return None
    coded = [level.encode() for level in levels]
    pairs = {one + two: (rank, other) for rank, one in enumerate(coded) for other, two in enumerate(coded)}
    ranks = np.array(list(pairs.values()), dtype=np.int64)
    lengths = np.array([len(level) for level in coded], dtype=np.int64)
    kind = pa.binary() if pa.types.is_string(chunk.type) else pa.large_binary()
    return _Expected(levels, pa.array(list(pairs), kind), np.append(lengths[ranks[:, 0]], -1), ranks)


def _looked_up(block: pa.Array, ends: NDArray[Any], expected: _Expected) -> NDArray[np.intp]:
    """Which pair every two rows are, shape (n // 2,); behind the last one where they are none of them."""
    starts = np.ascontiguousarray(ends[: len(block) // 2 * 2 + 1 : 2])
    together = pa.Array.from_buffers(
        expected.pairs.type, starts.size - 1, [None, pa.py_buffer(starts), block.buffers()[2]]
    )
    found = pc.index_in(together, value_set=expected.pairs)
    if found.null_count:
        found = found.fill_null(len(expected.pairs))
    ranks: NDArray[np.intp] = found.to_numpy().astype(np.intp)  # which all that use it would make of it
    return ranks
