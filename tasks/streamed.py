"""Streamed: the profile of Parquet that need not fit into memory, column by column and batch by batch.

The same profile as :func:`tasks.profile.describe` and :func:`tasks.profile.count` make of ``tidy`` of all of it.
Counting needs the memory of a batch, however many rows there are. Describing a number needs all of its values once, in
their order: 8 bytes a row, of one column at a time. Describing texts needs 16 bytes for each different one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks import parquet
from tasks.columns import NULL_WORDS, codes_of, is_too_large, meaning, of_decimals, text_of
from tasks.held import Held, Levels, Plain, Ranked, Reading, Words, parts, ranked
from tasks.profile import NAMED, count_held, describe_held, merge, most_frequent, unlike
from tasks.progress import Progress, silent
from tasks.records import ColumnProfile
from tasks.tally import Tally
from tasks.texts import Texts, all_numbers, counted, differ, numbers_of, texts_of, together

MOST = 100_000
"""Different values beyond which a column is not held by them, but read as what they show it to be."""
HELD = 1 << 23
"""Bytes of texts beyond which they are no longer held."""

_Means = Literal["levels", "texts", "numbers", "words", "whole"]
"""What a column is read as: its different values, which tell what they mean when all are there; texts as they are in
the file; numbers, however they are written; the texts of other values; codes that are written as 1.0."""


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
        ValueError: For a column of lists, and files of different columns.
        OSError: When a file cannot be read.
    """
    table, found, coded = parquet.opened(path), [], frozenset(text)
    names = list(table.schema.names if columns is None else columns)
    with table.reader() as reader:
        for done, name in enumerate(names):
            progress(done, len(names), f"profile of {path.name}")
            found.append(_settled(_Column(reader, name, text=name in coded), partial(_described, ks=ks)))
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
    table, found, coded = parquet.opened(path), [], frozenset(text)
    there = set(table.schema.names)
    known = [column for column in reference if column.name in there]
    with table.reader() as reader:
        for done, column in enumerate(known):
            progress(done, len(known), f"counts of {path.name}")
            read = _Column(reader, column.name, text=column.name in coded)
            found.append(_settled(read, partial(_counted, reference=column)))
    progress(len(known), len(known), f"counts of {path.name}")
    return tuple(found)


class _Otherwise(Exception):
    """Further rows show that a column is something else than the first ones did: it is to be read once more."""


def _settled(column: _Column, read: Callable[[_Column], ColumnProfile]) -> ColumnProfile:
    """What is read of a column once it is known what it is read as; that changes twice at most."""
    while True:
        try:
            return read(column)
        except _Otherwise:
            continue


class _Column:
    """One column of a table, as often as it is asked for."""

    def __init__(self, reader: parquet.Reader, name: str, *, text: bool) -> None:
        self.reader, self.name, self.rows = reader, name, reader.table.rows
        self.coded = text
        self._reading: Reading | None = "coded" if text else None
        self._means: _Means = "levels"
        self._floats = False
        kind = reader.table.schema.field(name).type
        if pa.types.is_nested(kind):
            raise ValueError(f"column {name!r} holds values of type {kind}, which are no single values: leave it out")
        if pa.types.is_integer(kind):
            self._look(text=text)
        elif parquet.is_text(kind) and (first := next(reader.batches(name), None)) is not None:
            self._means = "texts" if differ(first, coded=text) else "levels"
            if self._means == "levels" and not text and all_numbers(first):
                self._means = "numbers"

    def _look(self, *, text: bool) -> None:
        """What no single batch of whole numbers tells: a null anywhere makes floats of them, as in pandas.

        One that is too large makes codes of all of them.
        """
        arrays = list(self.reader.bounds(self.name))
        rounded = any(array.null_count for array in arrays) and not self._has_nulls_of_its_own()
        large = any(is_too_large(array.drop_null().to_pandas()) for array in arrays)
        if not rounded and (text or large):
            self._means = "texts"
        elif not text:
            self._floats = any(array.null_count for array in arrays)

    def _has_nulls_of_its_own(self) -> bool:
        """Whether pandas wrote the column from a type that holds whole numbers and nulls, and reads it as one."""
        kind = self.reader.pandas_types.get(self.name, "")
        return kind.startswith(("Int", "UInt")) or kind.endswith("[pyarrow]")

    def parts(self) -> Iterator[Plain | Ranked | Levels | Texts]:
        """Batch by batch.

        Raises:
            _Otherwise: See there.
        """
        for array in self.reader.batches(self.name):
            if self._means == "texts":
                yield counted(array)
            elif self._means == "numbers":
                yield self._numbers(array)
            elif self._means in {"words", "whole"}:
                yield self._words(array)
            else:
                yield self._part(array)

    def _part(self, array: pa.Array) -> Plain | Levels:
        if self._reading is None and pa.types.is_decimal(array.type):
            return Plain(of_decimals(array))  # as objects of Python's each takes a microsecond
        column: pd.Series[Any] = (array.cast(pa.float64(), safe=False) if self._floats else array).to_pandas()
        reading = self._reading
        if reading is None and pd.api.types.is_object_dtype(column.dtype):
            reading = "parsed"  # nothing has looked at these yet
        return parts(column, reading)

    def settle(self, levels: Levels) -> None:
        """What some of the values show, which are too many to be held.

        Raises:
            _Otherwise: In any case: what was read before was read for nothing.
        """
        if levels.reading == "coded":
            self._means = "whole" if _is_whole(levels) else "words"
        else:
            self._means = "numbers" if levels.held().kind == "number" else "words"
        raise _Otherwise

    def _numbers(self, array: pa.Array) -> Plain | Ranked:
        """Numbers, until a word is among them."""
        if (found := numbers_of(array)) is not None:
            return Plain(found)
        part = self._part(array)
        if isinstance(part, Plain):
            return part
        held = part.held()
        if isinstance(held, Ranked):
            return held
        if isinstance(held, Words) and all(word.strip().lower() in NULL_WORDS for word in held.rows):
            return Ranked(np.zeros(0), None, held.present + held.nulls)
        self._means = "words"
        raise _Otherwise

    def _words(self, array: pa.Array) -> Texts:
        """Texts, whatever the values are."""
        part = self._part(array)
        if isinstance(part, Plain):
            raise TypeError(f"column {self.name!r} holds numbers of type {array.type}, which were words before")
        given = list(part.rows)
        if self._means == "whole" and not _is_whole(part):
            self._means = "words"
            raise _Otherwise
        if self._means == "whole":
            texts = codes_of(given)
        elif part.reading == "coded":
            texts = np.array([text_of(value) for value in given], dtype=object)
        elif given and isinstance(given[0], bytes | time | date):
            texts = np.array(list(map(str, given)), dtype=object)  # as below, where each takes seven microseconds
        else:
            texts = meaning(given, parse=False)
        rows = np.array([*part.rows.values(), part.nulls], dtype=np.int64)
        return texts_of(pa.array([*texts.tolist(), None], pa.large_string()), rows)


def _is_whole(levels: Levels) -> bool:
    """Codes of which each is written as a whole number that was once a float, 1.0 for 1."""
    texts = [text_of(value) for value in levels.rows]
    said = [text for text in texts if text is not None and text.strip()]
    return not said or codes_of(said).tolist() != said


def _described(column: _Column, *, ks: bool) -> ColumnProfile:
    """Of levels how often each occurs, of numbers every one, in order."""
    values: NDArray[np.float64] | None = None
    texts: list[Texts] = []
    place, held, levels, tally = 0, 0, None, None
    for part in column.parts():
        if isinstance(part, Texts):
            texts.append(part)
            held += part.values.nbytes
            if tally is None and held > HELD:
                tally = Tally()
            if tally is not None:
                for one in texts:
                    tally.add(one)
                texts.clear()
            continue
        if isinstance(part, Levels):
            levels = _added(levels, part)
            if len(levels.rows) > MOST:
                column.settle(levels)
            continue
        values = np.empty(column.rows) if values is None else values
        found = part.values if isinstance(part, Plain) else _spread(part)
        values[place : place + found.size] = found
        place += found.size
    if tally is not None:
        return _frequent(column, tally)
    return describe_held(column.name, _held(column, texts, levels, values), ks=ks)


def _held(column: _Column, texts: Sequence[Texts], levels: Levels | None, values: NDArray[np.float64] | None) -> Held:
    if texts:
        return together(texts)
    if levels is not None:
        return levels.held()
    if column.coded and values is None:
        return Words({}, 0)  # without a row there is nothing that could be a number
    return ranked(np.zeros(0) if values is None else values, own=True)


def _frequent(column: _Column, tally: Tally) -> ColumnProfile:
    """The same as of all texts together."""
    first = tally.most(NAMED + 1, (part for part in column.parts() if isinstance(part, Texts)))
    return most_frequent(column.name, list(first.items()), present=tally.present, nulls=tally.nulls)


def _spread(part: Ranked) -> NDArray[np.float64]:
    """Every row's, in any order."""
    values = part.values if part.ends is None else np.repeat(part.values, np.diff(part.ends, prepend=0))
    return np.concatenate((values, np.full(part.nulls, np.nan)))


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
            levels = _added(levels, part)
            if len(levels.rows) > MOST:
                column.settle(levels)
        elif part.kind == reference.kind:
            one = count_held(part, reference)
            found = one if found is None else merge(found, one)
        else:
            present, nulls, kind = present + part.present, nulls + part.nulls, part.kind
    if levels is not None:
        return count_held(levels.held(), reference)
    return unlike(reference, kind, present, nulls) if found is None else found
