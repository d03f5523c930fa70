"""Signals: everything the triggers look at, read once.

What cannot be read is named in ``Signals.unavailable``; it never stops the reading of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import compute, freshness, upstream
from tasks import profile as profiles
from tasks.case import Case
from tasks.data import Dataset, load
from tasks.decide.concept import DAY
from tasks.decide.metrics import Unmeasurable, measure
from tasks.expression import TRIGGERS
from tasks.past import earlier
from tasks.plugins import custom_metric
from tasks.policy import Policy
from tasks.progress import Course, Progress, silent
from tasks.records import (
    ColumnProfile,
    Domain,
    Look,
    Measurement,
    Profile,
    Scores,
    Signals,
    Standing,
    Sureness,
    Urgency,
)
from tasks.scoring import classes_of, score

Ask = Callable[[Dataset], Scores]
"""Gives a version's answers to rows; raises whatever its model raises."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The signals, and the rows they were read from, so that nothing reads them again.

    Attributes:
        signals: For the triggers.
        dataset: Rows of the lookback window.
        basis: By which a later run sees that it would read the same; None when it could not tell.
    """

    signals: Signals
    dataset: Dataset
    basis: Mapping[str, Any] | None = None


def observe(
    case: Case, standing: Standing, *, event: str | None = None, urgency: Urgency = "high", progress: Progress = silent
) -> Observed:
    """Read the lookback window once, and from it everything that the triggers ask.

    Args:
        case: Whose model.
        standing: What the ledger says.
        event: Reason of a person or an event that asks for a retraining.
        urgency: As given with it.
        progress: Told how far it is.

    Raises:
        DataError: When the source cannot be read.
    """
    course = Course(progress, f"evaluation of {case.model}", 3)
    observed = _observed(case, standing, event, urgency, course)
    course.end()
    return observed


def _observed(case: Case, standing: Standing, event: str | None, urgency: Urgency, course: Course) -> Observed:
    policy, seen = case.policy, None
    with suppress(freshness.Unsure):  # before the rows: what comes while they are read is new to the next run
        start, end = case.now - policy.data.lookback, case.now + freshness.LONGEST
        seen = freshness.sample(policy, start=start, end=end)
    dataset = load(policy, case.stores, start=case.now - policy.data.lookback, end=case.now, remember=not case.dry_run)
    course.past()
    back = case.ledger.last_rollback(case.model)
    known = {
        "now": case.now,
        "event": event,
        "event_urgency": urgency,
        "production": standing.production,
        "rolled_back_from": back.previous if back is not None else None,
        "rolled_back_at": back.applied_at if back is not None else None,
        **earlier(case, standing),
    }
    if standing.production is None:
        return Observed(Signals(**known), dataset)  # type: ignore[arg-type]
    profile = profile_of(case, standing.production)
    if profile is None:
        why = f"version {standing.production} has no stored profile; promote a version that was trained by Backstop"
        return Observed(Signals(**known, unavailable=dict.fromkeys(TRIGGERS, why)), dataset)  # type: ignore[arg-type]
    ask = _asked(case, standing.production, course)
    with compute.on(case.policy):
        seen_now = against(case.policy, case.now, standing.production, profile, dataset, ask)
    signals = replace(seen_now, **known)  # type: ignore[arg-type]
    if seen is None or not _depends_on_rows_only(case, signals):
        return Observed(signals, dataset)
    until = min(_turns(case, profile, signals, dataset))
    return Observed(signals, dataset, freshness.basis(case, standing, seen, until=until))


def profile_of(case: Case, version: str) -> Profile | None:
    """The reference profile that was stored with a version, or None."""
    stored = case.ledger.profile(case.model, version)
    return None if stored is None else profiles.from_plain(stored)


def _asked(case: Case, version: str, course: Course) -> Ask:
    """Answers of a version in the registry; it is loaded when it is asked, which is a stage."""

    def ask(rows: Dataset) -> Scores:
        model = case.registry().load(case.ledger, case.policy, version)
        answers = score(model, rows, classes=classes_of(model, rows, case.policy))
        course.past()
        return answers

    return ask


def against(policy: Policy, now: datetime, version: str, profile: Profile, dataset: Dataset, ask: Ask) -> Signals:
    """The signals of the rows that came after a version was made, but for what earlier evaluations found.

    Args:
        policy: Of the model.
        now: The moment of the evaluation, aware.
        version: In Production.
        profile: Its reference.
        dataset: Rows of the lookback window.
        ask: Gives the version's answers; what it raises is told in ``unavailable``.
    """
    newer = dataset.between(profile.holdout.end, now)
    recent = newer.between(now - policy.triggers.window, now)
    unavailable: dict[str, str] = {}
    counted = profiles.count(recent.features, profile.columns)
    domain = _domain(policy, profile, dataset, recent, unavailable)
    answers = _answers(policy, now, version, profile, newer, ask, unavailable)
    return Signals(
        now=now,
        profile=profile,
        recent=counted,
        recent_prediction=answers.prediction,
        performance=answers.performance,
        errors=answers.errors,
        sureness=answers.sureness,
        domain=domain,
        saw=_saw(newer),
        labelled_since=len(newer.labelled),
        schema=upstream.changes(recent.features, profile.columns, counted),
        source_version=policy.data.source_version,
        unavailable=unavailable,
    )


def _domain(
    policy: Policy, profile: Profile, dataset: Dataset, recent: Dataset, unavailable: dict[str, str]
) -> Domain | None:
    """Whether recent inputs can be told from those of the training that the lookback window still holds."""
    rules = policy.triggers.multivariate
    if rules is None:
        return None
    from tasks.domain import compared  # noqa: PLC0415  scikit-learn; most policies do without

    try:
        then = dataset.between(profile.trained.start, profile.holdout.end)
        return compared(then, recent, rules, seed=policy.training.seed)
    except Unmeasurable as error:
        unavailable["multivariate"] = str(error)
    except Exception as error:  # noqa: BLE001  whatever the rows hold, the other signals are still read
        unavailable["multivariate"] = f"the classifier could not be asked: {type(error).__name__}: {error}"
    return None


def _depends_on_rows_only(case: Case, signals: Signals) -> bool:
    """Whether the same rows would give the same signals: nothing failed that may work next time, no code but ours."""
    rule = case.policy.triggers.performance
    seen = bool(signals.recent and signals.recent[0].rows)
    return not (seen and signals.recent_prediction is None) and (rule is None or ":" not in rule.metric)


def _turns(case: Case, profile: Profile, signals: Signals, dataset: Dataset) -> Iterator[datetime]:
    """The moments at which time alone changes what the triggers see, none of them missing."""
    now, rules = case.now, case.policy.triggers
    yield now + freshness.LONGEST
    if dataset.coming is not None:
        yield dataset.coming
    after = dataset.time[dataset.time >= pd.Timestamp(profile.holdout.end)]
    recent = after[after >= pd.Timestamp(now - rules.window)]
    # The oldest row leaves its window next.
    for rows, window in ((after, case.policy.data.lookback), (recent, rules.window)):
        if len(rows):
            yield rows[0].to_pydatetime() + window
    limits = (
        *((profile.trained_at, rules.age), (signals.rolled_back_at, rules.rollback_cool_down)),
        (signals.retrained_at, rules.cool_down),
        *_ripening(case, signals),
    )
    for since, limit in limits:
        if since is not None and limit is not None and since + limit > now:
            yield since + limit
    if profile.trained_at > now:  # a clock is wrong, and nobody knows which
        yield now


def _ripening(case: Case, signals: Signals) -> Iterator[tuple[datetime, timedelta]]:
    """The ends of days whose labels do not count yet, and for how long they do not."""
    rule = case.policy.triggers.concept
    if rule is not None and rule.labels is not None and signals.errors:
        yield from ((look.start + DAY, rule.labels.delay) for look in signals.errors)


def _saw(newer: Dataset) -> str:
    """By which two evaluations are told apart: the newest row since training, and how many rows and labels there are.

    Of these none is lost before the lookback window ends, so that time alone makes no other evaluation of it.
    """
    newest = newer.time[-1].isoformat() if len(newer) else "no row"
    return f"{newest}, {len(newer)} rows, {int(newer.target.notna().sum())} labels"


@dataclass(frozen=True, slots=True)
class _Answers:
    """The Production version's answers on the rows that came after its holdout.

    Attributes:
        prediction: How those within the policy's window are distributed.
        performance: How good they were.
        sureness: How sure it was of them.
        errors: Where all of them were wrong.
    """

    prediction: ColumnProfile | None = None
    performance: Measurement | None = None
    sureness: tuple[Sureness, ...] | None = None
    errors: tuple[Look, ...] | None = None


def _answers(
    policy: Policy,
    now: datetime,
    version: str,
    profile: Profile,
    newer: Dataset,
    ask: Ask,
    unavailable: dict[str, str],
) -> _Answers:
    asked = ("prediction", "performance", "concept")
    start = max(profile.holdout.end, now - policy.triggers.window)
    recent = np.asarray(newer.time >= pd.Timestamp(start))
    wanted = newer if policy.triggers.concept is not None else newer.take(recent)
    if not len(wanted):
        unavailable |= dict.fromkeys(asked, _since(profile.holdout.end))
        return _Answers()
    try:
        scores = ask(wanted)
    except Exception as error:  # noqa: BLE001  whatever the model raises, the other signals are still read
        unavailable |= dict.fromkeys(asked, f"version {version} could not score the recent rows: {error}")
        return _Answers()
    errors = _errors(profile, wanted, scores)
    window = wanted.time >= pd.Timestamp(start)
    if not window.any():
        unavailable |= dict.fromkeys(asked[:2], _since(start))
        return _Answers(errors=errors)
    within, rows = rows_of(scores, np.asarray(window)), wanted.take(np.asarray(window))
    prediction = profiles.count_prediction(within, profile.prediction) if profile.prediction else None
    measured = _performance(policy, within, rows, unavailable)
    return _Answers(prediction, measured, profiles.sureness(within), errors)


def _errors(profile: Profile, rows: Dataset, scores: Scores) -> tuple[Look, ...] | None:
    """Right and wrong answers by day, counted from the end of the holdout; None where no answer is known to be wrong.

    Days before the first row that is still there are left out: nothing is known of them.
    """
    if not scores.classes and profile.error_limit is None:
        return None
    labelled = rows.target.notna().to_numpy()
    if scores.classes:
        wrong = labelled & (scores.prediction != scores.truth)
    else:
        wrong = labelled & ~(np.abs(scores.prediction - scores.truth) <= profile.error_limit)
    begin = pd.Timestamp(profile.holdout.end)
    days = np.asarray((rows.time - begin) // pd.Timedelta(DAY), dtype=np.int64)
    first, last = int(days.min()), int(days.max())
    sums = [np.bincount(days - first, weights=one, minlength=last - first + 1) for one in (labelled, wrong)]
    total = np.bincount(days - first, minlength=last - first + 1)
    return tuple(
        Look(
            start=profile.holdout.end + (first + number) * DAY,
            requests=int(total[number]),
            errors=0,
            slow=0,
            labelled=int(sums[0][number]),
            wrong=int(sums[1][number]),
        )
        for number in range(last - first + 1)
    )


def _performance(policy: Policy, scores: Scores, recent: Dataset, unavailable: dict[str, str]) -> Measurement | None:
    rule = policy.triggers.performance
    if rule is None:
        return None
    labelled = recent.target.notna().to_numpy()
    if not labelled.any():
        unavailable["performance"] = "no recent row has a label yet"
        return None
    try:
        return measure(rule.metric, rows_of(scores, labelled), custom=custom_metric(rule.metric))
    except Unmeasurable as error:
        unavailable["performance"] = str(error)
        return None


def rows_of(scores: Scores, mask: NDArray[np.bool_]) -> Scores:
    """The scores of some of the rows.

    Args:
        scores: Of n rows.
        mask: shape (n,).
    """
    return Scores(
        truth=scores.truth[mask],
        prediction=scores.prediction[mask],
        probability=None if scores.probability is None else scores.probability[mask],
        classes=scores.classes,
    )


def _since(moment: datetime) -> str:
    return f"no rows since {moment:%Y-%m-%d %H:%M}, when the Production version's data ended"
