"""Columns: whatever a source holds becomes one of two kinds, numbers (float64) or text (object of str and None)."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["number", "category"]

NULL_WORDS = frozenset({"na", "n/a", "nan", "null", "none", "<na>", "-", "?"})
"""Words that stand for a missing number. In a column of words they may be words (NA is Namibia)."""

_FIRST = 100

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_MIXED = frozenset({"mixed", "mixed-integer"})
"""What pandas calls objects that are neither texts nor numbers nor moments."""

_DIGITS = 15
"""Decimal digits that float64 holds, whatever they are."""

_EXACT = 2**53
"""Largest whole number up to which float64 holds every one of them."""


def tidy(frame: pd.DataFrame, *, text: Collection[str] = (), parse: bool = True) -> pd.DataFrame:
    """A copy in which every column is float64 or an object column of str and None.

    Blank strings are nulls. Booleans are 1 and 0, moments are days since 1970. A column without any value is a number
    column of NaN.

    Args:
        frame: As the source gave it.
        text: Columns that stay text although they look like numbers.
        parse: Whether a text column whose values all read as numbers becomes one.
    """
    made = {str(name): tidy_column(frame[name], as_text=name in text, parse=parse) for name in frame.columns}
    return pd.DataFrame(made, index=pd.RangeIndex(len(frame)))


def kind_of(values: pd.Series[Any]) -> Kind:
    """Of a tidy column."""
    return "number" if values.dtype == np.float64 else "category"


def text_of(value: Any) -> str | None:
    """A label or a code as text, the same whether it came as 1, 1.0 or ``"1"``; None for a null."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, np.generic):
        value = value.item()
    return str(value)


def nested(frame: pd.DataFrame) -> dict[str, str]:
    """Columns whose values are no single ones, and what they hold: lists, dictionaries, arrays, structs of Arrow's."""
    found = {}
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.ArrowDtype) and pa.types.is_nested(kind.pyarrow_dtype):
            found[str(name)] = str(kind.pyarrow_dtype)
        elif pd.api.types.is_object_dtype(kind) and pd.api.types.infer_dtype(frame[name]) in _MIXED:
            held = next((type(value).__name__ for value in frame[name] if not isinstance(value, Hashable)), None)
            if held is not None:
                found[str(name)] = held
    return found


def tidy_column(values: pd.Series[Any], *, as_text: bool = False, parse: bool = True) -> pd.Series[Any]:
    """One column, as :func:`tidy` makes it."""
    values = plain(values.reset_index(drop=True))
    if isinstance(values.dtype, pd.CategoricalDtype) or is_foreign(values.dtype):
        values = values.astype(object)
    if as_text:
        return _coded(values)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _days(values)
    if pd.api.types.is_timedelta64_dtype(values.dtype):
        return _floats(values.dt.total_seconds())
    if pd.api.types.is_numeric_dtype(values.dtype):  # booleans are numeric to pandas
        return _coded(values) if is_too_large(values) else _floats(values)
    return _from_objects(values, parse=parse)


def plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of a type that pandas holds and can hardly do anything with, in one that it can."""
    dtype = values.dtype
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(values.array.to_dense(), name=values.name)
    if not isinstance(dtype, pd.ArrowDtype):
        return values
    kind = dtype.pyarrow_dtype
    if pa.types.is_duration(kind):
        return pd.Series(values.to_numpy(dtype=f"timedelta64[{kind.unit}]"), name=values.name)
    for view, whole in ((pa.string_view(), pa.large_string()), (pa.binary_view(), pa.large_binary())):
        if kind == view:
            return pd.Series(pa.array(values).cast(whole), dtype=pd.ArrowDtype(whole), name=values.name)
    return values


def is_foreign(dtype: Any) -> bool:
    """A type of Arrow's that pandas takes for one of its own and cannot treat as such: a date, a dictionary."""
    if not isinstance(dtype, pd.ArrowDtype):
        return False
    kind = dtype.pyarrow_dtype
    return bool(pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_dictionary(kind))


def _floats(values: pd.Series[Any]) -> pd.Series[Any]:
    if isinstance(values.dtype, pd.ArrowDtype) and pa.types.is_decimal(values.dtype.pyarrow_dtype):
        return pd.Series(of_decimals(pa.array(values)))
    return pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan))


def of_decimals(values: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """The float next to each, shape (n,): Arrow's own cast may be one off, and Python's takes a third of a microsecond.

    Where neither the digits nor the power of ten are rounded, their quotient is rounded once, which is what is wanted
    (Clinger 1990, section 3).
    """
    parts = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    return np.concatenate([np.zeros(0), *(_quotients(part) for part in parts)])


def _quotients(values: pa.Array) -> np.ndarray[Any, Any]:
    kind = values.type
    if kind.precision > _DIGITS or not 0 <= kind.scale <= _DIGITS:
        return np.array([math.nan if one is None else float(one) for one in values.to_pylist()], dtype=np.float64)
    # Numbers of so few digits have them all in their lower half.
    values = values.cast(pa.decimal128(kind.precision, kind.scale))
    digits = np.frombuffer(values.buffers()[1], dtype="<i8")[::2]
    found = digits[values.offset : values.offset + len(values)] / 10.0**kind.scale
    found[values.is_null().to_numpy(zero_copy_only=False)] = math.nan
    return np.asarray(found)


def _days(values: pd.Series[Any]) -> pd.Series[Any]:
    """Since 1970, in whatever unit they are held: 9999-12-31 is no moment that nanoseconds reach."""
    moments = pa.array(values.dt.tz_convert(None) if values.dt.tz is not None else values)
    per_day = 86_400 * _PER_SECOND[moments.type.unit]
    counts = moments.cast(pa.int64())
    found = counts.to_numpy(zero_copy_only=False) if isinstance(counts, pa.Array) else counts.to_numpy()
    return pd.Series(found.astype(np.float64) / per_day)  # numpy has NaN where Arrow has a null


def is_too_large(values: pd.Series[Any]) -> bool:
    """Whole numbers that float64 would round: identifiers, not amounts."""
    if not pd.api.types.is_integer_dtype(values.dtype):
        return False
    if isinstance(values.dtype, np.dtype):  # has no nulls to look for
        numbers = values.to_numpy()
        return bool(numbers.size) and max(abs(int(numbers.min())), abs(int(numbers.max()))) > _EXACT
    ends = pc.min_max(pa.array(values))  # pandas looks for the nulls once for each of both
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is not None and max(abs(low), abs(high)) > _EXACT


def _coded(values: pd.Series[Any]) -> pd.Series[Any]:
    """Text of codes. A column of 1.0, 2.0 is one of 1, 2 into which nulls once came."""
    codes, levels = pd.factorize(values.astype(object))
    return _objects(_spread(codes, codes_of(levels), None))


def codes_of(levels: Iterable[Any]) -> np.ndarray[Any, Any]:
    """The text of each of the different values of a column of codes; None for a null."""
    texts = [text_of(level) for level in levels]
    texts = [text if text is not None and text.strip() else None for text in texts]
    if all(text is None or _is_whole_float(text) for text in texts):
        texts = [None if text is None else text[:-2] for text in texts]
    return _array(texts)


def _is_whole_float(text: str) -> bool:
    return text.endswith(".0") and text[:-2].lstrip("-").isdigit()


def _from_objects(values: pd.Series[Any], *, parse: bool) -> pd.Series[Any]:
    """A column of str, or of anything mixed: looked at by its levels, of which there are fewer than rows."""
    codes, levels = pd.factorize(values.astype(object))
    known = meaning(levels, parse=parse)
    if known.dtype == np.float64:
        return pd.Series(_spread(codes, known, math.nan))
    return _objects(_spread(codes, known, None))


def meaning(levels: Iterable[Any], *, parse: bool) -> np.ndarray[Any, Any]:
    """What the different values of a column are: numbers (float64, NaN for a null) or texts (object, None for one).

    Args:
        levels: As the source has them, of any type, without nulls.
        parse: Whether texts that all read as numbers are numbers.
    """
    given = list(levels)
    texts = all(isinstance(level, str) for level in given)
    known = [level if level.strip() else None for level in given] if texts else [_level(level) for level in given]
    if all(level is None or not isinstance(level, str) for level in known):
        return np.array([math.nan if level is None else float(level) for level in known], dtype=np.float64)
    # A column of words mostly shows it in the first of them, and there may be a million.
    if parse and not says_a_word(known[:_FIRST]) and (parsed := _numbers(known)) is not None:
        return parsed
    return _array(known if texts else [text_of(level) for level in known])


def _array(texts: list[str | None]) -> np.ndarray[Any, Any]:
    return np.array(texts, dtype=object)


def _level(value: Any) -> Any:
    """None for a blank, a number for a number or bool, text for anything else."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return value
    if hasattr(value, "as_integer_ratio"):  # Decimal and Fraction
        return float(value)
    return str(value)


def says_a_word(levels: Sequence[Any]) -> bool:
    """Whether one of the levels of a column says something that is no number, so that all of them are texts."""
    said = [level for level in levels if level is not None and not _is_null_word(level)]
    return bool(pd.to_numeric(pd.Series(said, dtype=object), errors="coerce").isna().any())


def _is_null_word(level: Any) -> bool:
    return isinstance(level, str) and level.strip().lower() in NULL_WORDS


def _numbers(levels: list[Any]) -> np.ndarray[Any, Any] | None:
    """The levels as numbers, or None when one of them is a word."""
    words = [None if _is_null_word(level) else level for level in levels]
    if all(word is None for word in words):
        return None if any(level is not None for level in levels) else np.full(len(levels), math.nan)
    parsed = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    missing = np.array([word is None for word in words], dtype=bool)
    return parsed if not np.isnan(parsed[~missing]).any() else None


def _spread(codes: np.ndarray[Any, Any], levels: np.ndarray[Any, Any], null: Any) -> np.ndarray[Any, Any]:
    """Levels by row; code -1 is a null."""
    padded = np.empty(len(levels) + 1, dtype=levels.dtype)
    padded[: len(levels)] = levels
    padded[-1] = null
    found: np.ndarray[Any, Any] = padded[codes]
    return found


def _objects(values: np.ndarray[Any, Any]) -> pd.Series[Any]:
    return pd.Series(values, dtype=object)
