"""Health: is the version that serves worse than the policy tolerates?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.decide.eprocess import mixed, smallest_visible, trace
from tasks.records import Finding, HealthEvidence, Look, Outcome, Verdict

if TYPE_CHECKING:
    from tasks.policy import Health, Problem

_SLOW = 0.05  # of the requests may be slower than a p95
_UNREAD, _PARTLY = "health could not be read", "but not all is seen"


@dataclass(frozen=True, slots=True)
class _Metric:
    """One thing that the watch counts.

    Attributes:
        name: As in the policy.
        tolerated: Share of bad outcomes that is tolerated.
        count: (bad outcomes, all that count) of a look.
        bad: Bad outcomes per look.
        total: All that count, per look.
        words: What a bad outcome is.
        log_e: Log of its e-process after each look.
    """

    name: str
    tolerated: float
    count: Callable[[Look], tuple[int, int]]
    bad: tuple[int, ...]
    total: tuple[int, ...]
    words: str
    log_e: tuple[float, ...]


def judge(evidence: HealthEvidence, rules: Health, *, problem: Problem | str, planned_looks: int) -> Verdict:
    """Healthy, unhealthy, frozen or unknown, from all looks since the start of the watch.

    Each enabled metric has an e-process against its limit; the alarm is their mean at 1/``false_rollback``, at this
    look or any before it, so that looking every minute costs nothing. Answers without a label count as right: labels
    of wrong answers tend to come first; with ``labels`` only answers older than its delay count, and of those the
    labelled ones. What is shown to be bad together with another version that answers at the same time, or may be, is
    ``frozen`` and not unhealthy: a rollback would mend nothing (:mod:`tasks.decide.cause`). Once such an incident is
    over the watch begins anew with what came after it, promise included. Before the planned looks
    are over nothing is healthy, and afterwards only with ``min_requests`` requests and all of the evidence; what the
    watch could not have seen is part of the reason.

    Args:
        evidence: What was counted.
        rules: The policy's section ``health``.
        problem: Accuracy is unused in regression.
        planned_looks: Looks of the whole watch.

    Raises:
        ValueError: For less than one planned look.
    """
    if planned_looks < 1:
        raise ValueError(f"{planned_looks} looks are planned; a watch has at least one")
    broken = contradiction(evidence.looks)
    traffic = _traffic(evidence, rules, broken)
    if evidence.unavailable is not None or broken:
        return _unknown(traffic.reason, (traffic,))
    metrics = _metrics(evidence, rules, problem, planned_looks)
    if not metrics:
        return _unknown("no health metric is enabled in the policy", (traffic,))
    if not evidence.looks:
        return _unknown(f"watching, 0 of {planned_looks} looks", (traffic,))
    combined = mixed([metric.log_e for metric in metrics])
    peak, done = combined.index(max(combined)), len(evidence.looks)
    threshold = -math.log(rules.false_rollback)
    if combined[peak] >= threshold:
        verdict = _unhealthy(evidence, rules, metrics, traffic, (peak, combined[peak], threshold))
        if evidence.beside is None and evidence.alone is None:
            return verdict
        end = _over(combined, threshold)
        if end and (shared := _shared(_part(evidence, 0, end, rules), rules, problem, planned_looks)) is not None:
            rest = _part(evidence, end, done, rules)
            after = judge(rest, rules, problem=problem, planned_looks=planned_looks)
            return _without_incident(shared, after, rest)
        return _with_cause(verdict, evidence, metrics, rules, planned_looks)
    return _quiet(evidence, rules, metrics, traffic, planned_looks)


def unread_since(verdict: Verdict) -> datetime | None:
    """Since when the evidence, or a part of it, could not be read when this was said; None: it could."""
    for finding in verdict.findings:
        if finding.name == "traffic" and (finding.reason.startswith(_UNREAD) or f"; {_PARTLY}: " in finding.reason):
            return datetime.fromisoformat(str(finding.evidence["since"]))
    return None


def _unknown(reason: str, findings: tuple[Finding, ...]) -> Verdict:
    return Verdict(judge="health", decision="unknown", reason=phrase.one_line(reason), findings=findings)


def _metrics(evidence: HealthEvidence, rules: Health, problem: Problem | str, planned: int) -> list[_Metric]:
    limits: list[tuple[str, float, Callable[[Look], tuple[int, int]], str]] = []
    if rules.error_rate is not None:
        limits.append(("error_rate", rules.error_rate, lambda look: (look.errors, look.requests), "failed"))
    if rules.latency_p95 is not None:
        slower = f"took more than {phrase.period(rules.latency_p95)}"
        limits.append(("latency_p95", _SLOW, lambda look: (look.slow, look.requests), slower))
    if rules.accuracy is not None and problem != "regression":
        limits.append(("accuracy", 1 - rules.accuracy, answered(evidence, rules), "were answered wrongly"))
    metrics = []
    for name, tolerated, count, words in limits:
        counts = [count(look) for look in evidence.looks]
        bad, total = tuple(one for one, _ in counts), tuple(one for _, one in counts)
        metrics.append(_Metric(name, tolerated, count, bad, total, words, trace(bad, total, tolerated, planned)))
    return metrics


def answered(evidence: HealthEvidence, rules: Health) -> Callable[[Look], tuple[int, int]]:
    """(wrong answers, those that count) of a look, in one of the two ways of counting labels that come late.

    To count the labelled ones of all looks would be a third one, and wrong: the labels of wrong answers tend to come
    first, so that every version would look bad at first.
    """
    if rules.labels is None:
        return lambda look: (look.wrong, look.requests)
    newest = (evidence.read_at or evidence.now) - rules.labels.delay - rules.tick
    return lambda look: (look.wrong, look.labelled) if look.start <= newest else (0, 0)


def contradiction(looks: tuple[Look, ...]) -> str:
    """What is wrong with the counts of looks, which then are no evidence; empty: nothing."""
    inf = math.inf
    for look in looks:
        most, labelled = look.requests, look.labelled
        if 0 <= look.errors <= most < inf and 0 <= look.slow <= most and 0 <= look.wrong <= labelled <= most:
            continue  # NaN is not within any limits
        counts = (most, look.errors, look.slow, labelled, look.wrong)
        if not all(math.isfinite(one) and one >= 0 for one in counts):
            return f"a count of the look at {look.start:%H:%M} is negative, NaN or infinite"
        return f"the counts of the look at {look.start:%H:%M} contradict each other"
    return ""


def _traffic(evidence: HealthEvidence, rules: Health, broken: str) -> Finding:
    """Is there evidence at all, and since when not? Silence beyond the deadline asks for a person.

    Args:
        evidence: What was counted.
        rules: Of the policy.
        broken: What is wrong with the counts; empty: nothing.
    """
    served = 0 if broken else sum(look.requests for look in evidence.looks)
    since = evidence.last_request or evidence.started
    silent = max(evidence.now - since, timedelta(0))
    overdue = silent > rules.silence
    outcome: Outcome = "ok" if served >= rules.min_requests else "unknown"
    reason = f"{phrase.count(served)} requests since {_clock(evidence.started)}"
    if evidence.unavailable is not None:
        outcome, reason = "unknown", f"{_UNREAD}: {phrase.one_line(evidence.unavailable)}"
    elif broken:
        outcome, reason = "unknown", f"health cannot be judged: {broken}"
    elif served < rules.min_requests:
        reason += f", {phrase.count(rules.min_requests)} are needed"
    partial = evidence.partial is not None and evidence.unavailable is None and not broken
    if partial:
        outcome, reason = "unknown", f"{reason}; {_PARTLY}: {phrase.one_line(evidence.partial or '')}"
    if evidence.unavailable is not None or broken or overdue or not served:
        what = "not all of the evidence" if partial else "no evidence"
        reason += f"; {what} since {_clock(since)} ({phrase.period(silent)})"
    if overdue:
        outcome, reason = "unknown", f"{reason}, longer than {phrase.period(rules.silence)}: a person should look"
    return Finding(
        name="traffic",
        outcome=outcome,
        reason=reason,
        value=float(served),
        threshold=float(rules.min_requests),
        n=int(served),
        evidence={"page": overdue, "since": since.isoformat(), "silent_seconds": silent.total_seconds()},
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _unhealthy(
    evidence: HealthEvidence,
    rules: Health,
    metrics: list[_Metric],
    traffic: Finding,
    alarm: tuple[int, float, float],
) -> Verdict:
    peak, log_e, threshold = alarm
    carrier = max(metrics, key=lambda metric: metric.log_e[peak])
    findings = [traffic]
    for metric in metrics:
        carries = metric is carrier or max(metric.log_e) >= threshold
        outcome: Outcome = "breach" if carries else "unknown"
        said = _counted(metric, evidence, rules)
        verdict = f", shown to be more than the {phrase.percent(metric.tolerated)} tolerated"
        reason = said + (verdict if carries else "; another metric raised the alarm")
        findings.append(_finding(metric, evidence, outcome, reason, concluded=True))
    when = evidence.looks[peak].start
    reason = "; ".join(finding.reason for finding in findings if finding.outcome == "breach")
    reason += f" (evidence {phrase.number(math.exp(min(log_e, 700)))} against {phrase.number(math.exp(threshold))} "
    reason += f"needed, in the look at {_clock(when)})"
    return Verdict(judge="health", decision="unhealthy", reason=phrase.one_line(reason), findings=tuple(findings))


def _with_cause(
    verdict: Verdict, evidence: HealthEvidence, metrics: list[_Metric], rules: Health, planned: int
) -> Verdict:
    """The verdict on a version that is shown to be bad, once it was asked whether another one is as well."""
    from tasks.decide.cause import Suspect, judge  # noqa: PLC0415  a quiet tick has no cause to look for

    bad = {finding.name for finding in verdict.having("breach")}
    suspects = [Suspect(one.name, one.words, one.tolerated, one.count) for one in metrics if one.name in bad]
    cause = judge(evidence, suspects, rules, planned=planned)
    frozen = bool(cause.evidence.get("page"))
    return Verdict(
        judge="health",
        decision="frozen" if frozen else "unhealthy",
        reason=phrase.one_line(f"{verdict.reason}; {cause.reason}"),
        findings=(*verdict.findings, cause),
    )


def _over(combined: Sequence[float], threshold: float) -> int:
    """The look before which the first alarm was over; 0: there is none, or it lasts.

    The evidence has then fallen from its peak by as much as it takes to believe anything.
    """
    highest = -math.inf
    for number, log_e in enumerate(combined):
        highest = max(highest, log_e)
        if highest >= threshold and highest - log_e >= threshold:
            return number
    return 0


def _part(evidence: HealthEvidence, first: int, end: int, rules: Health) -> HealthEvidence:
    """The looks from one to before another, of both versions."""
    beside = evidence.beside
    part = None if beside is None else replace(beside, looks=beside.looks[first:end])
    started = evidence.started if not first else evidence.looks[first - 1].start + rules.tick
    return replace(evidence, looks=evidence.looks[first:end], started=started, beside=part)


def _shared(evidence: HealthEvidence, rules: Health, problem: Problem | str, planned: int) -> Finding | None:
    """The cause of an alarm that is over, where two versions shared it; otherwise None."""
    metrics = _metrics(evidence, rules, problem, planned)
    combined = mixed([metric.log_e for metric in metrics])
    alarm = (combined.index(max(combined)), max(combined), -math.log(rules.false_rollback))
    verdict = _unhealthy(evidence, rules, metrics, _traffic(evidence, rules, ""), alarm)
    cause = _with_cause(verdict, evidence, metrics, rules, planned).findings[-1]
    return cause if cause.outcome == "breach" else None


def _without_incident(cause: Finding, rest: Verdict, evidence: HealthEvidence) -> Verdict:
    """The verdict on what came after an incident that two versions shared, with a word about it."""
    reason = f"left out: until {_clock(evidence.started)} {cause.reason}"
    left = Finding(name="incident", outcome="exempt", reason=reason, evidence={"until": evidence.started.isoformat()})
    told = phrase.one_line(f"{rest.reason}; {reason}")
    return Verdict(judge="health", decision=rest.decision, reason=told, findings=(*rest.findings, left))


def _quiet(evidence: HealthEvidence, rules: Health, metrics: list[_Metric], traffic: Finding, planned: int) -> Verdict:
    done = len(evidence.looks)
    complete = done >= planned
    trusted = complete and traffic.outcome == "ok"
    findings = [traffic]
    for metric in metrics:
        said = f"{_counted(metric, evidence, rules)}; {_visible(metric, evidence, rules, len(metrics))}"
        enough = trusted and (metric.name != "accuracy" or _labelled(metric, evidence, rules) >= rules.min_requests)
        findings.append(_finding(metric, evidence, "ok" if enough else "unknown", said, concluded=trusted))
    told = "; ".join(finding.reason for finding in findings[1:])
    if trusted:
        reason = f"no alarm in {done} looks: {told}"
        return Verdict(judge="health", decision="healthy", reason=phrase.one_line(reason), findings=tuple(findings))
    stage = f"watching, {done} of {planned} looks" if not complete else f"no alarm in {done} looks, but too little seen"
    return _unknown(f"{stage}: {traffic.reason}; {told}", tuple(findings))


def _visible(metric: _Metric, evidence: HealthEvidence, rules: Health, metrics: int) -> str:
    """What "no alarm" is worth: the alarm is a mean, so one metric alone must carry all of it."""
    total = sum(metric.total)
    needed = math.log(metrics / rules.false_rollback)
    rate = smallest_visible(total, metric.tolerated, needed)
    if metric.name == "accuracy":
        labelled = _labelled(metric, evidence, rules)
        # Answers without a label count as right, so they hide as much of the damage as they are.
        hidden = rate is None or not labelled or rate * total > labelled
        if hidden:
            return f"with {phrase.count(labelled)} labels not even all wrong answers would have shown"
        return f"an accuracy below {phrase.percent(1 - (rate or 0.0) * total / labelled)} would have shown"
    if rate is None:
        return "so few requests would not have shown even all of them failing the limit"
    return f"above {phrase.percent(rate)} would have shown"


def _labelled(metric: _Metric, evidence: HealthEvidence, rules: Health) -> int:
    """Labelled answers that count."""
    return sum(metric.total) if rules.labels is not None else sum(look.labelled for look in evidence.looks)


def _counted(metric: _Metric, evidence: HealthEvidence, rules: Health) -> str:
    bad, total = sum(metric.bad), sum(metric.total)
    if metric.name == "accuracy" and rules.labels is not None:
        older = phrase.period(rules.labels.delay)
        of = f"{phrase.count(total)} labelled (of those older than {older})"
    elif metric.name == "accuracy":
        of = f"{phrase.count(_labelled(metric, evidence, rules))} labelled ({phrase.count(total)} in all)"
    else:
        of = phrase.count(total)
    return f"{metric.name}: {phrase.count(bad)} of {of} requests {metric.words}"


def _finding(metric: _Metric, evidence: HealthEvidence, outcome: Outcome, reason: str, *, concluded: bool) -> Finding:
    bad, total = sum(metric.bad), sum(metric.total)
    # Every minute nothing is concluded, and nobody reads how sure that is; it would cost the tick a fifth of a second.
    interval = _interval(bad, total) if total and concluded else None
    rate = bad / total if total else None
    turned = metric.name == "accuracy"  # the policy states the share of right answers, the watch counts wrong ones
    return Finding(
        name=metric.name,
        outcome=outcome,
        reason=reason,
        value=1 - rate if turned and rate is not None else rate,
        threshold=1 - metric.tolerated if turned else metric.tolerated,
        interval=(1 - interval[1], 1 - interval[0]) if turned and interval else interval,
        n=total,
        evidence={
            "bad": bad,
            "log_e": metric.log_e[-1],
            "log_e_peak": max(metric.log_e),
            "looks": len(evidence.looks),
        },
    )


def _interval(bad: int, total: int) -> tuple[float, float]:
    from tasks.decide.intervals import clopper_pearson  # noqa: PLC0415  a quiet tick must import no numpy

    return clopper_pearson(bad, total, 0.95)
