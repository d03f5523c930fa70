"""Cause: is the version bad, or something that every version has to live with?

A database that is down, a feature that comes empty or a wave of odd requests makes every version look bad, and to put
an earlier one back mends nothing. It can be told apart where a second version answers at the same time, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.decide.eprocess import bets, mixed, trace
from tasks.decide.health import contradiction
from tasks.records import Beside, Finding, HealthEvidence, Look

if TYPE_CHECKING:
    from tasks.policy import Health

if TYPE_CHECKING:
    from tasks.decide.arms import Counts

RATIO = 1.2
"""Bad so many times as often as the other version is no difference yet: two versions never do exactly alike."""

_SEEN_BY_A_SHADOW = frozenset({"accuracy"})
"""A shadow is asked what Production has answered, later and by another process: it shares no failure and no time."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """One metric by which the watched version is shown to be bad.

    Attributes:
        name: As in the policy.
        words: What a bad answer is.
        tolerated: Share of them.
        count: (bad, all) answers of a look.
    """

    name: str
    words: str
    tolerated: float
    count: Callable[[Look], tuple[int, int]]


def judge(evidence: HealthEvidence, suspects: Sequence[Suspect], rules: Health, *, planned: int) -> Finding:
    """The finding ``shared_cause`` about a version that is shown to be bad.

    ``breach``: both are shown to be bad by the same limits in the looks in which both answered. ``ok``: the watched one
    is shown to be bad more than :data:`RATIO` times as often as the other, so the cause is its own. ``unknown``: there
    is no other one, or it has not answered enough to tell. Where both have the same cause it is taken for the version's
    own at most as often as ``rules.false_rollback``, however often it is asked, and the other way round.

    Args:
        evidence: With ``beside``, or with the reason why there is none in ``alone``.
        suspects: By which the version is bad.
        rules: Of the policy.
        planned: Looks of the period.
    """
    other = evidence.beside
    if other is None:
        return _alone(evidence, suspects, evidence.alone or "no other version answered at the same time")
    who = f"version {other.version}, {'a canary' if other.role == 'canary' else 'answering unseen'}"
    if [look.start for look in other.looks] != [look.start for look in evidence.looks]:
        return _alone(evidence, suspects, f"the looks of {who}, are not of the same intervals")
    if broken := contradiction(other.looks):
        return _alone(evidence, suspects, f"what {who}, did cannot be used: {broken}")
    shared = [one for one in suspects if other.role == "canary" or one.name in _SEEN_BY_A_SHADOW]
    if not shared:
        return _alone(evidence, suspects, f"{who}, was asked only what had been answered, and shares no failure")
    if not sum(one.count(look)[1] for one in shared for look in other.looks):
        return _alone(evidence, suspects, f"{who}, answered nothing that could be compared")
    return _compared(evidence, other, shared, rules, who, planned)


def _compared(
    evidence: HealthEvidence, other: Beside, suspects: Sequence[Suspect], rules: Health, who: str, planned: int
) -> Finding:
    needed = -math.log(rules.false_rollback)
    ours, theirs = (max(mixed([_bad(arm, one, planned) for one in suspects])) for arm in _together(evidence, other))
    both_bad = min(ours, theirs)
    own = _worse(evidence, other, suspects, planned)
    if not other.serving and max(both_bad, own) < needed:
        return _alone(evidence, suspects, f"{who}, had gone before that could be told")
    told = "; ".join(_told(one, other) for one in suspects)
    facts: dict[str, object] = {"other": other.version, "role": other.role, "log_e_shared": both_bad, "log_e_own": own}
    facts["needed"] = needed
    if both_bad >= needed:
        reason = f"{who}, is bad at the same time ({told}): a cause that both share, which no rollback mends"
        return Finding(name="shared_cause", outcome="breach", reason=reason, evidence={**facts, "page": True})
    if own >= needed:
        reason = f"{who}, does better at the same time ({told}): the cause is the version's own"
        return Finding(name="shared_cause", outcome="ok", reason=reason, evidence=facts)
    reason = f"{who}, has not answered enough to tell whether the cause is the version's own ({told})"
    return Finding(name="shared_cause", outcome="unknown", reason=reason, evidence={**facts, "page": True})


def _together(evidence: HealthEvidence, other: Beside) -> tuple[tuple[Look, ...], tuple[Look, ...]]:
    """The looks in which both answered: what one did when the other was silent is no comparison."""
    pairs = [pair for pair in zip(evidence.looks, other.looks, strict=True) if pair[0].requests and pair[1].requests]
    return tuple(one for one, _ in pairs), tuple(one for _, one in pairs)


def _bad(looks: Sequence[Look], suspect: Suspect, planned: int) -> tuple[float, ...]:
    counts = [suspect.count(look) for look in looks]
    return trace([bad for bad, _ in counts], [total for _, total in counts], suspect.tolerated, planned)


def _worse(evidence: HealthEvidence, other: Beside, suspects: Sequence[Suspect], planned: int) -> float:
    """Log of the most that has ever spoken for the watched version's being worse than the other."""
    from tasks.decide.arms import worse  # noqa: PLC0415  numpy; a quiet tick has nothing to compare
    from tasks.decide.sequential import mixed as together  # noqa: PLC0415  see above

    processes = [worse(_pairs(evidence, other, one), ratio=RATIO, planned=planned) for one in suspects]
    return float(together(processes).max())


def _pairs(evidence: HealthEvidence, other: Beside, suspect: Suspect) -> Counts:
    from tasks.decide.arms import Counts as Pairs  # noqa: PLC0415  see above

    ours, theirs = ([suspect.count(look) for look in looks] for looks in (evidence.looks, other.looks))
    return Pairs.of(*([one[part] for one in arm] for arm in (ours, theirs) for part in (0, 1)))


def _told(suspect: Suspect, other: Beside) -> str:
    counts = [suspect.count(look) for look in other.looks]
    bad, total = sum(bad for bad, _ in counts), sum(total for _, total in counts)
    return f"{suspect.name}: {phrase.count(bad)} of its {phrase.count(total)} requests {suspect.words}"


def _alone(evidence: HealthEvidence, suspects: Sequence[Suspect], why: str) -> Finding:
    """What can be known without a second version: when it began. From the first look on speaks for the version."""
    first = min((_began(evidence.looks, one) for one in suspects), default=0)
    start = evidence.looks[first].start if evidence.looks else evidence.started
    after = start - evidence.started
    when = "from the first look on" if first == 0 else f"{phrase.period(after)} after the start of this watch"
    reason = f"{why}, so that it cannot be told whether the cause is the version's own; it was bad {when}"
    facts = {"other": None, "began": start.isoformat(), "seconds_after": after.total_seconds()}
    return Finding(name="shared_cause", outcome="unknown", reason=reason, evidence=facts)


def _began(looks: Sequence[Look], suspect: Suspect) -> int:
    """The look from which on it speaks most for being bad (Page 1954), by the smallest of the bets."""
    up, down = bets(suspect.tolerated)[0]
    best, sum_, lowest, begin, first = -math.inf, 0.0, 0.0, 0, 0
    for number, look in enumerate(looks):
        bad, total = suspect.count(look)
        sum_ += bad * up + (total - bad) * down
        if sum_ - lowest > best:
            best, first = sum_ - lowest, begin
        if sum_ <= lowest:
            lowest, begin = sum_, number + 1
    return min(first, len(looks) - 1)
