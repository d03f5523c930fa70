"""Signals: right and wrong answers are put down day by day, for classes and for amounts, and nothing is made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from tasks.data import Dataset
from tasks.records import Profile, Scores, Span
from tasks.signals import _errors, _saw
from tasks.training import errors_of

END = datetime(2026, 1, 1, 6, tzinfo=UTC)
DAY = timedelta(days=1)


def profile(limit: float | None = None) -> Profile:
    span = Span(start=END - 9 * DAY, end=END)
    return Profile(
        columns=(),
        prediction=None,
        metrics=(),
        rows=1,
        labelled=1,
        trained_at=END,
        trained=span,
        holdout=span,
        fingerprint="x",
        error_limit=limit,
    )


def rows(hours: list[float], target: list[object]) -> Dataset:
    time = pd.DatetimeIndex([END + timedelta(hours=hour) for hour in hours])
    return Dataset(features=pd.DataFrame({"x": hours}), target=pd.Series(target, dtype=object), time=time)


def test_days_begin_with_the_end_of_the_holdout_and_one_without_rows_is_there_with_nothing() -> None:
    data = rows([0, 23.9, 24, 73], ["a", "b", None, "a"])
    scores = Scores(truth=np.array([0, 1, -1, 0]), prediction=np.array([0, 0, 1, -1]), classes=("a", "b"))
    looks = _errors(profile(), data, scores)
    assert looks is not None
    assert [look.start for look in looks] == [END + number * DAY for number in range(4)]
    assert [(look.requests, look.labelled, look.wrong) for look in looks] == [
        (2, 2, 1),
        (1, 0, 0),
        (0, 0, 0),
        (1, 1, 1),
    ], "an answer that is none is wrong, a row without a label is not"


def test_days_that_the_lookback_no_longer_holds_are_not_there() -> None:
    looks = _errors(
        profile(), rows([240], ["a"]), Scores(truth=np.zeros(1), prediction=np.zeros(1), classes=("a", "b"))
    )
    assert looks is not None
    assert [look.start for look in looks] == [END + 10 * DAY]


def test_amounts_are_wrong_when_further_off_than_the_limit_of_the_holdout() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=1000)
    limit, (far, answers) = errors_of(Scores(truth=truth, prediction=truth + draw.normal(size=1000)))
    assert limit is not None
    assert (far, answers) == (100, 1000)
    data = rows([1, 2, 3, 4], [1.0, 1.0, None, 1.0])
    said = np.array([1 + 0.99 * limit, 1 - 1.01 * limit, 9.0, np.nan])
    looks = _errors(profile(limit), data, Scores(truth=np.array([1.0, 1.0, np.nan, 1.0]), prediction=said))
    assert looks is not None
    assert [(look.requests, look.labelled, look.wrong) for look in looks] == [(4, 3, 2)]


def test_without_the_limit_of_the_holdout_nothing_is_known_of_amounts() -> None:
    scores = Scores(truth=np.ones(1), prediction=np.ones(1))
    assert _errors(profile(), rows([1], [1.0]), scores) is None


def test_evaluations_are_told_apart_by_new_rows_and_by_new_labels() -> None:
    some = rows([1, 2], ["a", None])
    assert _saw(some) == _saw(rows([1, 2], ["b", None]))
    assert len({_saw(some), _saw(rows([1, 2], ["a", "b"])), _saw(rows([1, 3], ["a", None])), _saw(rows([], []))}) == 4
