"""Data: rows that a model can learn from, checked, and divided by time."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import history, leaks, sources
from tasks.columns import kind_of, nested, text_of, tidy
from tasks.levels import levels_of
from tasks.moments import moments
from tasks.policy import Data, Policy, as_utc
from tasks.policy_problem import near
from tasks.sources import DataError
from tasks.stores import Stores

__all__ = ["DataError", "Dataset", "NothingNew", "Split", "fingerprint", "load", "split", "validate"]

_SEEN = 1 << 10
"""Rows that are looked at to find a column whose values hardly repeat."""


class NothingNew(Exception):
    """Too few rows are newer than what Production was trained on; its text says how many."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Rows in the order of their time; nobody may change them.

    Attributes:
        features: n rows, only feature columns: float64, or object columns of str and None.
        target: shape (n,), object: the labels as the source has them, None where there is none yet.
        time: shape (n,), UTC, ascending; equal moments keep the order of the source.
        notes: What a person should know about how the rows came about.
        coming: Moment of the first row that the source has already and that lies after the window, or None.
        flaws: What was found wrong with the source's own columns while reading; :func:`validate` raises them.
    """

    features: pd.DataFrame
    target: pd.Series[Any]
    time: pd.DatetimeIndex
    notes: tuple[str, ...] = ()
    coming: datetime | None = None
    flaws: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: slice | NDArray[Any] | list[int]) -> Dataset:
        """Some of the rows: a slice, a mask of shape (n,) or ascending positions."""
        return replace(
            self,
            features=self.features.iloc[rows].reset_index(drop=True),
            target=self.target.iloc[rows].reset_index(drop=True),
            time=self.time[rows],
        )

    def between(self, start: datetime, end: datetime) -> Dataset:
        """The rows with ``start <= t < end``.

        Raises:
            ValueError: For a naive moment.
        """
        first, last = self.time.searchsorted([pd.Timestamp(as_utc(start)), pd.Timestamp(as_utc(end))])
        return self.take(slice(int(first), max(int(first), int(last))))

    @cached_property
    def labels(self) -> tuple[list[Any], NDArray[np.intp]]:
        """The different labels, and which of them each row has, shape (n,); -1 for none. They are looked at once."""
        return levels_of(self.target.to_numpy())

    @property
    def labelled(self) -> Dataset:
        """The rows that have a label."""
        return self.take(self.target.notna().to_numpy())


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Labelled rows divided at a moment.

    Attributes:
        train: All of them before it.
        holdout: All of them at or after it; neither the candidate nor Production has seen one.
    """

    train: Dataset
    holdout: Dataset


def load(policy: Policy, stores: Stores, *, start: datetime, end: datetime, remember: bool = True) -> Dataset:
    """Read the rows of a window.

    Args:
        policy: Of the model.
        stores: Where the history of a file source is kept.
        start: Of the window, aware.
        end: Of the window, aware, not included.
        remember: Whether new rows of a file are kept; False in a dry run.

    Returns:
        The rows with ``start <= t < end``, oldest first.

    Raises:
        DataError: When the source cannot be read or its columns and times are not what the policy says.
    """
    data, first, last = policy.data, as_utc(start), as_utc(end)
    raw = sources.read(data, start=first, end=last)
    raw.columns = raw.columns.astype(str)
    times = _moments(raw, policy)
    rows = history.Rows(_tidied(raw, data), times)
    if sources.is_file(data.source) and data.history:
        rows = history.complete(rows, stores.kept(policy.model), write=remember)
    inside = np.asarray((rows.time >= pd.Timestamp(first)) & (rows.time < pd.Timestamp(last)))
    dataset = _dataset(rows.frame[inside].reset_index(drop=True), rows.time[inside], policy, rows.notes)
    later = rows.time[rows.time >= pd.Timestamp(last)]
    return replace(dataset, coming=later.min().to_pydatetime() if len(later) else None)


def _moments(raw: pd.DataFrame, policy: Policy) -> pd.DatetimeIndex:
    """When each row came to be; where that cannot be told, everything else that is wrong is told with it.

    Raises:
        DataError: Lists every problem of the columns and, of a source that was read whole, of what is in them.
    """
    data = policy.data
    problems = _column_problems(raw, data)
    try:
        if data.time_column is None or data.time_column in raw.columns:
            times = moments(raw, data)
    except DataError as error:
        problems += error.problems
    if not problems:
        return times
    # Of a database only the columns were asked for when the time cannot be read.
    raise DataError(*problems, *(() if "://" in data.source else _content_problems(raw, policy)))


def _content_problems(raw: pd.DataFrame, policy: Policy) -> list[str]:
    data, known = policy.data, raw.loc[:, ~raw.columns.duplicated()]
    known = known.drop(columns=list(nested(known)))
    if data.target not in known:
        return []
    frame = _tidied(known, data)
    apart = {data.target, *data.drop, data.time_column}
    features = frame[[name for name in frame.columns if name not in apart]]
    return _feature_problems(features) + _target_problems(_labels(frame[data.target]), policy)


def _column_problems(raw: pd.DataFrame, data: Data) -> list[str]:
    """Every column that the policy names and the source does not have."""
    named = {
        "data.target": (data.target,),
        "data.timestamp": () if data.time_column is None else (data.time_column,),
        "data.drop": data.drop,
        "data.categorical": data.categorical,
        "data.key": data.key,
        "data.trusted": data.trusted,
    }
    there = list(raw.columns)
    listed = ", ".join(there[:30]) + (" ..." if len(there) > 30 else "")
    problems = [
        f"{place}: the source has no column {name!r}{near(name, there)}; it has {listed}"
        for place, names in named.items()
        for name in names
        if name not in there
    ]
    twice = sorted(name for name, times in Counter(there).items() if times > 1)
    problems += [f"data.source: column {name!r} is there twice; rename one of them" for name in twice]
    dropped = set(data.drop) - {data.target, data.time_column, *data.key}
    return problems + [
        f"column {name!r} holds values of type {kind}, which are no single values; take them apart in the source, or "
        "add the column to drop"
        for name, kind in nested(raw.loc[:, ~raw.columns.duplicated()]).items()
        if name not in dropped
    ]


def _tidied(raw: pd.DataFrame, data: Data) -> pd.DataFrame:
    """What can be told of the rows: a dropped column of lists says nothing about them."""
    as_text = {*data.categorical, *(set(data.key) & set(data.drop))}
    if pd.api.types.is_bool_dtype(raw[data.target].dtype):
        as_text.add(data.target)  # a label that says True is not the number 1
    return tidy(raw.drop(columns=list(nested(raw))), text=as_text)


def _dataset(frame: pd.DataFrame, time: pd.DatetimeIndex, policy: Policy, notes: tuple[str, ...]) -> Dataset:
    data = policy.data
    frame, time, flaws = _repeats(frame, time, data)
    order = np.argsort(time.asi8, kind="stable")
    apart = {data.target, *data.drop, *(() if data.time_column is None else (data.time_column,))}
    features = frame[[name for name in frame.columns if name not in apart]]
    return Dataset(
        features=features.iloc[order].reset_index(drop=True),
        target=_labels(frame[data.target]).iloc[order].reset_index(drop=True),
        time=time[order],
        notes=notes,
        flaws=flaws,
    )


def _repeats(
    frame: pd.DataFrame, time: pd.DatetimeIndex, data: Data
) -> tuple[pd.DataFrame, pd.DatetimeIndex, tuple[str, ...]]:
    """Exact repeats, dealt with as the policy says, and repeated keys."""
    flaws: list[str] = []
    again = repeated(frame)
    if data.duplicates == "drop":
        frame, time = frame[~again].reset_index(drop=True), time[~again]
    elif data.duplicates == "refuse" and again.any():
        remedy = "remove them, or set data.duplicates to drop or keep"
        flaws.append(
            f"data.duplicates: {int(again.sum())} rows repeat another one exactly (first at "
            f"{time[int(np.flatnonzero(again)[0])].isoformat()}); {remedy}"
        )
    if data.key:
        twice = repeated(frame[list(data.key)])
        if data.duplicates != "drop":
            twice &= ~again  # kept on purpose, or told above
        if twice.any():
            first = frame[list(data.key)].iloc[int(np.flatnonzero(twice)[0])].tolist()
            flaws.append(
                f"data.key: {int(twice.sum())} rows repeat the key {', '.join(data.key)} of another one (first "
                f"{', '.join(map(str, first))}); correct the source, or name the columns that identify a row"
            )
    return frame, time, tuple(flaws)


def repeated(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether a row was there before, as pandas tells it, shape (n,).

    A row that is there twice has values that are there twice in every column. In most data a column of measurements or
    identifiers has hardly any, and the other columns need not be looked at.
    """
    places = np.arange(len(frame))
    if len(frame) > _SEEN:
        seen = frame.iloc[np.linspace(0, len(frame) - 1, _SEEN).astype(np.intp)].nunique()
        for name in seen.sort_values(ascending=False, kind="stable").index[:2]:
            places = places[frame[name].iloc[places].duplicated(keep=False).to_numpy()]
    found = np.zeros(len(frame), dtype=np.bool_)
    found[places] = frame.iloc[places].duplicated().to_numpy()
    return found


def _labels(target: pd.Series[Any]) -> pd.Series[Any]:
    """As Python values: text, whole numbers as int, other numbers as float, None for no label."""
    if kind_of(target) == "category":
        return target
    values = target.to_numpy(dtype=np.float64)
    known = values[np.isfinite(values)]
    whole = bool((known == np.floor(known)).all()) and not np.isinf(values).any()
    made = [None if np.isnan(value) else int(value) if whole else float(value) for value in values]
    return pd.Series(made, dtype=object)


def validate(dataset: Dataset, policy: Policy) -> None:
    """Refuse rows that nothing should be trained on.

    Raises:
        DataError: Lists every problem.
    """
    if not len(dataset):
        raise DataError(
            f"data.lookback: the source has no rows in the last {policy.data.lookback.days} days; "
            "see that it is filled, or look back further"
        )
    problems = [*dataset.flaws, *_feature_problems(dataset.features), *_target_problems(dataset.target, policy)]
    if dataset.time[0] == dataset.time[-1]:
        problems.append(
            f"data.timestamp: all {len(dataset)} rows have the same moment {dataset.time[0].isoformat()}; the newest "
            "cannot be told from the oldest: name the column that says when a row came to be"
        )
    elif not problems:
        problems += _leak_problems(dataset.labelled, policy)
    if problems:
        raise DataError(*problems)


def _feature_problems(features: pd.DataFrame) -> list[str]:
    if not len(features.columns):
        return ["data.drop: no column is left to learn from; take some out of drop"]
    problems = []
    for name in features.columns:
        column = features[name]
        if column.isna().all():
            problems.append(
                f"column {name!r} is empty in all {len(column)} rows; correct the source, or add it to drop"
            )
        elif kind_of(column) == "number" and (count := int(np.isinf(column).sum())):
            row = int(np.flatnonzero(np.isinf(column))[0]) + 1
            problems.append(f"column {name!r} is infinite in {count} rows (first in row {row}); correct or drop it")
    return problems


def _target_problems(target: pd.Series[Any], policy: Policy) -> list[str]:
    data, known = policy.data, target.dropna()
    place = f"data.target {data.target!r}"
    if not len(known):
        return [f"{place} is empty in all {len(target)} rows; see that labels arrive, or name another column"]
    problems = _value_problems(known, place) if policy.problem == "regression" else _class_problems(known, policy)
    if len(known) < data.min_rows:
        problems.append(
            f"data.min_rows: {len(known)} labelled rows of {len(target)}; {data.min_rows} are needed: wait for more, "
            "look back further, or lower it"
        )
    return problems


def _texts(target: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series([text_of(label) for label in target], dtype=object)


def _value_problems(known: pd.Series[Any], place: str) -> list[str]:
    words = [value for value in known if isinstance(value, str)]
    if words:
        return [f"{place} holds {words[0]!r}, which is no number; correct it, or set problem to binary or multiclass"]
    values = known.to_numpy(dtype=np.float64)
    if count := int(np.isinf(values).sum()):
        return [f"{place} is infinite in {count} rows; correct them"]
    if np.ptp(values) == 0:
        return [f"{place} is {values[0]:g} in every labelled row; there is nothing to learn"]
    return []


def _class_problems(known: pd.Series[Any], policy: Policy) -> list[str]:
    place, positive = f"data.target {policy.data.target!r}", policy.data.positive
    counts = _texts(known).value_counts()
    shown = ", ".join(f"{label} ({count})" for label, count in counts.head(8).items())
    if len(counts) == 1:
        return [f"{place} has only one class: {shown}; look back further, so that both are there"]
    problems = []
    if policy.problem == "binary" and len(counts) > 2:
        problems.append(f"{place} has {len(counts)} classes: {shown}; correct them, or set problem to multiclass")
    if policy.problem == "binary" and positive is not None and positive not in counts.index:
        hint = near(positive, counts.index)
        problems.append(
            f"data.positive {positive!r} is not among the labels {shown}{hint}; write it as the source does"
        )
    return problems


def _leak_problems(labelled: Dataset, policy: Policy) -> list[str]:
    data, regression = policy.data, policy.problem == "regression"
    asked = labelled.features.drop(columns=[name for name in data.trusted if name in labelled.features])
    measure = "R2" if regression else "AUC"
    return [
        f"column {name!r} alone tells the target ({measure} {strength:.3f} on newer rows, data.leak is {data.leak:g}): "
        "it is probably known only afterwards; add it to drop, or to trusted if it is known in time"
        for name, strength in leaks.strengths(asked, labelled.target, regression=regression).items()
        if strength >= data.leak
    ]


def split(dataset: Dataset, policy: Policy, *, trained_until: datetime | None) -> Split:
    """Divide the labelled rows by time: the newest judge, the others train.

    Rows of one moment stay together. The holdout is the policy's share, or what of it is newer than
    ``trained_until``; the rows before it train.

    Args:
        dataset: Validated.
        policy: Of the model.
        trained_until: End, not included, of the rows that Production was fitted on; None without a Production version.

    Raises:
        NothingNew: When the holdout would have fewer rows than ``data.min_holdout``.
        DataError: When the rows cannot be divided, or those that train have one class only.
    """
    rows, data = dataset.labelled, policy.data
    boundary = _boundary(rows.time, data.holdout)
    if trained_until is not None:
        unseen = int(rows.time.searchsorted(pd.Timestamp(as_utc(trained_until))))
        if len(rows) - unseen < data.min_holdout:
            raise NothingNew(
                f"only {len(rows) - unseen} labelled rows are newer than what the Production version was trained on "
                f"(until {as_utc(trained_until):%Y-%m-%d %H:%M}); {data.min_holdout} are needed"
            )
        boundary = max(boundary, unseen)
    if len(rows) - boundary < data.min_holdout:
        raise NothingNew(
            f"the newest {data.holdout:.0%} are only {len(rows) - boundary} of {len(rows)} labelled rows; "
            f"data.min_holdout asks for {data.min_holdout}"
        )
    parts = Split(train=rows.take(slice(0, boundary)), holdout=rows.take(slice(boundary, None)))
    if len(set(parts.train.target)) < 2:
        raise DataError(
            f"data.holdout: the {boundary} labelled rows before {rows.time[boundary].isoformat()} hold fewer than "
            "two different labels to learn from; look back further"
        )
    return parts


def _boundary(time: pd.DatetimeIndex, share: float) -> int:
    """Where the holdout begins: the change of moment that comes nearest to the share."""
    wanted = len(time) - round(share * len(time))
    if not 0 < wanted < len(time):
        return wanted
    before = int(time.searchsorted(time[wanted], side="left"))
    after = int(time.searchsorted(time[wanted], side="right"))
    choices = [place for place in (before, after) if 0 < place < len(time)]
    return min(choices, key=lambda place: abs(place - wanted), default=0)


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the rows in the order of their time, the same on every machine.

    It does not depend on the order in which rows of one moment came, nor on that of the columns.
    """
    hashed = {f"feature {name}": _hashes(dataset.features[name]) for name in sorted(map(str, dataset.features))}
    hashed["target"] = _hashes(_texts(dataset.target))
    rows = np.zeros(len(dataset), dtype=np.uint64)
    for values in hashed.values():
        rows = (rows ^ values) * np.uint64(0x9E3779B97F4A7C15)
        rows ^= rows >> np.uint64(29)
    when = dataset.time.as_unit("us").asi8
    order = np.lexsort((rows, when))
    digest = hashlib.sha256(when[order].astype("<i8").tobytes())
    for name, values in hashed.items():
        digest.update(name.encode() + b"\0" + values[order].astype("<u8").tobytes())
    return digest.hexdigest()


def _hashes(column: pd.Series[Any]) -> NDArray[np.uint64]:
    """64 bits for each value: a float's own, a hash for a text."""
    if kind_of(column) == "number":
        values = column.to_numpy(dtype=np.float64) + 0.0  # -0.0 becomes 0.0
        return np.where(np.isnan(values), np.nan, values).astype("<f8").view("<u8").astype(np.uint64)
    codes, levels = pd.factorize(column)
    texts = [hashlib.blake2b(str(level).encode(), digest_size=8).digest() for level in levels]
    table = np.array([*(int.from_bytes(text, "little") for text in texts), 0], dtype=np.uint64)
    return table[codes]
