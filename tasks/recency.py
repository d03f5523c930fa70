"""Recency: the stretch of the training rows that a candidate learns from.

After a change most of the rows of the lookback are of a world that is gone. A policy names stretches that may teach
more than all of them, and the newest rows choose (Klinkenberg and Joachims 2000, section 4: one model for each of
several windows, compared on the newest batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from tasks.compute import ComputeError
from tasks.data import Dataset
from tasks.decide.metrics import Unmeasurable
from tasks.decide.recency import Choice, longest
from tasks.plugins import PluginError
from tasks.policy import Policy
from tasks.progress import Progress, silent
from tasks.records import Scores
from tasks.scoring import classes_of, score
from tasks.training import fit
from tasks.units import format_duration

_SHARE = 0.25
"""Of the shortest stretch, its newest part, that compares them."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is learned from.

    Attributes:
        rows: Labelled; their newest are those that were given.
        told: Why these, in one sentence; empty where there was nothing to choose.
    """

    rows: Dataset
    told: str = ""


def learned(policy: Policy, train: Dataset, progress: Progress = silent) -> Stretch:
    """Of all training rows and the policy's stretches of them, the longest that is not worse on the newest rows.

    Every stretch is fitted without the newest rows, which are then asked of each. A stretch that keeps fewer than
    ``data.min_rows`` rows to learn from, or lacks one of the classes, or that cannot be fitted, or whose model does not
    answer every row, is not tried: one that forgot a class could never say it again.

    Args:
        policy: Of the model; ``training.windows``.
        train: Labelled, oldest first.
        progress: Told how many were fitted.

    Raises:
        PluginError: When the estimator or trainer cannot be imported or does not take the parameters.
    """
    if not policy.training.windows or not len(train):
        return Stretch(train)
    end = train.time[-1].to_pydatetime() + timedelta(microseconds=1)
    cut = _cut(train, end - min(policy.training.windows), least=policy.data.min_holdout)
    judges = train.take(slice(cut, None))
    spans = (None, *sorted(policy.training.windows, reverse=True))
    tried: list[tuple[timedelta | None, Scores]] = []
    untried: list[str] = []
    for number, span in enumerate(spans):
        progress(number, len(spans), f"windows of {policy.model}")
        rows = _newest(train.take(slice(0, cut)), span, end)
        try:
            tried.append((span, _answers(policy, rows, judges, train)))
        except _Untried as reason:
            untried.append(f"{_named(span)} ({reason})")
    progress(len(spans), len(spans), f"windows of {policy.model}")
    try:
        choice = longest([scores for _, scores in tried])
    except Unmeasurable as reason:
        told = f"all rows: the newest {len(judges):,} could not tell windows apart ({reason})"
        return Stretch(train, told + _left_out(untried))
    span = tried[choice.place][0]
    told = _told(choice, [span for span, _ in tried], len(judges)) + _left_out(untried)
    return Stretch(_newest(train, span, end), told)


def _cut(train: Dataset, start: datetime, *, least: int) -> int:
    """Where the rows that compare begin: a quarter of the shortest stretch; rows of one moment stay together."""
    shortest = len(train) - int(train.time.searchsorted(pd.Timestamp(start)))
    wanted = max(0, len(train) - max(least, round(_SHARE * shortest)))
    return int(train.time.searchsorted(train.time[wanted]))


def _newest(rows: Dataset, span: timedelta | None, end: datetime) -> Dataset:
    if span is None:
        return rows
    return rows.take(slice(int(rows.time.searchsorted(pd.Timestamp(end) - span)), None))


class _Untried(Exception):
    """Why a stretch is no choice."""


def _answers(policy: Policy, rows: Dataset, judges: Dataset, train: Dataset) -> Scores:
    """What a stretch of the training rows would have answered.

    Raises:
        _Untried: When it cannot be a choice.
    """
    if len(rows) < policy.data.min_rows:
        raise _Untried(f"{len(rows):,} rows before those that compare, of data.min_rows {policy.data.min_rows:,}")
    if policy.problem != "regression" and (lost := set(train.target) - set(rows.target)):
        raise _Untried(f"without {', '.join(sorted(map(str, lost)))}")
    try:
        model = fit(policy, rows).model
        scores = score(model, judges, classes=classes_of(model, train, policy))
        longest([scores])
    except (PluginError, ComputeError):
        raise
    except Exception as error:  # where all rows cannot be fitted either, the fit that follows says so
        raise _Untried(f"{type(error).__name__}: {error}") from error
    return scores


def _left_out(untried: list[str]) -> str:
    return f"; not tried: {'; '.join(untried)}" if untried else ""


def _named(span: timedelta | None) -> str:
    return "all rows" if span is None else f"newest {format_duration(span)}"


def _told(choice: Choice, spans: list[timedelta | None], rows: int) -> str:
    names = [_named(span) for span in spans]
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, choice.values, strict=True))
    return f"{names[choice.place]}: {choice.metric} on the newest {rows:,} training rows: {values}"
