"""What must hold for any evidence, not for examples only."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decide import gate, health, shadow
from tasks.decide.drift import judge_columns, psi
from tasks.decide.influence import COUNTED, FAMILIES
from tasks.decide.metrics import Unmeasurable, compare, measure
from tasks.policy import DriftTrigger, Gate, Health, PerformanceCheck, RegressionCheck, Shadow, StabilityCheck
from tasks.records import ColumnProfile, Finding, GateEvidence, HealthEvidence, Look, Scores, ShadowEvidence, Span

few = settings(max_examples=40, deadline=None, derandomize=True)
START = datetime(2024, 4, 1, tzinfo=UTC)
CLASSIFICATION = sorted(set(FAMILIES) - {"r2", "rmse", "mae"})


@st.composite
def pairs(draw: st.DrawFn, least: int = 20) -> tuple[Scores, Scores]:
    """Two classifiers on the same rows, of any quality, with both classes among the labels and the answers."""
    n, seed = draw(st.integers(least, 400)), draw(st.integers(0, 10**6))
    qualities = draw(st.tuples(st.floats(0, 3), st.floats(0, 3)))
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.r_[[0, 1], (rng.random(n - 2) < draw(st.floats(0.1, 0.9)))].astype(int))
    made = []
    for quality in qualities:
        positive = 1 / (1 + np.exp(-quality * (2 * truth - 1) - rng.normal(0, 1, n)))
        positive[:2] = 0.2, 0.8
        made.append(
            Scores(
                truth=truth,
                prediction=(positive > 0.5).astype(int),
                probability=np.column_stack([1 - positive, positive]),
                classes=("no", "yes"),
            )
        )
    return made[0], made[1]


def rows(scores: Scores, index: np.ndarray) -> Scores:
    probability = None if scores.probability is None else scores.probability[index]
    return replace(scores, truth=scores.truth[index], prediction=scores.prediction[index], probability=probability)


def repeated(pair: tuple[Scores, Scores], times: int) -> tuple[Scores, Scores]:
    index = np.tile(np.arange(pair[0].truth.size), times)
    return rows(pair[0], index), rows(pair[1], index)


def findings(pair: tuple[Scores, Scores], rules: Gate) -> dict[str, Finding]:
    evidence = GateEvidence(
        candidate=pair[0], production=pair[1], baseline="1", latencies=np.full(1000, 0.001), size=1, loads=True
    )
    return {finding.name: finding for finding in gate.judge(evidence, rules, problem="binary").findings}


def rules(metric: str = "accuracy", margin: float = 0.02, floor: float = 0.8) -> Gate:
    return Gate(
        performance=PerformanceCheck(metric=metric, at_least=floor),
        regression=RegressionCheck(metric=metric, margin=margin),
        stability=StabilityCheck(),
    )


@few
@given(pair=pairs(), metric=st.sampled_from(CLASSIFICATION), seed=st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(pair: tuple[Scores, Scores], metric: str, seed: int) -> None:
    index = np.random.default_rng(seed).permutation(pair[0].truth.size)
    first = compare(metric, *pair, confidence=0.95)
    second = compare(metric, *(rows(one, index) for one in pair), confidence=0.95)
    assert (second.value, second.low, second.high) == pytest.approx((first.value, first.low, first.high), abs=1e-9)


@few
@given(pair=pairs(), metric=st.sampled_from(CLASSIFICATION))
def test_trading_places_mirrors_the_difference(pair: tuple[Scores, Scores], metric: str) -> None:
    there, back = compare(metric, *pair, confidence=0.95), compare(metric, pair[1], pair[0], confidence=0.95)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@few
@given(
    pair=pairs(),
    metric=st.sampled_from(CLASSIFICATION),
    broken=st.sampled_from([math.nan, math.inf, -math.inf]),
    spot=st.tuples(st.sampled_from(["truth", "prediction", "probability"]), st.integers(0, 19)),
    whose=st.sampled_from([0, 1]),
)
def test_nan_and_infinity_never_pass(
    pair: tuple[Scores, Scores], metric: str, broken: float, spot: tuple[str, int], whose: int
) -> None:
    where, place = spot
    values = np.array(getattr(pair[whose], where), dtype=float)
    values[place] = broken
    spoilt = list(pair)
    spoilt[whose] = replace(pair[whose], **{where: values})
    found = findings((spoilt[0], spoilt[1]), rules(metric))
    assert found["regression"].outcome == "unknown"
    assert found["stability"].outcome == "unknown"
    if whose == 0:
        assert found["performance"].outcome == "unknown"


@few
@given(
    pair=pairs(),
    metric=st.sampled_from(CLASSIFICATION),
    margins=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)).map(sorted),
)
def test_a_wider_margin_never_turns_a_pass_into_anything_else(
    pair: tuple[Scores, Scores], metric: str, margins: list[float]
) -> None:
    order = {"breach": 0, "unknown": 1, "ok": 2}
    narrow, wide = (order[findings(pair, rules(metric, margin))["regression"].outcome] for margin in margins)
    assert wide >= narrow


@few
@given(pair=pairs(), metric=st.sampled_from(CLASSIFICATION), times=st.integers(2, 5), floor=st.floats(0.1, 0.95))
def test_more_of_the_same_evidence_never_makes_a_decision_less_certain(
    pair: tuple[Scores, Scores], metric: str, times: int, floor: float
) -> None:
    once, often = (
        findings(pair, rules(metric, floor=floor)),
        findings(repeated(pair, times), rules(metric, floor=floor)),
    )
    for name in ("performance", "regression"):
        if once[name].outcome != "unknown":
            assert often[name].outcome == once[name].outcome, name


@few
@given(pair=pairs(), metric=st.sampled_from(sorted(COUNTED)))
def test_a_bound_is_never_beyond_the_point(pair: tuple[Scores, Scores], metric: str) -> None:
    difference = compare(metric, *pair, confidence=0.95)
    assert difference.low <= difference.value <= difference.high
    assert measure(metric, pair[0]).error > 0


counts = st.integers(0, 400)


def shadow_of(wins: int, losses: int, ties: int) -> ShadowEvidence:
    total = wins + losses + ties
    span = Span(start=START, end=START + timedelta(days=7))
    return ShadowEvidence(wins=wins, losses=losses, ties=ties, requests=total, agreements=total, failures=0, span=span)


@few
@given(wins=counts, losses=counts, ties=st.integers(0, 2000), wider=st.floats(0.02, 0.3))
def test_tolerating_more_never_takes_a_promotion_back(wins: int, losses: int, ties: int, wider: float) -> None:
    if shadow.judge(shadow_of(wins, losses, ties), Shadow(tolerate=0.02)).decision == "promote":
        assert shadow.judge(shadow_of(wins, losses, ties), Shadow(tolerate=wider)).decision == "promote"


@few
@given(wins=counts, losses=counts, ties=st.integers(0, 2000), times=st.integers(2, 5))
def test_a_shadow_decision_stands_when_the_same_labels_come_again(
    wins: int, losses: int, ties: int, times: int
) -> None:
    once = shadow.judge(shadow_of(wins, losses, ties), Shadow()).decision
    often = shadow.judge(shadow_of(wins * times, losses * times, ties * times), Shadow()).decision
    if once == "promote":
        assert often == "promote"
    if once == "reject":
        assert often != "wait"


@few
@given(wins=counts, losses=counts, ties=st.integers(0, 2000))
def test_a_win_never_hurts_the_challenger(wins: int, losses: int, ties: int) -> None:
    order = {"reject": 0, "wait": 1, "promote": 2}
    before = order[shadow.judge(shadow_of(wins, losses, ties + 1), Shadow()).decision]
    assert order[shadow.judge(shadow_of(wins + 1, losses, ties), Shadow()).decision] >= before


looks = st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), min_size=2, max_size=30)


def health_of(batches: list[tuple[int, int]]) -> health.Verdict:
    made = tuple(
        Look(start=START + timedelta(minutes=i), requests=n, errors=bad, slow=0, labelled=0, wrong=0)
        for i, (n, bad) in enumerate(batches)
    )
    now = START + timedelta(minutes=len(made))
    evidence = HealthEvidence(looks=made, now=now, started=START, last_request=now)
    return health.judge(evidence, Health(latency_p95=None, accuracy=None), problem="binary", planned_looks=30)


@few
@given(batches=looks)
def test_how_requests_are_split_into_looks_never_turns_a_decision_around(batches: list[tuple[int, float]]) -> None:
    exact = [(n, round(n * rate)) for n, rate in batches]
    total = (sum(n for n, _ in exact), sum(bad for _, bad in exact))
    decisions = {health_of(exact).decision, health_of([total]).decision}
    assert decisions != {"healthy", "unhealthy"}


@few
@given(batches=looks)
def test_a_failed_request_more_never_heals(batches: list[tuple[int, float]]) -> None:
    exact = [(n + 1, round(n * rate)) for n, rate in batches]
    worse = [(n, bad + 1) for n, bad in exact]
    if health_of(exact).decision == "unhealthy":
        assert health_of(worse).decision == "unhealthy"


bins = st.lists(st.integers(0, 500), min_size=4, max_size=4)


@few
@given(before=bins, after=bins, order=st.permutations(range(3)))
def test_the_order_of_categories_does_not_matter_and_no_profile_crashes(
    before: list[int], after: list[int], order: list[int]
) -> None:
    def column(values: list[int], levels: list[int]) -> ColumnProfile:
        return ColumnProfile(
            name="x",
            kind="category",
            categories=tuple("abc"[level] for level in levels),
            counts=(*(values[level] for level in levels), values[3]),
        )

    def outcome(levels: list[int]) -> tuple[str, object]:
        (finding,) = judge_columns((column(before, levels),), (column(after, levels),), DriftTrigger())
        return finding.outcome, pytest.approx(finding.value)

    assert outcome([0, 1, 2])[0] == outcome(list(order))[0]
    if not sum(after):
        assert outcome([0, 1, 2])[0] == "unknown"
        with pytest.raises(Unmeasurable):
            psi(column(before, [0, 1, 2]), column(after, [0, 1, 2]))
