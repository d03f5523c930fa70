"""Triggers: is it time to retrain?"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from tasks.decide import budget, concept, decay, domain, drift, estimate, phrase, restraint
from tasks.decide.influence import Unmeasurable
from tasks.expression import parse
from tasks.records import Finding, Outcome, Profile, Signals, Urgency, Verdict

if TYPE_CHECKING:
    from tasks.policy import (
        ConceptTrigger,
        DriftTrigger,
        MultivariateTrigger,
        PerformanceTrigger,
        PredictionTrigger,
        Triggers,
    )

_URGENCIES: tuple[Urgency, ...] = ("low", "medium", "high", "critical")
_READ_AS = {
    "age": ("age", "profile"),
    "drift": ("drift", "recent"),
    "performance": ("performance",),
    "multivariate": ("multivariate",),
    "concept": ("concept",),
    "prediction": ("prediction", "recent_prediction"),
    "volume": ("volume", "labelled_since"),
    "growth": ("growth", "labelled_since"),
    "upstream": ("upstream", "schema"),
}
_BESIDE = frozenset({"cool_down", "confirm", "budget", "estimate"})
"""Findings that are no trigger's."""


def decide(signals: Signals, rules: Triggers) -> Verdict:
    """Retrain or keep.

    An event or a missing Production version retrains whatever else holds. Otherwise the enabled triggers are combined
    as ``rules.retrain_when`` says: ``any``, ``all`` of the enabled ones, or an expression. An unknown trigger never
    tips the decision, and the reason names it. For ``rules.rollback_cool_down`` after a rollback, and for
    ``rules.cool_down`` after a retraining, only an event retrains, or bad data, retraining and rollback would go round
    in a circle. With ``rules.confirm`` a trigger counts once it held in several evaluations. With
    ``rules.false_retrains`` each trigger is asked at the level that keeps the budget over all of them.
    """
    if signals.profile is None and signals.production is None:
        first = Finding(
            name="first_model",
            outcome="breach",
            reason="there is no Production version yet: first model",
            urgency="medium",
        )
        return _verdict((*_event(signals), first), fires=True)
    allowed = budget.allowance(signals, rules)
    strict = budget.within(rules, allowed)
    found = tuple(_judged(name, signals, strict, allowed) for name in rules.enabled)
    findings = restraint.confirmed(found, signals, rules.confirm)
    event, cooling = _event(signals), restraint.cooling(signals, rules)
    fires = bool(event) or (not cooling and _holds(findings, rules))
    beside = (*restraint.asked(signals, rules.confirm), *([allowed.finding] if allowed else []))
    told = (*event, *cooling, *findings, *beside, *_estimated(signals, rules))
    return _verdict(told, fires=fires, rule=rules.retrain_when)


def _holds(findings: tuple[Finding, ...], rules: Triggers) -> bool:
    if not findings:
        return False
    joined = {"any": " or ", "all": " and "}.get(rules.retrain_when)
    text = rules.retrain_when if joined is None else joined.join(rules.enabled)
    meaning: dict[Outcome, bool | None] = {"breach": True, "ok": False, "exempt": False, "unknown": None}
    return parse(text).holds({finding.name: meaning[finding.outcome] for finding in findings}) is True


def _verdict(findings: tuple[Finding, ...], *, fires: bool, rule: str = "any") -> Verdict:
    fired = [finding for finding in findings if finding.outcome == "breach"]
    calm = [finding for finding in findings if finding.outcome in {"ok", "exempt"} and finding.name not in _BESIDE]
    unknown = [finding for finding in findings if finding.outcome == "unknown" and finding.name not in _BESIDE]
    cooling = next((finding.reason for finding in findings if finding.name == "cool_down"), "")
    parts = [f"{finding.name}: {finding.reason}" for finding in fired]
    if not fires and fired:
        but = cooling or f"`{rule}` needs more"
        parts = [f"fired, but {but}: {', '.join(parts)}"]
    elif cooling:
        parts.append(f"although {cooling}" if fires else cooling)
    if calm:
        parts.append(_calm(calm, in_full=not fires))
    if unknown:
        parts.append("unknown: " + ", ".join(f"{finding.name} ({finding.reason})" for finding in unknown))
    if all(finding.name in _BESIDE for finding in findings):
        parts = ["no trigger is enabled in the policy"]
    urgencies = [finding.urgency for finding in fired if finding.urgency is not None]
    return Verdict(
        judge="triggers",
        decision="retrain" if fires else "keep",
        reason=phrase.one_line(f"Retrain model: {'true' if fires else 'false'} — {'; '.join(parts)}"),
        findings=findings,
        urgency=max(urgencies, key=_URGENCIES.index) if fires and urgencies else None,
    )


def _calm(findings: list[Finding], *, in_full: bool) -> str:
    if in_full:
        return "looked at " + ", ".join(f"{finding.name} ({finding.reason})" for finding in findings)
    return "not fired: " + ", ".join(finding.name for finding in findings)


def _event(signals: Signals) -> tuple[Finding, ...]:
    if signals.event is None:
        return ()
    reason = phrase.one_line(signals.event) or "asked for without a reason"
    return (Finding(name="event", outcome="breach", reason=reason, urgency=signals.event_urgency),)


def _judged(name: str, signals: Signals, rules: Triggers, allowed: budget.Allowance | None) -> Finding:
    from tasks import policy  # noqa: PLC0415  whoever has rules has loaded it; judgement itself does without pydantic

    judges: dict[str, Callable[[], Finding]] = {
        "age": lambda: _age(signals, rules.age or timedelta.max),
        "drift": lambda: _drift(signals, rules.drift or policy.DriftTrigger()),
        "performance": lambda: _performance(signals, rules.performance or policy.PerformanceTrigger()),
        "multivariate": lambda: _multivariate(signals, rules.multivariate or policy.MultivariateTrigger()),
        "concept": lambda: _concept(signals, rules.concept or policy.ConceptTrigger()),
        "prediction": lambda: _prediction(signals, rules.prediction or policy.PredictionTrigger()),
        "volume": lambda: _volume(signals, rules.volume or 0),
        "growth": lambda: _growth(signals, rules.growth or 1.0),
        "upstream": lambda: _upstream(signals),
    }
    missing = [signals.unavailable[key] for key in _READ_AS[name] if key in signals.unavailable]
    if missing:
        return Finding(name=name, outcome="unknown", reason=phrase.one_line("; ".join(missing)))
    if allowed is not None and allowed.each <= 0 and name in budget.CHANCE:
        reason = "the last evaluation was at this moment or later: the budget of false retrainings has grown by nothing"
        return Finding(name=name, outcome="unknown", reason=reason)
    try:
        return judges[name]()
    except Unmeasurable as reason:
        return Finding(name=name, outcome="unknown", reason=phrase.one_line(str(reason)))


def _profile(signals: Signals) -> Profile:
    if signals.profile is None:
        raise Unmeasurable(f"the reference profile of version {signals.production} could not be read")
    return signals.profile


def _age(signals: Signals, limit: timedelta) -> Finding:
    trained = _profile(signals).trained_at
    if trained.tzinfo is None or signals.now.tzinfo is None:
        raise Unmeasurable(f"trained at {trained} and now {signals.now}: a moment without a time zone is a guess")
    age = signals.now - trained
    if age < timedelta(0):
        raise Unmeasurable(f"it was trained at {trained.astimezone(UTC):%Y-%m-%d %H:%M}, which is in the future")
    old = age >= limit
    return Finding(
        name="age",
        outcome="breach" if old else "ok",
        reason=f"trained {phrase.period(age)} ago, {'which reaches' if old else 'under'} the limit of "
        f"{phrase.period(limit)}",
        value=age / timedelta(days=1),
        threshold=limit / timedelta(days=1),
        urgency="low" if old else None,
        evidence={"unit": "days", "trained_at": trained.isoformat()},
    )


def _drift(signals: Signals, rules: DriftTrigger) -> Finding:
    reference = _profile(signals).columns
    if signals.recent is None:
        raise Unmeasurable("no recent inputs were read")
    if not reference:
        raise Unmeasurable("the reference profile has no columns")
    return drift.judge(reference, signals.recent, rules)


def _performance(signals: Signals, rules: PerformanceTrigger) -> Finding:
    current = signals.performance
    if current is None:
        raise Unmeasurable("no recent labelled rows were scored")
    if rules.metric and current.metric != rules.metric:
        raise Unmeasurable(f"the policy asks for {rules.metric}, but {current.metric} was measured")
    baseline = None if signals.profile is None else signals.profile.metric(current.metric)
    return decay.judge(current, baseline, rules)


def _multivariate(signals: Signals, rules: MultivariateTrigger) -> Finding:
    if signals.domain is None:
        raise Unmeasurable("recent inputs were not compared with those of the training")
    return domain.judge(signals.domain, rules)


def _concept(signals: Signals, rules: ConceptTrigger) -> Finding:
    profile = _profile(signals)
    if signals.errors is None:
        raise Unmeasurable("no labelled rows were scored that came after the holdout")
    baseline = profile.errors or _errors_at_training(profile)
    return concept.judge(signals.errors, baseline, rules, now=signals.now, limit=profile.error_limit)


def _estimated(signals: Signals, rules: Triggers) -> tuple[Finding, ...]:
    """How many answers are right before their labels are there; nothing follows from it."""
    if rules.performance is None or signals.sureness is None:
        return ()
    if signals.profile is None or signals.profile.sureness is None:
        return ()
    return (estimate.judge(signals.profile.sureness, signals.sureness),)


def _errors_at_training(profile: Profile) -> tuple[int, int] | None:
    """From the accuracy, in a profile of before the errors themselves were kept."""
    accuracy = profile.metric("accuracy")
    if accuracy is None or not 0 <= accuracy.value <= 1:
        return None
    return round((1 - accuracy.value) * accuracy.n), accuracy.n


def _prediction(signals: Signals, rules: PredictionTrigger) -> Finding:
    reference = _profile(signals).prediction
    if reference is None:
        raise Unmeasurable("the reference profile holds no answers to compare with")
    if signals.recent_prediction is None:
        raise Unmeasurable("no recent answers were read")
    return drift.judge_prediction(reference, signals.recent_prediction, rules)


def _new_rows(signals: Signals) -> int:
    rows = signals.labelled_since
    if rows is None or rows < 0:
        raise Unmeasurable(f"the number of new labelled rows is {rows}; it could not be counted")
    return rows


def _growth(signals: Signals, limit: float) -> Finding:
    rows, learned = _new_rows(signals), _profile(signals).rows
    if learned < 1:
        raise Unmeasurable(f"the reference profile says that it was trained on {learned} rows")
    needed = math.ceil(round(limit * learned, 6))
    times, enough = rows / learned, rows >= needed
    return Finding(
        name="growth",
        outcome="breach" if enough else "ok",
        reason=f"{phrase.count(rows)} new labelled rows, {phrase.percent(times)} of the {phrase.count(learned)} that "
        f"it was trained on, {'which reach' if enough else 'under'} the limit of {phrase.percent(limit)}, "
        f"{phrase.count(needed)} rows",
        value=times,
        threshold=limit,
        n=rows,
        urgency="low" if enough else None,
    )


def _volume(signals: Signals, limit: int) -> Finding:
    rows = _new_rows(signals)
    enough = rows >= limit
    return Finding(
        name="volume",
        outcome="breach" if enough else "ok",
        reason=f"{phrase.count(rows)} new labelled rows, {'which reach' if enough else 'under'} the limit of "
        f"{phrase.count(limit)}",
        value=float(rows),
        threshold=float(limit),
        n=int(rows),
        urgency="low" if enough else None,
    )


def _upstream(signals: Signals) -> Finding:
    was, now = _profile(signals).source_version, signals.source_version
    problems = [phrase.one_line(problem) for problem in signals.schema]
    if was is not None and now is not None and was != now:
        problems.append(f"the feature source changed from version {was} to {now}")
    if problems:
        outcome: Outcome = "breach"
        reason = "; ".join(problems)
    elif was is not None and now is None:
        raise Unmeasurable(f"the feature source was version {was} at training; its version now is not known")
    elif signals.recent is None and (was is None or now is None):
        raise Unmeasurable("no recent inputs were read, so their shape is not known")
    else:
        outcome, reason = "ok", "columns, types and source version are as at training"
    return Finding(
        name="upstream",
        outcome=outcome,
        reason=reason,
        value=float(len(problems)),
        threshold=0.0,
        urgency="medium" if problems else None,
        evidence={"problems": problems, "source_version": now, "source_version_at_training": was},
    )
