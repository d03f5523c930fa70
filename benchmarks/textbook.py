"""The textbook's policy, as it is published in tutorials, written anew to be played beside the product's.

Retrain when the model is 30 days old, or the PSI of any feature is above 0.15, or accuracy has dropped by more than
0.03, or 50,000 new rows have come; each a number held against its limit. The candidate goes out when its weighted F1 on
the holdout is at most 0.02 below Production's. The PSI has ten bins at the
reference's deciles, and a share of zero counts as 0.0001; recent rows are those of the last 30 days, whether or not the
model is younger. (Of the rows since the last training alone, a day's worth gives a PSI above 0.15 by chance, and the
rule would retrain every day: that is not what it is held to here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from rehearsal.player import Rules
from tasks import profile as profiles
from tasks.data import Dataset
from tasks.decide.metrics import measure
from tasks.policy import Policy
from tasks.records import ColumnProfile, Finding, GateEvidence, Profile, Signals, Verdict

AGE, PSI, DROP, VOLUME = timedelta(days=30), 0.15, 0.03, 50_000
MARGIN = 0.02
WINDOW = timedelta(days=30)
_NOTHING = 1e-4


def rules() -> Rules:
    """The textbook as who decides."""
    return Rules(triggers=lambda found, _policy, rows: triggers(found, rows), gate=gate)


def triggers(found: Signals, rows: Dataset) -> Verdict:
    """Retrain when any number is over its limit."""
    if found.profile is None:
        first = Finding(name="first_model", outcome="breach", reason="there is no model yet")
        return Verdict(judge="triggers", decision="retrain", reason=first.reason, findings=(first,))
    recent = rows.between(found.now - WINDOW, found.now)
    worst = psi(found.profile.columns, profiles.count(recent.features, found.profile.columns))
    age, volume = found.now - found.profile.trained_at, found.labelled_since or 0
    drop = _drop(found, found.profile)
    findings = (
        _held("age", age / timedelta(days=1), AGE / timedelta(days=1), fires=age >= AGE),
        _held("drift", worst, PSI, fires=worst > PSI),
        _held("performance", drop, DROP, fires=drop > DROP),
        _held("volume", volume, VOLUME, fires=volume >= VOLUME),
    )
    fired = [finding.reason for finding in findings if finding.outcome == "breach"]
    decision = "retrain" if fired else "keep"
    return Verdict(judge="triggers", decision=decision, reason="; ".join(fired) or "nothing", findings=findings)


def _held(name: str, value: float, limit: float, *, fires: bool) -> Finding:
    reason = f"{name} {value:.3g}, limit {limit:g}"
    return Finding(
        name=name, outcome="breach" if fires else "ok", reason=reason, value=float(value), threshold=float(limit)
    )


def psi(reference: Sequence[ColumnProfile], recent: Sequence[ColumnProfile]) -> float:
    """The largest of all columns."""
    known = {column.name: column for column in recent}
    return max((_psi(column, known[column.name]) for column in reference if column.name in known), default=0.0)


def _psi(before: ColumnProfile, after: ColumnProfile) -> float:
    p, q = (np.asarray(one.counts, dtype=np.float64) for one in (before, after))
    if p.size != q.size or not p.sum() or not q.sum():
        return 0.0
    p, q = (np.maximum(one / one.sum(), _NOTHING) for one in (p, q))
    return float(((q - p) * np.log(q / p)).sum())


def _drop(found: Signals, profile: Profile) -> float:
    baseline, current = profile.metric("accuracy"), found.performance
    if baseline is None or current is None:
        return 0.0
    return baseline.value - current.value


def gate(found: GateEvidence, _policy: Policy) -> Verdict:
    """Two numbers, and the limit between them."""
    findings: list[Finding] = []
    if found.production is not None:
        ours, theirs = (measure("f1_weighted", one).value for one in (found.candidate, found.production))
        findings.append(_held("regression", theirs - ours, MARGIN, fires=theirs - ours > MARGIN))
    failed = [finding.reason for finding in findings if finding.outcome == "breach"]
    reason = "; ".join(failed) or "every number is within its limit"
    return Verdict(judge="gate", decision="fail" if failed else "pass", reason=reason, findings=tuple(findings))
