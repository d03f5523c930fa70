"""Numerals: numbers that are written down, as texts or as decimals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NULL_WORDS = frozenset({"na", "n/a", "nan", "null", "none", "<na>", "-", "?"})
"""Words that stand for a missing number. In a column of words they may be words (NA is Namibia)."""

FIRST = 100
"""Texts of a column that are looked at first: if it is one of words, these mostly show it."""

_PIECE = 1 << 12
"""Texts among which the one is looked for that is no number as Arrow writes it."""

_POWERS = 22
"""Powers of ten up to which float64 holds them."""

EXACT = 2**53
"""Largest whole number up to which float64 holds every one of them."""

_ANY = np.dtype(object)
"""What a list holds."""


def arrow_texts(values: Any) -> pa.Array | None:
    """Texts as Arrow holds them; None where others are among them, or half a character."""
    if not pd.api.types.is_string_dtype(getattr(values, "dtype", _ANY)):  # which objects are, too
        return None
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, UnicodeError, OverflowError):
        return None
    return _joined(found) if pa.types.is_string(found.type) or pa.types.is_large_string(found.type) else None


def written(values: Any) -> pa.Array | None:
    """The same of texts or whole numbers as they are written."""
    if pd.api.types.is_integer_dtype(getattr(values, "dtype", _ANY)):
        return _joined(pa.array(values)).cast(pa.large_string())
    return arrow_texts(values)


def _joined(found: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(found, pa.ChunkedArray):
        return found
    if found.num_chunks == 1:
        return found.chunk(0)
    # All texts together are longer than short offsets may reach.
    return (found.cast(pa.large_string()) if pa.types.is_string(found.type) else found).combine_chunks()


def without_blanks(texts: pa.Array) -> pa.Array:
    """The same with a null for each that is blank."""
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    return pc.if_else(blank, pa.scalar(None, texts.type), texts) if pc.any(blank).as_py() else texts


def numbers_of(texts: pa.Array) -> np.ndarray[Any, Any] | None:
    """Texts as numbers, shape (n,), NaN for a null and for a word that stands for one; None when one is a word.

    Arrow reads most as pandas does. Where it cannot, the piece of them in which that happens is read by pandas.

    Args:
        texts: Of a string type, a null for each that is blank.
    """
    if texts.null_count == len(texts):
        return np.full(len(texts), math.nan)
    # A column of words mostly shows it in the first of them, and there may be a million.
    if says_a_word(texts.slice(0, _PIECE).drop_null().slice(0, FIRST).to_pylist()):
        return None
    missing = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array([*NULL_WORDS], texts.type))
    known = pc.if_else(missing, pa.scalar(None, texts.type), texts) if pc.any(missing).as_py() else texts
    if known.null_count == len(known):
        return None
    found = _cast(known)
    if found is not None:
        return found if int(np.count_nonzero(np.isnan(found))) == known.null_count else None
    parts = []
    for start in range(0, len(known), _PIECE):
        piece = known.slice(start, _PIECE)
        part = _cast(piece)
        if part is None:
            part = _parsed([None if _is_null_word(text) else text for text in piece.to_pylist()])
        elif int(np.count_nonzero(np.isnan(part))) != piece.null_count:
            part = None
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts)


def _cast(texts: pa.Array) -> np.ndarray[Any, Any] | None:
    try:
        return np.asarray(texts.cast(pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None


def says_a_word(levels: Sequence[Any]) -> bool:
    """Whether one of the levels of a column says something that is no number, so that all of them are texts."""
    said = [level for level in levels if level is not None and not _is_null_word(level)]
    return bool(pd.to_numeric(pd.Series(said, dtype=object), errors="coerce").isna().any())


def _is_null_word(level: Any) -> bool:
    return isinstance(level, str) and level.strip().lower() in NULL_WORDS


def numbers_among(levels: list[Any]) -> np.ndarray[Any, Any] | None:
    """The levels as numbers, or None when one of them is a word."""
    words = [None if _is_null_word(level) else level for level in levels]
    if all(word is None for word in words):
        return None if any(level is not None for level in levels) else np.full(len(levels), math.nan)
    return _parsed(words)


def _parsed(words: list[Any]) -> np.ndarray[Any, Any] | None:
    """As pandas reads them, NaN for None; None when one of them is a word."""
    parsed = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    missing = np.array([word is None for word in words], dtype=bool)
    return parsed if not np.isnan(parsed[~missing]).any() else None


def of_decimals(values: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The float next to each, shape (n,): Arrow's own cast may be one off, and Python's takes a third of a microsecond.

    Where neither the digits nor the power of ten are rounded, their quotient is rounded once, which is what is wanted
    (Clinger 1990, section 3).
    """
    parts = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    return np.concatenate([np.zeros(0), *(_quotients(part) for part in parts)])


def _quotients(values: pa.Array) -> np.ndarray[Any, Any]:
    kind = values.type
    null = values.is_null().to_numpy(zero_copy_only=False)
    if kind.bit_width > 128 or not 0 <= kind.scale <= _POWERS:
        return np.array([math.nan if one is None else float(one) for one in values.to_pylist()], dtype=np.float64)
    whole = values.cast(pa.decimal128(kind.precision, kind.scale))
    halves = np.frombuffer(whole.buffers()[1], dtype="<i8").reshape(-1, 2)[whole.offset : whole.offset + len(whole)]
    low, high = halves.T
    found = low / 10.0**kind.scale
    rounded = (high != low >> 63) | (low > EXACT) | (low < -EXACT)
    places = np.flatnonzero(rounded & ~null)
    found[places] = [float(one) for one in values.take(pa.array(places)).to_pylist()]
    found[null] = math.nan
    return np.asarray(found)
