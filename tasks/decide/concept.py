"""Concept: do the same inputs have other outcomes than at training, so that the version errs more often?

The errors on the rows that came after the holdout, in the order of time, against the share of errors on the holdout.
That share is not known exactly, so its exact upper limit (Clopper and Pearson 1934) is what counts, and half of the
promised chance of a false alarm is spent on that limit being wrong. The other half goes to an e-process that restarts
its bets every day (:mod:`tasks.decide.sequential`), so that a change after a year is found as one after a week.

This is no question of how the inputs or the answers are distributed: answers may shift with every one of them right.
Errors also rise when rows become harder of which the model knew as little before; both call for a new model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.decide import phrase
from tasks.decide.eprocess import bets, smallest_visible
from tasks.decide.influence import Unmeasurable
from tasks.decide.intervals import Floats, clopper_pearson
from tasks.decide.sequential import replay
from tasks.records import Finding, Look

if TYPE_CHECKING:
    from tasks.policy import ConceptTrigger

DAY = timedelta(days=1)
"""Length of a look."""

PLANNED = 365
"""Looks at which bets restart; a version that serves longer than a year is judged on, without restarts."""


class _Errors(NamedTuple):
    """Shape (looks,) each.

    Attributes:
        starts: Of each look.
        wrong: Answers.
        total: Answers that count.
        labelled: Of them.
        tolerated: Share of wrong answers.
    """

    starts: tuple[datetime, ...]
    wrong: Floats
    total: Floats
    labelled: Floats
    tolerated: float


def judge(
    looks: Sequence[Look],
    baseline: tuple[int, int] | None,
    rules: ConceptTrigger,
    *,
    now: datetime,
    limit: float | None,
) -> Finding:
    """The trigger ``concept``.

    ``breach`` when the share of errors is shown to be above that of the holdout by more than ``rules.tolerate``; the
    chance that it ever says so of a version that errs as it did is at most ``rules.false_alarms``, however often it is
    asked. Rows without a label count as answered rightly, or, with ``rules.labels``, only rows older than its delay
    count, and of those the labelled ones.

    Args:
        looks: Errors after the holdout, one look a day, the oldest first, none left out.
        baseline: (wrong, all) answers on the holdout.
        rules: Of the policy.
        now: The moment of the evaluation; aware.
        limit: In regression an answer further off than this is an error; None in classification.

    Raises:
        Unmeasurable: Without a baseline or enough labels, or when counts contradict each other.
    """
    if baseline is None or baseline[1] < 1:
        raise Unmeasurable("the errors of the version on its own holdout were not kept; the next training keeps them")
    errors = _counted(looks, baseline, rules, now)
    labelled = int(errors.labelled.sum())
    if labelled < rules.min_labels:
        older = f" older than {phrase.period(rules.labels.delay)}" if rules.labels is not None else ""
        raise Unmeasurable(
            f"{phrase.count(labelled)} labelled rows{older} since training, {phrase.count(rules.min_labels)} are needed"
        )
    log_e = float(replay(errors.wrong, errors.total, errors.tolerated, PLANNED).max())
    needed = math.log(2 / rules.false_alarms)
    return _finding(errors, baseline, rules, (log_e, needed), limit)


def _counted(looks: Sequence[Look], baseline: tuple[int, int], rules: ConceptTrigger, now: datetime) -> _Errors:
    for look in looks:
        if not 0 <= look.wrong <= look.labelled <= look.requests:
            raise Unmeasurable(f"the counts of {look.start:%Y-%m-%d} contradict each other")
    wrong, size = baseline
    if not 0 <= wrong <= size:
        raise Unmeasurable(f"{wrong} of {size} answers wrong on the holdout is no share")
    tolerated = clopper_pearson(wrong, size, 1 - rules.false_alarms / 2)[1] + rules.tolerate
    if tolerated >= 1:
        raise Unmeasurable(
            f"{phrase.percent(wrong / size)} of {size} answers were wrong at training; no rise could show"
        )
    ripe = np.array(
        [rules.labels is None or look.start + DAY <= now - rules.labels.delay for look in looks], dtype=bool
    )
    labelled = np.array([float(look.labelled) for look in looks]) * ripe
    every = labelled if rules.labels is not None else np.array([float(look.requests) for look in looks])
    missed = np.array([float(look.wrong) for look in looks]) * ripe
    return _Errors(tuple(look.start for look in looks), missed, every, labelled, tolerated)


def _finding(
    errors: _Errors,
    baseline: tuple[int, int],
    rules: ConceptTrigger,
    evidence: tuple[float, float],
    limit: float | None,
) -> Finding:
    log_e, needed = evidence
    fires = log_e >= needed
    first = _since(errors) if fires else 0
    bad, labelled = int(errors.wrong[first:].sum()), int(errors.labelled[first:].sum())
    total = int(errors.total[first:].sum())
    since = errors.starts[first]
    return Finding(
        name="concept",
        outcome="breach" if fires else "ok",
        reason=_told(errors, baseline, rules, limit, fires=fires, first=first),
        value=bad / total if total else None,
        threshold=errors.tolerated,
        margin=rules.tolerate,
        interval=clopper_pearson(bad, total, 1 - rules.false_alarms) if total else None,
        n=labelled,
        urgency="high" if fires else None,
        evidence={
            "since": since.astimezone(UTC).isoformat(),
            "wrong": bad,
            "labelled": labelled,
            "counted": total,
            "baseline": list(baseline),
            "error_limit": limit,
            "log_e": log_e,
            "needed": needed,
            "visible": smallest_visible(int(errors.total.sum()), errors.tolerated, needed),
        },
    )


def _told(
    errors: _Errors,
    baseline: tuple[int, int],
    rules: ConceptTrigger,
    limit: float | None,
    *,
    fires: bool,
    first: int,
) -> str:
    bad, labelled = int(errors.wrong[first:].sum()), int(errors.labelled[first:].sum())
    words = "wrong" if limit is None else f"off by more than {phrase.number(limit)}"
    rows = f"{phrase.count(bad)} of {phrase.count(labelled)} labelled rows"
    if int(errors.total[first:].sum()) > labelled:
        rows += f" ({phrase.count(int(errors.total[first:].sum()))} in all)"
    then = f"{phrase.percent(baseline[0] / baseline[1])} of {phrase.count(baseline[1])} at training"
    day = f"{errors.starts[first].astimezone(UTC):%Y-%m-%d}"
    if fires:
        rise = f"shown to be above the {phrase.percent(errors.tolerated)} that this leaves open and tolerates"
        return f"since about {day} the answers to {rows} are {words}, {then}; {rise}"
    visible = smallest_visible(int(errors.total.sum()), errors.tolerated, math.log(2 / rules.false_alarms))
    found = (
        "so few would not have shown even all of them wrong"
        if visible is None
        else f"above {phrase.percent(visible)} from the first day on would have been found"
    )
    return f"the answers to {rows} since {day} are {words}, {then}; {found}"


def _since(errors: _Errors) -> int:
    """The look from which on the errors speak most for a rise: where a bet's sum was lowest before (Page 1954)."""
    best, first = -math.inf, 0
    for up, down in bets(errors.tolerated):
        sums = np.cumsum(np.r_[0.0, errors.wrong * up + (errors.total - errors.wrong) * down])
        lowest = np.minimum.accumulate(sums)
        gains = sums - lowest
        end = int(gains.argmax())
        if gains[end] > best:
            best, first = float(gains[end]), int(np.flatnonzero(sums[: end + 1] == lowest[end])[-1])
    return min(first, errors.wrong.size - 1)
