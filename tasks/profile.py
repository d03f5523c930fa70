"""Profile: distributions as counts, which can be taken chunk by chunk and added, and kept as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.columns import kind_of
from tasks.decide.estimate import EDGES
from tasks.records import ColumnProfile, Measurement, Profile, Scores, Span, Sureness, to_plain

PREDICTION = "(prediction)"
"""Name of the profile of a model's own answers."""

_CATEGORIES = 100
"""The most frequent levels have a count of their own, the others share the last one."""

_BLOCK = 1 << 15
"""Rows counted at a time: they stay in the processor's cache while they are held against every edge."""

Floats = NDArray[np.float64]


def describe(features: pd.DataFrame) -> tuple[ColumnProfile, ...]:
    """The reference: bins made for these rows, and their counts.

    A number has its deciles as edges. A value that fills a decile or more (a constant, a zero that stands for nothing)
    has a bin of its own, so that leaving it shows in both directions. A category has its 100 most frequent levels.

    Args:
        features: n rows, tidy (see :func:`tasks.columns.tidy`).
    """
    return tuple(
        _describe_number(str(name), _floats(features[name]))
        if kind_of(features[name]) == "number"
        else _describe_category(str(name), features[name])
        for name in features.columns
    )


def count(features: pd.DataFrame, reference: Sequence[ColumnProfile]) -> tuple[ColumnProfile, ...]:
    """Other rows in the bins of a reference.

    A column that is not there is left out. One whose kind has changed comes back with its new kind and a single bin;
    one without any value keeps the kind of the reference.

    Args:
        features: n rows, tidy.
        reference: From :func:`describe`.
    """
    return tuple(_count(features[column.name], column) for column in reference if column.name in features.columns)


def merge(first: ColumnProfile, second: ColumnProfile) -> ColumnProfile:
    """Both together. Exact, so the order and the grouping of many do not matter.

    Raises:
        ValueError: When the two do not have the same bins.
    """
    for what in ("name", "kind", "edges", "categories"):
        mine, other = getattr(first, what), getattr(second, what)
        if mine != other:
            raise ValueError(
                f"profiles with different {what} cannot be added: {mine!r} and {other!r}; count both alike"
            )
    return replace(
        first,
        counts=tuple(a + b for a, b in zip(first.counts, second.counts, strict=True)),
        nulls=first.nulls + second.nulls,
        low=min((low for low in (first.low, second.low) if low is not None), default=None),
        high=max((high for high in (first.high, second.high) if high is not None), default=None),
        score=second.score if first.score is None else first.score,
    )


def describe_prediction(scores: Scores) -> ColumnProfile:
    """The reference of a model's answers: the probability of the positive class, the value, or the class."""
    values = _answers(scores)
    if values is not None:
        return _describe_number(PREDICTION, values)
    return _classes(scores, scores.classes)


def count_prediction(scores: Scores, reference: ColumnProfile) -> ColumnProfile:
    """Other answers in the bins of a reference."""
    values = _answers(scores)
    if reference.kind == "category":
        return _classes(scores, reference.categories)
    if values is None:
        return ColumnProfile(name=PREDICTION, kind="category", counts=(len(scores.prediction),))
    return _count_number(values, reference)


def sureness(scores: Scores) -> tuple[Sureness, ...] | None:
    """A classifier's answers by how sure it is of them; None where it gives no probabilities."""
    if scores.probability is None or not len(scores.prediction):
        return None
    known = scores.prediction >= 0
    said = scores.probability[np.arange(len(scores.prediction)), np.where(known, scores.prediction, 0)]
    known &= np.isfinite(said)
    degrees = np.searchsorted(EDGES, np.where(known, said, 0.0), side="right")
    labelled = known & (scores.truth >= 0)
    right = labelled & (scores.prediction == scores.truth)
    sums = [np.bincount(degrees[mask], minlength=len(EDGES) + 1).tolist() for mask in (known, labelled, right)]
    sums.append(np.bincount(degrees[labelled], weights=said[labelled], minlength=len(EDGES) + 1).tolist())
    return tuple(Sureness(*degree) for degree in zip(*sums, strict=True))


def to_json(profile: Profile) -> str:
    """As JSON text."""
    return json.dumps(to_plain(profile), indent=1)


def from_json(text: str) -> Profile:
    """Read what :func:`to_json` wrote.

    Raises:
        ValueError: For anything else.
    """
    return from_plain(json.loads(text))


def from_plain(plain: Mapping[str, Any]) -> Profile:
    """A profile from plain JSON values.

    Raises:
        ValueError: Names what is missing or unreadable.
    """
    try:
        prediction = plain["prediction"]
        return Profile(
            columns=tuple(_column(column) for column in plain["columns"]),
            prediction=None if prediction is None else _column(prediction),
            metrics=tuple(_measurement(metric) for metric in plain["metrics"]),
            rows=int(plain["rows"]),
            labelled=int(plain["labelled"]),
            trained_at=datetime.fromisoformat(plain["trained_at"]),
            trained=_span(plain["trained"]),
            holdout=_span(plain["holdout"]),
            fingerprint=str(plain["fingerprint"]),
            source_version=plain.get("source_version"),
            errors=None if plain.get("errors") is None else (int(plain["errors"][0]), int(plain["errors"][1])),
            error_limit=plain.get("error_limit"),
            sureness=_sureness(plain.get("sureness")),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no profile, {error!r} is missing or wrong; train the model again") from error


def _column(plain: Mapping[str, Any]) -> ColumnProfile:
    values: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in plain.items()}
    return ColumnProfile(**values)


def _sureness(plain: Sequence[Mapping[str, float]] | None) -> tuple[Sureness, ...] | None:
    return None if plain is None else tuple(Sureness(**degree) for degree in plain)  # type: ignore[arg-type]


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    # to_plain writes a value that is no number as null; it must not come back as one that passes.
    return Measurement(**{**plain, "value": math.nan if plain["value"] is None else plain["value"]})


def _span(plain: Mapping[str, str]) -> Span:
    return Span(start=datetime.fromisoformat(plain["start"]), end=datetime.fromisoformat(plain["end"]))


def _floats(column: pd.Series[Any]) -> Floats:
    return column.to_numpy(dtype=np.float64)


def _describe_number(name: str, values: Floats) -> ColumnProfile:
    finite = values[np.isfinite(values)]
    edges: tuple[float, ...] = ()
    if finite.size:
        # Edges are values of the data themselves, so that a repeated value never lies astride of one.
        deciles = np.quantile(finite, np.arange(1, 10) / 10, method="inverted_cdf")
        unique, times = np.unique(deciles, return_counts=True)
        heavy = unique[(times > 1) | (unique == finite.min())]
        below = np.nextafter(heavy, -np.inf)
        edges = tuple(np.union1d(unique, below[np.isfinite(below)]).tolist())
    return _count_number(values, ColumnProfile(name=name, kind="number", edges=edges))


def _describe_category(name: str, column: pd.Series[Any]) -> ColumnProfile:
    counts = column.value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    levels = tuple(str(level) for level, _ in ordered[:_CATEGORIES])
    return _count_category(column, ColumnProfile(name=name, kind="category", categories=levels))


def _count(column: pd.Series[Any], reference: ColumnProfile) -> ColumnProfile:
    present = int(column.notna().sum())
    if not present:
        return replace(_empty(reference), nulls=len(column))
    if kind_of(column) != reference.kind:
        kind = kind_of(column)
        return ColumnProfile(name=reference.name, kind=kind, counts=(present,), nulls=len(column) - present)
    if reference.kind == "number":
        return _count_number(_floats(column), reference)
    return _count_category(column, reference)


def _empty(reference: ColumnProfile) -> ColumnProfile:
    bins = len(reference.edges) + len(reference.categories) + 1
    return replace(reference, counts=(0,) * bins, nulls=0, low=None, high=None, score=None)


def _count_number(values: Floats, reference: ColumnProfile) -> ColumnProfile:
    """Counting ``x <= edge`` edge by edge is several times faster than a search per value; NaN is <= nothing."""
    upto = np.zeros(len(reference.edges), dtype=np.int64)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        upto += np.array([np.count_nonzero(block <= edge) for edge in reference.edges], dtype=np.int64)
    nulls = int(np.count_nonzero(np.isnan(values)))
    counts = np.diff(np.r_[0, upto, values.size - nulls])
    finite = values[np.isfinite(values)]
    return replace(
        _empty(reference),
        counts=tuple(counts.tolist()),
        nulls=nulls,
        low=float(finite.min()) if finite.size else None,
        high=float(finite.max()) if finite.size else None,
    )


def _count_category(column: pd.Series[Any], reference: ColumnProfile) -> ColumnProfile:
    found = column.value_counts()
    counts = [int(found.get(level, 0)) for level in reference.categories]
    present = int(found.sum())
    return replace(_empty(reference), counts=(*counts, present - sum(counts)), nulls=len(column) - present)


def _answers(scores: Scores) -> Floats | None:
    """The answers as numbers, or None when they are classes."""
    if not scores.classes:
        return np.asarray(scores.prediction, dtype=np.float64)
    if scores.probability is not None and len(scores.classes) == 2:
        return np.asarray(scores.probability[:, 1], dtype=np.float64)
    return None


def _classes(scores: Scores, categories: tuple[str, ...]) -> ColumnProfile:
    codes = np.asarray(scores.prediction, dtype=np.float64)
    known = np.isfinite(codes) & (codes >= 0) & (codes < len(scores.classes))
    by_class = np.bincount(codes[known].astype(np.intp), minlength=len(scores.classes))
    found = dict(zip(scores.classes, by_class.tolist(), strict=True))
    counts = [found.get(level, 0) for level in categories]
    nulls = int(np.count_nonzero(~known))
    return ColumnProfile(
        name=PREDICTION,
        kind="category",
        categories=categories,
        counts=(*counts, codes.size - nulls - sum(counts)),
        nulls=nulls,
    )
