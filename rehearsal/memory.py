"""Memory: the rows of a history, and what was computed from them once, for every policy that is played on them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tasks import candidate as candidates
from tasks.data import Dataset, Split
from tasks.decide.metrics import subset
from tasks.policy import Policy
from tasks.records import Profile, Scores
from tasks.scoring import classes_of, score
from tasks.training import fit


class Model:
    """A fitted model in the memory. It answers everything that comes after its training once, and is then looked up.

    Attributes:
        model: Has predict, and predict_proba where it can.
        profile: Its reference; None for one that is only compared with.
        holdout: Its answers on its own holdout, or None.
    """

    def __init__(self, model: Any, rows: Dataset, policy: Policy, start: datetime, end: datetime | None = None) -> None:
        """Nothing is asked yet.

        Args:
            model: Fitted.
            rows: Of the whole history.
            policy: Of the model.
            start: Moment from which on its answers are kept.
            end: Until when; None: to the end of the history.
        """
        self.model = model
        self.profile: Profile | None = None
        self.holdout: Scores | None = None
        self._rows, self._policy = rows, policy
        self._first = int(rows.time.searchsorted(pd.Timestamp(start)))
        self._last = len(rows) if end is None else int(rows.time.searchsorted(pd.Timestamp(end)))
        self._kept: Scores | None = None
        self._fails = False

    def answers(self, rows: Dataset, classes: tuple[str, ...] | None = None) -> Scores:
        """As :func:`tasks.scoring.score` gives them.

        Args:
            rows: Of the history; where they are all of a stretch of it, what was answered before is taken.
            classes: Empty in regression; None: those of the model and the rows.

        Raises:
            Exception: Whatever the model raises.
        """
        asked = classes_of(self.model, rows, self._policy) if classes is None else classes
        place = self._place(rows)
        if place is not None and (kept := self._everything()) is not None and kept.classes == asked:
            return _relabelled(subset(kept, np.arange(place, place + len(rows))), rows)
        return score(self.model, rows, classes=asked)

    def _place(self, rows: Dataset) -> int | None:
        """Where the rows begin in what is kept; None where they are not a stretch of it."""
        if not len(rows):
            return None
        first = int(self._rows.time.searchsorted(rows.time[0]))
        last = int(self._rows.time.searchsorted(rows.time[-1], side="right"))
        inside = self._first <= first and last <= self._last
        return first - self._first if inside and last - first == len(rows) else None

    def _everything(self) -> Scores | None:
        if self._kept is None and not self._fails:
            rest = self._rows.take(slice(self._first, self._last))
            try:
                self._kept = score(self.model, rest, classes=classes_of(self.model, rest, self._policy))
            except Exception:  # noqa: BLE001  rows that it cannot answer may come much later: then a stretch at a time
                self._fails = True
        return self._kept


def _relabelled(scores: Scores, rows: Dataset) -> Scores:
    """Without the labels that are not known yet."""
    unknown = rows.target.isna().to_numpy()
    if not unknown.any():
        return scores
    return replace(scores, truth=np.where(unknown, -1 if scores.classes else np.nan, scores.truth))


class Memory:
    """What is played on: all rows, and every model that was fitted on some of them.

    Attributes:
        rows: Everything that will ever have happened, oldest first.
        fits: How many models were fitted.
    """

    def __init__(self, rows: Dataset) -> None:
        self.rows = rows
        self.fits = 0
        self._candidates: dict[tuple[Any, ...], Model | Exception] = {}
        self._references: dict[tuple[Any, ...], Model] = {}

    def window(self, start: datetime, end: datetime, *, known: datetime | None = None) -> Dataset:
        """The rows with ``start <= t < end``, as the flow would have loaded them at ``end``.

        Args:
            start: Of the window.
            end: Of the window.
            known: Rows from then on have no label yet; None: all have theirs.
        """
        rows = self.rows.between(start, end)
        late = None if known is None else np.asarray(rows.time >= pd.Timestamp(known))
        if late is None or not late.any():
            return rows
        target = rows.target.to_numpy(dtype=object, copy=True)
        target[late] = None
        return replace(rows, target=pd.Series(target, dtype=object))

    def candidate(self, policy: Policy, parts: Split, now: datetime, *, search: bool) -> Model:
        """A model as the retrain flow makes one, fitted once for all policies that would make the same.

        Raises:
            TrainingError: As :func:`tasks.candidate.attempt`; again each time it is asked for.
        """
        key = (*_made_by(policy), *_measured_by(policy), _span(parts.train), _span(parts.holdout), now, search)
        if key not in self._candidates:
            self._candidates[key] = self._attempted(policy, parts, now, search=search)
        found = self._candidates[key]
        if isinstance(found, Exception):
            raise found
        return found

    def _attempted(self, policy: Policy, parts: Split, now: datetime, *, search: bool) -> Model | Exception:
        self.fits += 1
        try:
            tried = candidates.attempt(policy, parts, now, search=search, leans=False)
        except Exception as error:  # noqa: BLE001  what fails once fails for every policy that asks for the same
            return error
        made = Model(tried.fitted.model, self.rows, policy, parts.holdout.time[0].to_pydatetime())
        made.profile, made.holdout = tried.profile, tried.scores
        return made

    def reference(self, policy: Policy, now: datetime, until: datetime, known: datetime | None = None) -> Model:
        """A model fitted on everything that the lookback reaches at a moment, with nothing held out.

        Args:
            policy: Of the model.
            now: The moment.
            until: When it will be asked last.
            known: See :meth:`window`.

        Raises:
            TrainingError: When it cannot be fitted.
        """
        key = (*_made_by(policy), policy.data.lookback, now, until, known)
        if key not in self._references:
            self.fits += 1
            train = self.window(now - policy.data.lookback, now, known=known).labelled
            self._references[key] = Model(fit(policy, train, search=False).model, self.rows, policy, now, until)
        return self._references[key]


def _made_by(policy: Policy) -> tuple[Any, ...]:
    """What of a policy decides how a model comes out of its rows."""
    return (policy.problem, policy.data.positive, policy.data.source_version, policy.training.model_dump_json())


def _measured_by(policy: Policy) -> tuple[str, ...]:
    rules = (policy.triggers.performance, policy.gate.performance, policy.gate.regression)
    return tuple("" if rule is None else rule.metric for rule in rules)


def _span(rows: Dataset) -> tuple[Any, ...]:
    return (len(rows), rows.time[0], rows.time[-1])


def served(parts: list[tuple[Model, Dataset]], policy: Policy, others: tuple[Model, ...] = ()) -> Scores:
    """The answers of several models, each to its own rows, as those of one.

    Args:
        parts: Models with their rows, in the order of time; at least one.
        policy: Of the models.
        others: Models that are to be compared with these on the same rows; their classes count too.
    """
    everybody = [model for model, _ in parts] + list(others)
    known = [label for one in everybody for label in getattr(one.model, "classes_", ())]
    whole = SimpleNamespace(labels=([level for _, rows in parts for level in rows.labels[0]], None))
    stand_in: Any = SimpleNamespace(classes_=known)
    classes = classes_of(stand_in, whole, policy)  # type: ignore[arg-type]
    answers = [model.answers(rows, classes) for model, rows in parts]
    probabilities = [one.probability for one in answers]
    return Scores(
        truth=np.concatenate([one.truth for one in answers]),
        prediction=np.concatenate([one.prediction for one in answers]),
        probability=None if any(one is None for one in probabilities) else np.concatenate(probabilities),  # type: ignore[arg-type]
        classes=classes,
    )
