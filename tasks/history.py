"""History: the rows of a file source that were seen before, so that a file overwritten with newer rows loses none.

Inside the file's own time range the file is the truth; what is kept contributes the rows that are older.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.columns import kind_of, text_of, tidy
from tasks.sources import DataError

_TIME = "(moment)"
"""Name of the column that holds the moments in the kept file; no policy can name a feature like that by accident."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Tidy rows of a source and the moment of each.

    Attributes:
        frame: n rows, all columns of the source, see :func:`tasks.columns.tidy`.
        time: shape (n,), UTC.
        notes: What a person should know about them.
    """

    frame: pd.DataFrame
    time: pd.DatetimeIndex
    notes: tuple[str, ...] = ()


def complete(rows: Rows, path: Path, *, write: bool) -> Rows:
    """The rows of the file with the older ones that are kept, and the kept ones brought up to date.

    Args:
        rows: Of the file, as it is now.
        path: Of the kept rows; it need not exist.
        write: False for a dry run: nothing is changed.

    Raises:
        DataError: When the kept rows cannot be read.
    """
    kept = _read(path)
    if kept is None:
        if write and len(rows.frame):
            _write(rows, path)
        return rows
    # An empty file has no range of its own: everything that is kept is older than what it holds.
    everything = np.full(len(kept.time), fill_value=not len(rows.time))
    older = _part(kept, kept.time < rows.time.min() if len(rows.time) else everything)
    newer = _part(kept, kept.time > rows.time.max() if len(rows.time) else ~everything)
    together = _join(older, rows)
    stored = _join(together, newer)
    if write and not _same(stored, kept):
        _write(stored, path)
    notes = _notes(rows, kept, older, newer)
    return Rows(together.frame.reindex(columns=rows.frame.columns), together.time, notes)


def _notes(rows: Rows, kept: Rows, older: Rows, newer: Rows) -> tuple[str, ...]:
    """What changed between what was kept and what the file holds now, in words."""
    notes = list(rows.notes)
    before = len(kept.time) - len(older.time) - len(newer.time)
    if before > len(rows.time):
        span = f"{rows.time.min():%Y-%m-%d} to {rows.time.max():%Y-%m-%d}"
        notes.append(
            f"the file holds {len(rows.time):,} rows from {span} where it held {before:,} before: "
            "training on a shrinking window"
        )
    if len(newer.time):
        notes.append(
            f"{len(newer.time):,} rows newer than the file's last one ({rows.time.max():%Y-%m-%d %H:%M}) were seen "
            "before and are not in it now; they are kept and not used"
        )
    if len(older.time):
        what = "the file holds no rows" if not len(rows.time) else "rows older than the file's first one were kept"
        notes.append(f"{what}; {len(older.time):,} kept rows since {older.time.min():%Y-%m-%d} are used")
    return tuple(notes)


def _read(path: Path) -> Rows | None:
    if not path.is_file():
        return None
    try:
        frame = pd.read_parquet(path)
        time = pd.DatetimeIndex(frame.pop(_TIME)).tz_convert("UTC").as_unit("us")
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "restore it from a backup, or remove it and lose the rows that only it has"
        raise DataError(f"data.history: {path} cannot be read: {error}; {remedy}") from error
    # Which columns are text was decided when they were kept; only the nulls have to become None again.
    return Rows(tidy(frame, parse=False), time)


def _write(rows: Rows, path: Path) -> None:
    """All or nothing: another file is written, brought to the disk, and put in the place of the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            rows.frame.assign(**{_TIME: rows.time}).to_parquet(file, index=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _part(rows: Rows, mask: np.ndarray[Any, Any]) -> Rows:
    return Rows(rows.frame[mask].reset_index(drop=True), rows.time[mask])


def _join(first: Rows, second: Rows) -> Rows:
    if not len(first.time) or not len(second.time):
        return second if len(second.time) else first
    names = list(dict.fromkeys((*second.frame.columns, *first.frame.columns)))
    columns = {name: _stack(first.frame.get(name), second.frame.get(name), first, second) for name in names}
    return Rows(pd.DataFrame(columns), pd.DatetimeIndex(first.time.append(second.time)))


def _stack(first: pd.Series[Any] | None, second: pd.Series[Any] | None, *of: Rows) -> pd.Series[Any]:
    """One column over the other; where one has numbers and the other words, the numbers become words."""
    if first is None and second is None:
        raise ValueError("a column that is in neither part cannot be joined")
    parts = [
        pd.Series(np.full(len(rows.time), np.nan)) if part is None else part
        for part, rows in zip((first, second), of, strict=True)
    ]
    if any(kind_of(part) == "category" for part in parts):
        parts = [part.astype(object) if kind_of(part) == "category" else _words(part) for part in parts]
    return pd.concat(parts, ignore_index=True)


def _words(numbers: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series([text_of(number) for number in numbers], dtype=object)


def _same(first: Rows, second: Rows) -> bool:
    return first.frame.equals(second.frame) and first.time.equals(second.time)
