"""Retrial: every verdict is reached from a dossier, when it is first given and when it is checked years later.

The product judges through :func:`reach`, so what the ledger keeps as evidence is what the verdict was made of. A check
reads it from there, judges again, and compares to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tasks import dossier as dossiers
from tasks.dossier import RULES, Dossier
from tasks.ledger import Decision, Ledger
from tasks.plugins import PluginError, custom_metric
from tasks.policy import Gate
from tasks.progress import Course, Progress, silent
from tasks.records import Finding, GateEvidence, Outcome, ShadowEvidence, Standing, Verdict, to_plain

_PAGE = 1_000
_ROUNDING = 1e-9
"""Another processor, or another release of numpy, may compute the last digits differently."""


def reach(dossier: Dossier, progress: Progress = silent) -> Verdict:
    """The verdict that follows from a dossier.

    Args:
        dossier: What it is made of.
        progress: Told how far a gate is that asks metrics of one's own hundreds of times.

    Raises:
        KeyError: For a judge that is not known.
        PluginError: When a metric of the policy cannot be imported.
    """
    more = {"progress": progress} if dossier.judge == "gate" else {}
    return _JUDGES[dossier.judge](**dossier.given, **more)


def retry(ledger: Ledger, decision: Decision) -> Finding:
    """Judge again what was decided, from its evidence in the ledger.

    ``ok`` when every word and every number is the same. ``breach`` when they are not, or when the evidence is gone or
    was changed. ``unknown`` when it cannot be told: a decision from before evidence was kept, or of a later Backstop;
    a metric of one's own that cannot be imported here; other rules; digits that only rounding sets apart; evidence that
    was older than the policy keeps it.

    Args:
        ledger: With the evidence.
        decision: From the same ledger.
    """
    which = f"{decision.verdict.judge} {decision.verdict.decision} (decision {decision.id}, trail {decision.trail})"
    if decision.evidence is None:
        return _told("unknown", f"{which} is from before evidence was kept, and cannot be judged again")
    try:
        body = ledger.evidence(decision.evidence)
        if body is None:
            return _gone(which, decision, ledger)
        dossier = dossiers.unpack(body)
    except dossiers.TooNew as error:
        return _told("unknown", f"{which} cannot be judged again here: {error}")
    except ValueError as error:
        return _told("breach", f"the evidence of {which} is not what was put down: {error}")
    try:
        again = reach(dossier)
    except PluginError as error:
        return _told("unknown", f"{which} cannot be judged again here: {error}")
    except Exception as error:  # noqa: BLE001  one that cannot be judged must not keep the others from being judged
        return _told("breach", f"{which} cannot be judged from its evidence: {type(error).__name__}: {error}")
    return _compared(which, decision, dossier, again)


def retry_all(ledger: Ledger, model: str, progress: Progress = silent) -> tuple[Finding, ...]:
    """Judge again everything that was ever decided about a model, one finding per decision, the oldest first.

    Args:
        ledger: With the evidence.
        model: Whose decisions.
        progress: Told how many of them were judged.
    """
    found: list[Finding] = []
    total, what = ledger.decided(model), f"verdicts on {model} judged again"
    before: int | None = None
    while page := ledger.decisions(model, limit=_PAGE, before=before):
        for decision in page:
            progress(len(found), total, what)
            found.append(retry(ledger, decision))
        before = page[-1].id
    progress(len(found), len(found), what)
    return tuple(reversed(found))


def _gone(which: str, decision: Decision, ledger: Ledger) -> Finding:
    """Asked now and not before: it may just have gone. A row that may not have named it excuses nothing."""
    named = ledger.removed(decision.model).get(str(decision.evidence), ())
    by = next((one for one in named if one.covers(decision.at)), None)
    if by is not None:
        told = f"was removed by retention on {by.at:%Y-%m-%d} ({by.actor}: {by.reason})"
        return _told("unknown", f"the evidence of {which} {told}")
    if named:
        told = f"a removal of {named[-1].at:%Y-%m-%d} by {named[-1].actor} names it, which may not take it"
        return _told("breach", f"the evidence of {which} is gone from the ledger, and {told}")
    return _told("breach", f"the evidence of {which} is gone from the ledger")


def _told(outcome: Outcome, reason: str) -> Finding:
    return Finding(name="verdict", outcome=outcome, reason=reason)


def _compared(which: str, decision: Decision, dossier: Dossier, again: Verdict) -> Finding:
    differing = tuple(_differences(to_plain(decision.verdict), to_plain(again)))
    told = "; ".join(f"{place} was {one!r} and is {other!r}" for place, one, other in differing[:5])
    if not differing:
        return _told("ok", f"{which} follows from its evidence {str(decision.evidence)[:12]}")
    if dossier.rules != RULES:
        rules = f"was judged by rules {dossier.rules}, and this Backstop has {RULES}"
        return _told("unknown", f"{which} {rules}: {told}. Judge it with the Backstop of its day")
    if all(_rounded(one, other) for _, one, other in differing):
        return _told("unknown", f"{which} follows from its evidence but for rounding, as on another machine: {told}")
    return _told("breach", f"{which} does not follow from its evidence: {told}")


def _differences(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(place, value, other value) of everything that is not the same in two plain values."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _differences(one[key], other[key], f"{place}.{key}" if place else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differences(first, second, f"{place}[{number}]")
    elif one != other or isinstance(one, bool) != isinstance(other, bool):
        yield place, one, other


def _rounded(one: Any, other: Any) -> bool:
    both = isinstance(one, float) and isinstance(other, float)
    return both and math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING * _ROUNDING)


# Judges. What each takes is what its dossier holds. They are imported when needed: the quiet tick needs only one.


def _triggers(**given: Any) -> Verdict:
    from tasks.decide import triggers  # noqa: PLC0415  see above

    return triggers.decide(**given)


def _gate(*, evidence: GateEvidence, rules: Gate, progress: Progress, **given: Any) -> Verdict:
    from tasks.decide import gate  # noqa: PLC0415  see above

    named = {rule.metric for rule in (rules.performance, rules.regression, *rules.slices) if rule and rule.metric}
    custom = {metric: function for metric in named if (function := custom_metric(metric)) is not None}
    if not custom:
        return gate.judge(evidence, rules, **given)
    course = _course(evidence, progress)
    asked = {metric: _noted(function, course) for metric, function in custom.items()}
    try:
        return gate.judge(evidence, rules, custom=asked, **given)
    finally:
        with suppress(Exception):  # see _noted
            course.end()


def _course(evidence: GateEvidence, progress: Progress) -> Course:
    """As many stages as questions are expected: both models on all rows, twice, and on those of each segment."""
    import numpy as np  # noqa: PLC0415  the quiet tick judges without

    from tasks.decide.metrics import replicates_of  # noqa: PLC0415  see above

    sizes = [evidence.candidate.truth.size] * 2
    sizes += [int(rows) for one in evidence.segments for rows in np.unique(one.codes, return_counts=True)[1]]
    return Course(progress, "metrics of your own", sum(2 * replicates_of(rows) for rows in sizes) + 1)


def _noted(function: Callable[..., Any], course: Course) -> Callable[..., Any]:
    def asked(*given: Any) -> Any:
        if course.done < course.stages - 1:  # it is over when the gate is
            with suppress(Exception):  # what is shown decides nothing; an error here would pass for one of the metric
                course.past()
        return function(*given)

    return asked


def _shadow(*, evidence: ShadowEvidence | None, rules: Any, nothing: str = "") -> Verdict:
    from tasks.decide import shadow  # noqa: PLC0415  see above

    return shadow.nothing_to_compare(nothing) if evidence is None else shadow.judge(evidence, rules)


def _health(**given: Any) -> Verdict:
    from tasks.decide import health  # noqa: PLC0415  see above

    return health.judge(**given)


def _rollout(*, ended: str = "", **given: Any) -> Verdict:
    from tasks.decide import rollout  # noqa: PLC0415  see above

    return rollout.ended(ended) if ended else rollout.judge(**given)


def _learning(**given: Any) -> Verdict:
    from tasks.decide import learning  # noqa: PLC0415  see above

    return learning.judge(**given)


def _rollback(
    *, standing: Standing, rollbacks_in_window: int, limit: int, to: str | None, tried: tuple[Finding, ...], reason: str
) -> Verdict:
    from tasks.decide import rollback  # noqa: PLC0415  see above

    choice = rollback.choose(standing, rollbacks_in_window=rollbacks_in_window, limit=limit, to=to)
    return rollback.conclude(standing, choice, tried, reason=reason)


def _person(**given: Any) -> Verdict:
    from tasks.decide import person  # noqa: PLC0415  see above

    return person.promote(**given)


def _mistake(**given: Any) -> Verdict:
    from tasks.decide import incident  # noqa: PLC0415  see above

    return incident.mistake(**given)


def _reconciled(**given: Any) -> Verdict:
    from tasks.decide import incident  # noqa: PLC0415  see above

    return incident.reconciled(**given)


_JUDGES: dict[str, Callable[..., Verdict]] = {
    "triggers": _triggers,
    "gate": _gate,
    "shadow": _shadow,
    "health": _health,
    "rollout": _rollout,
    "learning": _learning,
    "rollback": _rollback,
    "person": _person,
    "mistake": _mistake,
    "reconciled": _reconciled,
}
