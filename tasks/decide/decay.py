"""Decay: has the Production version become worse than it was when it was promoted?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tasks.decide import phrase
from tasks.decide.influence import UNIT, Unmeasurable
from tasks.decide.intervals import normal_quantile
from tasks.decide.metrics import bounds
from tasks.records import Finding, Measurement

if TYPE_CHECKING:
    from tasks.policy import PerformanceTrigger

_POWER = 0.95
"""How often a loss must be found to be one that "would have been found"."""
_ROUNDING = 1e-9  # 0.83 - 0.80 is a hair below 0.03 in binary; a reached limit counts as reached


def judge(current: Measurement, baseline: Measurement | None, rules: PerformanceTrigger) -> Finding:
    """The trigger ``performance``: a drop against the version's own baseline, or a value below the floor.

    A drop fires when it is reached at the point and chance is ruled out at ``rules.confidence``, with the standard
    errors of both measurements counted. The floor fires when the value is shown to be below it (above it for a loss).

    Raises:
        Unmeasurable: The current value is no number.
    """
    if not math.isfinite(current.value):
        raise Unmeasurable(f"{current.metric} on recent labels is {current.value}")
    if current.n < rules.min_labels:
        raise Unmeasurable(
            f"{phrase.count(current.n)} labelled rows since training, {phrase.count(rules.min_labels)} are needed"
        )
    floor = _floor(current, rules)
    if floor is not None and floor.outcome == "breach":
        return floor
    drop = _drop(current, baseline, rules)
    if drop.outcome == "ok" and floor is not None and floor.outcome == "unknown":
        return floor
    return drop


def _floor(current: Measurement, rules: PerformanceTrigger) -> Finding | None:
    """None when there is no floor or it is kept."""
    if rules.floor is None:
        return None
    loss = not current.greater_is_better
    below = current.value > rules.floor if loss else current.value < rules.floor
    if not below:
        return None
    low, high = bounds(current, confidence=rules.confidence)
    shown = low > rules.floor if loss else high < rules.floor
    side = "over the ceiling" if loss else "under the floor"
    said = f"{current.metric} {phrase.number(current.value)} on {phrase.count(current.n)} labels is {side} "
    return Finding(
        name="performance",
        outcome="breach" if shown else "unknown",
        reason=said + phrase.number(rules.floor) + ("" if shown else ", but that could be chance"),
        value=current.value,
        threshold=rules.floor,
        interval=(low, high),
        n=current.n,
        urgency="critical" if shown else None,
        evidence={"metric": current.metric, "rule": "floor", "confidence": rules.confidence},
    )


def _drop(current: Measurement, baseline: Measurement | None, rules: PerformanceTrigger) -> Finding:
    if baseline is None or not math.isfinite(baseline.value):
        reason = f"the Production version has no baseline for {current.metric}; only the floor can be judged"
        return Finding(name="performance", outcome="unknown", reason=reason, value=current.value, n=current.n)
    sign = 1.0 if current.greater_is_better else -1.0
    drop = sign * (baseline.value - current.value)
    allowed = rules.drop if rules.relative_drop is None else rules.relative_drop * abs(baseline.value)
    said = (
        f"{current.metric} {phrase.number(current.value)} on {phrase.count(current.n)} labels against "
        f"{phrase.number(baseline.value)} at promotion"
    )
    error = _joint_error(current, baseline)
    z = normal_quantile(rules.confidence)
    visible = _visible(allowed, error, z)
    evidence = {
        "metric": current.metric,
        "rule": "drop",
        "visible": visible,
        "current": current.value,
        "baseline": baseline.value,
        "standard_error": error,
        "confidence": rules.confidence,
        "relative": rules.relative_drop is not None,
    }
    finding = Finding(
        name="performance",
        outcome="ok",
        reason=f"{said}: the drop {phrase.number(drop)} does not reach {phrase.number(allowed)}; "
        + _could_be_seen(current, visible),
        value=drop,
        threshold=allowed,
        interval=None if error is None else (drop - z * error, drop + z * error),
        n=current.n,
        evidence=evidence,
    )
    if drop < allowed - _ROUNDING:
        return finding
    return _reached(finding, said, (current, baseline), z)


def _reached(finding: Finding, said: str, pair: tuple[Measurement, Measurement], z: float) -> Finding:
    drop, allowed = finding.value or 0.0, finding.threshold or 0.0
    shown = finding.interval is not None and finding.interval[0] > 0
    reached = f"{said}: the drop {phrase.number(drop)} reaches {phrase.number(allowed)}"
    return Finding(
        name=finding.name,
        outcome="breach" if shown else "unknown",
        reason=reached if shown else f"{reached}, but could be chance; {_labels_wanted(drop, *pair, z)}",
        value=drop,
        threshold=allowed,
        interval=finding.interval,
        n=finding.n,
        urgency=None if not shown else "high" if drop > 2 * allowed + _ROUNDING else "medium",
        evidence=finding.evidence,
    )


def _visible(allowed: float, error: float | None, z: float) -> float | None:
    """The smallest true loss that so many labels show nineteen times of twenty.

    It is found once the measured one reaches both the policy's limit and z standard errors, and the measured one lies
    less than 1.64 standard errors below the true one as often as that.
    """
    return None if error is None else max(allowed, z * error) + normal_quantile(_POWER) * error


def _could_be_seen(current: Measurement, visible: float | None) -> str:
    if visible is None:
        return "what could have been found is not known, as its standard error is not"
    share = current.metric in UNIT
    loss = f"{100 * visible:.1f} points" if share else phrase.number(visible)
    return f"with {phrase.count(current.n)} labels a loss of {loss} or more would have been found"


def _joint_error(current: Measurement, baseline: Measurement) -> float | None:
    errors = (current.error, baseline.error)
    known = [error for error in errors if error is not None and math.isfinite(error)]
    return math.hypot(*known) if len(known) == 2 else None


def _labels_wanted(drop: float, current: Measurement, baseline: Measurement, z: float) -> str:
    if current.error is None or baseline.error is None:
        return "its standard error is not known"
    room = (drop / z) ** 2 - baseline.error**2 if z > 0 else 0.0
    if room <= 0:
        return f"no number of labels would tell, as the baseline itself rests on {phrase.count(baseline.n)} rows"
    wanted = current.n * current.error**2 / room - current.n
    if wanted > 1e8:
        return "it sits so near that no number of labels is in sight that would tell"
    return f"about {phrase.about(max(wanted, 1))} more labels would tell"
