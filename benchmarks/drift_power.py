"""Drift where there is some: from which size on it is found, and that a size that does not matter never retrains.

``python -m benchmarks.drift_power``. Drift is effect first here: a column alarms when its PSI is shown to exceed what
the policy says, 0.1, and not when it is shown to differ from zero. A shift of 0.1 standard deviations has a PSI of
0.009 and is meant to alarm nobody at 5,000 rows; the table says from which shift on 95 % are found, and what the
same judge finds of 0.1 sd when the policy asks for the smallest limit there is. Of a million rows with a shift of
0.005 sd in every column, no evaluation may retrain; a Kolmogorov-Smirnov test per column finds nearly each.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks import proof
from benchmarks.drift_null import judged
from benchmarks.proof import Line
from tasks.decide.triggers import decide
from tasks.policy import DriftTrigger, Triggers
from tasks.profile import count, describe
from tasks.records import Profile, Signals, Span

ROWS, EVALUATIONS, QUICK = 5000, 400, 30
SHIFTS = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5)
FOUND_FROM = 0.45
"""Shift in standard deviations from which on 95 % are promised to be found, at 5,000 rows and a limit of 0.1."""
HUGE, TINY, HUGE_RUNS = 1_000_000, 0.005, 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    evaluations = QUICK if quick else EVALUATIONS
    shifts = (0.1, FOUND_FROM) if quick else SHIFTS
    found = proof.spread(alarms, [(shift, 0.1, evaluations, 1) for shift in shifts], quick=quick)
    lines = []
    for shift, hits in zip(shifts, found, strict=True):
        limit = 0.95 if shift >= FOUND_FROM else None
        told = f"found, {shift:g} sd at {ROWS:,} / {ROWS:,}, limit PSI 0.1"
        lines.append(proof.share(told, hits, evaluations, limit, least=True, quick=quick))
    (hits,) = proof.spread(alarms, [(0.1, 0.0001, evaluations, 2)], quick=quick)
    lines.append(proof.share(f"found, 0.1 sd at {ROWS:,} / {ROWS:,}, limit PSI 0.0001", hits, evaluations, None))
    rows, runs = (50_000, 5) if quick else (HUGE, HUGE_RUNS)
    jobs = [(TINY, rows, 1, seed) for seed in range(runs)]
    retrained, tested = np.sum(proof.spread(retrainings, jobs, quick=quick), axis=0)
    told = f"KS test at 5 % flags {tested / (10 * runs):.0%} of the columns"
    case = f"retrainings, {TINY:g} sd in all of 10 columns at {rows:,} / {rows:,}"
    return [*lines, Line(what=case, value=float(retrained), limit=0.0, told=f"of {runs}; {told}")]


def alarms(shift: float, limit: float, evaluations: int, seed: int) -> int:
    """How often one normal column that moved by so many standard deviations is a breach."""
    draw = np.random.default_rng([seed, round(1000 * shift)])
    rules = DriftTrigger(psi=limit)
    return sum(
        judged(pd.DataFrame({"c": draw.normal(0, 1, ROWS)}), pd.DataFrame({"c": draw.normal(shift, 1, ROWS)}), rules)[
            0
        ].outcome
        == "breach"
        for _ in range(evaluations)
    )


def retrainings(shift: float, rows: int, evaluations: int, seed: int) -> tuple[int, int]:
    """(verdicts that retrain, columns that a KS test flags) when all of ten columns moved by so little."""
    draw = np.random.default_rng([seed, rows])
    rules = Triggers(age="off", performance="off", prediction="off", volume="off", upstream="off")
    retrained = tested = 0
    for _ in range(evaluations):
        before, after = draw.normal(0, 1, (rows, 10)), draw.normal(shift, 1, (rows, 10))
        reference = describe(_named(before))
        span = Span(start=NOW - timedelta(days=9), end=NOW)
        profile = Profile(
            columns=reference,
            prediction=None,
            metrics=(),
            rows=rows,
            labelled=rows,
            trained_at=NOW,
            trained=span,
            holdout=span,
            fingerprint="",
        )
        signals = Signals(now=NOW, profile=profile, production="1", recent=count(_named(after), reference))
        retrained += int(decide(signals, rules).decision == "retrain")
        tested += sum(kolmogorov(one, other) < 0.05 for one, other in zip(before.T, after.T, strict=True))
    return retrained, tested


def _named(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"c{number}" for number in range(values.shape[1])])


def kolmogorov(
    before: np.ndarray[tuple[int, ...], np.dtype[np.float64]], after: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> float:
    """The p-value of the two-sample test, by its asymptotic distribution; scipy's own needs many times as long."""
    both = np.sort(np.concatenate([before, after]))
    gap = np.abs(
        np.searchsorted(np.sort(before), both, side="right") / before.size
        - np.searchsorted(np.sort(after), both, side="right") / after.size
    ).max()
    return float(stats.kstwobign.sf(gap * math.sqrt(before.size * after.size / (before.size + after.size))))


if __name__ == "__main__":
    raise SystemExit(proof.run("drift_power", prove))
