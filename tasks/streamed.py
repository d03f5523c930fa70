"""Streamed: the profile of Parquet that need not fit into memory, column by column and batch by batch.

The same profile as :func:`tasks.profile.describe` and :func:`tasks.profile.count` make of ``tidy`` of all of it.
Counting needs the memory of a batch, however many rows there are. Describing a number needs all of its values once, in
their order: 8 bytes a row, of one column at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks import parquet
from tasks.columns import is_too_large, of_decimals
from tasks.held import Held, Levels, Plain, Reading, Words, parts, ranked
from tasks.profile import count_held, describe_held, merge, unlike
from tasks.progress import Progress, silent
from tasks.records import ColumnProfile
from tasks.texts import Texts, differ, texts_of, together

MOST = 1_000_000
"""Different texts of a column beyond which it names its rows and says nothing about them."""


def describe(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    text: Collection[str] = (),
    ks: bool = False,
    progress: Progress = silent,
) -> tuple[ColumnProfile, ...]:
    """The reference profile of a Parquet file, or of a folder of them.

    Args:
        path: Of the file or the folder.
        columns: Which ones, in this order; None: all.
        text: Columns that stay text although they look like numbers.
        ks: See :func:`tasks.profile.describe`.
        progress: Told (columns done, all of them, what is done).

    Raises:
        ValueError: For a column of more than a million different texts, or of lists, and files of different columns.
        OSError: When a file cannot be read.
    """
    table, found = parquet.opened(path), []
    names = list(table.schema.names if columns is None else columns)
    for done, name in enumerate(names):
        progress(done, len(names), f"profile of {path.name}")
        found.append(describe_held(name, _held(_Column(table, name, text=name in text)), ks=ks))
    progress(len(names), len(names), f"profile of {path.name}")
    return tuple(found)


def count(
    path: Path,
    reference: Sequence[ColumnProfile],
    *,
    text: Collection[str] = (),
    progress: Progress = silent,
) -> tuple[ColumnProfile, ...]:
    """The rows of a Parquet file or folder in the bins of a reference; a column that is not there is left out.

    Args:
        path: Of the file or the folder.
        reference: From :func:`describe`.
        text: Columns that stay text although they look like numbers.
        progress: Told (columns done, all of them, what is done).

    Raises:
        ValueError: For a column of lists, and files of different columns.
        OSError: When a file cannot be read.
    """
    table, found = parquet.opened(path), []
    known = [column for column in reference if column.name in table.schema.names]
    for done, column in enumerate(known):
        progress(done, len(known), f"counts of {path.name}")
        found.append(_counted(_Column(table, column.name, text=column.name in text), column))
    progress(len(known), len(known), f"counts of {path.name}")
    return tuple(found)


class _Column:
    """One column of a table, as often as it is asked for."""

    def __init__(self, table: parquet.Table, name: str, *, text: bool) -> None:
        self.table, self.name, self.rows = table, name, table.rows
        self.coded = text
        self._reading: Reading | None = "coded" if text else None
        self._floats = self._texts = False
        kind = table.schema.field(name).type
        if pa.types.is_nested(kind):
            raise ValueError(f"column {name!r} holds values of type {kind}, which are no single values: leave it out")
        if pa.types.is_integer(kind):
            self._look(text=text)
        elif parquet.is_text(kind):
            first = next(table.batches(name), None)
            self._texts = first is not None and differ(first.cast(pa.large_string()), coded=text)

    def _look(self, *, text: bool) -> None:
        """What no single batch of whole numbers tells: a null anywhere makes floats of them, as in pandas.

        One that is too large makes codes of all of them.
        """
        arrays = list(self.table.bounds(self.name))
        rounded = any(array.null_count for array in arrays) and not self._has_nulls_of_its_own()
        large = any(is_too_large(array.drop_null().to_pandas()) for array in arrays)
        self._texts = not rounded and (text or large)
        self._floats = not text and not self._texts and any(array.null_count for array in arrays)

    def _has_nulls_of_its_own(self) -> bool:
        """Whether pandas wrote the column from a type that holds whole numbers and nulls, and reads it as one."""
        told = (self.table.schema.pandas_metadata or {}).get("columns", [])
        kind = next((one.get("numpy_type", "") for one in told if one.get("field_name") == self.name), "")
        return kind.startswith(("Int", "UInt")) or kind.endswith("[pyarrow]")

    def parts(self) -> Iterator[Plain | Levels | Texts]:
        """Batch by batch."""
        for array in self.table.batches(self.name):
            if self._texts:
                yield texts_of(array.cast(pa.large_string()))
                continue
            if self._reading is None and pa.types.is_decimal(array.type):
                yield Plain(of_decimals(array))  # as objects of Python's each takes a microsecond
                continue
            column: pd.Series[Any] = (array.cast(pa.float64(), safe=False) if self._floats else array).to_pandas()
            reading = self._reading
            if reading is None and pd.api.types.is_object_dtype(column.dtype):
                reading = "parsed"  # nothing has looked at these yet
            yield parts(column, reading)


def _held(column: _Column) -> Held:
    """All of a column: of levels how often each occurs, of numbers every one, in order."""
    values: NDArray[np.float64] | None = None
    texts: list[Texts] = []
    place, levels = 0, None
    for part in column.parts():
        if isinstance(part, Texts):
            texts.append(part)
            # Bringing them together now and then keeps what is held small, and costs little beside reading them.
            if sum(len(one.values) for one in texts[1:]) > max(parquet.BATCH, len(texts[0].values)):
                texts = [_fitting(column.name, texts)]
            continue
        if isinstance(part, Levels):
            levels = _added(levels, part)
            _check(column.name, len(levels.rows))
            continue
        values = np.empty(column.rows) if values is None else values
        values[place : place + part.values.size] = part.values
        place += part.values.size
    if texts:
        return _fitting(column.name, texts)
    if levels is not None:
        return levels.held()
    if column.coded and values is None:
        return Words({}, 0)  # without a row there is nothing that could be a number
    return ranked(np.zeros(0) if values is None else values, own=True)


def _fitting(name: str, texts: list[Texts]) -> Texts:
    found = together(texts)
    _check(name, len(found.values))
    return found


def _check(name: str, different: int) -> None:
    if different > MOST:
        raise ValueError(f"column {name!r} has more than {MOST:,} different texts; it names rows: leave it out")


def _added(first: Levels | None, second: Levels) -> Levels:
    if first is None:
        return second
    rows = first.rows if isinstance(first.rows, Counter) else Counter(first.rows)
    rows.update(second.rows)  # in place: no one else holds it
    return Levels(rows, first.nulls + second.nulls, first.reading)


def _counted(column: _Column, reference: ColumnProfile) -> ColumnProfile:
    found, levels, present, nulls, kind = None, None, 0, 0, reference.kind
    for part in column.parts():
        if isinstance(part, Levels):
            levels = _fewer(_added(levels, part), reference)
        elif part.kind == reference.kind:
            one = count_held(part, reference)
            found = one if found is None else merge(found, one)
        else:
            present, nulls, kind = present + part.present, nulls + part.nulls, part.kind
    if levels is not None:
        return count_held(levels.held(), reference)
    return unlike(reference, kind, present, nulls) if found is None else found


def _fewer(levels: Levels, reference: ColumnProfile) -> Levels:
    """Without naming what the reference does not name, once that is more than fits."""
    if len(levels.rows) <= MOST or reference.kind == "number":
        return levels
    known = set(reference.categories)
    other = next(level for level in levels.rows if str(level) not in known)
    rows: Counter[Any] = Counter()
    for level, count_ in levels.rows.items():
        rows[level if str(level) in known else other] += count_
    return Levels(rows, levels.nulls, levels.reading)
