"""The gate: every check says what it saw, and nothing that was not seen passes."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import numpy as np
import pytest

from tasks.decide.gate import confidence_at, judge
from tasks.policy import Gate, LatencyCheck, PerformanceCheck, RegressionCheck, StabilityCheck
from tasks.records import Finding, GateEvidence, Scores, Verdict, to_plain

RULES = Gate(
    performance=PerformanceCheck(metric="accuracy", at_least=0.85), regression=RegressionCheck(metric="f1_weighted")
)
NAMES = ["performance", "regression", "stability", "latency", "size", "fresh_process"]


def scores(truth: np.ndarray, positive: np.ndarray) -> Scores:
    positive = np.asarray(positive, dtype=float)
    return Scores(
        truth=np.asarray(truth),
        prediction=(positive > 0.5).astype(int),
        probability=np.column_stack([1 - positive, positive]),
        classes=("no", "yes"),
    )


def pair(
    n: int = 3000, noise: float = 0.5, other: float = 0.5, rate: float = 0.4, seed: int = 0
) -> tuple[Scores, Scores]:
    """Two models that see the same signal, most of their noise shared."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < rate).astype(int)
    shared = rng.normal(0, 1, n)
    made = [
        scores(truth, 1 / (1 + np.exp(-(2 * truth - 1 + size * (shared + 0.2 * rng.normal(0, 1, n))))))
        for size in (noise, other)
    ]
    return made[0], made[1]


def evidence(candidate: Scores, production: Scores | None, **changes: object) -> GateEvidence:
    rng = np.random.default_rng(0)
    fields = {
        "candidate": candidate,
        "production": production,
        "latencies": rng.uniform(0.001, 0.002, 1000),
        "size": 10_000_000,
        "loads": True,
        "baseline": "3",
    } | changes
    return GateEvidence(**fields)


def found(verdict: Verdict, name: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.name == name)


def test_a_good_candidate_passes_and_every_check_reports_in_order() -> None:
    verdict = judge(evidence(*pair()), RULES, problem="binary")
    assert verdict.decision == "pass", verdict.reason
    assert [finding.name for finding in verdict.findings] == NAMES
    assert all(finding.outcome == "ok" for finding in verdict.findings)


def test_all_checks_run_although_the_first_one_fails() -> None:
    candidate, production = pair(noise=2.0)
    verdict = judge(evidence(candidate, production, size=10**9, loads=False), RULES, problem="binary")
    assert verdict.decision == "fail"
    assert [f.name for f in verdict.having("breach")] == ["performance", "regression", "size", "fresh_process"]


def test_findings_are_plain_json() -> None:
    verdict = judge(evidence(*pair()), RULES, problem="binary")
    for finding in verdict.findings:
        assert finding.value is None or type(finding.value) is float
        json.dumps({**finding.evidence, "interval": finding.interval, "n": finding.n, "margin": finding.margin})
    json.dumps(to_plain(verdict), allow_nan=False)


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_nothing_that_was_measured_never_passes(problem: str) -> None:
    empty = Scores(truth=np.array([]), prediction=np.array([]))
    verdict = judge(
        GateEvidence(candidate=empty, production=empty, latencies=None, size=None, loads=None, baseline="1"),
        RULES if problem == "binary" else Gate(performance=PerformanceCheck(metric="r2", at_least=0.5)),
        problem=problem,
    )
    assert verdict.decision == "inconclusive"
    assert {finding.outcome for finding in verdict.findings} == {"unknown"}
    assert all(finding.reason for finding in verdict.findings)


def test_nothing_but_exemptions_is_no_pass() -> None:
    off = Gate(performance=None, regression=None, stability=None, latency=None, size=None, fresh_process=False)
    assert judge(evidence(*pair()), off, problem="binary").decision == "inconclusive"


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_nan_among_the_scores_is_unknown_with_a_reason(broken: float) -> None:
    candidate, production = pair()
    probability = candidate.probability.copy()
    probability[3, 1] = broken
    bad = Scores(
        truth=candidate.truth, prediction=candidate.prediction, probability=probability, classes=candidate.classes
    )
    verdict = judge(evidence(bad, production), RULES, problem="binary")
    assert verdict.decision == "inconclusive"
    assert "NaN or infinite" in found(verdict, "performance").reason


# performance


def right(n: int, hits: int) -> Scores:
    truth = np.arange(n) % 2
    prediction = np.where(np.arange(n) < hits, truth, 1 - truth)
    return Scores(truth=truth, prediction=prediction, classes=("no", "yes"))


@pytest.mark.parametrize(("hits", "outcome"), [(890, "ok"), (860, "unknown"), (840, "unknown"), (800, "breach")])
def test_the_floor_is_held_against_the_bound_and_not_the_point(hits: int, outcome: str) -> None:
    finding = found(judge(evidence(right(1000, hits), None), RULES, problem="binary"), "performance")
    assert finding.outcome == outcome
    assert (finding.value, finding.threshold, finding.n) == (hits / 1000, 0.85, 1000)


def test_an_inconclusive_floor_says_how_many_more_rows_would_tell() -> None:
    finding = found(judge(evidence(right(1000, 865), None), RULES, problem="binary"), "performance")
    assert finding.outcome == "unknown"
    assert "more rows" in finding.reason
    assert "inconclusive" in finding.reason


def test_a_value_that_sits_on_its_floor_is_inconclusive_and_no_overflow() -> None:
    rules = Gate(performance=PerformanceCheck(metric="recall", at_least=1e-202), regression=None, stability=None)
    truth = np.array([0, 1] * 50)
    none = Scores(truth=truth, prediction=np.zeros(100, int), classes=("no", "yes"))
    finding = found(judge(evidence(none, None), rules, problem="binary"), "performance")
    assert finding.outcome == "unknown"
    assert "no number of rows" in finding.reason


def regression_scores(noise: float, seed: int = 0, shift: float = 0.0) -> Scores:
    rng = np.random.default_rng(seed)
    truth = rng.normal(100, 10, 2000)
    return Scores(truth=truth, prediction=truth + shift + rng.normal(0, noise, 2000))


def test_of_a_loss_the_floor_is_a_ceiling() -> None:
    rules = Gate(performance=PerformanceCheck(metric="rmse", at_least=3.0), regression=None, stability=None)
    outcomes = [
        found(judge(evidence(regression_scores(noise), None), rules, problem="regression"), "performance").outcome
        for noise in (2.0, 3.0, 4.0)
    ]
    assert outcomes == ["ok", "unknown", "breach"]


def test_a_metric_without_a_floor_is_exempt_and_says_where_to_write_one() -> None:
    rules = Gate(performance=PerformanceCheck(metric="f1"))
    finding = found(judge(evidence(*pair()), rules, problem="binary"), "performance")
    assert finding.outcome == "exempt"
    assert "at_least" in finding.reason


def test_a_custom_scorer_is_asked_by_its_name() -> None:
    rules = Gate(performance=PerformanceCheck(metric="hits", at_least=0.8), stability=None)
    custom = {"hits": lambda truth, prediction, _: float(np.mean(truth == prediction))}
    assert found(judge(evidence(*pair()), rules, problem="binary", custom=custom), "performance").outcome == "ok"
    missing = found(judge(evidence(*pair()), rules, problem="binary"), "performance")
    assert missing.outcome == "unknown"
    assert "'hits'" in missing.reason


# regression


def test_the_first_model_is_exempt_from_what_is_relative_and_still_judged_on_the_rest() -> None:
    candidate, _ = pair()
    verdict = judge(evidence(candidate, None, baseline=None), RULES, problem="binary")
    assert verdict.decision == "pass"
    assert [f.name for f in verdict.having("exempt")] == ["regression", "stability"]
    assert "no baseline" in found(verdict, "regression").reason
    poor = judge(evidence(right(1000, 700), None, baseline=None), RULES, problem="binary")
    assert poor.decision == "fail"


def test_a_baseline_that_could_not_be_scored_is_not_a_first_model() -> None:
    candidate, _ = pair()
    verdict = judge(
        evidence(candidate, None, baseline="3", baseline_reason="it does not load"), RULES, problem="binary"
    )
    assert verdict.decision == "inconclusive"
    assert found(verdict, "regression").outcome == "unknown"
    assert "it does not load" in found(verdict, "regression").reason


def test_a_four_point_loss_on_200_rows_does_not_pass() -> None:
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = (rng.random(200) < 0.5).astype(int)
        models = [
            Scores(truth=truth, prediction=np.where(rng.random(200) < share, truth, 1 - truth), classes=("a", "b"))
            for share in (0.86, 0.90)
        ]
        passed += found(judge(evidence(*models), RULES, problem="binary"), "regression").outcome == "ok"
    assert passed <= 3


def test_a_candidate_exactly_at_the_margin_passes_as_rarely_as_promised() -> None:
    passed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = (rng.random(1000) < 0.5).astype(int)
        production = np.where(rng.random(1000) < 0.9, truth, 1 - truth)
        candidate = np.where(rng.random(1000) < 0.025, 1 - production, production)  # 0.9 -> 0.88
        models = [Scores(truth=truth, prediction=one, classes=("a", "b")) for one in (candidate, production)]
        passed += found(judge(evidence(*models), RULES, problem="binary"), "regression").outcome == "ok"
    assert passed / 300 <= 0.06


def test_the_same_holdout_judged_again_gives_less_confidence_and_says_so() -> None:
    alphas = [1 - confidence_at(0.95, attempt) for attempt in range(1, 20_000)]
    assert alphas[0] == pytest.approx(0.05 * 6 / math.pi**2)
    assert sum(alphas) == pytest.approx(0.05, rel=1e-3)
    finding = found(judge(evidence(*pair(), attempt=4), RULES, problem="binary"), "regression")
    assert finding.evidence["attempt"] == 4
    first = found(judge(evidence(*pair()), RULES, problem="binary"), "regression")
    assert finding.interval[0] < first.interval[0]
    with pytest.raises(ValueError, match="attempt 1"):
        confidence_at(0.95, 0)


# stability


def test_scaling_all_scores_by_three_tenths_is_not_stable_although_the_ranks_agree() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(2000) < 0.48).astype(int)
    positive = np.clip(0.25 + 0.5 * truth + rng.normal(0, 0.05, 2000), 0.01, 0.99)
    verdict = judge(evidence(scores(truth, 0.3 * positive), scores(truth, positive)), RULES, problem="binary")
    finding = found(verdict, "stability")
    assert finding.outcome == "breach"
    assert finding.evidence["correlation"]["value"] == pytest.approx(1.0)
    assert finding.evidence["decision_rate_shift"]["value"] == pytest.approx(-0.48, abs=0.03)
    assert "to 0%" in finding.reason


def test_a_move_towards_the_truth_is_no_reason_to_block_a_better_candidate() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(2000) < 0.5).astype(int)
    good = np.clip(0.5 + 0.4 * (2 * truth - 1) + rng.normal(0, 0.1, 2000), 0.01, 0.99)
    stale = np.where(rng.random(2000) < 0.06, good, 0.1 * rng.random(2000))  # knows 3 % of positives at most
    better = evidence(scores(truth, good), scores(truth, stale))
    verdict = judge(better, RULES, problem="binary")
    finding = found(verdict, "stability")
    assert finding.outcome == "ok", finding.reason
    assert "labels explain it" in finding.reason
    assert verdict.decision == "pass"
    strict = Gate(
        performance=RULES.performance, regression=RULES.regression, stability=StabilityCheck(explained_by_labels=False)
    )
    assert found(judge(better, strict, problem="binary"), "stability").outcome == "breach"


def test_a_better_candidate_whose_decisions_move_away_from_the_truth_is_not_explained_by_it() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(2000) % 2
    wrong = rng.random(2000)
    production = scores(truth, np.where(wrong < 0.3, 1 - truth, truth) * 0.8 + 0.1)  # 70 % right, half of it positive
    candidate = scores(truth, np.where((wrong < 0.3) & (truth == 1), 0, truth) * 0.8 + 0.1)  # 85 %, misses positives
    finding = found(judge(evidence(candidate, production), RULES, problem="binary"), "stability")
    assert finding.evidence["correlation"]["explained_by_labels"] is True
    assert finding.outcome == "breach"
    assert finding.evidence["of"] == "decision_rate_shift"


def test_a_better_candidate_after_the_level_of_a_regression_moved_is_not_blocked() -> None:
    candidate, production = regression_scores(2.0), regression_scores(2.0, shift=-15.0)
    production = Scores(truth=candidate.truth, prediction=candidate.truth - 15)
    rules = Gate(performance=PerformanceCheck(metric="r2", at_least=0.5))
    verdict = judge(evidence(candidate, production), rules, problem="regression")
    assert found(verdict, "stability").evidence["decision_rate_shift"]["explained_by_labels"] is True
    assert verdict.decision == "pass", verdict.reason
    back = judge(evidence(production, candidate), rules, problem="regression")
    assert found(back, "stability").outcome == "breach"


def test_a_change_of_spread_alone_is_seen_in_regression() -> None:
    truth = np.random.default_rng(0).normal(100, 10, 2000)
    production = Scores(truth=truth, prediction=truth)
    flat = Scores(truth=truth, prediction=100 + 0.2 * (truth - 100))
    finding = found(judge(evidence(flat, production), Gate(), problem="regression"), "stability")
    assert finding.evidence["correlation"]["value"] == pytest.approx(1.0)
    assert finding.outcome == "breach"


def test_constant_predictions_are_named_and_never_pass() -> None:
    candidate, production = pair()
    flat = scores(candidate.truth, np.full(3000, 0.4))
    broken = found(judge(evidence(flat, production), RULES, problem="binary"), "stability")
    assert broken.outcome == "breach"
    assert "constant" in broken.reason
    both = found(judge(evidence(flat, flat), RULES, problem="binary"), "stability")
    assert both.outcome == "unknown"
    assert "constant" in both.reason
    only_production = found(judge(evidence(candidate, flat), RULES, problem="binary"), "stability")
    assert only_production.outcome != "ok"


def test_a_class_that_is_not_the_second_one_is_looked_at_too() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    truth = rng.choice(3, n)
    raw = np.eye(3)[truth] + rng.uniform(0, 0.5, (n, 3))
    swapped = raw[:, [2, 1, 0]]  # class 1 keeps its scores, 0 and 2 trade places
    models = [
        Scores(
            truth=truth, prediction=one.argmax(1), probability=one / one.sum(1, keepdims=True), classes=("a", "b", "c")
        )
        for one in (swapped, raw)
    ]
    finding = found(judge(evidence(*models), RULES, problem="multiclass"), "stability")
    assert finding.outcome == "breach"
    assert finding.evidence["correlation"]["value"] < 0


def test_few_rows_cannot_show_that_answers_are_stable() -> None:
    candidate, production = pair(n=20)
    assert found(judge(evidence(candidate, production), RULES, problem="binary"), "stability").outcome == "unknown"
    tiny = pair(n=5)
    assert found(judge(evidence(*tiny), RULES, problem="binary"), "stability").outcome == "unknown"


# latency, size, fresh process, extra


def test_latency_is_judged_by_the_bounds_of_its_p99() -> None:
    slow = np.full(1000, 0.2)
    assert found(judge(evidence(*pair(), latencies=slow), RULES, problem="binary"), "latency").outcome == "breach"
    mixed = np.r_[np.full(990, 0.001), np.full(10, 0.2)]
    finding = found(judge(evidence(*pair(), latencies=mixed), RULES, problem="binary"), "latency")
    assert finding.outcome == "unknown"
    fast = found(judge(evidence(*pair()), RULES, problem="binary"), "latency")
    assert fast.outcome == "ok"
    assert fast.interval[1] <= 0.002


def test_a_hundred_calls_cannot_bound_a_p99() -> None:
    finding = found(judge(evidence(*pair(), latencies=np.full(100, 0.001)), RULES, problem="binary"), "latency")
    assert finding.outcome == "unknown"
    assert "299" in finding.reason


def test_the_least_number_of_calls_is_enough() -> None:
    rules = Gate(latency=LatencyCheck(p99=timedelta(milliseconds=50), calls=299))
    finding = found(judge(evidence(*pair(), latencies=np.full(299, 0.001)), rules, problem="binary"), "latency")
    assert finding.outcome == "ok"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -1.0])
def test_impossible_times_are_unknown(broken: float) -> None:
    times = np.r_[np.full(999, 0.001), broken]
    assert found(judge(evidence(*pair(), latencies=times), RULES, problem="binary"), "latency").outcome == "unknown"


@pytest.mark.parametrize(
    ("size", "outcome"), [(500_000_000, "ok"), (500_000_001, "breach"), (0, "unknown"), (None, "unknown")]
)
def test_size_of_what_is_deployed(size: int | None, outcome: str) -> None:
    assert found(judge(evidence(*pair(), size=size), RULES, problem="binary"), "size").outcome == outcome


@pytest.mark.parametrize(("loads", "outcome"), [(True, "ok"), (False, "breach"), (None, "unknown")])
def test_it_must_have_answered_in_a_fresh_process(loads: bool | None, outcome: str) -> None:
    verdict = judge(evidence(*pair(), loads=loads, loads_reason="what it said"), RULES, problem="binary")
    assert found(verdict, "fresh_process").outcome == outcome
    assert found(verdict, "fresh_process").reason == "what it said"


def test_own_checks_count_and_come_last() -> None:
    own = Finding(name="fairness", outcome="breach", reason="one group gets half the offers")
    verdict = judge(evidence(*pair(), extra=(own,)), RULES, problem="binary")
    assert verdict.findings[-1] is own
    assert verdict.decision == "fail"


def test_the_loss_that_would_have_been_found_is_found_nineteen_times_of_twenty() -> None:
    rules = Gate(
        performance=None,
        regression=RegressionCheck(metric="accuracy", margin=0.02),
        stability=None,
        latency=None,
        size=None,
        fresh_process=False,
    )

    def judged(loss: float, seed: int) -> Finding:
        draw = np.random.default_rng(seed)
        truth, right, roll = draw.integers(0, 2, 1000), draw.random(1000) < 0.9, draw.random(1000)
        ours = np.where(right, roll >= (0.04 + loss) / 0.9, roll < 0.04 / 0.1)
        pair = [Scores(truth=truth, prediction=np.where(good, truth, 1 - truth)) for good in (ours, right)]
        return found(judge(evidence(*pair), rules, problem="binary"), "regression")

    visible = float(np.mean([judged(0.0, seed).evidence["visible"] for seed in range(20)]))
    assert f"with 1,000 rows a loss of {judged(0.0, 3).evidence['visible']:.4g} or more" in judged(0.0, 3).reason
    seen = np.mean([judged(visible, seed).outcome == "breach" for seed in range(400)])
    assert 0.88 <= seen <= 0.99
