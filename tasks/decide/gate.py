"""The gate: what a candidate must show before it may be promoted. Every check runs, also after one has failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from tasks.decide import answers, phrase, ranks, slices, stability
from tasks.decide.influence import FAMILIES
from tasks.decide.intervals import least_sample, quantile_bounds
from tasks.decide.metrics import Custom, Difference, Spread, Unmeasurable, bounds, is_loss, measure, paired
from tasks.records import Finding, GateEvidence, Measurement, Outcome, Verdict
from tasks.units import format_size

if TYPE_CHECKING:
    from tasks.policy import Gate, LatencyCheck, PerformanceCheck, Problem, RegressionCheck

_NO_CUSTOM: Mapping[str, Custom] = MappingProxyType({})
_ARTIFACT = frozenset({"latency", "size", "fresh_process"})
"""Checks of the artifact, which are silent about what it says."""
_NOTHING_OF_ANSWERS = (
    "nothing speaks for the candidate's answers, only for its artifact: turn gate.performance on, or name a check of "
    "your own (gate.checks)"
)
_ONE_SIDED = frozenset({"recall", "precision"})
"""Metrics of which a constant answer may rightly be the best: whether the model guesses is asked by another one."""
_TELLING = "balanced_accuracy"
"""Of every constant answer it is the same, and no better of answers that are drawn by lot."""


def judge(
    evidence: GateEvidence, rules: Gate, *, problem: Problem | str, custom: Mapping[str, Custom] = _NO_CUSTOM
) -> Verdict:
    """Pass, fail or inconclusive: fail on any breach, inconclusive on any unknown or without a single ok.

    Args:
        evidence: Everything that was measured.
        rules: The policy's section ``gate``.
        problem: What is predicted; it chooses the metrics that the policy leaves open.
        custom: Functions of metrics that are not built in, by name.
    """
    compared = _compared(evidence, custom)
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: _performance(evidence, rules, problem, custom),
        lambda: _regression(evidence, rules, problem, compared),
        lambda: _stability(evidence, rules, problem, compared),
        lambda: _latency(evidence, rules),
        lambda: _size(evidence, rules),
        lambda: _fresh_process(evidence, rules),
    )
    names = ("performance", "regression", "stability", "latency", "size", "fresh_process")
    with ranks.sorted_once():
        judged = [_guarded(name, check) for name, check in zip(names, checks, strict=True)]
    worth = answers.judge(evidence, problem=problem, metrics=_judged_by(evidence, rules, problem))
    first = () if worth is None else (worth,)
    findings = (*first, *_slices(evidence, rules, problem, custom), *judged, *evidence.extra)
    outcomes = {finding.outcome for finding in findings}
    # A segment that was only looked at for harm speaks against a candidate, never for it.
    carrying = [f for f in findings if f.outcome == "ok" and f is not worth and f.evidence.get("prove") != "harm"]
    if "breach" in outcomes:
        decision, decisive = "fail", [f for f in findings if f.outcome == "breach"]
    elif "unknown" in outcomes or not carrying:
        decision, decisive = "inconclusive", [f for f in findings if f.outcome == "unknown"]
    elif evidence.known is not None and all(f.name in _ARTIFACT for f in carrying):
        return Verdict(judge="gate", decision="inconclusive", reason=_NOTHING_OF_ANSWERS, findings=findings)
    else:
        decision, decisive = "pass", carrying
    reason = "; ".join(f"{f.name}: {f.reason}" for f in decisive) or "no check applied, and nothing is no evidence"
    return Verdict(judge="gate", decision=decision, reason=phrase.one_line(reason), findings=findings)


def confidence_at(confidence: float, attempt: int) -> float:
    """The confidence left for the k-th candidate on the same holdout.

    alpha_k = 6 alpha / (pi^2 k^2), which sums to alpha over all k: however many candidates are tried, the chance that
    any bad one passes stays at alpha. The first attempt pays too (0.61 alpha), since nobody knows that it is the last.

    Raises:
        ValueError: For an attempt below 1.
    """
    if attempt < 1:
        raise ValueError(f"attempt {attempt} is no attempt; the first candidate on a holdout is attempt 1")
    return 1 - 6 * (1 - confidence) / (math.pi**2 * attempt**2)


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Unmeasurable as reason:
        return Finding(name=name, outcome="unknown", reason=str(reason))


def _off(name: str) -> Finding:
    return Finding(name=name, outcome="exempt", reason="turned off in the policy")


def _default(problem: Problem | str, classification: str) -> str:
    return "r2" if problem == "regression" else classification


def _function(metric: str, custom: Mapping[str, Custom]) -> Custom | None:
    return None if metric in FAMILIES else custom.get(metric)


def _performance(evidence: GateEvidence, rules: Gate, problem: Problem | str, custom: Mapping[str, Custom]) -> Finding:
    if (check := rules.performance) is None:
        return _off("performance")
    metric = check.metric or _default(problem, "accuracy")
    function, confidence = _function(metric, custom), confidence_at(check.confidence, evidence.attempt)
    # What a constant answer reaches is asked of a first model: of later ones Production shows what can be had.
    alone = evidence.known is not None and (evidence.baseline is None or rules.regression is None)
    if check.at_least is None:
        if alone:
            return _without_floor(evidence, check, metric, function, confidence)
        reason = f"no floor for {metric} in the policy (gate.performance.at_least)"
        return Finding(name="performance", outcome="exempt", reason=reason)
    measured = measure(metric, evidence.candidate, function)
    found = _against_floor(measured, check, check.at_least, confidence, evidence.attempt)
    if not alone or found.outcome != "ok":
        return found
    if metric in _ONE_SIDED:
        return _beyond_guessing(found, evidence, confidence)
    return _beyond_constant(found, check.at_least, evidence, metric, function, confidence)


def _judged_by(evidence: GateEvidence, rules: Gate, problem: Problem | str) -> list[str]:
    """The metrics that speak about the candidate's answers as a whole."""
    named = [rules.performance.metric or _default(problem, "accuracy")] if rules.performance else []
    if rules.regression is not None and evidence.baseline is not None:
        named.append(rules.regression.metric or _default(problem, "f1_weighted"))
    return named


def _without_floor(
    evidence: GateEvidence, check: PerformanceCheck, metric: str, custom: Custom | None, confidence: float
) -> Finding:
    """A first model without a floor: it must be shown to be better than the best constant answer."""
    remedy = "set gate.performance.at_least"
    try:
        other = answers.constant(metric, evidence.candidate, custom)
    except Unmeasurable as reason:
        raise Unmeasurable(f"no floor for {metric} in the policy, and {reason}: {remedy}") from None
    outcome, said, apart = answers.against_constant(
        metric, evidence.candidate, other, confidence=confidence, custom=custom
    )
    return Finding(
        name="performance",
        outcome=outcome,
        reason=said if outcome == "ok" else f"{said}; {remedy}, if that is meant",
        value=apart.candidate,
        threshold=other.value,
        n=apart.n,
        evidence={
            "metric": metric,
            "constant": other.said,
            "confidence": confidence,
            "policy_confidence": check.confidence,
            "attempt": evidence.attempt,
        },
    )


def _beyond_constant(
    found: Finding, limit: float, evidence: GateEvidence, metric: str, custom: Custom | None, confidence: float
) -> Finding:
    """A floor that a constant answer clears too is none: then the candidate must be better than that."""
    try:
        other = answers.constant(metric, evidence.candidate, custom)
    except Unmeasurable:
        return found
    if other.value > limit if is_loss(metric) else other.value < limit:
        return found
    outcome, said, _ = answers.against_constant(metric, evidence.candidate, other, confidence=confidence, custom=custom)
    reason = f"{found.reason}, which always answering {other.said} clears too: {said}"
    if outcome != "ok":
        reason += "; set a gate.performance.at_least that tells, or judge by another metric"
    return replace(found, outcome=outcome, reason=reason, evidence={**found.evidence, "constant": other.said})


def _beyond_guessing(found: Finding, evidence: GateEvidence, confidence: float) -> Finding:
    """Most positives are found by answering yes to most rows, whichever they are: that alone shows no model."""
    other = answers.constant(_TELLING, evidence.candidate, None)
    outcome, said, _ = answers.against_constant(_TELLING, evidence.candidate, other, confidence=confidence, custom=None)
    if outcome == "ok":
        return found
    reason = f"{found.reason}, which answers that are drawn by lot may do too: {said}; judge by another metric"
    return replace(found, outcome=outcome, reason=reason, evidence={**found.evidence, "constant": other.said})


def _against_floor(
    measured: Measurement, check: PerformanceCheck, limit: float, confidence: float, attempt: int
) -> Finding:
    low, high = bounds(measured, confidence=confidence)
    loss = not measured.greater_is_better
    cleared = high <= limit if loss else low >= limit
    missed = low > limit if loss else high < limit
    outcome: Outcome = "ok" if cleared else "breach" if missed else "unknown"
    edge = "ceiling" if loss else "floor"
    said = (
        f"{measured.metric} {phrase.number(measured.value)} ({phrase.number(low)} to {phrase.number(high)}) "
        f"on {phrase.count(measured.n)} rows"
    )
    width = high - measured.value if measured.value < limit else measured.value - low
    words = {
        "ok": f"{said} clears the {edge} {phrase.number(limit)}",
        "breach": f"{said} is {'above' if loss else 'below'} the {edge} {phrase.number(limit)}",
        "unknown": f"{said} cannot be told from the {edge} {phrase.number(limit)}; "
        + _rows_wanted(measured.n, width, abs(measured.value - limit)),
    }
    return Finding(
        name="performance",
        outcome=outcome,
        reason=words[outcome],
        value=measured.value,
        threshold=float(limit),
        interval=(low, high),
        n=measured.n,
        evidence={
            "metric": measured.metric,
            "standard_error": measured.error,
            "confidence": confidence,
            "policy_confidence": check.confidence,
            "attempt": attempt,
        },
    )


def _rows_wanted(n: int, width: float, gap: float) -> str:
    """How many more rows would tell: the bound's distance shrinks with the root of the rows."""
    if gap <= width * math.sqrt(n / 1e8):
        return "inconclusive, and it sits so near that no number of rows is in sight that would tell"
    wanted = n * (width / gap) ** 2
    return f"inconclusive, with about {phrase.about(max(wanted - n, 1))} more rows it would be clear"


def _compared(evidence: GateEvidence, custom: Mapping[str, Custom]) -> Callable[[str], Spread]:
    """The paired difference from Production by a metric; checks that ask for the same one share it."""

    @cache
    def spread(metric: str) -> Spread:
        if evidence.production is None:
            raise Unmeasurable("there are no scores of Production to compare with")
        return paired(metric, evidence.candidate, evidence.production, custom=_function(metric, custom))

    return spread


def _regression(
    evidence: GateEvidence, rules: Gate, problem: Problem | str, compared: Callable[[str], Spread]
) -> Finding:
    if (check := rules.regression) is None:
        return _off("regression")
    if (missing := _no_baseline("regression", evidence)) is not None or evidence.production is None:
        return missing or _off("regression")
    metric = check.metric or _default(problem, "f1_weighted")
    confidence = confidence_at(check.confidence, evidence.attempt)
    spread = compared(metric)
    return _against_margin(spread.at(confidence), check, evidence, spread.visible(check.margin, confidence))


def _no_baseline(name: str, evidence: GateEvidence) -> Finding | None:
    if evidence.baseline is None:
        reason = "no baseline: there is no Production version to compare with"
        return Finding(name=name, outcome="exempt", reason=reason)
    if evidence.production is None:
        why = evidence.baseline_reason or "no reason was given"
        reason = f"version {evidence.baseline} in Production has no scores on these rows: {why}"
        return Finding(name=name, outcome="unknown", reason=phrase.one_line(reason))
    return None


def _against_margin(difference: Difference, check: RegressionCheck, evidence: GateEvidence, visible: float) -> Finding:
    margin, value = check.margin, difference.value
    outcome: Outcome = "ok" if difference.low > -margin else "breach" if difference.high < -margin else "unknown"
    direction = "better" if value >= 0 else "worse"
    said = (
        f"{difference.metric} {phrase.number(difference.candidate)} against {phrase.number(difference.production)} of "
        f"version {evidence.baseline}, {phrase.number(abs(value))} {direction} "
        f"({phrase.number(difference.low)} to {phrase.number(difference.high)}) on {phrase.count(difference.n)} rows"
    )
    width = value - difference.low if value > -margin else difference.high - value
    wanted = _rows_wanted(difference.n, width, abs(value + margin))
    seen = f"with {phrase.count(difference.n)} rows a loss of {phrase.number(visible)} or more would have been found"
    words = {
        "ok": f"{said}: no worse than the margin {phrase.number(margin)}; {seen}",
        "breach": f"{said}: worse by more than the margin {phrase.number(margin)}",
        "unknown": f"{said}: cannot be told from the margin {phrase.number(margin)}; {seen}; {wanted}",
    }
    return Finding(
        name="regression",
        outcome=outcome,
        reason=words[outcome],
        value=value,
        threshold=-margin,
        margin=margin,
        interval=(difference.low, difference.high),
        n=difference.n,
        evidence={
            "metric": difference.metric,
            "candidate": difference.candidate,
            "production": difference.production,
            "baseline": evidence.baseline,
            "confidence": difference.confidence,
            "policy_confidence": check.confidence,
            "attempt": evidence.attempt,
            "visible": visible,
        },
    )


def _slices(
    evidence: GateEvidence, rules: Gate, problem: Problem | str, custom: Mapping[str, Custom]
) -> tuple[Finding, ...]:
    """Those of the policy, before everything else: an average hides them."""
    if not rules.slices:
        return ()
    if (missing := _no_baseline("slices", evidence)) is not None:
        return (missing,)
    whole = rules.regression.metric if rules.regression else ""
    return slices.judge(
        evidence,
        rules.slices,
        metric=whole or _default(problem, "accuracy"),
        custom=custom,
        left=lambda confidence: confidence_at(confidence, evidence.attempt),
    )


def _stability(
    evidence: GateEvidence, rules: Gate, problem: Problem | str, compared: Callable[[str], Spread]
) -> Finding:
    if (check := rules.stability) is None:
        return _off("stability")
    if (missing := _no_baseline("stability", evidence)) is not None or evidence.production is None:
        return missing or _off("stability")
    wanted = rules.regression.confidence if rules.regression else 0.95
    return stability.judge(
        evidence.candidate,
        evidence.production,
        check,
        problem=problem,
        confidence=confidence_at(wanted, evidence.attempt),
        compared=compared,
    )


def _latency(evidence: GateEvidence, rules: Gate) -> Finding:
    if (check := rules.latency) is None:
        return _off("latency")
    if evidence.latencies is None or np.size(evidence.latencies) == 0:
        raise Unmeasurable("the time of a single-row predict was not measured")
    seconds = np.asarray(evidence.latencies, dtype=np.float64)
    if not np.all(np.isfinite(seconds) & (seconds >= 0)):
        raise Unmeasurable(f"some of the {seconds.size:,} measured times are negative, NaN or infinite")
    return _against_limit(seconds, check)


def _against_limit(seconds: np.ndarray[tuple[int, ...], np.dtype[np.float64]], check: LatencyCheck) -> Finding:
    limit, calls = check.p99.total_seconds(), seconds.size
    value = float(np.sort(seconds)[math.ceil(0.99 * calls) - 1])
    low, high = quantile_bounds(seconds, 0.99, check.confidence)
    least = least_sample(0.99, check.confidence)
    outcome: Outcome = "unknown"
    if high is not None and high <= limit:
        outcome = "ok"
    elif low is not None and low > limit:
        outcome = "breach"
    said = f"p99 of {phrase.count(calls)} single-row predictions is {_milliseconds(value)}"
    words = {
        "ok": f"{said} (at most {_milliseconds(high or 0.0)}), within {_milliseconds(limit)}",
        "breach": f"{said} (at least {_milliseconds(low or 0.0)}), over {_milliseconds(limit)}",
        "unknown": f"{said}, but {calls} calls cannot bound a p99: {least} are the least"
        if high is None
        else f"{said}, which cannot be told from the limit {_milliseconds(limit)}; measure more calls",
    }
    return Finding(
        name="latency",
        outcome=outcome,
        reason=words[outcome],
        value=value,
        threshold=limit,
        interval=(low if low is not None else 0.0, high) if high is not None else None,
        n=calls,
        evidence={
            "unit": "seconds",
            "p50": float(np.median(seconds)),
            "min": float(seconds.min()),
            "confidence": check.confidence,
            "least_calls": least,
        },
    )


def _milliseconds(seconds: float) -> str:
    return f"{phrase.number(1000 * seconds)} ms"


def _size(evidence: GateEvidence, rules: Gate) -> Finding:
    limit, size = rules.size, evidence.size
    if limit is None:
        return _off("size")
    if size is None or not math.isfinite(size) or size <= 0:
        reason = f"the size of the deployed artifact is {size}; it could not be measured"
        return Finding(name="size", outcome="unknown", reason=reason, threshold=float(limit))
    over = size > limit
    reason = f"the artifact that is deployed has {format_size(int(size))}, {'over' if over else 'within'} "
    return Finding(
        name="size",
        outcome="breach" if over else "ok",
        reason=reason + format_size(limit),
        value=float(size),
        threshold=float(limit),
        n=1,
        evidence={"unit": "bytes"},
    )


def _fresh_process(evidence: GateEvidence, rules: Gate) -> Finding:
    if not rules.fresh_process:
        return _off("fresh_process")
    told = phrase.one_line(evidence.loads_reason)
    if evidence.loads is None:
        reason = told or "loading it in a fresh process was not tried"
        return Finding(name="fresh_process", outcome="unknown", reason=reason)
    if evidence.loads:
        reason = told or "loaded and answered the stored example in a fresh process"
        return Finding(name="fresh_process", outcome="ok", reason=reason, n=1)
    reason = told or "did not load or did not answer the stored example in a fresh process"
    return Finding(name="fresh_process", outcome="breach", reason=reason, n=1)
