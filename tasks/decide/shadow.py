"""Shadow: both models on the same requests, compared per request, with an answer that may be asked for every day."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tasks.decide import phrase
from tasks.decide.intervals import Floats, clopper_pearson
from tasks.decide.sequential import at_once
from tasks.records import Finding, LiveShadow, Outcome, ShadowEvidence, Verdict

if TYPE_CHECKING:
    from tasks.policy import Shadow

FAILURES = 0.01
"""Share of requests that a challenger may fail on; a model that cannot answer is not made good by accuracy."""
_SELDOM = 1.6449  # standard errors below which one measurement of twenty lies
_BETS = np.geomspace(0.05, 0.8, 4)


class Side(NamedTuple):
    """One of the two questions.

    Attributes:
        log_e: Log of the e-value; the answer is yes at ``ln(1/alpha)``.
        growth: Expected gain of it per further labelled request, of the best bet; 0 or less: it leads nowhere.
    """

    log_e: float
    growth: float


def evidence_above(wins: ArrayLike, losses: ArrayLike, ties: ArrayLike, bound: float) -> Floats:
    """Log of the evidence that the mean of d in {-1, 0, +1} is above ``bound``.

    Each bet multiplies by ``1 + lambda (d - bound)`` (Waudby-Smith and Ramdas 2024, arXiv 2010.09686, section 4), the
    e-value is their mean. It depends on the counts only, so on no order.

    Args:
        wins: d = +1, shape (...,).
        losses: d = -1.
        ties: d = 0.
        bound: Above -1.

    Returns:
        shape (...,). Whenever it is looked at, it reaches ``ln(1/alpha)`` with at most chance alpha while the mean is
        not above ``bound``.
    """
    counts = np.stack(np.broadcast_arrays(*(np.asarray(one, dtype=np.float64) for one in (wins, losses, ties))), -1)
    out: Floats = np.logaddexp.reduce(counts @ _steps(bound), axis=-1) - math.log(len(_BETS))
    return out


def _steps(bound: float) -> Floats:
    """Log of the factor of every bet for a win, a loss and a tie; shape (3, bets)."""
    rates = _BETS / (1 + bound)
    return np.stack([np.log1p(rates * (1 - bound)), np.log1p(-rates * (1 + bound)), np.log1p(-rates * bound)])


def side(wins: int, losses: int, ties: int, bound: float) -> Side:
    """Evidence that the mean of d is above ``bound``, and where it leads; see :func:`evidence_above`."""
    counts = np.array([wins, losses, ties], dtype=np.float64)
    # One of each in advance: an outcome that has not been seen yet is not impossible.
    expected: Floats = ((counts + 1) / (counts.sum() + 3)) @ _steps(bound)
    return Side(float(evidence_above(wins, losses, ties, bound)), float(expected.max()))


def nothing_to_compare(reason: str) -> Verdict:
    """Shadow does not apply; the gate alone has decided.

    Args:
        reason: Why: this is the first model, or the policy has no shadow.
    """
    return Verdict(
        judge="shadow",
        decision="promote",
        reason=reason,
        findings=(Finding(name="shadow", outcome="exempt", reason=reason),),
    )


def judge(evidence: ShadowEvidence, rules: Shadow) -> Verdict:
    """Promote, reject or wait.

    Promote when the challenger is shown to lose at most ``tolerate`` per labelled request, reject when it is shown
    to be worse or to fail on more than 1 % of the requests; each is wrong at most as often as ``false_promotion``,
    however often it is asked. A challenger that is worse by less than what is tolerated is promoted. With
    ``worth_having`` it is promoted when it is shown to be better, and rejected when it is shown to gain less than that.
    With ``live`` in the policy it must also have answered live requests for so long, and so many of them.
    """
    if problem := _contradiction(evidence):
        broken = Finding(name="comparison", outcome="unknown", reason=f"the counts contradict each other: {problem}")
        return Verdict(judge="shadow", decision="wait", reason=broken.reason, findings=(broken,))
    comparison, agreement, failures = _comparison(evidence, rules), _agreement(evidence), _failures(evidence, rules)
    live = (_live(evidence, rules),) if rules.live is not None else ()
    findings = (comparison, agreement, failures, *live)
    deciding = (comparison, failures, *live)
    outcomes = {finding.outcome for finding in deciding}
    if "breach" in outcomes:
        decision, decisive = "reject", [f for f in deciding if f.outcome == "breach"]
    elif outcomes == {"ok"}:
        decision, decisive = "promote", list(deciding)
    else:
        decision, decisive = "wait", [f for f in deciding if f.outcome == "unknown"]
    reason = "; ".join(finding.reason for finding in decisive)
    return Verdict(judge="shadow", decision=decision, reason=reason, findings=findings)


def _contradiction(evidence: ShadowEvidence) -> str:
    counts = {
        name: getattr(evidence, name) for name in ("wins", "losses", "ties", "requests", "agreements", "failures")
    }
    if evidence.live is not None:
        counts |= {"live requests": evidence.live.requests, "live failures": evidence.live.failures}
    broken = [f"{name} = {value}" for name, value in counts.items() if not (math.isfinite(value) and value >= 0)]
    if broken:
        return ", ".join(broken)
    labelled = evidence.wins + evidence.losses + evidence.ties
    if labelled > evidence.requests:
        return f"{labelled} labelled among {evidence.requests} requests"
    if evidence.agreements > evidence.requests:
        return f"{evidence.agreements} agreements among {evidence.requests} requests"
    if evidence.live is not None and evidence.live.failures > evidence.live.requests:
        return f"{evidence.live.failures} live failures among {evidence.live.requests} live requests"
    return ""


def _comparison(evidence: ShadowEvidence, rules: Shadow) -> Finding:
    wins, losses, ties = evidence.wins, evidence.losses, evidence.ties
    labelled = wins + losses + ties
    enough = -math.log(rules.false_promotion)
    low, high = rules.bounds
    up, down = side(wins, losses, ties, low), side(losses, wins, ties, -high)
    value = (wins - losses) / labelled if labelled else None
    outcome, reason = _answer(evidence, rules, up, down)
    return Finding(
        name="comparison",
        outcome=outcome,
        reason=reason,
        value=value,
        threshold=low,
        margin=high - low,
        interval=_interval(wins, losses, labelled, rules.false_promotion) if labelled else None,
        n=labelled,
        evidence={
            "wins": wins,
            "losses": losses,
            "ties": ties,
            "log_e_not_worse": up.log_e,
            "log_e_worse": down.log_e,
            "log_e_needed": enough,
        },
    )


def _answer(evidence: ShadowEvidence, rules: Shadow, up: Side, down: Side) -> tuple[Outcome, str]:
    wins, losses = evidence.wins, evidence.losses
    labelled = wins + losses + evidence.ties
    enough = -math.log(rules.false_promotion)
    if not evidence.requests and not evidence.failures:
        return "unknown", (
            f"no requests were recorded between {evidence.span.start:%Y-%m-%d %H:%M} and "
            f"{evidence.span.end:%Y-%m-%d %H:%M} UTC; record what Production answers in the request log "
            "(the gateway does), or write `shadow: off` in the policy"
        )
    score = (
        f"only the challenger was right on {phrase.count(wins)}, only the champion on {phrase.count(losses)} "
        f"of {phrase.count(labelled)} labelled requests"
    )
    could = _could_be_seen(evidence, rules, enough) if labelled else ""
    if up.log_e >= enough:
        better = f"it loses at most {phrase.percent(rules.tolerate)}" if rules.worth_having is None else "it is better"
        return "ok", f"{score}: {better}; {could}"
    if down.log_e >= enough:
        worth = rules.worth_having
        return "breach", f"{score}: it {'is worse' if worth is None else f'gains less than {phrase.percent(worth)}'}"
    if not labelled:
        score = f"none of {phrase.count(evidence.requests)} requests has a label yet"
    seen = f"; {could}" if could else ""
    return "unknown", f"{score}; too little to tell, {_still_needed(up, down, enough)}{seen}"


def smallest_visible(labelled: int, differ: float, log_threshold: float) -> float | None:
    """The smallest loss that would have been shown by now, nineteen times of twenty; of a gain it is the same.

    The measured loss lies less than 1.64 standard errors below the true one as often as that.

    Args:
        labelled: Requests with a label.
        differ: Share of them on which exactly one of the two was right.
        log_threshold: Log of the e-value that is an answer.

    Returns:
        In (0, 1], or None when not even losing every request would have been seen.
    """

    def shown(loss: float) -> bool:
        both = max(differ, loss)
        measured = loss - _SELDOM * math.sqrt((both - loss**2) / labelled)
        lost, won = labelled * (both + measured) / 2, labelled * (both - measured) / 2
        return bool(evidence_above(lost, won, labelled * (1 - both), 0.0) >= log_threshold)

    if not shown(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def _could_be_seen(evidence: ShadowEvidence, rules: Shadow, enough: float) -> str:
    sought = ("loss", "losing") if rules.worth_having is None else ("gain", "winning")
    labelled = evidence.wins + evidence.losses + evidence.ties
    visible = smallest_visible(labelled, (evidence.wins + evidence.losses) / labelled, enough)
    if visible is None:
        return f"with {phrase.count(labelled)} labels not even {sought[1]} all of them would have been found"
    return (
        f"with {phrase.count(labelled)} labels a {sought[0]} of {phrase.percent(visible)} or more would have been found"
    )


def _still_needed(up: Side, down: Side, enough: float) -> str:
    """A range, because a forecast from few labels is rough."""
    waits = [(enough - one.log_e) / one.growth for one in (up, down) if one.growth > 1e-9]
    if not waits or min(waits) > 1e7:
        return "and no number of further labels is in sight that would"
    return f"about {phrase.about(min(waits) / 2)} to {phrase.about(2 * min(waits))} more labels are needed"


def _interval(wins: int, losses: int, labelled: int, alpha: float) -> tuple[float, float]:
    """For the eye: exact bounds of the two shares, half of alpha each; the decision rests on the e-values."""
    won, lost = (clopper_pearson(hits, labelled, 1 - alpha / 2) for hits in (wins, losses))
    return won[0] - lost[1], won[1] - lost[0]


def _agreement(evidence: ShadowEvidence) -> Finding:
    if not evidence.requests:
        return Finding(name="agreement", outcome="unknown", reason="no request was answered by both models", n=0)
    rate = evidence.agreements / evidence.requests
    return Finding(
        name="agreement",
        outcome="exempt",
        reason=f"both gave the same answer to {phrase.percent(rate)} of {phrase.count(evidence.requests)} requests "
        "(reported; the policy sets no limit)",
        value=rate,
        interval=clopper_pearson(evidence.agreements, evidence.requests, 0.95),
        n=evidence.requests,
    )


def live_enough(live: LiveShadow | None, rules: Shadow, now: datetime) -> str:
    """What is missing of the live shadow that the policy asks for; empty: nothing.

    Args:
        live: What was counted.
        rules: With ``live``; without it nothing is missing.
        now: The moment that it is asked for.
    """
    if rules.live is None:
        return ""
    if live is None or live.since is None:
        return (
            "the challenger has answered no live request yet; the gateway gives them to it while it waits in Staging, "
            "and says under /readyz why it does not"
        )
    missing = []
    if (lasted := now - live.since) < rules.live:
        missing.append(f"{phrase.period(lasted)} of {phrase.period(rules.live)}")
    if live.requests < rules.live_requests:
        missing.append(f"{phrase.count(live.requests)} of {phrase.count(rules.live_requests)} live requests")
    return f"the challenger has answered live for {' and '.join(missing)} so far" if missing else ""


def _live(evidence: ShadowEvidence, rules: Shadow) -> Finding:
    """Apart from the replayed requests: many of those would hide a few live ones that it dies of."""
    live, missing = evidence.live, live_enough(evidence.live, rules, evidence.span.end)
    if live is None or not live.requests:
        return Finding(name="live", outcome="unknown", reason=missing, threshold=FAILURES, n=0)
    found = _failing("live", live.failures, live.requests, "live requests", rules)
    if missing and found.outcome != "breach":
        return replace(found, outcome="unknown", reason=missing)
    return found


def _failures(evidence: ShadowEvidence, rules: Shadow) -> Finding:
    failed, total = evidence.failures, evidence.requests + evidence.failures
    if not total:
        return Finding(name="failures", outcome="unknown", reason="no request was replayed", threshold=FAILURES, n=0)
    return _failing("failures", failed, total, "requests", rules)


def _failing(name: str, failed: int, total: int, what: str, rules: Shadow) -> Finding:
    rate = failed / total
    said = f"the challenger failed on {phrase.count(failed)} of {phrase.count(total)} {what}"
    outcome: Outcome
    shown = at_once(failed, total, FAILURES) >= -math.log(rules.false_promotion)
    if shown:
        outcome, reason = "breach", f"{said}: more than {phrase.percent(FAILURES)}"
    elif rate <= FAILURES:
        outcome, reason = "ok", f"{said}, {phrase.percent(FAILURES)} is tolerated"
    else:
        outcome, reason = "unknown", f"{said}, too few to tell whether it is more than {phrase.percent(FAILURES)}"
    return Finding(
        name=name,
        outcome=outcome,
        reason=reason,
        value=rate,
        threshold=FAILURES,
        interval=clopper_pearson(failed, total, 1 - rules.false_promotion),
        n=total,
    )
