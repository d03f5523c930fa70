"""Texts: a column of so many different texts that asking for a few of them takes less than telling all of them apart.

Counting such a column against a reference asks for the hundred texts that the reference names, however many others
there are; only describing it has to find the most frequent ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.columns import NULL_WORDS, Kind, codes_of, is_foreign, is_too_large, says_a_word

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

_LEAST = 1 << 14
"""Rows below which telling them apart takes no time worth saving."""
_SEEN = 1 << 10
"""Rows that are looked at to know whether most of them differ."""
_MANY, _MOST = _SEEN // 4, _SEEN * 3 // 4
"""Different texts among them from which on there are many, and from which on they are most: then it even pays to bring
Python's objects together first, or to read every row as a number."""
_FIRST = 100


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that stay texts.

    Attributes:
        values: shape (k,), of a string type; a null holds nothing.
        rows: shape (k,), how many rows hold each; None: each is one row.
        nulls: Rows that hold none.
    """

    kind: ClassVar[Kind] = "category"
    values: pa.Array
    rows: Counts | None
    nulls: int

    @property
    def present(self) -> int:
        """Rows with a text."""
        return (len(self.values) if self.rows is None else int(self.rows.sum())) - self.nulls

    def apart(self) -> Texts:
        """The different ones, and how many rows hold each."""
        if self.rows is None:
            found = pc.value_counts(self.values)
            return Texts(found.field("values"), found.field("counts").to_numpy(), self.nulls)
        table = pa.table({"text": self.values, "rows": self.rows}).group_by("text").aggregate([("rows", "sum")])
        return Texts(_joined(table["text"]), table["rows_sum"].to_numpy(), self.nulls)

    def most(self, few: int) -> tuple[str, ...]:
        """The most frequent ones, the first in the alphabet among equals."""
        one = self.apart() if self.rows is None else self
        table = pa.table({"text": one.values, "rows": one.rows})
        table = table.filter(pc.and_(pc.is_valid(table["text"]), pc.greater(table["rows"], 0)))
        if not table.num_rows:
            return ()
        order = pc.select_k_unstable(table, few, sort_keys=[("rows", "descending"), ("text", "ascending")])
        return tuple(table["text"].take(order).to_pylist())

    def of(self, levels: Sequence[str]) -> list[int]:
        """How many rows hold each of some texts, which differ."""
        places = pc.index_in(self.values, value_set=pa.array(levels, self.values.type)).fill_null(len(levels))
        counted = np.bincount(places.to_numpy(), weights=self.rows, minlength=len(levels) + 1)
        return [round(count) for count in counted[: len(levels)].tolist()]


def together(parts: Sequence[Texts]) -> Texts:
    """The different texts of several parts of a column.

    Args:
        parts: At least one.
    """
    values = pa.concat_arrays([part.values.cast(pa.large_string()) for part in parts])
    rows = [np.ones(len(part.values), dtype=np.int64) if part.rows is None else part.rows for part in parts]
    return Texts(values, np.concatenate(rows), sum(part.nulls for part in parts)).apart()


def many(column: pd.Series[Any], *, coded: bool = False) -> Texts | Floats | None:
    """A column of many different texts, without telling them apart.

    Args:
        column: As a source gave it, or tidy.
        coded: Its values are codes, because the policy says so.

    Returns:
        Numbers, shape (n,), NaN for a null, where all of the texts are numbers. None for any other column, for one of
        few rows, and where only all of its values together tell what they mean.
    """
    dtype = column.dtype
    if len(column) < _LEAST or is_foreign(dtype):
        return None
    if pd.api.types.is_integer_dtype(dtype):
        return _of_whole(column, coded=coded)
    if pd.api.types.is_object_dtype(dtype):
        return None if coded else _of_objects(column.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        return _of_categories(column, coded=coded)
    if pd.api.types.is_string_dtype(dtype):
        return None if (texts := _arrow(column)) is None else _of_strings(texts, coded=coded)
    return None


def _of_strings(texts: pa.Array | pa.ChunkedArray, *, coded: bool) -> Texts | Floats | None:
    """Brought together only where that is of use: it takes as much memory as the texts."""
    seen = some(texts)
    if _stay(seen, coded=coded):
        return texts_of(_joined(texts))
    if coded or len(set(seen)) < _MOST or says_a_word([text for text in seen if text.strip()][:_FIRST]):
        return None
    return _numbers(_joined(texts))


def _of_whole(column: pd.Series[Any], *, coded: bool) -> Texts | None:
    """Identifiers: whole numbers that a float cannot hold, or that the policy calls codes."""
    seen = column.iloc[_spread(len(column))]
    if not is_too_large(seen) and not (coded and seen.nunique() >= _MOST):
        return None
    texts = _joined(pa.array(column)).cast(pa.large_string())
    return Texts(texts, None, texts.null_count)


def _of_objects(values: NDArray[Any]) -> Texts | None:
    """As :func:`tasks.columns.tidy` leaves them: str and None, and every text counts."""
    seen = values[_spread(len(values))].tolist()
    if len({one for one in seen if isinstance(one, str)}) < _MOST:
        return None
    texts = _arrow(values)
    return None if texts is None else Texts(_joined(texts), None, texts.null_count)


def _of_categories(column: pd.Series[Any], *, coded: bool) -> Texts | None:
    categories = column.cat.categories
    if len(categories) < _MANY or (found := _arrow(categories)) is None:
        return None
    texts = _joined(found)
    codes = column.cat.codes.to_numpy().astype(np.int64)
    codes[codes < 0] = len(texts)  # a null is the last of them
    rows: Counts = np.bincount(codes, minlength=len(texts) + 1).astype(np.int64)
    if not differ(texts.filter(pa.array(rows[:-1] > 0)), coded=coded):
        return None
    return texts_of(pa.concat_arrays([texts, pa.nulls(1, texts.type)]), rows)


def _numbers(texts: pa.Array) -> Floats | None:
    """None where one of them is a word, or a number as Arrow does not write it; what it reads is what pandas reads."""
    found = _floats(texts)
    # Where there is none at all, what the nulls are called tells: that is for all of them to say.
    return None if found is None or np.isnan(found).all() else found


def _floats(texts: pa.Array) -> Floats | None:
    words = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array(["", *NULL_WORDS], texts.type))
    known = pc.if_else(words, pa.scalar(None, texts.type), texts) if pc.any(words).as_py() else texts
    try:
        numbers = known.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    found: Floats = numbers.to_numpy(zero_copy_only=False)
    # Where a number is none, what it is called tells: that is for all of them to say.
    return None if int(np.count_nonzero(np.isnan(found))) != numbers.null_count else found


def numbers_of(texts: pa.Array) -> Floats | None:
    """A part of a column of numbers that are written as texts, shape (k,), NaN for a null.

    Args:
        texts: shape (k,), of a string type or a dictionary of one.

    Returns:
        None where one of them is a word, or a number as Arrow does not write it.
    """
    if not pa.types.is_dictionary(texts.type):
        return _floats(texts) if _is_string(texts.type) else None
    if not _is_string(texts.type.value_type) or (found := _floats(texts.dictionary)) is None:
        return None
    return np.append(found, np.nan)[_codes(texts)]


def all_numbers(texts: pa.Array) -> bool:
    """Whether some rows of a column have nearly all another text, and none of them is a word.

    Args:
        texts: shape (k,), of a string type or a dictionary of one.
    """
    seen = some(texts)
    return len(set(seen)) >= _MOST and not says_a_word([text for text in seen if text.strip()])


def counted(values: pa.Array) -> Texts:
    """A part of a column that stays text, without telling its texts apart.

    Args:
        values: shape (k,), of a string type, a dictionary of one, or of whole numbers.
    """
    if not pa.types.is_dictionary(values.type) or not _is_string(values.type.value_type):
        return texts_of(values.cast(pa.large_string()))
    texts = values.dictionary.cast(pa.large_string())
    rows = np.bincount(_codes(values), minlength=len(texts) + 1).astype(np.int64)
    return texts_of(pa.concat_arrays([texts, pa.nulls(1, texts.type)]), rows)


def _codes(values: pa.DictionaryArray) -> Counts:
    """Where the dictionary has each, shape (k,); a null is beyond its end."""
    codes = values.indices.cast(pa.int64()).fill_null(len(values.dictionary))
    found: Counts = codes.to_numpy(zero_copy_only=False)
    return found


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def differ(texts: pa.Array, *, coded: bool = False) -> bool:
    """Whether some rows of a column show that it has many different texts, and that all of them stay texts.

    Args:
        texts: shape (k,), of a string type or a dictionary of one.
        coded: They are codes.
    """
    return _stay(some(texts), coded=coded)


def _stay(seen: list[str], *, coded: bool) -> bool:
    said = [text for text in dict.fromkeys(seen) if text.strip()]
    if len(said) < _MANY:
        return False
    first = said[:_FIRST]
    # One that is no number makes texts of all, and one that is no whole number leaves all codes as they are written.
    return codes_of(first).tolist() == first if coded else says_a_word(first)


def texts_of(texts: pa.Array, rows: Counts | None = None) -> Texts:
    """All of them; a blank one holds nothing.

    Args:
        texts: shape (k,), of a string type.
        rows: See :class:`Texts`.
    """
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    if pc.any(blank).as_py():
        texts = pc.if_else(blank, pa.scalar(None, texts.type), texts)
    none = texts.null_count if rows is None else int(rows[texts.is_null().to_numpy(zero_copy_only=False)].sum())
    return Texts(texts, rows, none)


def _arrow(values: Any) -> pa.Array | pa.ChunkedArray | None:
    """None where others are among the texts, or half a character."""
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, UnicodeError):
        return None
    return found if pa.types.is_string(found.type) or pa.types.is_large_string(found.type) else None


def _joined(found: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(found, pa.ChunkedArray):
        return found
    if pa.types.is_string(found.type):
        found = found.cast(pa.large_string())  # all together are longer than short offsets may reach
    return pa.concat_arrays(found.chunks)


def some(texts: pa.Array | pa.ChunkedArray, wanted: int = _SEEN) -> list[str]:
    """The texts of some rows, from the first to the last, without nulls.

    Chunk by chunk: taking rows of several at once, Arrow brings all of them together first.

    Args:
        texts: shape (n,), of a string type or a dictionary of one.
        wanted: How many rows; a few more of many chunks.
    """
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    share = min(1.0, wanted / max(len(texts), 1))
    picked = (chunk.take(pa.array(_spread(len(chunk), math.ceil(share * len(chunk))))) for chunk in chunks)
    return [text for chunk in picked for text in _decoded(chunk).drop_null().to_pylist()]


def _decoded(texts: pa.Array) -> pa.Array:
    return texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts


def _spread(size: int, wanted: int = _SEEN) -> NDArray[np.int64]:
    """Places of some rows, from the first to the last."""
    return np.linspace(0, size - 1, min(size, wanted)).astype(np.int64)
