"""Candidate: from rows to a model that is fitted, scored, logged and ready to be judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tasks import compute, recency, tracking, training
from tasks.case import Case
from tasks.data import Dataset, NothingNew, Split, split, validate
from tasks.decide.metrics import Unmeasurable, measure
from tasks.plugins import custom_metric
from tasks.policy import Policy
from tasks.progress import Course, Progress, silent
from tasks.records import Candidate, Measurement, Profile, Scores, Verdict
from tasks.scoring import classes_of, score


@dataclass(frozen=True, slots=True)
class Made:
    """A fitted model with everything that judging it needs.

    Attributes:
        fitted: The model.
        split: Rows it was fitted on, and rows it is judged on.
        scores: Its answers on the holdout.
        profile: What later decisions compare with.
        folder: Of the artifact that would be deployed.
        candidate: As it is registered; None in a dry run.
    """

    fitted: training.Fitted
    split: Split
    scores: Scores
    profile: Profile
    folder: Path
    candidate: Candidate | None


@dataclass(frozen=True, slots=True)
class Tried:
    """A fitted model and its answers on the holdout; nothing is logged.

    Attributes:
        fitted: The model.
        split: Rows it was fitted on, and rows it is judged on.
        scores: Its answers on the holdout.
        profile: What later decisions compare with.
    """

    fitted: training.Fitted
    split: Split
    scores: Scores
    profile: Profile


def divide(case: Case, dataset: Dataset, production: Profile | None, *, asked: bool = False) -> Split:
    """Check the rows, and set the newest apart as the holdout.

    Args:
        case: Whose model.
        dataset: Rows of the lookback window.
        production: Profile of the Production version, or None.
        asked: A person or an event asked for the training; then the same rows may be trained on again.

    Raises:
        DataError: Lists every problem of the data.
        NothingNew: When no row is newer than what Production was made from, or too few to judge fairly.
    """
    return parts_of(case.policy, case.now, dataset, production, asked=asked)


def parts_of(
    policy: Policy, now: datetime, dataset: Dataset, production: Profile | None, *, asked: bool = False
) -> Split:
    """:func:`divide` for a policy at a moment."""
    validate(dataset, policy)
    if production is not None and not asked and not len(dataset.between(production.holdout.end, now).labelled):
        raise NothingNew(
            f"no labelled row has come since {production.holdout.end:%Y-%m-%d %H:%M}; the model would be the same"
        )
    return split(dataset, policy, trained_until=production.trained.end if production else None)


def make(case: Case, parts: Split, why: Verdict, scratch: Path, progress: Progress = silent) -> Made:
    """Fit, score and, unless this is a dry run, log and register.

    Args:
        case: Whose model.
        parts: Rows to fit and to judge on.
        why: The triggers' verdict.
        scratch: Folder for the artifact of a dry run.
        progress: Told how far it is, and a search.

    Raises:
        TrainingError: When the estimator or trainer raises, or predicts what is no prediction.
    """
    policy, course = case.policy, Course(progress, f"candidate of {case.model}", 4)
    with compute.on(policy):
        tried = _attempt(policy, parts, case.now, search=searches(policy, why), leans=True, course=course)
    fitted, parts, scores, profile = tried.fitted, tried.split, tried.scores, tried.profile
    if case.dry_run:
        folder = tracking.save(policy, fitted, parts, scratch / "model")
        course.past()
        return Made(fitted, parts, scores, profile, folder, None)
    candidate = tracking.log(
        policy,
        fitted,
        parts,
        profile=profile,
        train=training.train_metrics(policy, fitted.model, parts, profile),
        verdict=why,
        trail=case.trail,
        stores=case.stores,
        flow_run_id=case.flow_run_id,
    )
    case.ledger.describe(candidate)
    folder = case.registry().fetch(case.ledger, case.model, candidate.version)
    course.past()
    return Made(fitted, parts, scores, profile, folder, candidate)


def attempt(
    policy: Policy,
    parts: Split,
    now: datetime,
    *,
    search: bool = False,
    leans: bool = True,
) -> Tried:
    """Fit, score the holdout, and describe both; nothing is logged.

    Args:
        policy: Of the model.
        parts: Rows to fit, or to choose from (``training.windows``), and rows to judge on.
        now: When it is trained.
        search: Whether to look for better parameters first.
        leans: Whether to measure which columns the model leans on. It orders reports, and decides nothing.

    Raises:
        TrainingError: When the estimator or trainer raises, or predicts what is no prediction.
        ComputeError: When the policy's cluster cannot be used.
    """
    with compute.on(policy):
        return _attempt(policy, parts, now, search=search, leans=leans, course=Course(silent, "", 3))


def _attempt(policy: Policy, parts: Split, now: datetime, *, search: bool, leans: bool, course: Course) -> Tried:
    stretch = recency.learned(policy, parts.train, course.progress)
    parts = Split(train=stretch.rows, holdout=parts.holdout)
    fitted = replace(training.fit(policy, parts.train, search=search, progress=course.progress), window=stretch.told)
    course.past()
    scores = score(fitted.model, parts.holdout, classes=classes_of(fitted.model, parts.holdout, policy))
    course.past()
    measured = measurements(policy, scores)
    leaning = fitted.model if leans else None
    profile = training.profile_of(policy, parts, scores, measured, now, model=leaning)
    course.past()
    return Tried(fitted, parts, scores, profile)


def searches(policy: Policy, why: Verdict) -> bool:
    """Whether the policy asks for a search when this is why a model is trained."""
    search = policy.training.search
    if search is None or search.when == "never":
        return False
    return search.when == "always" or any(finding.name == "drift" for finding in why.having("breach"))


def measurements(policy: Policy, scores: Scores) -> tuple[Measurement, ...]:
    """Every metric that the policy names and those that people expect to see; what cannot be had is left out."""
    usual = ("r2", "rmse", "mae") if policy.problem == "regression" else ("accuracy", "f1_weighted", "log_loss")
    named = [
        rule.metric
        for rule in (policy.triggers.performance, policy.gate.performance, policy.gate.regression)
        if rule is not None
    ]
    found: list[Measurement] = []
    for metric in dict.fromkeys((*named, *usual)):
        try:
            found.append(measure(metric, scores, custom=custom_metric(metric)))
        except Unmeasurable:
            continue  # the check that asks for it says so in its own finding
    return tuple(found)
