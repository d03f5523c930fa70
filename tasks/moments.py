"""Moments: when each row came to be, in UTC. A zone is never guessed."""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime, time, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tasks.policy import Data, Order
from tasks.sources import DataError

_ZONE = re.compile(r"(?:Z|[+-]\d{2}(?::?\d{2})?)$")


def moments(frame: pd.DataFrame, data: Data) -> pd.DatetimeIndex:
    """When each row came to be, shape (n,), in UTC.

    Raises:
        DataError: For null, unparsable or naive timestamps (without ``data.timezone``), or numbers that are no order.
    """
    if isinstance(data.timestamp, Order):
        return _ordered(frame, data.timestamp)
    values, name = frame[data.timestamp], data.timestamp
    if pd.api.types.is_numeric_dtype(values.dtype) and values.notna().any():
        raise DataError(
            f"data.timestamp: column {name!r} holds numbers (first {values.dropna().iloc[0]!r}); "
            "write `timestamp: {column: ..., start: ..., step: ...}` to read them as time, or store dates"
        )
    _refuse_nulls(values, name)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _zoned(pd.DatetimeIndex(values), name, data.timezone)
    return _parsed(values.astype(str).str.strip(), name, data.timezone)


def _refuse_nulls(values: pd.Series[Any], name: str) -> None:
    empty = values.isna()
    if values.dtype == object or pd.api.types.is_string_dtype(values.dtype):
        empty |= values.astype(str).str.strip() == ""
    if count := int(empty.sum()):
        row = int(np.flatnonzero(empty.to_numpy())[0]) + 1
        remedy = "fill it in, or leave these rows out of the source"
        raise DataError(f"data.timestamp: column {name!r} is empty in {count} rows (first in row {row}); {remedy}")


def _ordered(frame: pd.DataFrame, order: Order) -> pd.DatetimeIndex:
    if order.column is None:
        ordinals = np.arange(len(frame))
    else:
        numbers = pd.to_numeric(frame[order.column], errors="coerce").to_numpy(dtype=np.float64)
        bad = ~np.isfinite(numbers) | (numbers != np.floor(numbers))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            first = frame[order.column].iloc[row]
            raise DataError(
                f"data.timestamp: column {order.column!r} holds {int(bad.sum())} values that are no whole numbers "
                f"(first {first!r} in row {row + 1}); correct them, or name another column"
            )
        ordinals = numbers.astype(np.int64)
    origin = pd.Timestamp(datetime.combine(order.start, time(), UTC)).as_unit("us")
    steps = ordinals * (order.step // timedelta(microseconds=1))
    return pd.DatetimeIndex(origin + pd.to_timedelta(steps, unit="us")).as_unit("us")


def _parsed(values: pd.Series[Any], name: str, zone: str | None) -> pd.DatetimeIndex:
    clock = values.str.contains(":", regex=False)
    aware = (clock & values.str.contains(_ZONE)).to_numpy(dtype=bool)
    parsed = pd.to_datetime(values.where(aware), format="ISO8601", errors="coerce", utc=True)
    naive = pd.to_datetime(values.where(~aware), format="ISO8601", errors="coerce", utc=True)
    broken = (parsed.isna() & naive.isna()).to_numpy(dtype=bool)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise DataError(
            f"data.timestamp: {int(broken.sum())} values of column {name!r} are no moments "
            f"(first {values.iloc[row]!r} in row {row + 1}); write them as 2024-04-15 08:00:00+00:00"
        )
    if aware.all():
        return pd.DatetimeIndex(parsed).as_unit("us")
    local = _zoned(pd.DatetimeIndex(naive[~aware]).tz_localize(None), name, zone)
    merged = parsed.dt.as_unit("us").to_numpy(dtype="datetime64[us]").copy()
    merged[~aware] = local.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return pd.DatetimeIndex(merged).tz_localize("UTC")


def _zoned(values: pd.DatetimeIndex, name: str, zone: str | None) -> pd.DatetimeIndex:
    """In UTC; a naive moment is read in the policy's zone, and in none that is guessed."""
    if values.tz is not None or not len(values):
        return (values if values.tz is not None else values.tz_localize("UTC")).tz_convert("UTC").as_unit("us")
    if zone is None:
        raise DataError(
            f"data.timestamp: column {name!r} has no time zone (first value {values[0].isoformat()}); "
            "set data.timezone, such as UTC or Europe/Berlin"
        )
    try:
        return values.tz_localize(zoneinfo.ZoneInfo(zone)).tz_convert("UTC").as_unit("us")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:  # a ValueError: an hour that is there twice or never
        first = str(error).strip("'\"").splitlines()[0]
        remedy = "write the name of a zone, and UTC where the hours of a clock change are in the data"
        raise DataError(f"data.timezone {zone!r}: column {name!r} cannot be read in it: {first}; {remedy}") from None
