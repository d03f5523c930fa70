"""The peers on one suite of scenarios: who rolls back, passes or alarms, how often, losses included.

``python -m benchmarks.scenarios`` prints three tables in Markdown, as they stand in docs/decisions-proven.md. A cell is
the share of runs in which the rule acts; every scenario says whether it should. The peers' rules are written anew here
from what their documentation publishes, with the values of its examples or the defaults:

- Argo Rollouts: a measurement every five minutes, ``result >= 0.95``, more than ``failureLimit: 3`` failed ones abort;
  and the default ``failureLimit: 0`` with a measurement every minute.
- Flagger: ``request-success-rate`` of at least 99 every minute, ``threshold: 5`` failed checks roll back.
- Kayenta: the minutes of both versions as two samples, Mann-Whitney with a confidence of 98 %; it fails when the lower
  limit of the shift is above a quarter of the Hodges-Lehmann estimate.
- MLflow: ``MetricThreshold(threshold=0.85)``; it cannot say "at most 2 points worse than Production".
- Evidently: the default test per column, and a data set drifts when half of its columns do.
- the textbook: two numbers, and the limit between them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.drift_null import evidently
from benchmarks.proof import Line
from benchmarks.sequential import looks_of, wander
from tasks.decide import gate, rollout, triggers
from tasks.decide.drift import judge_columns
from tasks.policy import DriftTrigger, Gate, Health, RegressionCheck, Rollout, SliceCheck, Triggers
from tasks.profile import count, describe
from tasks.records import GateEvidence, Profile, RolloutEvidence, Scores, Segments, Signals, Span

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

RUNS, QUICK, LOOKS = 400, 10, 30
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario.

    Attributes:
        name: In the table.
        should: Whether a rule should act.
        cells: Share of the runs in which each rule did, by rule.
    """

    name: str
    should: bool
    cells: dict[str, float]


def prove(*, quick: bool = False) -> list[Line]:
    """All of it; the lines are Backstop's own column."""
    runs = QUICK if quick else RUNS
    lines = []
    for title, acts, table in (
        ("A canary for 30 minutes: rolled back", "rolled back", canaries),
        ("A candidate at the gate: passed", "passed", candidates),
        ("Recent data: drift alarm", "alarm", datasets),
    ):
        rows = table(runs, quick=quick)
        print(f"\n### {title}\n\n{markdown(rows)}")
        lines += [line(row, acts, runs, quick=quick) for row in rows]
    print()
    return lines


def markdown(rows: list[Row]) -> str:
    """A table with a cell in bold where a rule is wrong in more than 5 % of the runs."""
    names = list(rows[0].cells)
    out = [f"| scenario | should it? | {' | '.join(names)} |", f"|---|---|{'---:|' * len(names)}"]
    for row in rows:
        wrong = [abs(row.should - share) > 0.05 for share in row.cells.values()]
        cells = [
            f"**{share:.0%}**" if bad else f"{share:.0%}" for share, bad in zip(row.cells.values(), wrong, strict=True)
        ]
        out.append(f"| {row.name} | {'yes' if row.should else 'no'} | {' | '.join(cells)} |")
    return "\n".join(out)


def line(row: Row, acts: str, runs: int, *, quick: bool) -> Line:
    """Where it should not act, 5 % are promised; how often it does where it should is told."""
    hits = round(row.cells["Backstop"] * runs)
    return proof.share(f"{acts}: {row.name}", hits, runs, None if row.should else 0.05, quick=quick)


# A canary.


@dataclass(frozen=True, slots=True)
class Canary:
    """A fifth of the requests go to it, for half an hour.

    Attributes:
        name: In the table.
        mean: Requests to it per minute.
        rate: Share of its requests that fail.
        since: From which minute on; before that it is as Production.
        shared: What happens to both: nothing, ``wander`` or ``outage``.
    """

    name: str
    mean: float
    rate: float = 0.005
    since: int = 0
    shared: str = ""

    @property
    def should(self) -> bool:
        """Whether it should be rolled back."""
        return self.rate > 0.005

    def draw(self, runs: int) -> tuple[Counts, Counts, Counts, Counts]:
        """(failed, all of the canary's, failed, all of Production's), shape (runs, looks) each."""
        draw = np.random.default_rng([round(self.mean), round(1e4 * self.rate), self.since, len(self.shared)])
        base = np.full((runs, LOOKS), 0.005)
        if self.shared == "wander":
            base = np.minimum(0.3, base * np.exp(wander(draw, base.shape, sd=0.7)))
        elif self.shared == "outage":
            base[:, 10:20] = 0.2
        ours = np.where(np.arange(LOOKS) >= self.since, np.maximum(base, self.rate), base)
        total, rest = draw.poisson(self.mean, base.shape), draw.poisson(4 * self.mean, base.shape)
        return draw.binomial(total, ours), total, draw.binomial(rest, base), rest


CANARIES = (
    Canary("healthy, 10 requests a minute", 10),
    Canary("healthy, 100 a minute", 100),
    Canary("healthy, 1,000 a minute", 1000),
    Canary("healthy, errors of both wander, 100 a minute", 100, shared="wander"),
    Canary("healthy, both fail 20% for ten minutes, 100 a minute", 100, shared="outage"),
    Canary("errors 0.5% -> 1%, 1,000 a minute", 1000, rate=0.01),
    Canary("errors 0.5% -> 5%, 10 a minute", 10, rate=0.05),
    Canary("errors 0.5% -> 5%, 100 a minute", 100, rate=0.05),
    Canary("errors 0.5% -> 20%, 10 a minute", 10, rate=0.2),
    Canary("errors 0.5% -> 20% after 20 minutes, 100 a minute", 100, rate=0.2, since=20),
)


def canaries(runs: int, *, quick: bool) -> list[Row]:
    """How often each is rolled back within the half hour."""
    rules: dict[str, Callable[..., NDArray[np.bool_]]] = {
        "Backstop": backstop,
        "Argo, failureLimit 3": lambda *counts: argo(*counts, every=5, limit=3),
        "Argo, failureLimit 0": lambda *counts: argo(*counts, every=1, limit=0),
        "Flagger": flagger,
        "Kayenta": kayenta,
        "textbook: 1 point worse in a minute": textbook,
    }
    rows = []
    for one in CANARIES[::3] if quick else CANARIES:
        counts = one.draw(runs)
        rows.append(Row(one.name, one.should, {name: float(rule(*counts).mean()) for name, rule in rules.items()}))
    return rows


def backstop(bad: Counts, total: Counts, base_bad: Counts, base: Counts) -> NDArray[np.bool_]:
    """The rollout's own judge, after the last look: an alarm at any look before counts."""
    rules, health = Rollout(), Health(latency_p95=None, accuracy=None)
    out = []
    for row in range(total.shape[0]):
        evidence = RolloutEvidence(
            version="2",
            baseline="1",
            weight=25,
            started=START,
            stepped=START,
            now=START + LOOKS * MINUTE,
            canary=looks_of(bad[row], total[row], "errors"),
            production=looks_of(base_bad[row], base[row], "errors"),
        )
        out.append(rollout.judge(evidence, rules, health, problem="binary").decision == "abort")
    return np.array(out)


def argo(bad: Counts, total: Counts, base_bad: Counts, base: Counts, *, every: int, limit: int) -> NDArray[np.bool_]:
    """More than ``limit`` measurements below 95 % success."""
    del base_bad, base
    shape = (bad.shape[0], -1, every)
    failed, served = bad.reshape(shape).sum(axis=2), total.reshape(shape).sum(axis=2)
    return np.asarray(((served > 0) & (failed > 0.05 * served)).sum(axis=1) > limit, dtype=np.bool_)


def flagger(bad: Counts, total: Counts, base_bad: Counts, base: Counts) -> NDArray[np.bool_]:
    """Five checks below 99 % success, or without traffic."""
    del base_bad, base
    return np.asarray(((total == 0) | (bad > 0.01 * total)).sum(axis=1) >= 5, dtype=np.bool_)


def kayenta(bad: Counts, total: Counts, base_bad: Counts, base: Counts) -> NDArray[np.bool_]:
    """The shift between the error rates of the minutes is high."""
    ours, theirs = bad / np.maximum(total, 1), base_bad / np.maximum(base, 1)
    gaps = np.sort((ours[:, :, None] - theirs[:, None, :]).reshape(ours.shape[0], -1), axis=1)
    pairs, points = LOOKS * LOOKS, 2 * LOOKS
    # The normal limits of the ranks of Hodges and Lehmann's confidence interval (Hollander and Wolfe 1999, 4.3).
    low = math.floor(pairs / 2 - 2.3263 * math.sqrt(pairs * (points + 1) / 12))
    return np.asarray(gaps[:, low] > 0.25 * np.abs(np.median(gaps, axis=1)), dtype=np.bool_)


def textbook(bad: Counts, total: Counts, base_bad: Counts, base: Counts) -> NDArray[np.bool_]:
    """In any minute more than one point worse than Production."""
    return np.asarray((bad / np.maximum(total, 1) - base_bad / np.maximum(base, 1) > 0.01).any(axis=1), dtype=np.bool_)


# A candidate.


@dataclass(frozen=True, slots=True)
class Challenger:
    """Production is right on 90 %; the two differ on 8 % of the rows or more.

    Attributes:
        name: In the table.
        rows: Of the holdout.
        loss: Points that it loses.
        within: Its loss in a tenth of the rows that is a segment; elsewhere it wins so much that the average stays.
    """

    name: str
    rows: int
    loss: float = 0.0
    within: float = 0.0

    @property
    def should(self) -> bool:
        """Whether it should pass: a loss of 2 points is not tolerated any more."""
        return self.loss < 0.02 and not self.within

    def draw(self, draw: np.random.Generator) -> GateEvidence:
        """One holdout."""
        segment = draw.random(self.rows) < 0.1
        loss = np.where(segment, self.within or self.loss, -self.within / 9 if self.within else self.loss)
        truth, roll = draw.integers(0, 2, self.rows), draw.random(self.rows)
        right = draw.random(self.rows) < 0.9
        won = np.clip(0.04 - loss / 2, 0.0, 0.1)
        lost = np.clip(won + loss, 0.0, 0.9)
        ours = np.where(right, roll >= lost / 0.9, roll < won / 0.1)
        pair = [
            Scores(truth=truth, prediction=np.where(good, truth, 1 - truth), classes=("0", "1"))
            for good in (ours, right)
        ]
        parts = Segments(by="segment", names=("most", "few"), codes=segment.astype(np.int16))
        return GateEvidence(
            candidate=pair[0],
            production=pair[1],
            latencies=None,
            size=None,
            loads=None,
            baseline="1",
            segments=(parts,),
        )


CHALLENGERS = (
    Challenger("as good, 200 rows", 200),
    Challenger("as good, 1,000 rows", 1000),
    Challenger("as good, 5,000 rows", 5000),
    Challenger("2 points worse, 200 rows", 200, loss=0.02),
    Challenger("2 points worse, 5,000 rows", 5000, loss=0.02),
    Challenger("4 points worse, 200 rows", 200, loss=0.04),
    Challenger("4 points worse, 1,000 rows", 1000, loss=0.04),
    Challenger("as good on average, 20 points worse in a tenth, 5,000 rows", 5000, within=0.2),
)
ONLY_ACCURACY = Gate(
    performance=None,
    regression=RegressionCheck(metric="accuracy", margin=0.02),
    slices=(SliceCheck(by="segment"),),
    stability=None,
    latency=None,
    size=None,
    fresh_process=False,
)


def candidates(runs: int, *, quick: bool) -> list[Row]:
    """How often each passes."""
    rows = []
    for one in CHALLENGERS[::3] if quick else CHALLENGERS:
        draw = np.random.default_rng([one.rows, round(1000 * one.loss), round(1000 * one.within)])
        passed = np.zeros((runs, 4), dtype=bool)
        for run in range(runs):
            evidence = one.draw(draw)
            ours, theirs = (float(np.mean(s.prediction == s.truth)) for s in (evidence.candidate, _known(evidence)))
            passed[run] = (
                gate.judge(evidence, ONLY_ACCURACY, problem="binary").decision == "pass",
                ours >= 0.85,
                ours >= theirs - 0.02,
                ours > theirs,
            )
        names = ("Backstop", "MLflow, threshold 0.85", "textbook: at most 2 points worse", "textbook: better")
        rows.append(Row(one.name, one.should, dict(zip(names, passed.mean(axis=0).tolist(), strict=True))))
    return rows


def _known(evidence: GateEvidence) -> Scores:
    if evidence.production is None:
        raise ValueError("a challenger of this suite has a Production version to compare with")
    return evidence.production


# Recent data.


@dataclass(frozen=True, slots=True)
class Recent:
    """Ten normal columns against their reference.

    Attributes:
        name: In the table.
        reference: Rows.
        rows: Recent ones.
        shift: In standard deviations.
        columns: That moved.
        nulls: Share of values that are missing in them.
        should: Whether it should alarm.
    """

    name: str
    reference: int
    rows: int
    shift: float = 0.0
    columns: int = 10
    nulls: float = 0.0
    should: bool = False

    def draw(self, draw: np.random.Generator) -> tuple[Floats, Floats]:
        """(reference, recent)."""
        before, after = draw.normal(0, 1, (self.reference, 10)), draw.normal(0, 1, (self.rows, 10))
        after[:, : self.columns] += self.shift
        gone = draw.random(after.shape) < self.nulls
        gone[:, self.columns :] = False
        return before, np.where(gone, np.nan, after)


DATASETS = (
    Recent("none, 500 / 50 rows", 500, 50),
    Recent("none, 1,001 / 100 rows", 1001, 100),
    Recent("none, 5,000 / 5,000 rows", 5000, 5000),
    Recent("0.05 sd in all columns, 1,000 / 20,000 rows", 1000, 20_000, shift=0.05),
    Recent("0.5 sd in 4 of 10 columns, 1,000 / 500 rows", 1000, 500, shift=0.5, columns=4, should=True),
    Recent("0.5 sd in all columns, 500 / 50 rows", 500, 50, shift=0.5, should=True),
    Recent("0.5 sd in all columns, 5,000 / 1,000 rows", 5000, 1000, shift=0.5, should=True),
    Recent("9 of 10 values gone in all columns, 1,000 / 1,000 rows", 1000, 1000, nulls=0.9, should=True),
)
ONLY_DRIFT = Triggers(age="off", performance="off", prediction="off", volume="off", upstream="off")


def datasets(runs: int, *, quick: bool) -> list[Row]:
    """How often each alarms."""
    rows = []
    for one in DATASETS[::3] if quick else DATASETS:
        draw = np.random.default_rng([one.reference, one.rows, round(100 * one.shift), round(100 * one.nulls)])
        alarms = np.zeros((runs, 3), dtype=bool)
        for run in range(runs):
            before, after = one.draw(draw)
            reference = describe(_named(before))
            recent = count(_named(after), reference)
            signals = replace(EMPTY, profile=replace(PROFILE, columns=reference), recent=recent)
            flagged = [evidently(a, b[~np.isnan(b)], category=False) for a, b in zip(before.T, after.T, strict=True)]
            raw = judge_columns(reference, recent, DriftTrigger())
            alarms[run] = (
                triggers.decide(signals, ONLY_DRIFT).decision == "retrain",
                np.mean(flagged) >= 0.5,
                any((finding.value or 0.0) > 0.15 for finding in raw),
            )
        names = ("Backstop", "Evidently", "textbook: any PSI > 0.15")
        rows.append(Row(one.name, one.should, dict(zip(names, alarms.mean(axis=0).tolist(), strict=True))))
    return rows


SPAN = Span(start=START - timedelta(days=9), end=START)
PROFILE = Profile(
    columns=(),
    prediction=None,
    metrics=(),
    rows=1000,
    labelled=1000,
    trained_at=START,
    trained=SPAN,
    holdout=SPAN,
    fingerprint="",
)
EMPTY = Signals(now=START, profile=PROFILE, production="1")


def _named(values: Floats) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"c{number}" for number in range(values.shape[1])])


if __name__ == "__main__":
    sys.exit(proof.run("scenarios", prove))
