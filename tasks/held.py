"""Held: what a column holds, read as it lies there. A copy of the rows would cost more than counting them.

Every way gives what counting the column that :func:`tasks.columns.tidy` makes of it would give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tasks.columns import (
    Kind,
    codes_of,
    is_foreign,
    is_too_large,
    meaning,
    plain,
    text_of,
    tidy_column,
)
from tasks.numerals import arrow_texts, numbers_of, without_blanks
from tasks.pairs import rows_by_text
from tasks.texts import Texts, many, some, texts_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_SPREAD = 1 << 16
"""Whole numbers that lie less far apart are counted one by one, and so many of them at a time."""

_PAIRS = 1 << 18
"""Bytes from which on two at a time are counted: there are more pairs than values, and all of them are added up."""

_MANY = 1 << 14
"""Different texts from which on Arrow counts with them faster than Python does."""

_SEEN, _MOST = 1 << 10, 3 / 4
"""Rows that are looked at, and the share of them from which on most rows hold another text than the others."""

Reading = Literal["parsed", "words", "codes", "coded"]
"""How values are to be read: looked at, as numbers if they all are; texts that stay; whole numbers too large to be
counted with; whatever it is as text, because the policy says so."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Numbers as they lie there.

    Attributes:
        values: shape (n,), float or integer; NaN is a null.
    """

    kind: ClassVar[Kind] = "number"
    values: NDArray[Any]

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return int(np.count_nonzero(np.isnan(self.values))) if self.values.dtype.kind == "f" else 0

    @property
    def present(self) -> int:
        """Rows with one."""
        return int(self.values.size) - self.nulls


@dataclass(frozen=True, slots=True)
class Ranked:
    """Numbers in their order.

    Attributes:
        values: shape (k,), float64 or float32, ascending, none of them NaN.
        ends: shape (k,), how many rows hold at most each value; None: each is one row.
        nulls: Rows without a value.
    """

    kind: ClassVar[Kind] = "number"
    values: NDArray[Any]
    ends: Counts | None
    nulls: int

    @property
    def present(self) -> int:
        """Rows with a value."""
        return int(self.values.size) if self.ends is None else int(self.ends[-1]) if self.ends.size else 0

    def below(self, points: Floats) -> Counts:
        """Rows that hold less than each point, shape (m,)."""
        return self._rows(np.searchsorted(self.values, _alike(points, self.values.dtype, np.inf), side="left"))

    def below_and_upto(self, points: Floats) -> tuple[Counts, Counts]:
        """Both, for less than twice the time: only points that rows hold are looked up again."""
        wanted = _alike(points, self.values.dtype, np.inf)
        first = np.searchsorted(self.values, wanted, side="left")
        held = np.flatnonzero(np.take(self.values, first, mode="clip") == points) if self.values.size else first[:0]
        last = first.copy()
        last[held] = np.searchsorted(self.values, wanted[held], side="right")
        return self._rows(first), self._rows(last)

    def upto(self, points: Floats) -> Counts:
        """Rows that hold at most each point, shape (m,)."""
        return self._rows(np.searchsorted(self.values, alike(points, self.values.dtype), side="right"))

    def _rows(self, places: NDArray[np.intp]) -> Counts:
        if self.ends is None:
            return places.astype(np.int64)
        ends: Counts = np.concatenate((np.zeros(1, dtype=np.int64), self.ends))
        return ends[places]

    def at(self, ranks: Counts) -> Floats:
        """The values at ranks that count from 0, shape (m,)."""
        places = ranks if self.ends is None else np.searchsorted(self.ends, ranks, side="right")
        return self.values[places].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Words:
    """The different texts.

    Attributes:
        rows: How many hold each.
        nulls: Rows without one.
    """

    kind: ClassVar[Kind] = "category"
    rows: Mapping[str, int]
    nulls: int

    @property
    def present(self) -> int:
        """Rows with a text."""
        return sum(self.rows.values())

    def most(self, few: int) -> tuple[str, ...]:
        """The most frequent ones, the first in the alphabet among equals."""
        ordered = sorted(self.rows.items(), key=lambda item: (-item[1], item[0]))
        return tuple(level for level, _ in ordered[:few])

    def of(self, levels: Sequence[str]) -> list[int]:
        """How many rows hold each of some texts, which differ."""
        return [self.rows.get(level, 0) for level in levels]


Held = Plain | Ranked | Words | Texts


def alike(points: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Points in the type of values, with the same values up to each: comparing needs no copy of them in another type.

    Args:
        points: shape (m,).
        dtype: Of the values; whole numbers up to 2**53, or float.
    """
    return _alike(points, dtype, -np.inf)


def _alike(points: Floats, dtype: np.dtype[Any], towards: float) -> NDArray[Any]:
    """Points in the type of values, those that it does not have moved to the next one in a direction."""
    if dtype.kind in "iu":
        # A whole number is <= a point when it is <= the one below it, and < a point when it is < the one above.
        next_to = np.floor(points) if towards < 0 else np.ceil(points)
        return next_to.clip(-(2.0**62), 2.0**62).astype(np.int64)
    if dtype.itemsize > 4:
        return points
    with np.errstate(over="ignore"):  # what is beyond the largest one is infinite
        found = points.astype(np.float32)
        wrong = found > points if towards < 0 else found < points
        return np.where(wrong, np.nextafter(found, np.float32(towards)), found)


@dataclass(frozen=True, slots=True)
class Levels:
    """The different values of a column as the source has them; those of its parts add up.

    Attributes:
        rows: How many hold each.
        nulls: Rows that hold none.
        reading: See :data:`Reading`.
    """

    rows: Mapping[Any, int]
    nulls: int
    reading: Reading

    def held(self) -> Ranked | Words | Texts:
        """What they mean. That shows in all of them only: a single word makes texts of numbers."""
        values, rows = list(self.rows), np.fromiter(self.rows.values(), dtype=np.int64, count=len(self.rows))
        known = _known(values, self.reading)
        if known.dtype == np.float64:
            null = np.isnan(known)
            return ranked_levels(known[~null], rows[~null], self.nulls + int(rows[null].sum()))
        if known.size > _MANY and (texts := arrow_texts([*known.tolist(), None])) is not None:
            return texts_of(texts, np.append(rows, self.nulls)).apart()
        named = dict(zip(known.tolist(), rows.tolist(), strict=True))
        if len(named) == known.size:
            return Words(named, self.nulls + named.pop(None, 0))
        words: Counter[str] = Counter()
        nulls = self.nulls
        for text, count in zip(known.tolist(), rows.tolist(), strict=True):
            if text is None:
                nulls += count
            else:
                words[text] += count
        return Words(words, nulls)


def _known(values: Sequence[Any], reading: Reading) -> NDArray[Any]:
    if reading == "parsed":
        return meaning(values, parse=True)
    if reading == "coded":
        return codes_of(values)
    return np.array([str(value) if reading == "words" else text_of(value) for value in values], dtype=object)


def ranked(values: NDArray[Any], *, own: bool = False) -> Ranked:
    """Numbers put in their order.

    Args:
        values: shape (n,), float or integer; NaN is a null.
        own: They may be sorted where they are, so that no memory is needed for a copy.
    """
    if (found := whole(values)) is not None:
        return found
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # sorting halves leaves a floating-point flag behind on some processors
    if own:
        values.sort()
    rows = values if own else np.sort(values)
    if rows.dtype != np.float32:  # which has half the bytes
        rows = rows.astype(np.float64 if rows.dtype.itemsize > 2 else np.float32, copy=False)
    # A point of another type would make numpy convert all of the rows.
    present = int(np.searchsorted(rows, rows.dtype.type(np.nan), side="left"))
    return Ranked(rows[:present], None, int(rows.size) - present)


def whole(values: NDArray[Any]) -> Ranked | None:
    """Whole numbers that do not lie far apart, counted one by one, which takes less than to put them in order.

    Args:
        values: shape (n,), of any type.

    Returns:
        None where they are others.
    """
    if values.dtype.kind not in "iu" or not values.size:
        return None
    if (rows := None if values.dtype.itemsize == 1 else _small(values)) is None:
        low, high = int(values.min()), int(values.max())
        if high - low >= _SPREAD:
            return None
        rows = _tallied(values, low, high - low + 1)
    else:
        low = 0
    seen = np.flatnonzero(rows)
    return ranked_levels((seen + low).astype(np.float64), rows[seen], 0)


def _small(values: NDArray[Any]) -> Counts | None:
    """How many of the values are 0, 1 and so on; None where one is negative or large.

    What a block holds is looked at while it is in the processor's cache, so all of them are read from memory once.
    """
    rows, unsigned = np.zeros(0, dtype=np.int64), f"{values.dtype.byteorder}u{values.dtype.itemsize}"
    end = min(_SPREAD, int(np.iinfo(values.dtype).max) + 1)
    for start in range(0, values.size, _SPREAD):
        block = values[start : start + _SPREAD]
        if block.view(unsigned).max() >= end:  # as which a negative one is large
            return None
        found = np.bincount(block.astype(np.int64, copy=False), minlength=rows.size)
        found[: rows.size] += rows
        rows = found
    return rows


def _tallied(values: NDArray[Any], low: int, size: int) -> Counts:
    """How many of the values are ``low``, one more, and so on, shape (size,)."""
    if values.dtype.itemsize == 1 and values.size >= _PAIRS:
        tally: Counts = _tallied_bytes(values)[np.arange(low, low + size) & 0xFF]
        return tally
    rows, at_a_time = np.zeros(size, dtype=np.int64), max(size, _SPREAD)
    for start in range(0, values.size, at_a_time):
        block = values[start : start + at_a_time].astype(np.int64, copy=False)
        rows += np.bincount(block - low if low else block, minlength=size)
    return rows


def _tallied_bytes(values: NDArray[Any]) -> Counts:
    """How many of the values are each byte, shape (256,): counting two at a time takes half as long."""
    even = values.size // 2 * 2
    pairs, rows = np.ascontiguousarray(values[:even]).view(np.uint16), np.zeros((256, 256), dtype=np.int64)
    for start in range(0, pairs.size, _PAIRS):
        rows += np.bincount(pairs[start : start + _PAIRS], minlength=rows.size).reshape(rows.shape)
    tally: Counts = rows.sum(axis=0) + rows.sum(axis=1)
    tally[values[even:].view(np.uint8)] += 1
    return tally


def ranked_levels(values: Floats, rows: Counts, nulls: int) -> Ranked:
    """The same from different numbers and how many rows hold each."""
    order = np.argsort(values, kind="stable")
    return Ranked(values[order], np.cumsum(rows[order], dtype=np.int64), nulls)


def read(column: pd.Series[Any], *, text: bool = False) -> Held:
    """What a column holds.

    A column of objects holds str and None only, as :func:`tasks.columns.tidy` leaves it, and stays text; one of any
    other type is read as ``tidy`` would read it.

    Args:
        column: Of any type.
        text: The policy says that its numbers are codes.
    """
    column = plain(column)
    if (many_texts := many(column, coded=text)) is not None:
        return many_texts if isinstance(many_texts, Texts) else Plain(many_texts)
    if not text and (each := _each(column)) is not None:
        return each
    found = parts(column, "coded" if text else None)
    return found.held() if isinstance(found, Levels) else found


def _each(column: pd.Series[Any]) -> Plain | Texts | None:
    """Texts that look like numbers, as most rows' do, and hardly repeat: each is read, for one may be a word.

    None for any other column, which is better told apart.
    """
    objects = pd.api.types.is_object_dtype(column.dtype)
    if len(column) < _MANY or objects or not pd.api.types.is_string_dtype(column.dtype):
        return None
    if _is_arrows(column.dtype):
        seen = len(set(some(pa.array(column), _SEEN)))
    else:
        seen = column.iloc[np.linspace(0, len(column) - 1, _SEEN).astype(np.int64)].nunique()
    if seen < _MOST * _SEEN:
        return None
    if (texts := arrow_texts(column)) is None:
        return None
    texts = without_blanks(texts)
    numbers = numbers_of(texts)
    return texts_of(texts) if numbers is None else Plain(numbers)


def parts(column: pd.Series[Any], reading: Reading | None = None) -> Plain | Levels:
    """The same of a part of a column: what its values mean is not known before all parts are.

    Args:
        column: Of any type.
        reading: How its different values are to be read; None: as its type says.
    """
    if reading is not None:
        return _levels(column, reading)
    dtype = column.dtype
    if is_foreign(dtype):
        return _levels(column, "parsed")
    if pd.api.types.is_object_dtype(dtype):
        return _levels(column, "words")
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype):
        return _levels(column, "parsed")
    if pd.api.types.is_bool_dtype(dtype):
        return _booleans(column)
    if not _is_small(dtype) and is_too_large(column):
        return _levels(column, "codes")
    if isinstance(dtype, np.dtype) and dtype.kind in "fiu":
        return Plain(column.to_numpy())
    # Moments, spans, and numbers that are not numpy's: rare enough to be made into floats.
    made = tidy_column(column)
    return Plain(made.to_numpy()) if made.dtype == np.float64 else _levels(made, "words")


def _is_small(dtype: Any) -> bool:
    """A type that cannot hold whole numbers that float64 would round."""
    return isinstance(dtype, np.dtype) and (dtype.kind == "f" or (dtype.kind in "iu" and dtype.itemsize <= 4))


def _is_arrows(dtype: Any) -> bool:
    """Texts that Arrow holds for pandas."""
    return isinstance(dtype, pd.StringDtype) and dtype.storage == "pyarrow"


def _levels(column: pd.Series[Any], reading: Reading) -> Levels:
    if _is_arrows(column.dtype):
        texts = pa.array(column)
        return Levels(rows_by_text(texts), texts.null_count, reading)
    values, counts = _different(column)
    seen = counts > 0  # a category that no row holds is no level
    rows = dict(zip(values[seen], counts[seen].tolist(), strict=True))
    return Levels(rows, len(column) - int(counts.sum()), reading)


def _different(column: pd.Series[Any]) -> tuple[NDArray[Any], Counts]:
    """The different values and how many rows hold each, by the fastest way that the type has."""
    dtype = column.dtype
    if pd.api.types.is_object_dtype(dtype):
        codes, values = pd.factorize(column.to_numpy())
        rows: Counts = np.bincount(codes + 1, minlength=len(values) + 1)[1:].astype(np.int64)
        return np.asarray(values), rows
    if isinstance(dtype, pd.CategoricalDtype):
        held = _tallied(column.cat.codes.to_numpy(), -1, len(dtype.categories) + 1)[1:]
        seen = np.flatnonzero(held)  # making objects of categories that no row holds would cost more than counting
        return np.asarray(dtype.categories[seen], dtype=object), held[seen]
    if is_foreign(dtype):
        codes, found = pd.factorize(column)
        foreign: Counts = np.bincount(codes + 1, minlength=len(found) + 1)[1:].astype(np.int64)
        return np.asarray(found, dtype=object), foreign
    counted = column.value_counts(sort=False)
    return np.asarray(counted.index, dtype=object), np.asarray(counted, dtype=np.int64)


def _booleans(column: pd.Series[Any]) -> Levels:
    if column.dtype != np.bool_:
        return _levels(column, "parsed")
    true = int(np.count_nonzero(column.to_numpy()))
    rows = {True: true, False: len(column) - true}
    return Levels({value: count for value, count in rows.items() if count}, 0, "parsed")
