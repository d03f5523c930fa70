"""Slices: does a segment of the rows pay for the average? Each is compared with Production on its own rows.

Two questions are asked of a segment. Is it shown to be worse by more than the margin? That is asked of all segments of
the gate together, so that among many of them chance alone finds none: Benjamini and Hochberg (1995), under whose rule a
candidate that is worse nowhere fails at most as often as it may for one. And where the policy asks for safety: is it
shown not to be? That needs no correction, since every segment must be, and the chance that one bad one passes is the
chance for that one (an intersection-union test; Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.decide import phrase
from tasks.decide.metrics import Custom, Spread, Unmeasurable, paired, subset
from tasks.records import Finding, GateEvidence, Outcome, Segments

if TYPE_CHECKING:
    from tasks.policy import SliceCheck

_ORDER: dict[Outcome, int] = {"breach": 0, "unknown": 1, "exempt": 2, "ok": 3}


class _Slice(NamedTuple):
    """One segment.

    Attributes:
        check: Of the policy.
        metric: That it is compared by.
        confidence: That is left for this candidate.
        name: Column and value.
        rows: How many it has.
        spread: The difference; None where there is none.
        why: Why there is none.
    """

    check: SliceCheck
    metric: str
    confidence: float
    name: str
    rows: int
    spread: Spread | None
    why: str = ""


def judge(
    evidence: GateEvidence,
    checks: tuple[SliceCheck, ...],
    *,
    metric: str,
    custom: Mapping[str, Custom],
    left: Callable[[float], float],
) -> tuple[Finding, ...]:
    """One finding per segment, those that fail first; none is left out.

    Args:
        evidence: With the segments, and with Production's scores.
        checks: The policy's ``gate.slices``.
        metric: For a check that names none.
        custom: Functions of metrics that are not built in.
        left: The confidence that is left of the policy's for this candidate.
    """
    found = {one.by: one for one in evidence.segments}
    missing = [_missing(check.by) for check in checks if check.by not in found]
    slices = [
        one
        for check in checks
        if check.by in found
        for one in _slices(evidence, found[check.by], check, check.metric or metric, custom, left(check.confidence))
    ]
    worse = _shown_worse(slices)
    findings = [_finding(one, len(slices), worse=place in worse) for place, one in enumerate(slices)]
    return tuple(sorted([*missing, *findings], key=lambda one: (_ORDER[one.outcome], one.value or 0.0)))


def _missing(by: str) -> Finding:
    reason = f"the holdout has no feature column {by!r} to look at segments by; correct gate.slices, or keep the column"
    return Finding(name=f"slice {by}", outcome="unknown", reason=reason)


def _slices(
    evidence: GateEvidence,
    segments: Segments,
    check: SliceCheck,
    metric: str,
    custom: Mapping[str, Custom],
    confidence: float,
) -> list[_Slice]:
    out = []
    for code, name in enumerate(segments.names):
        rows = np.flatnonzero(segments.codes == code)
        spread, why = _compared(evidence, rows, check, metric, custom)
        out.append(_Slice(check, metric, confidence, f"{segments.by} = {name}", int(rows.size), spread, why))
    return out


def _compared(
    evidence: GateEvidence,
    rows: np.ndarray[tuple[int, ...], np.dtype[np.intp]],
    check: SliceCheck,
    metric: str,
    custom: Mapping[str, Custom],
) -> tuple[Spread | None, str]:
    if rows.size < check.min_rows:
        return None, f"{phrase.count(int(rows.size))} rows, {phrase.count(check.min_rows)} are needed to judge it"
    if evidence.production is None or max(rows, default=0) >= evidence.candidate.truth.size:
        return None, "its rows are not those of the scores"
    try:
        pair = subset(evidence.candidate, rows), subset(evidence.production, rows)
        return paired(metric, *pair, custom=custom.get(metric)), ""
    except Unmeasurable as reason:
        return None, phrase.one_line(f"{phrase.count(int(rows.size))} rows, and {reason}")


def _shown_worse(slices: list[_Slice]) -> frozenset[int]:
    """Positions of those that are shown to be worse by more than their margin, all of them counted."""
    judged = [
        (one.spread.chance(one.check.margin) / (1 - one.confidence), place)
        for place, one in enumerate(slices)
        if one.spread is not None
    ]
    ranked = sorted(judged)
    passing = [rank for rank, (part, _) in enumerate(ranked, start=1) if part <= rank / len(ranked)]
    return frozenset(place for _, place in ranked[: passing[-1]]) if passing else frozenset()


def _finding(one: _Slice, judged: int, *, worse: bool) -> Finding:
    small: Outcome = "unknown" if one.check.too_small == "unknown" else "exempt"
    if one.spread is None:
        return Finding(name=f"slice {one.name}", outcome=small, reason=one.why, n=one.rows)
    seen, margin = one.spread.at(one.confidence), one.check.margin
    open_ended: Outcome = "unknown" if one.check.prove == "safety" else "exempt"
    outcome: Outcome = "breach" if worse else "ok" if seen.low > -margin else open_ended
    said = (
        f"{seen.metric} {phrase.number(seen.candidate)} against {phrase.number(seen.production)}, "
        f"{phrase.number(abs(seen.value))} {'better' if seen.value >= 0 else 'worse'} "
        f"({phrase.number(seen.low)} to {phrase.number(seen.high)}) on {phrase.count(seen.n)} rows"
    )
    words = {
        "ok": f"no worse than the margin {phrase.number(margin)}",
        "breach": f"worse by more than the margin {phrase.number(margin)}, {judged} segments counted",
        "unknown": f"cannot be told from the margin {phrase.number(margin)}",
        "exempt": f"not shown to be worse; a loss of about {phrase.number(_visible(one, judged))} would have been",
    }
    return Finding(
        name=f"slice {one.name}",
        outcome=outcome,
        reason=f"{said}: {words[outcome]}",
        value=seen.value,
        threshold=-margin,
        margin=margin,
        interval=(seen.low, seen.high),
        n=seen.n,
        evidence={
            "metric": seen.metric,
            "candidate": seen.candidate,
            "production": seen.production,
            "confidence": one.confidence,
            "policy_confidence": one.check.confidence,
            "segments": judged,
            "prove": one.check.prove,
            "p_value": one.spread.chance(margin),
        },
    )


def _visible(one: _Slice, judged: int) -> float:
    """Loss that would be shown even if no other segment were worse."""
    sure = 1 - (1 - one.confidence) / max(judged, 1)
    return math.nan if one.spread is None else one.spread.visible(one.check.margin, sure)
