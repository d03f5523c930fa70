"""Shadow: how often it answers wrongly although it is asked every day, and how many labels the right answer needs.

``python -m benchmarks.shadow_power``: challengers that lose exactly what is tolerated and must not be promoted, and
equal ones, which must not be rejected, asked after every 50 labels until 20,000; where the policy says which gain is
worth having, equal ones, which must not be promoted, and such that have that gain, which must not be rejected. Then
equal, better and worse ones: how many labels until the answer, beside a sequential test that knows how often the two
models differ, and who wins then. The peers look at the same labels as often: the bare difference (promote from the
second of these gains on, after 200 labels), and a z-test at five per cent per look.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from benchmarks import proof
from benchmarks.proof import Line
from tasks.decide.shadow import evidence_above, judge
from tasks.policy import Shadow
from tasks.records import ShadowEvidence, Span

Floats = NDArray[np.float64]

RULES = Shadow()
BETTER = Shadow(worth_having=0.02)
"""Only what is better may go out."""
RUNS, QUICK, AT_ONCE, STEP, LABELS = 10_000, 400, 400, 50, 20_000
SPAN = Span(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 1, 8, tzinfo=UTC))
DIFFER = (0.05, 0.1, 0.2, 0.4)
"""Share of the labelled requests on which exactly one of the two models is right."""
WRONG = ("promote", "reject")
"""What must not be said at the first bound, and at the second."""


def prove(*, quick: bool = False) -> list[Line]:
    """All of it."""
    runs = QUICK if quick else RUNS
    lines = []
    for differ in DIFFER[1:2] if quick else DIFFER:
        cases = [
            (rules, gain, wrong) for rules in (RULES, BETTER) for gain, wrong in zip(rules.bounds, WRONG, strict=True)
        ]
        for rules, gain, wrong in cases:
            jobs = [(rules, differ, gain, wrong, AT_ONCE, seed) for seed in range(runs // AT_ONCE)]
            found = np.sum(proof.spread(mistakes, jobs, quick=quick), axis=0)
            case = (
                f"wrong {wrong}{', worth having 2%' if rules is BETTER else ''}, {gain:+.0%} at {differ:.0%} differing"
            )
            peers = f"bare difference {found[1] / runs:.1%}, z-test per look {found[2] / runs:.1%}"
            lines.append(
                proof.share(case, int(found[0]), runs, RULES.false_promotion, quick=quick, told=f"peers: {peers}")
            )
    return lines + delays(quick=quick)


def draws(rng: np.random.Generator, runs: int, differ: float, gain: float) -> tuple[NDArray[np.int64], ...]:
    """(wins, losses, ties) after every 50 labels, shape (runs, looks) each."""
    chances = [(differ + gain) / 2, (differ - gain) / 2, 1 - differ]
    counts = np.cumsum(rng.multinomial(STEP, chances, (runs, LABELS // STEP)), axis=1)
    return counts[..., 0], counts[..., 1], counts[..., 2]


def answers(
    rules: Shadow, wins: NDArray[np.int64], losses: NDArray[np.int64], ties: NDArray[np.int64]
) -> NDArray[np.int8]:
    """+1 promote, -1 reject, 0 wait, at every look by itself; shape (runs, looks)."""
    enough, (low, high) = -math.log(rules.false_promotion), rules.bounds
    up = evidence_above(wins, losses, ties, low) >= enough
    down = evidence_above(losses, wins, ties, -high) >= enough
    return np.where(up, 1, np.where(down, -1, 0)).astype(np.int8)


def mistakes(rules: Shadow, differ: float, gain: float, wrong: str, runs: int, seed: int) -> tuple[int, int, int]:
    """How often the first answer is the wrong one: of the product, and of the two peers."""
    rng = np.random.default_rng([seed, round(1000 * differ), wrong == "promote"])
    counts = draws(rng, runs, differ, gain)
    said = answers(rules, *counts)
    where, first = (said != 0).argmax(axis=1), first_of(said)
    for row in (*np.flatnonzero(first)[:3], *np.flatnonzero(first == (1 if wrong == "promote" else -1))[:3]):
        confirm(rules, [int(part[row, where[row]]) for part in counts], int(first[row]))
    sign = 1 if wrong == "promote" else -1
    bare, tested = (int((first_of(peer) == sign).sum()) for peer in peers(rules, *counts))
    return int((first == sign).sum()), bare, tested


def first_of(said: NDArray[np.int8]) -> NDArray[np.int8]:
    """The first answer that is not "wait", shape (runs,)."""
    out: NDArray[np.int8] = np.take_along_axis(said, (said != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return out


def confirm(rules: Shadow, counts: list[int], said: int) -> None:
    """See that the shadow's own judge gives the same answer.

    Raises:
        RuntimeError: When it does not.
    """
    wins, losses, ties = counts
    total = sum(counts)
    evidence = ShadowEvidence(
        wins=wins, losses=losses, ties=ties, requests=total, agreements=ties, failures=0, span=SPAN
    )
    decision = judge(evidence, rules).decision
    if decision != {1: "promote", -1: "reject", 0: "wait"}[said]:
        raise RuntimeError(f"{counts}: the judge says {decision}, the arrays do not")


def peers(
    rules: Shadow, wins: NDArray[np.int64], losses: NDArray[np.int64], ties: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """What the bare difference and a z-test per look say, from 200 labels on."""
    total = wins + losses + ties
    mean, (low, high) = (wins - losses) / total, rules.bounds
    error = np.sqrt(np.maximum((wins + losses) / total - mean**2, 1e-12) / total)
    bare = np.where(mean >= high, 1, np.where(mean < low, -1, 0))
    tested = np.where((mean - low) / error > 1.645, 1, np.where((mean - high) / error < -1.645, -1, 0))
    early = total < 200
    return np.where(early, 0, bare).astype(np.int8), np.where(early, 0, tested).astype(np.int8)


# How many labels.


def delays(*, quick: bool) -> list[Line]:
    """Median labels until the right answer, beside a test that knows the shares."""
    cases = [
        (0.1, 0.0),
        (0.02, 0.0),
        (0.1, 0.02),
        (0.1, -0.04),
        (0.05, 0.0),
        (0.2, 0.0),
        (0.2, -0.05),
        (0.4, 0.0),
        (0.4, 0.05),
    ]
    lines = []
    for differ, gain in cases[:1] if quick else cases:
        runs = 200 if quick else 1000
        ours, best = needed(differ, gain, runs)
        told = f"{ours:,.0f} labels, the oracle {best:,.0f}"
        case = f"labels, {gain:+.0%} at {differ:.0%} differing"
        lines.append(Line(what=case, value=ours / best, limit=1.6, told=told))
    return lines


def needed(differ: float, gain: float, runs: int) -> tuple[float, float]:
    """Median labels until the right answer of (the shadow, a test that knows who wins how often)."""
    rng = np.random.default_rng(round(1e4 * differ + 1e6 * (gain + 1)))
    wins, losses, ties = draws(rng, runs, differ, gain)
    enough = -math.log(RULES.false_promotion)
    truth = np.array([(differ + gain) / 2, (differ - gain) / 2, 1 - differ])
    if gain > -RULES.tolerate:
        own, bound = evidence_above(wins, losses, ties, -RULES.tolerate), -RULES.tolerate
    else:
        own, bound = evidence_above(losses, wins, ties, 0.0), 0.0
    ratio = np.log(truth / nearest(truth, bound))
    best = wins * ratio[0] + losses * ratio[1] + ties * ratio[2]
    return median(own >= enough), median(best >= enough)


def nearest(truth: Floats, mean: float) -> Floats:
    """The shares of a win, a loss and a tie with this mean that are hardest to tell from the true ones.

    The growth of a bet ``1 + lambda (d - mean)`` is largest where the wealth is the likelihood ratio against them
    (Waudby-Smith and Ramdas 2024, section 5; the dual of the empirical likelihood, Owen 2001, section 2.3).
    """
    d = np.array([1.0, -1.0, 0.0]) - mean

    def slope(rate: float) -> float:
        return float((truth * d / (1 + rate * d)).sum())

    rate = float(brentq(slope, -1 / d.max() + 1e-9, -1 / d.min() - 1e-9))
    out: Floats = truth / (1 + rate * d)
    return out


def median(shown: NDArray[np.bool_]) -> float:
    """Median labels until it is shown; a run in which it never is counts as never."""
    first = np.where(shown.any(axis=1), shown.argmax(axis=1) + 1.0, math.inf)
    return float(np.median(first)) * STEP


if __name__ == "__main__":
    raise SystemExit(proof.run("shadow_power", prove))
