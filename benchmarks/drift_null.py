"""Drift where there is none: how often any of twenty columns alarms, by the sizes of the two samples.

``python -m benchmarks.drift_null``: reference and recent rows come from one distribution, normal, heavy-tailed, of 20
or 300 categories or of words as a language has them (Zipf), go through the profile that training saves and the one that
a trigger evaluation makes, and are judged by the trigger's own function. At most 5 % of the evaluations may have a
column that drifted. The peers look at the same rows: a bare PSI above 0.1, and Evidently's default (to 1,000 reference
rows a Kolmogorov-Smirnov or chi-square test at 5 % per column, above that a normed Wasserstein or Jensen-Shannon
distance above 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks import proof
from benchmarks.proof import Line
from tasks.decide import drift
from tasks.policy import DriftTrigger
from tasks.profile import count, describe
from tasks.records import Finding

COLUMNS, EVALUATIONS, QUICK, AT_ONCE = 20, 400, 10, 20
LARGE = 60
"""Evaluations where a sample is large, since they take long; without any alarm these prove at most 4.9 %."""
REFERENCES, RECENT = (500, 1000, 1001, 5000, 100_000), (50, 200, 1000, 5000, 100_000)
AGAIN = 10
"""Times as many fresh evaluations decide where the first ones did not prove the promise."""
PEER_ROWS = 5000
"""Above that the peers are not asked: their answers do not change any more, and they are slow."""
SHARES = np.array([1 / (number + 2) for number in range(20)]) / sum(1 / (number + 2) for number in range(20))
RULES = DriftTrigger()

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
KINDS: dict[str, Draw] = {
    "normal": lambda draw, rows: draw.normal(0, 1, (rows, COLUMNS)),
    "heavy-tailed": lambda draw, rows: draw.standard_t(2, (rows, COLUMNS)),
    "20 categories": lambda draw, rows: draw.choice(20, (rows, COLUMNS), p=SHARES).astype(float),
    "300 categories": lambda draw, rows: draw.integers(0, 300, (rows, COLUMNS)).astype(float),
    "words": lambda draw, rows: np.minimum(draw.zipf(1.3, (rows, COLUMNS)), 10**5).astype(float),
}
CATEGORIES = ("20 categories", "300 categories", "words")


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    sizes = [(500, 50), (1001, 200)] if quick else [(many, few) for many in REFERENCES for few in RECENT]
    lines = []
    for kind in KINDS:
        for rows, recent in sizes:
            evaluations = QUICK if quick else LARGE if max(rows, recent) > PEER_ROWS else EVALUATIONS
            line = where_nothing_moved(kind, rows, recent, evaluations, quick=quick)
            if not line.ok and not quick:
                line = where_nothing_moved(kind, rows, recent, AGAIN * evaluations, first=evaluations)
            lines.append(line)
    return lines


def where_nothing_moved(
    kind: str, rows: int, recent: int, evaluations: int, *, first: int = 0, quick: bool = False
) -> Line:
    """One case.

    Args:
        kind: Of the columns, see :data:`KINDS`.
        rows: Of the reference.
        recent: Rows that are compared with it.
        evaluations: How many.
        first: How many were made before and are not counted: they did not tell what is promised from more.
        quick: The fast form.
    """
    size = min(AT_ONCE, evaluations)
    jobs = [(kind, rows, recent, size, seed) for seed in range(first // size, (first + evaluations) // size)]
    alarms, raw, defaults = np.sum(proof.spread(evaluate, jobs, quick=quick), axis=0)
    told = peer_words(raw, defaults, evaluations) if max(rows, recent) <= PEER_ROWS else ""
    told = ", ".join(part for part in ("drawn anew" if first else "", told) if part)
    case = f"any of {COLUMNS}, {kind}, {rows:,} reference, {recent:,} recent"
    return proof.share(case, int(alarms), evaluations, 0.05, quick=quick, told=told)


def peer_words(raw: float, defaults: float, evaluations: int) -> str:
    """What the peers said, in columns."""
    columns = evaluations * COLUMNS
    return f"of the columns: PSI > 0.1 {raw / columns:.0%}, Evidently's default {defaults / columns:.0%}"


def evaluate(kind: str, rows: int, recent: int, evaluations: int, seed: int) -> tuple[int, int, int]:
    """(evaluations with a drifted column, columns with a bare PSI above 0.1, columns that Evidently flags)."""
    draw = np.random.default_rng([seed, rows, recent, len(kind)])
    alarms = raw = defaults = 0
    for _ in range(evaluations):
        before, after = KINDS[kind](draw, rows), KINDS[kind](draw, recent)
        findings = judged(frame(before, kind), frame(after, kind))
        alarms += int(any(finding.outcome == "breach" for finding in findings))
        if max(rows, recent) <= PEER_ROWS:
            raw += sum(finding.value is not None and finding.value > 0.1 for finding in findings)
            pairs = zip(before.T, after.T, strict=True)
            defaults += sum(evidently(*pair, category=kind in CATEGORIES) for pair in pairs)
    return alarms, raw, defaults


def frame(values: NDArray[np.float64], kind: str) -> pd.DataFrame:
    """As the data source gives it: categories are text."""
    if kind not in CATEGORIES:
        return pd.DataFrame(values, columns=[f"c{number}" for number in range(values.shape[1])])
    levels, places = np.unique(values.astype(np.intp), return_inverse=True)
    names = np.array([f"level {number}" for number in levels], dtype=object)[places.reshape(values.shape)]
    return pd.DataFrame({f"c{number}": column for number, column in enumerate(names.T)}, dtype=object)


def judged(before: pd.DataFrame, after: pd.DataFrame, rules: DriftTrigger = RULES) -> tuple[Finding, ...]:
    """One finding per column, by the way of the product."""
    reference = describe(before)
    return drift.judge_columns(reference, count(after, reference), rules)


def evidently(before: NDArray[np.float64], after: NDArray[np.float64], *, category: bool) -> bool:
    """Its default as its documentation has it (data drift, "default tests"): does this column drift?

    Tabular data: up to 1,000 reference rows the two-sample Kolmogorov-Smirnov test of numbers, the chi-square test of
    categories, at 0.05; above that the Wasserstein distance divided by the reference's standard deviation, the
    Jensen-Shannon distance of categories, at 0.1.
    """
    if category:
        levels = 1 + int(max(before.max(), after.max()))
        p, q = (np.bincount(part.astype(np.intp), minlength=levels) for part in (before, after))
        if before.size <= 1000:
            seen = p > 0
            expected = p[seen] / before.size * q[seen].sum()
            return bool(stats.chisquare(q[seen], expected).pvalue < 0.05) if q[seen].sum() else True
        return _jensen_shannon(p / before.size, q / after.size) > 0.1
    if before.size <= 1000:
        return bool(stats.ks_2samp(before, after).pvalue < 0.05)
    return bool(stats.wasserstein_distance(before, after) / before.std() > 0.1)


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """The distance: the root of the divergence in bits, as scipy and Evidently have it with base 2."""
    middle = (p + q) / 2
    halves = [float((one[one > 0] * np.log2(one[one > 0] / middle[one > 0])).sum()) for one in (p, q)]
    return math.sqrt(max(0.0, sum(halves) / 2))


if __name__ == "__main__":
    raise SystemExit(proof.run("drift_null", prove))
