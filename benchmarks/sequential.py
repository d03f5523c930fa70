"""Looking every minute: how often a healthy version is rolled back for it, and how late harm is found.

``python -m benchmarks.sequential``: whole watches and whole rollouts of a version that is exactly as bad as what is
tolerated, the worst case that still counts as healthy; then versions that are harmful, from the start and from the
middle of the watch on. Late is told beside tests that know what nobody knows: Wald's sequential probability ratio test
with the true rates, and from the middle on a CUSUM with the true rates, calibrated on healthy watches.

Thousands of watches at once go through the arrays of :mod:`tasks.decide.sequential` and :mod:`tasks.decide.arms`. Each
that alarms there, and some that do not, are judged by the watch's or the rollout's own judge too; it must say the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.proof import Line
from tasks.decide import health, rollout
from tasks.decide.arms import Counts, worse
from tasks.decide.sequential import replay
from tasks.policy import Health, Rollout
from tasks.records import HealthEvidence, Look, RolloutEvidence

Floats = NDArray[np.float64]

WATCHES, QUICK, AT_ONCE = 10_000, 400, 200
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALARM = math.log(100)
"""Evidence that is an alarm at ``false_rollback: 1%``."""
ERRORS = Health(error_rate=0.01, latency_p95=None, accuracy=None)
WATCHED = {
    "errors": ("errors", 0.01, ERRORS),
    "p95": ("slow", 0.05, Health(error_rate=None, accuracy=None)),
    "accuracy": ("wrong", 0.1, Health(error_rate=None, latency_p95=None, accuracy=0.9)),
}
TRAFFIC = ("steady", "ramp", "daily cycle", "shared incident", "wandering rate")
DELAYS = ((0.01, 0.015), (0.01, 0.02), (0.01, 0.05), (0.1, 0.12), (0.1, 0.15))
"""(tolerated, true) rates: errors of 1 %, and an accuracy of 90 % that falls to 88 or 85 %."""


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    watches = QUICK if quick else WATCHES
    lines = []
    for looks in (30, 1440):
        if quick and looks == 1440:
            continue
        for number, kind in enumerate(WATCHED):
            found = proof.spread(false_alarms, batches(watches, kind, looks, number), quick=quick)
            lines.append(proof.share(f"false rollback, {kind}, {looks} looks", sum(found), watches, 0.01, quick=quick))
        for number, kind in enumerate(TRAFFIC):
            found = proof.spread(false_aborts, batches(watches, kind, looks, 10 + number), quick=quick)
            told = f"false abort, {kind}, {looks} looks"
            lines.append(proof.share(told, sum(found), watches, 0.01, quick=quick))
    return lines + delays(200 if quick else 2000, quick=quick)


def batches(watches: int, kind: str, looks: int, seed: int) -> Iterator[tuple[str, int, int, int]]:
    """The arguments of :func:`false_alarms` and :func:`false_aborts`, a few hundred watches at a time."""
    for number in range(watches // AT_ONCE):
        yield kind, looks, AT_ONCE, 1000 * (seed + 100 * looks) + number


# A watch of what serves alone, against a fixed limit.


def false_alarms(kind: str, looks: int, watches: int, seed: int) -> int:
    """How many watches of a version that is exactly at its limit raise the alarm."""
    draw = np.random.default_rng(seed)
    field, limit, rules = WATCHED[kind]
    total = draw.poisson(100 * np.exp(draw.normal(0, 0.5, (watches, looks))))
    bad = draw.binomial(total, limit)
    alarms = replay(bad, total, limit, looks).max(axis=1) >= ALARM
    confirm(alarms, lambda row: unhealthy(field, bad[row], total[row], rules))
    return int(alarms.sum())


def unhealthy(field: str, bad: NDArray[np.int64], total: NDArray[np.int64], rules: Health) -> bool:
    """The watch's own verdict on one watch, shape (looks,)."""
    served = looks_of(bad, total, field)
    now = START + len(served) * MINUTE
    evidence = HealthEvidence(looks=served, now=now, started=START, last_request=now)
    return health.judge(evidence, rules, problem="binary", planned_looks=len(served)).decision == "unhealthy"


def looks_of(bad: NDArray[np.int64], total: NDArray[np.int64], field: str) -> tuple[Look, ...]:
    """Counts as the watch reads them; every request has its label."""
    empty = {"errors": 0, "slow": 0, "wrong": 0}
    return tuple(
        Look(start=START + number * MINUTE, requests=int(served), labelled=int(served), **{**empty, field: int(hits)})
        for number, (hits, served) in enumerate(zip(bad, total, strict=True))
    )


def confirm(alarms: NDArray[np.bool_], judged: Callable[[int], bool]) -> None:
    """See that the judge says the same of everything that alarms, and of the first that do not.

    Raises:
        RuntimeError: When it does not; then nothing that was counted is worth anything.
    """
    for row in (*np.flatnonzero(alarms), *np.flatnonzero(~alarms)[:2]):
        if judged(int(row)) != bool(alarms[row]):
            raise RuntimeError(f"watch {row}: the arrays and the judge of the product do not say the same")


# A canary beside Production.


def false_aborts(kind: str, looks: int, watches: int, seed: int) -> int:
    """How many rollouts of a canary that is bad exactly ``ratio`` times as often as Production are aborted for it."""
    draw = np.random.default_rng(seed)
    canary, production, rate = traffic(kind, draw, (watches, looks))
    rules = Rollout(hold=looks / 3 * MINUTE, deadline=timedelta(days=9))
    counts = Counts.of(
        draw.binomial(canary, np.minimum(1, rules.ratio * rate)), canary, draw.binomial(production, rate), production
    )
    alarms = worse(counts, ratio=rules.ratio, planned=rollout.planned_looks(rules, ERRORS)).max(axis=1) >= ALARM
    confirm(alarms, lambda row: aborted(counts, row, rules))
    return int(alarms.sum())


def traffic(
    kind: str, draw: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """(canary's, Production's) requests per look, and how often Production fails at the time; shape (runs, looks)."""
    when = np.linspace(0, 1, shape[1])
    share, mean, rate = np.full(shape, 0.1), np.full(shape, 300.0), np.full(shape, 0.01)
    if kind == "ramp":
        # What the gateway does is off from what it was asked for by up to a half.
        share = np.array([0.05, 0.25, 0.5])[np.minimum((3 * when).astype(int), 2)] * draw.uniform(0.5, 1.5, shape)
    elif kind == "daily cycle":
        mean = 300 * (1 + 0.9 * np.sin(2 * np.pi * when)) * np.ones(shape)
        rate = 0.01 * 3 ** np.sin(2 * np.pi * when + 1) * np.ones(shape)
    elif kind == "shared incident":
        rate = np.where((when > 1 / 3) & (when < 2 / 3), 0.05, 0.01) * np.ones(shape)
    elif kind == "wandering rate":
        rate = np.minimum(0.5, 0.01 * np.exp(wander(draw, shape, sd=0.5)))
    total = draw.poisson(mean)
    canary = draw.binomial(total, np.clip(share, 0, 1))
    return canary, total - canary, rate


def wander(draw: np.random.Generator, shape: tuple[int, int], *, sd: float) -> Floats:
    """Autocorrelated noise (0.95 from one look to the next) with this standard deviation."""
    steps = draw.normal(0, sd, shape)
    out = np.empty(shape)
    out[:, 0] = steps[:, 0]
    for look in range(1, shape[1]):
        out[:, look] = 0.95 * out[:, look - 1] + math.sqrt(1 - 0.95**2) * steps[:, look]
    return out


def aborted(counts: Counts, row: int, rules: Rollout) -> bool:
    """The rollout's own verdict on one run: shown to be worse, not only given up."""
    parts = [part[row].astype(int) for part in (counts.bad, counts.total, counts.base_bad, counts.base_total)]
    canary, production = looks_of(parts[0], parts[1], "errors"), looks_of(parts[2], parts[3], "errors")
    now = START + len(canary) * MINUTE
    evidence = RolloutEvidence(
        version="2", baseline="1", weight=5, started=START, stepped=now, now=now, canary=canary, production=production
    )
    return rollout.judge(evidence, rules, ERRORS, problem="binary").decision == "abort"


# How late harm is found.


def delays(watches: int, *, quick: bool) -> list[Line]:
    """Median requests until the alarm, beside those of a test that knows the truth."""
    cases = [(p0, p1, change, watches) for change in (0, 720) for p0, p1 in DELAYS]
    cases = [one for one in cases if not quick or one in {(0.01, 0.05, 0, watches), (0.1, 0.15, 0, watches)}]
    lines = []
    for (p0, p1, change, _), (ours, best) in zip(cases, proof.spread(delay, cases, quick=quick), strict=True):
        peer = "a calibrated CUSUM" if change else "the SPRT"
        since = "the middle" if change else "the start"
        told = f"{ours:,.0f} requests, {peer} that knows the truth {best:,.0f}"
        lines.append(Line(what=f"delay, {p0:.0%} -> {p1:.1%} from {since}", value=ours / best, limit=1.5, told=told))
    return lines


def delay(p0: float, p1: float, change: int, watches: int) -> tuple[float, float]:
    """Median requests after the change until (the watch, the test that knows both rates) alarms; 20 requests a look."""
    looks, served = 1440, 20
    draw = np.random.default_rng(round(1e6 * p1) + change)
    bad = draw.binomial(served, np.where(np.arange(looks) < change, p0, p1), (watches, looks))
    total = np.full(bad.shape, served)
    ours = replay(bad, total, p0, looks) >= ALARM
    steps = bad * math.log(p1 / p0) + (served - bad) * math.log((1 - p1) / (1 - p0))
    if not change:
        return after(ours, 0, served), after(np.cumsum(steps, axis=1) >= ALARM, 0, served)
    quiet = draw.binomial(served, p0, (4000, looks))
    calm = cusum(quiet * math.log(p1 / p0) + (served - quiet) * math.log((1 - p1) / (1 - p0)))
    height = float(np.quantile(calm.max(axis=1), 0.99))
    return after(ours, change, served), after(cusum(steps) >= height, change, served)


def cusum(steps: Floats) -> Floats:
    """Page's sum after each look, shape (watches, looks)."""
    out, level = np.empty_like(steps), np.zeros(steps.shape[0])
    for look in range(steps.shape[1]):
        level = np.maximum(0.0, level + steps[:, look])
        out[:, look] = level
    return out


def after(alarms: NDArray[np.bool_], change: int, served: int) -> float:
    """Median requests from the change to the first alarm; a watch without one counts as never."""
    early = alarms[:, :change].any(axis=1)
    later = alarms[~early, change:]
    first = np.where(later.any(axis=1), later.argmax(axis=1) + 1.0, math.inf)
    return float(np.median(first)) * served


if __name__ == "__main__":
    raise SystemExit(proof.run("sequential", prove))
