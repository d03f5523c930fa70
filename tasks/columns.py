"""Columns: whatever a source holds becomes one of two kinds, numbers (float64) or text (object of str and None)."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.numerals import (
    EXACT,
    FIRST,
    NULL_WORDS,
    arrow_texts,
    numbers_among,
    numbers_of,
    of_decimals,
    says_a_word,
    without_blanks,
    written,
)

__all__ = [
    "NULL_WORDS",
    "Kind",
    "codes_of",
    "is_foreign",
    "is_too_large",
    "kind_of",
    "meaning",
    "nested",
    "of_decimals",
    "plain",
    "says_a_word",
    "text_of",
    "tidy",
    "tidy_column",
    "told_apart",
]

Kind = Literal["number", "category"]

_LEAST = 1 << 14
"""Rows below which telling their values apart takes no time worth saving."""

_FEW = 1 << 8
"""Values up to which Python is done with them before Arrow has begun."""

_SEEN = 1 << 11
"""Rows that are looked at to know whether a value is hardly ever there twice."""

_BLOCKS = 100
"""Columns from which on pandas warns of each that is added, unless they lie together in memory."""

_SMALL = 1 << 16
"""Rows up to which it costs nothing to put columns together, and taking some rows of them costs less afterwards."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_MIXED = frozenset({"mixed", "mixed-integer"})
"""What pandas calls objects that are neither texts nor numbers nor moments."""

_NUMBERS = frozenset({"floating", "integer", "mixed-integer-float", "boolean", "decimal"})
"""What pandas calls objects that are numbers, whatever nulls are among them."""


def tidy(frame: pd.DataFrame, *, text: Collection[str] = (), parse: bool = True) -> pd.DataFrame:
    """A frame in which every column is float64 or an object column of str and None.

    Blank strings are nulls. Booleans are 1 and 0, moments are days since 1970. A column without any value is a number
    column of NaN. A column that is tidy already is shared with the frame that was given.

    Args:
        frame: As the source gave it.
        text: Columns that stay text although they look like numbers.
        parse: Whether a text column whose values all read as numbers becomes one.

    Raises:
        ValueError: For a name that is there twice, or as 1 and as ``"1"``, and for a column of complex numbers.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise ValueError(_twice(frame.columns))
    columns = (frame.iloc[:, place] for place in range(len(names)))
    made = {
        name: tidy_column(column, as_text=given in text, parse=parse)
        for name, given, column in zip(names, frame.columns, columns, strict=True)
    }
    apart = len(frame) > _SMALL and len(made) <= _BLOCKS  # to put them together takes their memory once more
    return pd.DataFrame(made, index=pd.RangeIndex(len(frame)), copy=not apart)


def _twice(names: Iterable[Any]) -> str:
    by_text: dict[str, list[Any]] = {}
    for name in names:
        by_text.setdefault(str(name), []).append(name)
    several = "; ".join(" and ".join(map(repr, them)) for them in by_text.values() if len(them) > 1)
    return f"columns that have the same name as text: {several}; rename all but one of them"


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
    """Columns whose values are no single ones, and what they hold.

    That is lists, dictionaries, arrays, structs of Arrow's, and complex numbers.
    """
    found = {}
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.ArrowDtype):  # pandas knows nothing else of some of these
            if pa.types.is_nested(kind.pyarrow_dtype):
                found[str(name)] = str(kind.pyarrow_dtype)
        elif isinstance(kind, np.dtype) and kind.kind == "c":
            found[str(name)] = str(kind)
        elif pd.api.types.is_object_dtype(kind) and pd.api.types.infer_dtype(frame[name]) in _MIXED:
            held = next((type(value).__name__ for value in frame[name] if not isinstance(value, Hashable)), None)
            if held is not None:
                found[str(name)] = held
    return found


def tidy_column(values: pd.Series[Any], *, as_text: bool = False, parse: bool = True) -> pd.Series[Any]:
    """One column, as :func:`tidy` makes it.

    Raises:
        ValueError: For complex numbers.
    """
    values = plain(_counted_from_zero(values))
    dtype = values.dtype
    if not (as_text or isinstance(dtype, pd.CategoricalDtype) or is_foreign(dtype)):
        if pd.api.types.is_datetime64_any_dtype(dtype):
            return _days(values)
        if pd.api.types.is_timedelta64_dtype(dtype):
            return _floats(values.dt.total_seconds())
        if pd.api.types.is_numeric_dtype(dtype):  # booleans are numeric to pandas
            if not is_too_large(values):
                return _floats(values)
            as_text = True
        elif pd.api.types.is_object_dtype(dtype) and pd.api.types.infer_dtype(values) in _NUMBERS:
            return _floats(values)
    if (known := _one_by_one(values, as_text=as_text, parse=parse)) is None:
        codes, levels = told_apart(values)
        meant = codes_of(levels) if as_text else meaning(levels, parse=parse)
        known = _spread(codes, meant, math.nan if meant.dtype == np.float64 else None)
    return _column(known)


def _counted_from_zero(values: pd.Series[Any]) -> pd.Series[Any]:
    index = values.index
    as_it_is = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    if as_it_is:
        return values
    found: pd.Series[Any] = pd.Series(values.array, name=values.name, copy=False)
    return found


def _column(values: np.ndarray[Any, Any]) -> pd.Series[Any]:
    found: pd.Series[Any] = pd.Series(values, copy=False, dtype=values.dtype)
    return found


def told_apart(values: pd.Series[Any]) -> tuple[np.ndarray[Any, Any], Iterable[Any]]:
    """Which of its different values each row of a column holds, shape (n,), -1 for a null; and these."""
    dtype = values.dtype
    if not isinstance(dtype, pd.CategoricalDtype):
        kind = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
        unknown = kind is not None and (pa.types.is_float16(kind) or pa.types.is_nested(kind))  # to Arrow's hashing
        return pd.factorize(values.astype(object) if unknown else values)
    codes, categories = values.cat.codes.to_numpy(), dtype.categories
    # A category that no row holds is no level.
    seen = np.flatnonzero(np.bincount(codes.astype(np.int64) + 1, minlength=len(categories) + 1)[1:])
    if seen.size < len(categories):
        places = np.full(len(categories) + 1, -1)
        places[seen] = np.arange(seen.size)
        codes, categories = places[codes], categories[seen]
    return codes, np.asarray(categories, dtype=object)


def _one_by_one(values: pd.Series[Any], *, as_text: bool, parse: bool) -> np.ndarray[Any, Any] | None:
    """What the rows mean, where hardly any value is there twice; None for any other column.

    Telling such values apart takes longer than looking at each.
    """
    dtype = values.dtype
    whole = pd.api.types.is_integer_dtype(dtype)
    if len(values) < _LEAST or not (whole or pd.api.types.is_string_dtype(dtype)):  # which objects are, too
        return None
    seen = values.iloc[np.linspace(0, len(values) - 1, _SEEN).astype(np.int64)].dropna()
    if not seen.is_unique or (found := written(values)) is None:
        return None
    if as_text and not whole and _are_whole_floats(seen.iloc[:FIRST]):
        return None
    texts = without_blanks(found)
    if not as_text and (numbers := _numbers_or_nothing(texts, parse=parse)) is not None:
        return numbers
    if not pd.api.types.is_object_dtype(dtype):
        return _objects(texts)
    given = values.to_numpy()  # its texts need not be made once more
    null = texts.is_null().to_numpy(zero_copy_only=False)
    if null.any():
        given = given.copy()
        given[null] = None
    return np.asarray(given)


def plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of a type that pandas holds and can hardly do anything with, in one that it can.

    Raises:
        ValueError: For complex numbers, and where there are several columns of that name.
    """
    if isinstance(values, pd.DataFrame):
        raise ValueError(_twice(values.columns))  # noqa: TRY004  the frame is wrong, and not what it was asked for
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "c":
        raise ValueError(f"column {values.name!r} holds {dtype}, which is two numbers; make a column of each of them")
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(values.array.to_dense(), name=values.name)
    if isinstance(dtype, np.dtype) and not dtype.isnative:  # bytes of another processor, of which pandas takes no rows
        return pd.Series(values.to_numpy().astype(dtype.newbyteorder("=")), index=values.index, name=values.name)
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
    dtype = values.dtype
    if dtype == np.float64 and isinstance(dtype, np.dtype):
        return values
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_decimal(dtype.pyarrow_dtype):
        return _column(of_decimals(pa.array(values)))
    if isinstance(dtype, np.dtype) and dtype != np.object_:  # has no nulls to look for
        return _column(values.to_numpy().astype(np.float64))
    return _column(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _days(values: pd.Series[Any]) -> pd.Series[Any]:
    """Since 1970, in whatever unit they are held: 9999-12-31 is no moment that nanoseconds reach."""
    moments = pa.array(values.dt.tz_convert(None) if values.dt.tz is not None else values)
    counts, unit = moments.cast(pa.int64()), moments.type.unit
    found = counts.to_numpy(zero_copy_only=False) if isinstance(counts, pa.Array) else counts.to_numpy()
    floats = found.astype(np.float64)  # numpy has NaN where Arrow has a null
    if unit == "ns":
        # A float holds them to the nearest 256 only. In whole microseconds a moment is the number that it is elsewhere.
        floats /= 1000
        np.rint(floats, out=floats)
        unit = "us"
    floats /= 86_400 * _PER_SECOND[unit]
    return _column(floats)


def is_too_large(values: pd.Series[Any]) -> bool:
    """Whole numbers that float64 would round: identifiers, not amounts."""
    if not pd.api.types.is_integer_dtype(values.dtype):
        return False
    if isinstance(values.dtype, np.dtype):  # has no nulls to look for
        numbers = values.to_numpy()
        return bool(numbers.size) and max(abs(int(numbers.min())), abs(int(numbers.max()))) > EXACT
    ends = pc.min_max(pa.array(values))  # pandas looks for the nulls once for each of both
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is not None and max(abs(low), abs(high)) > EXACT


def codes_of(levels: Iterable[Any]) -> np.ndarray[Any, Any]:
    """The text of each of the different values of a column of codes; None for a null."""
    given = levels if isinstance(levels, pd.Index | np.ndarray) else list(levels)
    if len(given) > _FEW and (found := written(given)) is not None:
        known = _objects(without_blanks(found))
        if not _are_whole_floats(known[:FIRST]):
            return known
    texts = [text_of(level) for level in given]
    texts = [text if text is not None and text.strip() else None for text in texts]
    if _are_whole_floats(texts):
        texts = [None if text is None else text[:-2] for text in texts]
    return _array(texts)


def _are_whole_floats(texts: Iterable[str | None]) -> bool:
    return all(text is None or _is_whole_float(text) for text in texts)


def _is_whole_float(text: str) -> bool:
    return text.endswith(".0") and text[:-2].lstrip("-").isdigit()


def meaning(levels: Iterable[Any], *, parse: bool) -> np.ndarray[Any, Any]:
    """What the different values of a column are: numbers (float64, NaN for a null) or texts (object, None for one).

    Args:
        levels: As the source has them, of any type, without nulls.
        parse: Whether texts that all read as numbers are numbers.
    """
    given = levels if isinstance(levels, pd.Index | np.ndarray) else list(levels)
    if len(given) > _FEW and (found := arrow_texts(given)) is not None:
        found = without_blanks(found)
        numbers = _numbers_or_nothing(found, parse=parse)
        return _objects(found) if numbers is None else numbers
    given = list(given)
    texts = all(isinstance(level, str) for level in given)
    known = [level if level.strip() else None for level in given] if texts else [_level(level) for level in given]
    if all(level is None or not isinstance(level, str) for level in known):
        return np.array([math.nan if level is None else float(level) for level in known], dtype=np.float64)
    if parse and not says_a_word(known[:FIRST]) and (parsed := numbers_among(known)) is not None:
        return parsed
    return _array(known if texts else [text_of(level) for level in known])


def _numbers_or_nothing(texts: pa.Array, *, parse: bool) -> np.ndarray[Any, Any] | None:
    """Texts as numbers, where they are to be that or there is none at all."""
    return numbers_of(texts) if parse or texts.null_count == len(texts) else None


def _objects(texts: pa.Array) -> np.ndarray[Any, Any]:
    return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=object)


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


def _spread(codes: np.ndarray[Any, Any], levels: np.ndarray[Any, Any], null: Any) -> np.ndarray[Any, Any]:
    """Levels by row; code -1 is a null."""
    padded = np.empty(len(levels) + 1, dtype=levels.dtype)
    padded[: len(levels)] = levels
    padded[-1] = null
    found: np.ndarray[Any, Any] = padded[codes]
    return found
