"""Upstream: what the source's columns have become since a model was trained, in sentences for a person.

Everything that every column has to be asked is in its counts, which drift needs as well; rows are looked at only to
name the values that are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.decide import levels as outside
from tasks.decide.intervals import newcombe
from tasks.policy_problem import near
from tasks.records import ColumnProfile

_NOTICEABLE = 0.01
"""Share of the rows from which on unknown categories are a change."""
_BY_CHANCE = 0.001
"""Chance that an evaluation calls them a change where nothing changed, over all columns. Nothing confirms a change
upstream, and no budget counts it."""
_HINTS = 5
"""Lost columns that are compared with every new one, to say what became of them; a table that was made anew has
thousands of both."""
_TOLD = 20
"""Columns that are told one by one, of those that are gone, new or changed; who is on call reads this."""


def changes(
    features: pd.DataFrame, reference: Sequence[ColumnProfile], recent: Sequence[ColumnProfile]
) -> tuple[str, ...]:
    """What changed since a model was trained, a sentence each; nothing where there are no rows to tell.

    Of very many one sentence says how many more there are.

    Args:
        features: n recent rows, tidy.
        reference: Of the rows that trained the model.
        recent: The same rows in its bins, from :func:`tasks.profile.count`.
    """
    if not len(features):
        return ()
    here, known = set(features.columns), {column.name: column for column in reference}
    fresh = [name for name in features.columns if name not in known]
    gone = [name for name in known if name not in here]
    lost = [f"column {name!r} is gone{near(name, fresh) if place < _HINTS else ''}" for place, name in enumerate(gone)]
    confidence = 1 - _BY_CHANCE / max(len(known), 1)
    counted = {column.name: column for column in recent}
    there = (name for name in features.columns if name in known)
    other = [change for name in there if (change := _change(features, counted[name], known[name], confidence))]
    return (
        *_first(lost, "columns are gone"),
        *_first([f"column {name!r} is new" for name in fresh], "columns are new"),
        *_first(other, "columns changed what they hold"),
    )


def _first(sentences: list[str], others: str) -> list[str]:
    more = len(sentences) - _TOLD
    return [*sentences[:_TOLD], f"{more:,} more {others}"] if more > 1 else sentences


def _change(features: pd.DataFrame, now: ColumnProfile, before: ColumnProfile, confidence: float) -> str:
    if not before.present or not now.present:
        return ""  # nulls have no kind; how many there are is drift
    if now.kind != before.kind:
        first = features[now.name].dropna().iloc[0]
        return f"column {now.name!r} was a {before.kind} and is a {now.kind} now (first value {first!r})"
    if now.kind == "number":
        return _infinite(now, before, confidence)
    several, rows = now.counts[-1], now.present
    if outside.more(several, rows, before, confidence) <= _NOTICEABLE:
        return ""
    names = _newest(features[now.name], before)
    if not before.counts[-1]:
        return f"column {now.name!r} has categories that it did not have: {names} in {several / rows:.0%} of rows"
    # The reference names its most frequent levels only; the rest it counted together.
    usual = outside.expected(before)
    return (
        f"column {now.name!r} has categories that were not among its {len(before.categories)} most frequent ones: "
        f"{names} and others in {several / rows:.0%} of rows, where {usual:.0%} were to be expected"
    )


def _newest(column: pd.Series[Any], before: ColumnProfile) -> str:
    """The most frequent of the values that the reference does not name."""
    levels = column.value_counts(sort=False)
    new = levels[~levels.index.isin(before.categories)].sort_values(ascending=False, kind="stable")
    return ", ".join(repr(name) for name in new.index[:3])


def _infinite(now: ColumnProfile, before: ColumnProfile, confidence: float) -> str:
    if not now.infinite:
        return ""
    low, _ = newcombe(now.infinite, now.present, before.infinite, before.present, confidence)
    if low <= _NOTICEABLE:
        return ""
    share, usual = now.infinite / now.present, before.infinite / before.present
    return f"column {now.name!r} is infinite in {share:.0%} of rows, where it was in {usual:.0%}"
