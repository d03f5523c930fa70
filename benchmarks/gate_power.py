"""The gate's comparison with Production: how often it passes a candidate that it must not, and one that it should.

``python -m benchmarks.gate_power``: for every metric, a candidate whose true loss is exactly the margin is judged by
the gate on thousands of holdouts; it may pass as often as ``confidence`` leaves, 5 %, and a percent more for what is
only true of large samples. The peer is the bare comparison of two numbers with the same margin. Then candidates that
are as good as Production: how often they pass, by the number of rows, which is told and not promised. And candidates
whose whole loss lies in one row of two hundred: few rows may hold none of them, so that less is promised there.

The candidate is made worse by noise and by a weaker signal; its true loss is that on millions of rows, and is the
margin that the policy gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import proof
from benchmarks.proof import Line
from tasks.decide.gate import judge
from tasks.decide.influence import FAMILIES
from tasks.decide.metrics import is_loss
from tasks.policy import CLASSIFICATION_METRICS, REGRESSION_METRICS, Gate, RegressionCheck
from tasks.records import GateEvidence, Scores

Floats = NDArray[np.float64]
Pair = tuple[Scores, Scores]

HOLDOUTS, LARGE, BOOTSTRAPPED = 6000, 4000, 3000
"""Of 1,000 rows, of 10,000, and for a scorer that is bootstrapped: enough that a true 5 % is proven to be under 6 %."""
AGAIN = 5
"""Times as many fresh holdouts decide where the first ones could not: sixty cases at a true 5 % are not all lucky."""
QUICK, AT_ONCE = 400, 500
FEW = ("accuracy", "f1_weighted", "roc_auc", "log_loss", "r2", "rmse")
"""Metrics of the fast form, and of the large holdouts."""
RARE, RARE_METRICS = "rare large errors", ("rmse", "mae", "r2")
"""A loss that few rows carry, and what is compared by."""
OWN = "own_f1"
"""A user's scorer, of which only its answers are known: F1 again, so that its true loss can be computed."""
TRUTH, TRUTH_QUICK, BLOCK = 100_000_000, 1_000_000, 200_000
"""Rows on which the true loss is measured, and how many at a time."""
LIMIT = 0.06
FIRST = 1 - 0.05 * math.pi**2 / 6
"""The policy's confidence at which the first candidate on a holdout is judged at exactly 95 %."""


@dataclass(frozen=True, slots=True)
class World:
    """What the rows are like.

    Attributes:
        name: In the table.
        problem: As in the policy.
        draw: Candidate and Production on so many rows; the candidate is worse by the last argument, 0: as good.
        metrics: That are judged on it, with what is promised of all worlds.
    """

    name: str
    problem: str
    draw: Callable[[np.random.Generator, int, float], Pair]
    metrics: tuple[str, ...]


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    lines = []
    for world in [WORLDS["binary"], WORLDS["regression"]] if quick else (one for one in WORLDS.values() if one.metrics):
        metrics = tuple(one for one in world.metrics if not quick or one in FEW)
        for metric, margin in zip(metrics, true_losses(world, metrics, quick=quick), strict=True):
            for rows, holdouts in sizes(metric, quick=quick).items():
                line = at_the_margin(world.name, metric, rows, margin, holdouts, quick=quick)
                if not line.ok and not quick:
                    line = at_the_margin(world.name, metric, rows, margin, AGAIN * holdouts, first=holdouts)
                lines.append(line)
    return lines + outlying(quick=quick) + power(quick=quick)


def outlying(*, quick: bool) -> list[Line]:
    """The same of a loss that few rows carry: from 10,000 rows on what is promised, reported below."""
    lines = []
    for metric, margin in zip(RARE_METRICS, true_losses(WORLDS[RARE], RARE_METRICS, quick=quick), strict=True):
        for rows, holdouts in {200: HOLDOUTS, 1000: HOLDOUTS, 10_000: LARGE}.items():
            limit, runs = LIMIT if rows >= 10_000 else None, QUICK // 4 if quick else holdouts
            lines.append(at_the_margin(RARE, metric, rows, margin, runs, limit=limit, quick=quick))
    return lines


def at_the_margin(
    name: str,
    metric: str,
    rows: int,
    margin: float,
    holdouts: int,
    *,
    first: int = 0,
    limit: float | None = LIMIT,
    quick: bool = False,
) -> Line:
    """How often a candidate passes that loses exactly the margin.

    Args:
        name: Of the world.
        metric: That is judged.
        rows: Of a holdout.
        margin: The candidate's true loss.
        holdouts: How many.
        first: How many were drawn before and are not counted: they did not tell five per cent from the limit.
        limit: What is promised; None: reported.
        quick: The fast form.
    """
    size = min(AT_ONCE, holdouts)
    seeds = range(first // size, (first + holdouts) // size)
    found = proof.spread(passes, [(name, metric, rows, margin, 1.0, size, seed) for seed in seeds], quick=quick)
    passed, bare = np.sum(found, axis=0)
    told = f"margin {margin:.3g}; bare comparison {bare / holdouts:.0%}" + ("; drawn anew" if first else "")
    case = f"passes at the margin, {metric}, {name}, {rows:,} rows"
    return proof.share(case, int(passed), holdouts, limit, quick=quick, told=told)


def sizes(metric: str, *, quick: bool) -> dict[int, int]:
    """How many holdouts of how many rows."""
    if quick:
        return {1000: QUICK}
    if metric == OWN:
        return {1000: BOOTSTRAPPED}
    return {1000: HOLDOUTS, 10_000: LARGE} if metric in FEW else {1000: HOLDOUTS}


def power(*, quick: bool) -> list[Line]:
    """How often a candidate that is as good as Production passes; reported."""
    many = (1000,) if quick else (200, 500, 1000, 2000, 5000, 20_000)
    runs = 100 if quick else 1000
    cases = [("binary", "f1_weighted", rows, margin, 0.0, runs, 1) for margin in (0.02, 0.01) for rows in many]
    lines = []
    for case, (passed, _) in zip(cases, proof.spread(passes, cases, quick=quick), strict=True):
        told = f"passes when as good, {case[1]}, margin {case[3]:g}, {case[2]:,} rows"
        lines.append(proof.share(told, passed, runs, None, quick=quick))
    return lines


def true_losses(world: World, metrics: tuple[str, ...], *, quick: bool) -> list[float]:
    """Of each of these metrics, what the worse candidate truly loses."""
    blocks = (TRUTH_QUICK if quick else TRUTH) // BLOCK
    found = proof.spread(loss_in, [(world.name, metrics, seed) for seed in range(blocks)], quick=quick)
    return [float(one) for one in np.mean(found, axis=0)]


def loss_in(name: str, metrics: tuple[str, ...], seed: int) -> list[float]:
    """The losses on one block of rows."""
    candidate, production = WORLDS[name].draw(np.random.default_rng([2024, seed]), BLOCK, 1.0)
    families = [FAMILIES[metric.removeprefix("own_")] for metric in metrics]
    gains = [family(candidate).value - family(production).value for family in families]
    return [gain if is_loss(metric) else -gain for metric, gain in zip(metrics, gains, strict=True)]


def passes(name: str, metric: str, rows: int, margin: float, worse: float, runs: int, seed: int) -> tuple[int, int]:
    """How many of so many holdouts (the gate, the bare comparison) passes."""
    world = WORLDS[name]
    draw = np.random.default_rng([seed, rows, round(1e6 * margin)])
    passed = bare = 0
    for _ in range(runs):
        candidate, production = world.draw(draw, rows, worse)
        outcome, value = compared(candidate, production, metric, margin, world.problem)
        passed += int(outcome == "ok")
        bare += int(value is not None and value >= -margin)
    return passed, bare


def compared(
    candidate: Scores, production: Scores, metric: str, margin: float, problem: str
) -> tuple[str, float | None]:
    """The gate's outcome and the difference it saw, when nothing but the comparison is asked for."""
    check = RegressionCheck(metric=metric, margin=margin, confidence=FIRST)
    rules = Gate(performance=None, regression=check, stability=None, latency=None, size=None, fresh_process=False)
    evidence = GateEvidence(
        candidate=candidate, production=production, latencies=None, size=None, loads=None, baseline="1"
    )
    verdict = judge(evidence, rules, problem=problem, custom={OWN: own_f1})
    finding = next(one for one in verdict.findings if one.name == "regression")
    return finding.outcome, finding.value


def own_f1(truth: Floats, prediction: Floats, probability: Floats | None) -> float:
    """What a user might write."""
    del probability
    return float(2 * np.sum(truth * prediction) / np.sum(truth + prediction))


# Worlds. Both models see the same signal through noise, most of which they share.


def binary(draw: np.random.Generator, rows: int, worse: float, rate: float = 0.3) -> Pair:
    """Two classes, the scores in steps, so that there are ties."""
    truth = (draw.random(rows) < rate).astype(int)
    shared = draw.normal(0, 1, rows)
    made = []
    for less in (worse, 0.0):
        noise = 0.9 * shared + 0.4 * draw.normal(0, 1, rows) + 0.4 * less * draw.normal(0, 1, rows)
        logit = (2.4 - 0.3 * less) * truth - 1.2 + math.log(rate / (1 - rate)) / 2 + noise
        positive = 1 / (1 + np.exp(-np.round(logit, 1)))
        made.append(_two(truth, positive))
    return made[0], made[1]


def rare(draw: np.random.Generator, rows: int, worse: float) -> Pair:
    """One row of twenty is positive."""
    return binary(draw, rows, worse, rate=0.05)


def _two(truth: NDArray[np.intp], positive: Floats) -> Scores:
    return Scores(
        truth=truth,
        prediction=(positive > 0.5).astype(int),
        probability=np.column_stack([1 - positive, positive]),
        classes=("no", "yes"),
    )


def multiclass(draw: np.random.Generator, rows: int, worse: float) -> Pair:
    """Three classes of 50, 30 and 20 %."""
    truth = draw.choice(3, rows, p=[0.5, 0.3, 0.2])
    shared = draw.normal(0, 0.8, (rows, 3))
    made = []
    for extra in (0.6 * worse, 0.0):
        noise = shared + 0.5 * draw.normal(0, 1, (rows, 3)) + extra * draw.normal(0, 1, (rows, 3))
        raw = np.exp(2 * np.eye(3)[truth] + noise)
        probability = raw / raw.sum(axis=1, keepdims=True)
        prediction = probability.argmax(axis=1)
        made.append(Scores(truth=truth, prediction=prediction, probability=probability, classes=("a", "b", "c")))
    return made[0], made[1]


def regression(draw: np.random.Generator, rows: int, worse: float) -> Pair:
    """Normal errors."""
    return _amounts(draw.normal(10, 3, rows), [draw.normal(0, 1, rows) for _ in range(4)], worse)


def heavy_tailed(draw: np.random.Generator, rows: int, worse: float) -> Pair:
    """Errors of Student's t with 5 degrees of freedom, and amounts that are skewed."""
    return _amounts(np.exp(draw.normal(1, 0.6, rows)), [draw.standard_t(5, rows) for _ in range(4)], worse)


def rare_errors(draw: np.random.Generator, rows: int, worse: float) -> Pair:
    """Normal errors, and of one row of two hundred the candidate knows next to nothing."""
    truth, error = draw.normal(10, 3, rows), draw.normal(0, 1, rows)
    far = np.where(draw.random(rows) < 0.005, 15 * worse * draw.normal(0, 1, rows), 0.0)
    return Scores(truth=truth, prediction=truth + error + far), Scores(truth=truth, prediction=truth + error)


def _amounts(truth: Floats, noise: list[Floats], worse: float) -> Pair:
    shared, ours, theirs, extra = noise
    return (
        Scores(truth=truth, prediction=truth + 0.1 + 0.8 * shared + 0.4 * ours + 0.3 * worse * extra),
        Scores(truth=truth, prediction=truth + 0.1 + 0.8 * shared + 0.4 * theirs),
    )


AMOUNTS = tuple(
    one for one in REGRESSION_METRICS if one not in {"pinball_05", "pinball_25", "pinball_75", "pinball_95"}
)
WORLDS = {
    world.name: world
    for world in (
        World("binary", "binary", binary, (*CLASSIFICATION_METRICS, OWN)),
        World("rare positives", "binary", rare, CLASSIFICATION_METRICS),
        World("multiclass", "multiclass", multiclass, CLASSIFICATION_METRICS),
        World("regression", "regression", regression, AMOUNTS),
        World("heavy tails", "regression", heavy_tailed, AMOUNTS),
        World(RARE, "regression", rare_errors, ()),
    )
}


if __name__ == "__main__":
    raise SystemExit(proof.run("gate_power", prove))
