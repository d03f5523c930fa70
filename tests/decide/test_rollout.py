"""Rollout: a step only on evidence, an end on evidence or on none, and both at the rates that are promised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tasks.decide.arms import Counts, not_worse, worse
from tasks.decide.rollout import judge
from tasks.decide.sequential import mixed
from tasks.policy import Health, Policy, Rollout
from tasks.records import Finding, Look, RolloutEvidence, Verdict

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES, HEALTH = Rollout(), Health(accuracy=None)


def looks(minutes: int, requests: int, *, first: int = 0, **counts: int) -> tuple[Look, ...]:
    nothing = {"errors": 0, "slow": 0, "labelled": 0, "wrong": 0}
    return tuple(
        Look(start=START + number * MINUTE, requests=requests, **{**nothing, **counts})
        for number in range(first, first + minutes)
    )


def evidence(canary: tuple[Look, ...], production: tuple[Look, ...], **changes: Any) -> RolloutEvidence:
    fields: dict[str, Any] = {"version": "2", "baseline": "1", "weight": 5, "started": START, "stepped": START}
    fields |= {"now": START + len(canary) * MINUTE, "canary": canary, "production": production}
    return RolloutEvidence(**fields | changes)


def verdict(
    found: RolloutEvidence, rules: Rollout = RULES, health: Health = HEALTH, problem: str = "binary"
) -> Verdict:
    return judge(found, rules, health, problem=problem)


def finding(result: Verdict, name: str) -> Finding:
    return next(one for one in result.findings if one.name == name)


HEALTHY = evidence(looks(20, 50), looks(20, 950, errors=2))


# The policy.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": ["5%", "50%"]}, "the last one 100%"),
        ({"steps": ["50%", "5%", "100%"]}, "rising"),
        ({"steps": ["5%", "5%", "100%"]}, "each step once"),
        ({"steps": ["0.5%", "100%"]}, "whole percents"),
        ({"steps": ["0%", "100%"]}, "above 0"),
        ({"steps": []}, "at least 1"),
        ({"hold": "1h", "deadline": "1h"}, "longer than `hold`"),
        ({"ratio": 0.9}, "greater than or equal to 1"),
        ({"tolerate": 0}, "greater than 0"),
    ],
)
def test_a_rollout_that_leads_nowhere_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Rollout(**changes)


def test_a_rollout_that_nothing_could_show_to_be_safe_is_refused() -> None:
    made = {"model": "m", "data": {"source": "a.csv", "target": "y", "timestamp": "t"}, "rollout": {}}
    made |= {"training": {"estimator": "sklearn.dummy:DummyClassifier"}}
    assert Policy(**made).rollout == Rollout()
    with pytest.raises(ValueError, match=r"rollout needs health\.error_rate or health\.latency_p95"):
        Policy(**made, health={"error_rate": "off", "latency_p95": "off"})
    assert Policy(**{**made, "rollout": "off"}, health={"error_rate": "off", "latency_p95": "off"}).rollout is None


# A step.


def test_a_step_needs_the_time_the_requests_and_the_evidence() -> None:
    assert verdict(HEALTHY).decision == "step"
    assert "version 2 goes from 5% to 25%" in verdict(HEALTHY).reason
    early = replace(HEALTHY, canary=HEALTHY.canary[:14], production=HEALTHY.production[:14], now=START + 14 * MINUTE)
    assert [one.name for one in verdict(early).having("unknown")] == ["time"]
    few = verdict(evidence(looks(20, 4), looks(20, 76)))
    assert few.decision == "hold"
    assert finding(few, "traffic").outcome == "unknown"
    assert "80 requests to version 2 and 1,520 to version 1" in few.reason
    unsure = verdict(evidence(looks(20, 6), looks(20, 114)))
    assert (unsure.decision, finding(unsure, "traffic").outcome) == ("hold", "ok")
    assert finding(unsure, "error_rate").outcome == "unknown"
    assert "more answers of the canary are needed" in unsure.reason


def test_from_the_last_step_it_goes_to_production() -> None:
    half = evidence(looks(30, 200), looks(30, 200), weight=50)
    assert verdict(half).decision == "promote"
    assert "may replace version 1" in verdict(half).reason
    assert [RULES.following(one) for one in (0, 5, 25, 50, 99)] == [5, 25, 50, 100, 100]


def test_every_step_is_shown_anew_by_what_came_at_its_own_weight() -> None:
    stepped = evidence(looks(40, 50), looks(40, 950), weight=25, stepped=START + 39 * MINUTE, now=START + 60 * MINUTE)
    result = verdict(stepped)
    assert result.decision == "hold"
    assert finding(result, "error_rate").n == 50


def test_what_fails_in_both_arms_is_no_reason_to_abort_and_none_to_go_on() -> None:
    outage = evidence(looks(60, 2000, errors=600), looks(60, 38000, errors=11400))
    result = verdict(outage)
    assert result.decision == "hold"
    assert "more than the 10% that are tolerated at all" in result.reason


# No evidence.


@pytest.mark.parametrize(
    "nothing",
    [
        evidence((), ()),
        evidence(looks(20, 0), looks(20, 1000)),
        evidence(looks(20, 50), looks(20, 0)),
        replace(HEALTHY, unavailable="the disk is away"),
        replace(HEALTHY, partial="one of two gateways cannot be scraped"),
        replace(HEALTHY, canary=looks(20, 50, errors=51)),
        replace(HEALTHY, production=HEALTHY.production[1:]),
        replace(HEALTHY, canary=looks(20, 50, first=1)),
    ],
    ids=["no looks", "no canary", "no baseline", "away", "not all", "contradiction", "fewer looks", "other looks"],
)
def test_without_evidence_it_holds_and_after_the_deadline_it_is_given_up(nothing: RolloutEvidence) -> None:
    early = replace(nothing, now=START + RULES.deadline - MINUTE)
    assert verdict(early).decision == "hold"
    assert "until 2026-03-03 09:00 UTC at most" in verdict(early).reason
    late = verdict(replace(nothing, now=START + RULES.deadline))
    assert late.decision == "abort"
    assert finding(late, "deadline").outcome == "breach"
    assert "is given up" in late.reason


def test_a_part_of_the_evidence_suffices_for_an_alarm() -> None:
    bad = evidence(looks(20, 50, errors=25), looks(20, 950, errors=2), partial="one gateway cannot be scraped")
    assert verdict(bad).decision == "abort"
    assert "is worse than version 1" in verdict(bad).reason
    assert "not all is seen: one gateway" in verdict(replace(HEALTHY, partial="one gateway")).reason


def test_with_every_metric_off_nothing_is_shown() -> None:
    off = Health(error_rate=None, latency_p95=None, accuracy=None)
    assert verdict(HEALTHY, health=off).decision == "hold"


# Worse.


@pytest.mark.parametrize("bad", [{"errors": 5}, {"slow": 8}])
def test_a_canary_that_is_worse_is_aborted_before_its_time_is_over(bad: dict[str, int]) -> None:
    result = verdict(evidence(looks(5, 50, **bad), looks(5, 950, errors=9, slow=9)))
    assert result.decision == "abort"
    (breach,) = result.having("breach")
    assert breach.name == {"errors": "error_rate", "slow": "latency_p95"}[next(iter(bad))]
    assert "shown to be more than 1.2 times as often" in result.reason
    assert "version 2 at 5% is worse than version 1" in result.reason


def test_an_alarm_of_an_earlier_step_is_not_forgotten() -> None:
    bad, good = looks(5, 50, errors=10), looks(300, 50, first=5)
    later = evidence((*bad, *good), looks(305, 950, errors=5), stepped=START + 5 * MINUTE)
    assert verdict(later).decision == "abort"


def test_accuracy_counts_once_there_are_labels() -> None:
    health, base = Health(), looks(30, 950, labelled=950, wrong=95)
    none = verdict(evidence(looks(30, 50), looks(30, 950)), health=health)
    assert (none.decision, finding(none, "accuracy").outcome) == ("step", "exempt")
    wrong = verdict(evidence(looks(30, 50, labelled=50, wrong=12), base), health=health)
    assert wrong.decision == "abort"
    some = evidence(looks(30, 50, labelled=5, wrong=1), base)
    unsure = verdict(some, health=health)
    assert (unsure.decision, finding(unsure, "accuracy").outcome) == ("hold", "unknown")
    assert verdict(some, health=health, problem="regression").decision == "step"


# The promises, by simulation. The split wanders, traffic is low, the shared rate of errors wanders too.


def traffic(draw: np.random.Generator, shape: tuple[int, int], mean: float) -> tuple[Any, Any, Any]:
    """(canary's, Production's) requests per look, and how bad both are at the time."""
    share = np.repeat(draw.choice([0.05, 0.25, 0.5], (shape[0], 3)), shape[1] // 3, axis=1)
    share = np.clip(share * draw.uniform(0.5, 1.6, shape), 0.01, 0.8)  # never the split that was asked for
    total = draw.poisson(mean * draw.uniform(0.2, 2.0, shape))
    canary = draw.binomial(total, share)
    shared = np.clip(0.02 * np.exp(draw.normal(0, 0.8, shape)), 0, 0.4)
    return canary, total - canary, shared


@pytest.mark.parametrize("mean", [8, 60, 600])
@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_a_healthy_canary_is_rarely_shown_to_be_worse(mean: float, ratio: float) -> None:
    """At the tolerated ratio, too: 2,000 rollouts of 90 looks, at most 1 % of them, and what chance adds to that."""
    draw = np.random.default_rng(int(mean * 10 * ratio))
    canary, production, shared = traffic(draw, (2000, 90), mean)
    counts = Counts.of(
        draw.binomial(canary, np.minimum(ratio * shared, 1)), canary, draw.binomial(production, shared), production
    )
    false = float((worse(counts, ratio=1.2, planned=45).max(axis=-1) >= np.log(100)).mean())
    print(f"mean {mean}, ratio {ratio}: {false:.2%} aborted")  # noqa: T201  the figures of the documentation
    assert false <= 0.015


@pytest.mark.parametrize("common", [0.05, 0.3, 0.8])
def test_how_common_bad_answers_are_changes_nothing_of_the_promise(common: float) -> None:
    draw = np.random.default_rng(7)
    canary, production, _ = traffic(draw, (2000, 90), 30)
    bad = draw.binomial(canary, min(1, 1.2 * common)), draw.binomial(production, common)
    counts = Counts.of(bad[0], canary, bad[1], production)
    assert float((worse(counts, ratio=1.2, planned=45).max(axis=-1) >= np.log(100)).mean()) <= 0.015


@pytest.mark.parametrize("mean", [8, 60, 600])
def test_a_canary_that_is_worse_by_the_margin_is_rarely_shown_not_to_be(mean: float) -> None:
    draw = np.random.default_rng(int(mean))
    canary, production, shared = traffic(draw, (2000, 90), mean)
    counts = Counts.of(draw.binomial(canary, shared + 0.02), canary, draw.binomial(production, shared), production)
    passed = float((not_worse(counts, margin=0.02).max(axis=-1) >= np.log(20)).mean())
    print(f"mean {mean}: {passed:.2%} shown not to be worse at any look")  # noqa: T201  see above
    assert passed <= 0.065


def expected(which: str, first: tuple[int, ...], n: int, base: int, rate: float, base_rate: float) -> float:
    """Exact mean of the factor of a second look, over all of its outcomes, after a first look that is known."""
    hits, base_hits = (part.ravel() for part in np.meshgrid(np.arange(n + 1), np.arange(base + 1)))
    chance = binom.pmf(hits, n, rate) * binom.pmf(base_hits, base, base_rate)
    both = [
        np.stack([np.full(hits.shape, was), np.broadcast_to(now, hits.shape)], axis=-1)
        for was, now in zip(first, (hits, n, base_hits, base), strict=True)
    ]
    counts = Counts.of(*both)
    logs = not_worse(counts, margin=0.02) if which == "not worse" else worse(counts, ratio=1.2, planned=1)
    return float((chance * np.exp(logs[:, 1] - logs[:, 0])).sum())


@pytest.mark.parametrize("first", [(0, 40, 1, 300), (9, 40, 40, 300), (0, 1, 0, 1)])
@pytest.mark.parametrize(("n", "base"), [(1, 1), (3, 20), (20, 3), (30, 30)])
def test_no_bet_wins_on_average_where_the_question_is_to_be_denied(first: tuple[int, ...], n: int, base: int) -> None:
    """Exactly, not by simulation: nothing that was seen before makes the next look worth more than 1."""
    for rate in (0.0, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.8):
        for more in (0.02, 0.05, 0.2):
            assert expected("not worse", first, n, base, rate + more, rate) <= 1 + 1e-6
        for ratio in (0.5, 1.0, 1.2):
            assert expected("worse", first, n, base, min(1.0, ratio * rate), rate) <= 1 + 1e-6


def test_a_canary_that_is_as_good_is_shown_to_be() -> None:
    draw = np.random.default_rng(3)
    canary, production, shared = traffic(draw, (500, 90), 200)
    counts = Counts.of(draw.binomial(canary, shared), canary, draw.binomial(production, shared), production)
    assert float((not_worse(counts, margin=0.02)[:, -1] >= np.log(20)).mean()) > 0.9


@pytest.mark.parametrize("broken", [([2], [1], [0], [1]), ([np.nan], [1], [0], [1]), ([0], [1], [-1], [1])])
def test_counts_that_cannot_be_are_refused(broken: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="0 <= bad <= total"):
        Counts.of(*broken)


# Whole rollouts, many at once: what the judge does, look by look, with the functions that it does it with.

TICK, LAST = 20, 24
"""Minutes of a look, and the looks after which nothing was decided: the deadline."""


def one_more(before: Any, look: Any) -> Any:
    """Log of the evidence of one look that the canary is not worse; what came before tells how common bad ones are."""
    two = not_worse(Counts.of(*np.stack([before, look], axis=-1)), margin=RULES.tolerate)
    return two[:, 1] - two[:, 0]


def fates(runs: int, *, worse_by: float, mean: float, seed: int) -> dict[str, float]:
    """Shares of what became of so many rollouts, and the median minutes of those that reached Production.

    The gateway's split is off by up to a half, traffic and what fails in both arms wander.
    """
    draw = np.random.default_rng(seed)
    weight, since, promoted = np.full(runs, RULES.weights[0]), np.zeros(runs, int), np.full(runs, LAST)
    errors: list[Any] = []
    slow: list[Any] = []
    shown = np.zeros((2, runs))
    asked = np.zeros((2, runs))
    before = np.zeros((2, 4, runs))  # since the last step, in errors and in slow answers
    for number in range(LAST):
        total = draw.poisson(mean * TICK * draw.uniform(0.2, 2.0, runs))
        canary = draw.binomial(total, np.minimum(0.9, weight / 100 * draw.uniform(0.5, 1.5, runs)))
        rate = np.minimum(0.4, 0.01 * np.exp(draw.normal(0, 0.7, runs)))
        for place, (kind, more) in enumerate(((errors, worse_by), (slow, 0.0))):
            bad, base = draw.binomial(canary, np.minimum(1, rate + more)), draw.binomial(total - canary, rate)
            look = np.array([bad, canary, base, total - canary])
            shown[place] += one_more(before[place], look)
            before[place] += look
            kind.append(look)
        asked += (canary, total - canary)
        enough = (asked >= HEALTH.min_requests).all(axis=0) & (number + 1 - since >= RULES.hold / (TICK * MINUTE))
        step = (shown >= np.log(20)).all(axis=0) & enough & (promoted == LAST)
        promoted[step & (weight == 50)] = number
        following_weight = np.vectorize(RULES.following)(weight)
        weight, since = np.where(step & (weight < 50), following_weight, weight), np.where(step, number + 1, since)
        shown[:, step], asked[:, step], before[:, :, step] = 0, 0, 0
    processes = [
        worse(Counts.of(*(np.stack(part, -1) for part in zip(*kind, strict=True))), ratio=1.2, planned=3)
        for kind in (errors, slow)
    ]
    alarm = (mixed(processes) >= np.log(100)).argmax(axis=1) + LAST * (mixed(processes).max(axis=1) < np.log(100))
    aborted = (alarm < LAST) & (alarm <= promoted)
    done = (promoted < LAST) & ~aborted
    return {
        "promoted": float(done.mean()),
        "given up": float((~done & ~aborted).mean()),
        "shown worse": float(aborted.mean()),
        "minutes": float(np.median(TICK * (promoted[done] + 1))) if done.any() else float("nan"),
    }


@pytest.mark.parametrize("mean", [20, 200])
def test_whole_rollouts_end_as_promised(mean: float) -> None:
    """2,000 each: at most 1 % of the healthy are shown to be worse, at most 5 % of the bad reach Production."""
    healthy, bad = (fates(2000, worse_by=by, mean=mean, seed=1) for by in (0.0, 0.02))
    print(f"{mean} requests a minute: healthy {healthy}, worse by 2 points {bad}")  # noqa: T201  see above
    assert healthy["shown worse"] <= 0.015
    assert bad["promoted"] <= 0.05
    if mean == 200:
        assert healthy["promoted"] > 0.95


def test_the_judge_does_what_the_simulation_does() -> None:
    """A few rollouts with the judge itself, tick by tick."""
    draw = np.random.default_rng(5)
    assert [whole(draw, worse_by=0.0) for _ in range(6)] == ["promote"] * 6
    assert [whole(draw, worse_by=0.05) for _ in range(6)] == ["abort"] * 6


def whole(draw: np.random.Generator, *, worse_by: float) -> str:
    weight, stepped, minute = RULES.weights[0], START, 0
    canary: list[Look] = []
    production: list[Look] = []
    health = HEALTH.model_copy(update={"tick": TICK * MINUTE})
    while True:
        total = int(draw.poisson(200 * TICK))
        ours = int(draw.binomial(total, weight / 100 * draw.uniform(0.5, 1.5)))
        for arm, requests, more in ((canary, ours, worse_by), (production, total - ours, 0.0)):
            failed = int(draw.binomial(requests, 0.01 + more))
            arm.extend(looks(1, requests, first=minute, errors=failed))
        minute += TICK
        now = START + minute * MINUTE
        found = evidence(tuple(canary), tuple(production), weight=weight, stepped=stepped, now=now)
        said = judge(found, RULES, health, problem="binary")
        if said.decision in {"promote", "abort"}:
            return said.decision
        if said.decision == "step":
            weight, stepped = RULES.following(weight), now


if __name__ == "__main__":
    for mean in (5, 20, 60, 200, 600):
        for margin in (0.0, 0.02, 0.05):
            told = {name: round(value, 4) for name, value in fates(2000, worse_by=margin, mean=mean, seed=9).items()}
            print(f"{mean} requests a minute, worse by {margin:.0%}: {told}")  # noqa: T201  as above
