"""Tally: the most frequent of more texts than are worth holding, each as the 64 bits of its hash.

A hash takes 8 bytes and how many rows hold it takes 8 more, however long the text is. What the texts are is read once
more, of the few that are asked for. Among a million texts two have one hash with a probability of 3e-8 (n^2 / 2^65);
their rows would then be taken together in finding out which ones are the most frequent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.texts import Counts, Texts

Hashes = NDArray[np.uint64]


class Tally:
    """How often each of the texts of a column occurs, which come part by part.

    Attributes:
        present: Rows with a text.
        nulls: Rows without one.
    """

    def __init__(self) -> None:
        """Of no text yet."""
        self.present = self.nulls = 0
        self._hashes: Hashes = np.zeros(0, dtype=np.uint64)
        self._rows: Counts = np.zeros(0, dtype=np.int64)
        self._new: list[tuple[Hashes, Counts]] = []

    def add(self, texts: Texts) -> None:
        """A part more."""
        values, rows = _there(texts)
        self.present += int(rows.sum())
        self.nulls += texts.nulls
        self._new.append(_apart(_hashed(values), rows))
        # Bringing them together takes as long as what there is, so it waits for as much to come.
        if sum(hashes.size for hashes, _ in self._new) > self._hashes.size:
            self._merge()

    def most(self, few: int, again: Iterable[Texts]) -> dict[str, int]:
        """The most frequent ones and how many rows hold each, the first in the alphabet among equals.

        Args:
            few: How many of them, at most.
            again: The same parts, or others with the same texts.
        """
        self._merge()
        least = int(np.partition(self._rows, -few)[-few]) if self._rows.size > few else 0
        # Fewer than are asked for are more frequent than the last of them is; those that are just as frequent may be
        # millions, of which the first in the alphabet are wanted.
        same = bool((self._rows == least).all())  # which saves making hashes once more
        surely: Counter[str] = Counter()
        first: pa.Array = pa.array([], pa.large_string())
        for texts in again:
            values, rows = _there(texts)
            values = values.cast(pa.large_string())
            if not same:
                held = self._rows[np.searchsorted(self._hashes, _hashed(values))]
                more = held > least
                for text, count in zip(values.filter(pa.array(more)).to_pylist(), rows[more].tolist(), strict=True):
                    surely[text] += count
                values = values.filter(pa.array(held == least))
            first = _first(few, first, values)
        found = sorted(surely.items(), key=lambda item: (-item[1], item[0]))
        return dict([*found, *((text, least) for text in first.to_pylist())][:few])

    def _merge(self) -> None:
        parts = [(self._hashes, self._rows), *self._new]
        self._new = []
        self._hashes, self._rows = _apart(
            np.concatenate([hashes for hashes, _ in parts]), np.concatenate([rows for _, rows in parts])
        )


def _there(texts: Texts) -> tuple[pa.Array, Counts]:
    """Without the nulls, and without what no row holds."""
    values, rows = texts.values, texts.rows
    if rows is None:
        values = values.drop_null()
        return values, np.ones(len(values), dtype=np.int64)
    held = values.is_valid().to_numpy(zero_copy_only=False) & (rows > 0)
    return values.filter(pa.array(held)), rows[held]


def _hashed(texts: pa.Array) -> Hashes:
    return pd.util.hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)


def _apart(hashes: Hashes, rows: Counts) -> tuple[Hashes, Counts]:
    """The different ones, ascending, and how many rows hold each."""
    if not hashes.size:
        return hashes, rows
    order = np.argsort(hashes)
    hashes = hashes[order]
    starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    return hashes[starts], np.add.reduceat(rows[order], starts)


def _first(few: int, known: pa.Array, more: pa.Array) -> pa.Array:
    """The first ones in the alphabet among those that are known and others."""
    if len(known) == few:
        more = more.filter(pc.less(more, known[-1]))  # nearly none of them, after the first parts
    if not len(more):
        return known
    both = pc.unique(pa.concat_arrays([known, more]))
    return both.take(pc.sort_indices(both)[:few])
