"""Rollout: may a canary be given more of the requests, or has it to go?

Two questions are asked of the canary and of the version in Production, which answer requests at the same time. Is it
shown to be worse? That is asked of everything since the rollout began, at every tick, and ends it. Is it shown not to
be worse? That is asked at every step anew, of what came at the present weight, and nothing but a yes leads further.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from tasks.decide import phrase
from tasks.decide.arms import Counts, not_worse, still_needed, worse
from tasks.decide.sequential import mixed
from tasks.records import Finding, Look, Outcome, RolloutEvidence, Verdict

if TYPE_CHECKING:
    from tasks.policy import Health, Problem, Rollout

_SLOW = 0.05  # of the requests may be slower than a p95


class _Metric(NamedTuple):
    """One thing that is compared.

    Attributes:
        name: As in the policy's section ``health``.
        words: What a bad answer is.
        all: Since the rollout began.
        step: What the present step is judged on.
        limit: Share of bad answers above which no step is taken, whatever Production does; None: there is none.
    """

    name: str
    words: str
    all: Counts
    step: Counts
    limit: float | None


def planned_looks(rules: Rollout, health: Health) -> int:
    """Looks of a rollout that is never held up."""
    return max(1, math.ceil((len(rules.steps) - 1) * rules.hold / health.tick))


def judge(evidence: RolloutEvidence, rules: Rollout, health: Health, *, problem: Problem | str) -> Verdict:
    """Hold, step, promote or abort.

    Abort when the canary is shown to be worse in what it did since the rollout began: the mean of one e-process per
    metric reaches 1/``health.false_rollback``, so a canary that is bad at most ``rules.ratio`` times as often as
    Production is aborted for that at most so often over the whole rollout. Step, or promote from the last step, when
    the present weight has lasted for ``rules.hold``, both arms answered ``health.min_requests`` meanwhile, and every
    metric is shown to be less than ``rules.tolerate`` worse; a canary that is worse by that in any one of them gets
    past a step at most as often as ``rules.false_promotion``. Everything else holds, and after ``rules.deadline`` at
    one step it is given up. Accuracy counts as soon as both arms have ``health.min_requests`` labelled answers, of the
    whole rollout, since labels come late; before that only an alarm of it counts.

    Args:
        evidence: What was counted.
        rules: The policy's section ``rollout``.
        health: Which metrics there are, and the promise about false alarms.
        problem: Accuracy is unused in regression.
    """
    if broken := _unreadable(evidence):
        finding = Finding(name="traffic", outcome="unknown", reason=broken, evidence={"page": True})
        return _held(evidence, rules, (finding,))
    metrics = _metrics(evidence, health, problem)
    if not metrics:
        reason = "no metric is enabled in the policy's section health, so nothing can be compared"
        return _held(evidence, rules, (Finding(name="traffic", outcome="unknown", reason=reason),))
    alarm = _alarm(metrics, rules, health)
    if alarm is not None:
        return _worse(evidence, rules, metrics, alarm)
    shown = (_shown(one, rules, health) for one in metrics)
    findings = (*_frozen(evidence), _time(evidence, rules), _traffic(evidence, health), *shown)
    if all(one.outcome in {"ok", "exempt"} for one in findings):
        return _onward(evidence, rules, findings)
    return _held(evidence, rules, findings)


def ended(reason: str) -> Verdict:
    """What the ledger keeps of a rollout that was ended by something else than its evidence.

    Args:
        reason: What ended it: a newer candidate, another version in Production, a person's word, the policy.
    """
    findings = (Finding(name="rollout", outcome="exempt", reason=reason),)
    return Verdict(judge="rollout", decision="end", reason=reason, findings=findings)


# What it rests on.


def _unreadable(evidence: RolloutEvidence) -> str:
    if evidence.unavailable is not None:
        return f"what the two versions did could not be read: {phrase.one_line(evidence.unavailable)}"
    if [look.start for look in evidence.canary] != [look.start for look in evidence.production]:
        return "the looks of the two versions are not of the same intervals"
    for look in (*evidence.canary, *evidence.production):
        counts = (look.requests, look.errors, look.slow, look.labelled, look.wrong)
        if not all(math.isfinite(one) and one >= 0 for one in counts):
            return f"a count of the look at {look.start:%H:%M} is negative, NaN or infinite"
        if max(look.errors, look.slow, look.labelled) > look.requests or look.wrong > look.labelled:
            return f"the counts of the look at {look.start:%H:%M} contradict each other"
    return ""


def _metrics(evidence: RolloutEvidence, health: Health, problem: Problem | str) -> list[_Metric]:
    pairs = list(zip(evidence.canary, evidence.production, strict=True))
    latest = [pair for pair in pairs if pair[0].start >= evidence.stepped]
    asked = _asked(health, problem)
    return [
        # Labels come late: those of the first step arrive while the third one is judged.
        _Metric(name, words, counted(pairs), counted(pairs if name == "accuracy" else latest), limit)
        for name, words, counted, limit in asked
    ]


def _asked(
    health: Health, problem: Problem | str
) -> list[tuple[str, str, Callable[[list[tuple[Look, Look]]], Counts], float | None]]:
    """(name, words, how its answers are counted, limit) of every metric that is on."""
    found: list[tuple[str, str, Callable[[list[tuple[Look, Look]]], Counts], float | None]] = []
    if health.error_rate is not None:
        counted = _counter(lambda look: look.errors, lambda look: look.requests)
        found.append(("error_rate", "failed", counted, health.error_rate))
    if health.latency_p95 is not None:
        counted = _counter(lambda look: look.slow, lambda look: look.requests)
        found.append(("latency_p95", f"took more than {phrase.period(health.latency_p95)}", counted, _SLOW))
    if health.accuracy is not None and problem != "regression":
        counted = _counter(lambda look: look.wrong, lambda look: look.labelled)
        found.append(("accuracy", "were answered wrongly", counted, None))
    return found


def _counter(bad: Callable[[Look], int], total: Callable[[Look], int]) -> Callable[[list[tuple[Look, Look]]], Counts]:
    def counted(pairs: list[tuple[Look, Look]]) -> Counts:
        return Counts.of(
            [bad(one) for one, _ in pairs],
            [total(one) for one, _ in pairs],
            [bad(other) for _, other in pairs],
            [total(other) for _, other in pairs],
        )

    return counted


# Is it shown to be worse?


def _alarm(metrics: list[_Metric], rules: Rollout, health: Health) -> tuple[int, float, float] | None:
    """(look, log of the evidence, log of what was needed) of the highest alarm, or None."""
    if not metrics[0].all.total.size:
        return None
    planned = planned_looks(rules, health)
    combined = mixed([worse(one.all, ratio=rules.ratio, planned=planned) for one in metrics])
    peak, needed = int(combined.argmax()), -math.log(health.false_rollback)
    return (peak, float(combined[peak]), needed) if combined[peak] >= needed else None


def _worse(
    evidence: RolloutEvidence, rules: Rollout, metrics: list[_Metric], alarm: tuple[int, float, float]
) -> Verdict:
    peak, log_e, needed = alarm
    logs = [worse(one.all, ratio=rules.ratio, planned=1)[: peak + 1].max() for one in metrics]
    carrier = metrics[logs.index(max(logs))]
    findings = []
    for metric in metrics:
        carries = metric is carrier
        verdict = f"; shown to be more than {phrase.number(rules.ratio)} times as often"
        told = _counted(metric, metric.all) + (verdict if carries else "; another metric raised the alarm")
        findings.append(_finding(metric, metric.all, rules, "breach" if carries else "unknown", told))
    against = f"evidence {phrase.number(math.exp(min(log_e, 700)))} against {phrase.number(math.exp(needed))} needed"
    when = _clock(evidence.canary[peak].start)
    reason = f"version {evidence.version} at {evidence.weight}% is worse than version {evidence.baseline}: "
    reason += f"{next(one.reason for one in findings if one.outcome == 'breach')} ({against}, in the look at {when})"
    return _verdict("abort", reason, tuple(findings))


# Is it shown not to be?


def _frozen(evidence: RolloutEvidence) -> tuple[Finding, ...]:
    """What is bad together with Production is not shown to be worse, and that is no reason to give it more."""
    if evidence.frozen is None:
        return ()
    return (Finding(name="shared_cause", outcome="unknown", reason=phrase.one_line(evidence.frozen)),)


def _time(evidence: RolloutEvidence, rules: Rollout) -> Finding:
    lasted = max(evidence.now - evidence.stepped, timedelta(0))
    done = lasted >= rules.hold
    reason = f"{phrase.period(lasted)} at {evidence.weight}%, {phrase.period(rules.hold)} are the least"
    return Finding(
        name="time",
        outcome="ok" if done else "unknown",
        reason=reason,
        evidence={"seconds": lasted.total_seconds(), "needed": rules.hold.total_seconds()},
    )


def _traffic(evidence: RolloutEvidence, health: Health) -> Finding:
    ours, theirs = (_since(looks, evidence.stepped) for looks in (evidence.canary, evidence.production))
    fewest, needed = min(ours, theirs), health.min_requests
    reason = f"{phrase.count(ours)} requests to version {evidence.version} and {phrase.count(theirs)} to version "
    reason += f"{evidence.baseline} since {_clock(evidence.stepped)}"
    if fewest < needed:
        reason += f", {phrase.count(needed)} each are needed"
    if evidence.partial is not None:
        reason += f"; but not all is seen: {phrase.one_line(evidence.partial)}"
    return Finding(
        name="traffic",
        outcome="ok" if fewest >= needed and evidence.partial is None else "unknown",
        reason=reason,
        value=float(fewest),
        threshold=float(needed),
        n=ours,
    )


def _since(looks: tuple[Look, ...], moment: datetime) -> int:
    return sum(look.requests for look in looks if look.start >= moment)


def _shown(metric: _Metric, rules: Rollout, health: Health) -> Finding:
    """Whether a metric is shown to be less than the tolerated difference worse."""
    counts, needed = metric.step, -math.log(rules.false_promotion)
    labelled = int(min(counts.total.sum(), counts.base_total.sum()))
    said = _counted(metric, counts)
    if metric.name == "accuracy" and labelled < health.min_requests:
        reason = f"{said}; too few labels to ask it ({phrase.count(health.min_requests)} in each arm are needed)"
        return _finding(metric, counts, rules, "exempt", reason)
    log_e = float(not_worse(counts, margin=rules.tolerate)[-1]) if counts.total.size else 0.0
    tolerated = f"{phrase.percent(rules.tolerate)} worse"
    if log_e < needed:
        reason = f"{said}; not shown to be less than {tolerated}, {_missing(counts, rules, needed)}"
        return _finding(metric, counts, rules, "unknown", reason)
    share = float(counts.bad.sum() / counts.total.sum())
    if metric.limit is not None and share > metric.limit:
        reason = f"{said}; not worse than Production, and more than the {phrase.percent(metric.limit)} that are "
        return _finding(metric, counts, rules, "unknown", f"{reason}tolerated at all: no step while that lasts")
    return _finding(metric, counts, rules, "ok", f"{said}; less than {tolerated}")


def _missing(counts: Counts, rules: Rollout, needed: float) -> str:
    more = still_needed(counts, margin=rules.tolerate, log_threshold=needed)
    if more > 1e7:
        return "and going on like this would not show it"
    return f"about {phrase.about(more)} more answers of the canary are needed"


# What follows.


def _onward(evidence: RolloutEvidence, rules: Rollout, findings: tuple[Finding, ...]) -> Verdict:
    weight = rules.following(evidence.weight)
    told = "; ".join(one.reason for one in findings if one.name != "time")
    to = f"goes from {evidence.weight}% to {weight}%" if weight < 100 else f"may replace version {evidence.baseline}"
    decision = "step" if weight < 100 else "promote"
    return _verdict(decision, f"version {evidence.version} {to}: {told}", findings)


def _held(evidence: RolloutEvidence, rules: Rollout, findings: tuple[Finding, ...]) -> Verdict:
    """No step; and where that has lasted for too long, no canary any more."""
    deadline = evidence.stepped + rules.deadline
    because = "; ".join(one.reason for one in findings if one.outcome == "unknown")
    if evidence.now < deadline:
        reason = f"version {evidence.version} stays at {evidence.weight}%, until {_clock(deadline)} at most: {because}"
        return _verdict("hold", reason, findings)
    late = f"{phrase.period(rules.deadline)} at {evidence.weight}% have shown too little: {because}"
    finding = Finding(name="deadline", outcome="breach", reason=late, evidence={"deadline": deadline.isoformat()})
    return _verdict("abort", f"version {evidence.version} is given up: {late}", (finding, *findings))


def _counted(metric: _Metric, counts: Counts) -> str:
    ours = f"{phrase.count(int(counts.bad.sum()))} of {phrase.count(int(counts.total.sum()))}"
    theirs = f"{phrase.count(int(counts.base_bad.sum()))} of {phrase.count(int(counts.base_total.sum()))}"
    return f"{metric.name}: {ours} {metric.words}, of Production's {theirs}"


def _finding(metric: _Metric, counts: Counts, rules: Rollout, outcome: Outcome, reason: str) -> Finding:
    total, base = float(counts.total.sum()), float(counts.base_total.sum())
    bad, base_bad = float(counts.bad.sum()), float(counts.base_bad.sum())
    both = total > 0 and base > 0
    return Finding(
        name=metric.name,
        outcome=outcome,
        reason=reason,
        value=bad / total - base_bad / base if both else None,
        threshold=rules.tolerate,
        n=int(total),
        evidence={
            "bad": int(bad),
            "requests": int(total),
            "production_bad": int(base_bad),
            "production_requests": int(base),
            "share": bad / total if both else None,
            "production_share": base_bad / base if both else None,
        },
    )


def _verdict(decision: str, reason: str, findings: tuple[Finding, ...]) -> Verdict:
    return Verdict(judge="rollout", decision=decision, reason=phrase.one_line(reason), findings=findings)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
