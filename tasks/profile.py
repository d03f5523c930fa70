"""Profile: distributions as counts, which can be taken chunk by chunk and added, and kept as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pandas as pd

from tasks.bins import Filled, edges_of, fill, fill_and_step, in_order, outline, steps_of
from tasks.columns import Kind
from tasks.compute import each, pieces
from tasks.decide import levels
from tasks.decide.estimate import EDGES
from tasks.held import Floats, Held, Plain, Ranked, Words, ranked, read, whole
from tasks.records import ColumnProfile, Measurement, Profile, Scores, Span, Steps, Sureness, to_plain
from tasks.texts import Texts

PREDICTION = "(prediction)"
"""Name of the profile of a model's own answers."""

NAMED = 100
"""So many levels, the most frequent ones, have a count of their own; the others share the last one."""


def describe(features: pd.DataFrame, *, ks: bool = False) -> tuple[ColumnProfile, ...]:
    """The reference: bins made for these rows, and their counts.

    A number has its deciles as edges. A value that fills a decile or more (a constant, a zero that stands for nothing)
    has a bin of its own, so that leaving it shows in both directions. A category has its 100 most frequent levels.

    Args:
        features: n rows, tidy (see :func:`tasks.columns.tidy`) or as a source gave them (see :func:`tasks.held.read`).
        ks: Keep what the Kolmogorov-Smirnov distance needs: 1,024 steps of each number's distribution.
    """
    return tuple(each(_described, [(str(name), features[name], ks) for name in features.columns]))


def _described(name: str, column: pd.Series[Any], ks: bool) -> ColumnProfile:
    return describe_held(name, read(column), ks=ks)


def describe_held(name: str, held: Held, *, ks: bool = False) -> ColumnProfile:
    """The same of one column that was read (see :mod:`tasks.held`)."""
    if isinstance(held, Words | Texts):
        first = held.most(NAMED + 1)
        rows = zip(first, held.of(first), strict=True)
        return most_frequent(name, list(rows), present=held.present, nulls=held.nulls)
    order = whole(held.values) if isinstance(held, Plain) else held
    if isinstance(held, Plain) and order is None:
        if (seen := outline(held.values, ks=ks)) is not None:
            return _filled(ColumnProfile(name=name, kind="number", edges=seen.edges), seen.filled, seen.steps)
        order = ranked(held.values)
    assert order is not None  # noqa: S101  for mypy
    edges = edges_of(order)
    found = ColumnProfile(name=name, kind="number", edges=edges)
    return _filled(found, in_order(order, edges), steps_of(order) if ks else None)


def most_frequent(name: str, first: Sequence[tuple[str, int]], *, present: int, nulls: int) -> ColumnProfile:
    """The reference of a category.

    Args:
        name: Of the column.
        first: The :data:`NAMED` most frequent levels and one more, if there are as many, with how many rows hold each;
            the first in the alphabet among equals.
        present: Rows with a value.
        nulls: Rows without one.
    """
    named, following = first[:NAMED], (*first[NAMED:], ("", 0))[0]
    counts = tuple(rows for _, rows in named)
    others = present - sum(counts)
    return ColumnProfile(
        name=name,
        kind="category",
        categories=tuple(level for level, _ in named),
        counts=(*counts, others),
        nulls=nulls,
        outside=levels.outside(named, following, others),
    )


def count(features: pd.DataFrame, reference: Sequence[ColumnProfile]) -> tuple[ColumnProfile, ...]:
    """Other rows in the bins of a reference.

    A column that is not there is left out. One whose kind has changed comes back with its new kind and a single bin;
    one without any value keeps the kind of the reference.

    Args:
        features: n rows, as for :func:`describe`.
        reference: From :func:`describe`.
    """
    known = tuple(column for column in reference if column.name in features.columns)
    parts = pieces(len(features))
    if len(parts) > 1:
        counted = each(_counted, [(features.iloc[part], known) for part in parts])
        if all(_alike(columns) for columns in zip(*counted, strict=True)):
            return tuple(reduce(merge, columns) for columns in zip(*counted, strict=True))
    return _counted(features, known)


def _counted(features: pd.DataFrame, reference: Sequence[ColumnProfile]) -> tuple[ColumnProfile, ...]:
    return tuple(count_held(read(features[column.name]), column) for column in reference)


def _alike(columns: Sequence[ColumnProfile]) -> bool:
    """Whether pieces of a column are of one kind; else only the whole column can say which one it is."""
    return len({(one.kind, one.edges, one.categories) for one in columns}) == 1


def count_held(held: Held, reference: ColumnProfile) -> ColumnProfile:
    """The same of one column that was read (see :mod:`tasks.held`)."""
    if held.kind != reference.kind:
        return unlike(reference, held.kind, held.present, held.nulls)
    return _count_numbers(held, reference) if isinstance(held, Plain | Ranked) else _count_words(held, reference)


def unlike(reference: ColumnProfile, kind: Kind, present: int, nulls: int) -> ColumnProfile:
    """A column of another kind than it had. One without any value has none of its own."""
    if not present:
        return replace(_empty(reference), nulls=nulls)
    return ColumnProfile(name=reference.name, kind=kind, counts=(present,), nulls=nulls)


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
    if (first.steps and first.steps.at) != (second.steps and second.steps.at):
        raise ValueError(f"profiles of {first.name!r} with different steps cannot be added; count both alike")
    return replace(
        first,
        counts=tuple(a + b for a, b in zip(first.counts, second.counts, strict=True)),
        nulls=first.nulls + second.nulls,
        infinite=first.infinite + second.infinite,
        low=min((low for low in (first.low, second.low) if low is not None), default=None),
        high=max((high for high in (first.high, second.high) if high is not None), default=None),
        score=second.score if first.score is None else first.score,
        steps=_both(first.steps, second.steps),
    )


def _both(first: Steps | None, second: Steps | None) -> Steps | None:
    if first is None or second is None:
        return None
    below, upto = (
        tuple(map(add, mine, other)) for mine, other in ((first.below, second.below), (first.upto, second.upto))
    )
    return Steps(at=first.at, below=below, upto=upto)


def describe_prediction(scores: Scores) -> ColumnProfile:
    """The reference of a model's answers: the probability of the positive class, the value, or the class."""
    values = _answers(scores)
    if values is not None:
        return describe_held(PREDICTION, Plain(values))
    return _classes(scores, scores.classes)


def count_prediction(scores: Scores, reference: ColumnProfile) -> ColumnProfile:
    """Other answers in the bins of a reference."""
    values = _answers(scores)
    if reference.kind == "category":
        return _classes(scores, reference.categories)
    if values is None:
        return ColumnProfile(name=PREDICTION, kind="category", counts=(len(scores.prediction),))
    return _count_numbers(Plain(values), reference)


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
    steps = plain.get("steps")
    return ColumnProfile(**{**_tuples(plain), "steps": None if steps is None else Steps(**_tuples(steps))})


def _tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(item) if isinstance(item, list) else item for name, item in plain.items()}


def _sureness(plain: Sequence[Mapping[str, float]] | None) -> tuple[Sureness, ...] | None:
    return None if plain is None else tuple(Sureness(**degree) for degree in plain)  # type: ignore[arg-type]


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    # to_plain writes a value that is no number as null; it must not come back as one that passes.
    return Measurement(**{**plain, "value": math.nan if plain["value"] is None else plain["value"]})


def _span(plain: Mapping[str, str]) -> Span:
    return Span(start=datetime.fromisoformat(plain["start"]), end=datetime.fromisoformat(plain["end"]))


def _empty(reference: ColumnProfile) -> ColumnProfile:
    bins, steps = len(reference.edges) + len(reference.categories) + 1, reference.steps
    if steps is not None:
        none = (0,) * len(steps.at)
        steps = Steps(at=steps.at, below=none, upto=none)
    return replace(reference, counts=(0,) * bins, nulls=0, infinite=0, low=None, high=None, score=None, steps=steps)


def _count_numbers(values: Plain | Ranked, reference: ColumnProfile) -> ColumnProfile:
    if reference.steps is None:
        filled, steps = fill(values, reference.edges), None
    else:
        filled, steps = fill_and_step(values, reference.edges, reference.steps.at)
    return _filled(_empty(reference), filled, steps)


def _filled(empty: ColumnProfile, filled: Filled, steps: Steps | None) -> ColumnProfile:
    return replace(
        empty,
        counts=tuple(filled.counts.tolist()),
        nulls=filled.nulls,
        infinite=filled.infinite,
        low=filled.low + 0.0 if math.isfinite(filled.low) else None,  # no minus zero
        high=filled.high + 0.0 if math.isfinite(filled.high) else None,
        steps=steps,
    )


def _count_words(words: Words | Texts, reference: ColumnProfile) -> ColumnProfile:
    counts = words.of(reference.categories)
    return replace(_empty(reference), counts=(*counts, words.present - sum(counts)), nulls=words.nulls)


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
