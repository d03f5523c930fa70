"""A policy read aloud: what it does, in sentences that somebody who does not read YAML can agree or disagree with."""

from __future__ import annotations

import re

from tasks.policy import PINBALL_METRICS, Gate, Learn, Policy, Rollout, Shadow, Triggers
from tasks.units import format_duration, format_size

LOSSES = frozenset({"rmse", "mae", "log_loss", "brier", *PINBALL_METRICS})
"""Metrics of which less is better."""


def read_aloud(policy: Policy) -> str:
    """Four sentences: when it retrains, when a candidate goes out, when it comes back, and what silence means."""
    first = _retrains(policy.triggers) + (f" {_learns(policy.learn)}" if policy.learn else "")
    return "\n".join((first, _goes_out(policy), _comes_back(policy), _silence(policy)))


def percent(share: float) -> str:
    """``0.05`` as ``5%``, without a float's tail."""
    return f"{share * 100:.6g}%"


def _retrains(triggers: Triggers) -> str:
    phrases = _trigger_phrases(triggers)
    if not phrases:
        return "Retrains when a person or an event asks for it, never by itself."
    if triggers.retrain_when in {"any", "all"}:
        rule = _listed(list(phrases.values()), "or" if triggers.retrain_when == "any" else "and")
    else:
        rule = re.sub(r"\b(" + "|".join(phrases) + r")\b", lambda match: phrases[match[1]], triggers.retrain_when)
    return f"Retrains when {rule}; also when a person or an event asks for it.{_restrained(triggers)}"


def _restrained(triggers: Triggers) -> str:
    """What keeps a trigger from counting, a sentence each, with a blank before it."""
    said = ""
    if confirm := triggers.confirm:
        said += f" What chance could do must hold in {confirm.times} of the last {confirm.of} evaluations."
    if budget := triggers.false_retrains:
        said += f" Data that are as they were start at most {budget.at_most:g} retraining(s) "
        said += f"in {format_duration(budget.per)}."
    if pause := triggers.cool_down:
        said += f" For {format_duration(pause)} after a retraining no trigger counts."
    return said


def _learns(learn: Learn) -> str:
    return (
        f"Between retrainings a copy of the version in Production learns from labelled requests, {learn.batch:,} at a "
        f"time, and is judged on the newest {learn.holdout:,}; nothing is learned while Production is shown to be "
        f"wrong {percent(learn.tolerate)} more often than when it was judged."
    )


def _trigger_phrases(triggers: Triggers) -> dict[str, str]:
    phrases: dict[str, str] = {}
    if triggers.age:
        phrases["age"] = f"the version in Production is {format_duration(triggers.age)} old"
    if drift := triggers.drift:
        phrases["drift"] = f"{percent(drift.share_of_features)} of the inputs have drifted (PSI above {drift.psi:g})"
    if performance := triggers.performance:
        metric = performance.metric
        worse = "risen" if metric in LOSSES else "fallen"
        side = "above" if metric in LOSSES else "below"
        floor = "" if performance.floor is None else f" (or is {side} {performance.floor:g})"
        phrases["performance"] = f"{metric} has {worse} by more than {performance.drop:g}{floor}"
    if together := triggers.multivariate:
        phrases["multivariate"] = f"a classifier can tell inputs of now from those of then (AUC above {together.auc:g})"
    if concept := triggers.concept:
        phrases["concept"] = f"its errors are shown to be more than {percent(concept.tolerate)} above those at training"
    if triggers.prediction:
        phrases["prediction"] = f"the answers have shifted (PSI above {triggers.prediction.psi:g})"
    if triggers.volume:
        phrases["volume"] = f"{triggers.volume:,} new labelled rows have come in"
    if triggers.growth:
        phrases["growth"] = f"new labelled rows reach {percent(triggers.growth)} of those that it was trained on"
    if triggers.upstream:
        phrases["upstream"] = "the columns of the source have changed"
    return phrases


def _goes_out(policy: Policy) -> str:
    gate = policy.gate
    parts: list[str] = []
    if (check := gate.performance) and check.at_least is not None:
        parts.append(f"{check.metric} is at {'most' if check.metric in LOSSES else 'least'} {check.at_least:g}")
    if gate.regression:
        parts.append(f"{gate.regression.metric} is no more than {gate.regression.margin:g} worse than Production's")
    parts += _in_segments(gate)
    if gate.stability:
        shift = percent(gate.stability.decision_rate_shift)
        parts.append(
            f"its answers follow Production's (correlation {gate.stability.correlation:g}, shift up to {shift})"
        )
    if gate.latency:
        parts.append(f"99 of 100 single predictions take less than {format_duration(gate.latency.p99)}")
    if gate.size:
        parts.append(f"it is smaller than {format_size(gate.size)}")
    parts += _in_use(gate)
    if gate.checks:
        parts.append(f"your own checks agree ({', '.join(gate.checks)})")
    if shadow := policy.shadow:
        parts += _compared(shadow)
    if policy.approval:
        parts.append(f"a person approves within {format_duration(policy.approval.deadline)}")
    said = f"Goes out when {_listed(parts, 'and') if parts else 'it was trained: every check is off'}."
    return f"{said} {_by_steps(policy.rollout)}" if policy.rollout else said


def _in_use(gate: Gate) -> list[str]:
    said = {
        "it loads and answers in a fresh process": gate.fresh_process,
        "it answers a row alone as among others": gate.alone,
    }
    return [text for text, on in said.items() if on]


def _in_segments(gate: Gate) -> list[str]:
    parts = []
    for check in gate.slices:
        metric = check.metric or (gate.regression.metric if gate.regression else "the metric")
        where = "in no segment of {} is {} shown to be" if check.prove == "harm" else "in every segment of {} {} is no"
        parts.append(f"{where.format(check.by, metric)} more than {check.margin:g} worse than Production's")
    return parts


def _compared(shadow: Shadow) -> list[str]:
    window, loss = format_duration(shadow.window), percent(shadow.tolerate)
    shown = f"it loses no more than {loss} against Production"
    if shadow.worth_having is not None:
        shown = (
            f"it is shown to be better than Production (a gain under {percent(shadow.worth_having)} is not worth it)"
        )
    parts = [f"on the requests of the last {window} {shown}"]
    if shadow.live:
        length = format_duration(shadow.live)
        parts.append(f"it has answered {shadow.live_requests:,} live requests in {length} or more, unseen")
    return parts


def _by_steps(rollout: Rollout) -> str:
    shares = _listed([f"{one}%" for one in rollout.weights[:-1]] + ["all"], "and then")
    return (
        f"It goes out by steps, to {shares} of the requests, {format_duration(rollout.hold)} each at least, and only "
        f"once it is shown to be less than {percent(rollout.tolerate)} worse than Production at the same time. It is "
        f"taken out when it is shown to be bad more than {rollout.ratio:g} times as often, or after "
        f"{format_duration(rollout.deadline)} without a step."
    )


def _comes_back(policy: Policy) -> str:
    health = policy.health
    parts: list[str] = []
    if health.error_rate:
        parts.append(f"more than {percent(health.error_rate)} of the requests fail")
    if health.latency_p95:
        parts.append(f"more than one request of twenty takes longer than {format_duration(health.latency_p95)}")
    if health.accuracy and policy.problem != "regression":
        older = f" (of those older than {format_duration(health.labels.delay)})" if health.labels else ""
        parts.append(f"fewer than {percent(health.accuracy)} of its answers are right{older}")
    if not parts:
        return "Comes back when a person says so, never by itself: every health check is off."
    source = " as a Prometheus server counts them" if health.prometheus else ""
    limit = f"at most {health.max_rollbacks} times in {format_duration(health.rollback_window)}, then a person decides"
    bad = f"{_listed(parts, 'or')}{source}"
    return f"Comes back when, in the {format_duration(health.watch)} after it went out, {bad}; {limit}."


def _silence(policy: Policy) -> str:
    silence = format_duration(policy.health.silence)
    return f"Without evidence nothing moves, and after {silence} of silence a person is called."


def _listed(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
