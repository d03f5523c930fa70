"""Labels that come 1 to 14 days late: is harm found, and is a healthy version left alone?

``python -m benchmarks.delayed_labels``: one day of the watch, judged when it is over and again at the end of each of
the next 14 days, as the watch does, with the labels that have come by then. What is wrong may be labelled sooner than
what is right (complaints), later, or alike. At most 1 % of versions whose accuracy is exactly the limit may be rolled
back, at least 99 % of those that are ten points below must be. The peers get the same labels: the accuracy of what is
labelled against the limit each day, and the same evidence process fed with labelled answers only.

An answer without a label counts as right, so that labels can only add to the evidence against a version. With
``labels: {delay: 14d}`` in the policy only answers older than that count, those with a label; the promise is the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.proof import Line
from benchmarks.sequential import ALARM, confirm
from tasks.decide.health import judge
from tasks.decide.sequential import replay
from tasks.policy import Health, Labels
from tasks.records import HealthEvidence, Look

DAYS, LOOKS, TICK, REQUESTS = 14, 96, timedelta(minutes=15), 50
RUNS, HARMED, QUICK, AT_ONCE = 6000, 1000, 100, 100
LIMIT, HARM = 0.1, 0.2
RULES = Health(error_rate=None, latency_p95=None, accuracy=1 - LIMIT, tick=TICK)
COHORTS = RULES.model_copy(update={"labels": Labels(delay=timedelta(days=DAYS))})
START = datetime(2026, 1, 1, tzinfo=UTC)
LATENESS = {"wrong first": ((1, 7), (1, 14)), "wrong last": ((7, 14), (1, 14)), "alike": ((1, 14), (1, 14))}
"""Days until the label of (a wrong, a right) answer comes: first and last."""

Counts = NDArray[np.int64]


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    lines = []
    for kind in LATENESS:
        for wrong, many, limit in ((LIMIT, RUNS, 0.01), (HARM, HARMED, 0.99)):
            runs = QUICK if quick else many
            found = proof.spread(days_until, [(kind, wrong, AT_ONCE, s) for s in range(runs // AT_ONCE)], quick=quick)
            ours, bare, labelled, cohorts = (np.concatenate(part) for part in zip(*found, strict=True))
            harmful = wrong > LIMIT
            peers = f"labelled accuracy against the limit {rate(bare):.0%}, labelled only {rate(labelled):.1%}"
            when = f"median after {np.median(ours[ours <= DAYS]):.0f} days; " if harmful else ""
            case = f"{'harm found' if harmful else 'false rollback'}, labels {kind}"
            for days, told, how in ((ours, f"{when}peers: {peers}", ""), (cohorts, "", ", only older than 14 days")):
                hits = int((days <= DAYS).sum())
                lines.append(proof.share(case + how, hits, runs, limit, least=harmful, quick=quick, told=told))
    return lines


def rate(days: Counts) -> float:
    """Share of the runs that were rolled back."""
    return float((days <= DAYS).mean())


def days_until(kind: str, wrong: float, runs: int, seed: int) -> tuple[Counts, Counts, Counts, Counts]:
    """Days until the rollback, DAYS + 1 for never, shape (runs,).

    Returns:
        Of the watch, of the two peers, and of the watch that counts only what is older than the delay.
    """
    draw = np.random.default_rng([seed, len(kind), round(100 * wrong)])
    total = draw.poisson(REQUESTS, (runs, LOOKS))
    bad = draw.binomial(total, wrong)
    came_wrong, came_right = (
        arrivals(draw, part, LATENESS[kind][side]) for side, part in enumerate((bad, total - bad))
    )
    ours, bare, only = (np.zeros((DAYS + 1, runs), dtype=bool) for _ in range(3))
    for day in range(DAYS + 1):
        known, right = came_wrong[day], came_right[day]
        ours[day] = replay(known, total, LIMIT, LOOKS).max(axis=1) >= ALARM
        only[day] = replay(known, known + right, LIMIT, LOOKS).max(axis=1) >= ALARM
        labelled = (known + right).sum(axis=1)
        bare[day] = (known.sum(axis=1) > LIMIT * labelled) & (labelled >= 100)
    # With all labels there are at least as many reasons as on any day before.
    confirm(ours[-1], lambda row: unhealthy(total[row], came_wrong[-1][row], came_right[-1][row], RULES))
    # Before the last day nothing is old enough.
    cohorts = np.zeros_like(only)
    cohorts[-1] = only[-1]
    confirm(cohorts[-1], lambda row: unhealthy(total[row], came_wrong[-1][row], came_right[-1][row], COHORTS))
    return first(ours), first(bare), first(only), first(cohorts)


def arrivals(draw: np.random.Generator, counts: Counts, lateness: tuple[int, int]) -> Counts:
    """How many of the answers of each look have their label by the end of each day, shape (DAYS + 1, runs, looks)."""
    low, high = lateness
    chances = np.full(high - low + 1, 1 / (high - low + 1))
    out = np.zeros((DAYS + 1, *counts.shape), dtype=np.int64)
    out[low : high + 1] = np.moveaxis(draw.multinomial(counts, chances), -1, 0)
    return np.cumsum(out, axis=0)


def first(alarms: NDArray[np.bool_]) -> Counts:
    """The first day of each run, shape (runs,)."""
    return np.where(alarms.any(axis=0), alarms.argmax(axis=0), DAYS + 1)


def unhealthy(total: Counts, wrong: Counts, right: Counts, rules: Health) -> bool:
    """The watch's own verdict on the last day, shape (looks,)."""
    looks = tuple(
        Look(start=START + place * TICK, requests=int(n), errors=0, slow=0, labelled=int(bad + good), wrong=int(bad))
        for place, (n, bad, good) in enumerate(zip(total, wrong, right, strict=True))
    )
    now = START + LOOKS * TICK
    read = now + timedelta(days=DAYS)
    evidence = HealthEvidence(looks=looks, now=now, started=START, last_request=now, read_at=read)
    return judge(evidence, rules, problem="binary", planned_looks=LOOKS).decision == "unhealthy"


if __name__ == "__main__":
    raise SystemExit(proof.run("delayed_labels", prove))
