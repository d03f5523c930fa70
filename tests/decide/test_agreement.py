"""Rank correlation by cell: as near to the exact one as it says, and exact where that matters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tasks.decide import agreement, gate, ranks, stability
from tasks.decide.intervals import Floats
from tasks.policy import Gate, StabilityCheck
from tasks.records import GateEvidence, Scores

ROWS = 60_000


def share(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "even": share,
    "levels": lambda x: np.round(share(x), 2),
    "two": lambda x: (x > 1) * 1.0,
    "mostly zero": lambda x: np.where(x < 1, 0.0, share(x)),
    "log": lambda x: 10.0 ** -(12 * share(x)),
    "saturated": lambda x: share(20 * x),
    "clusters": lambda x: np.where(x > 0, 1 - 1e-9 * share(x), 1e-9 * share(x)),
    "amounts": lambda x: 3 * x,
    "both signs": lambda x: np.sign(x) * np.exp(4 * np.abs(x)),
    "far": lambda x: np.append(x[1:], 1e60),
    "crowded": lambda x: 1e9 + np.where(x > 2, x * 1e9, x * 1e-3),
}
"""Of normal numbers."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [1, -1])
def test_the_exact_coefficient_is_between_the_bounds_which_are_near(shape: str, turned: int) -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(size=ROWS)
    first, second = SHAPES[shape](x), SHAPES[shape](turned * x + draw.normal(size=ROWS) / 2)
    exact = float(spearmanr(first, second).statistic)
    found = agreement._agreement(first, second)
    assert found.low - 1e-12 <= exact <= found.high + 1e-12
    assert found.low <= found.value <= found.high
    assert found.high - found.low <= 4 * agreement._OFF
    assert found.value == pytest.approx(exact, abs=1e-5)
    assert agreement.spearman(first, second) == pytest.approx(exact, abs=1e-12)
    if shape in {"levels", "two"}:
        assert found.low == found.high == pytest.approx(exact, abs=1e-12), "equal numbers of a cell are no error"


def test_scores_that_differ_within_every_cell_are_ranked_exactly() -> None:
    """Half of them in a range that neither kind of cells tells apart."""
    draw = np.random.default_rng(6)
    plain = draw.random(ROWS)
    first = np.where(plain < 0.5, plain, 1e9 + plain * 1e-3)
    first[0] = -1e9
    assert agreement._coarse(first) is None
    found = agreement._agreement(first, plain)
    assert found.low == found.high == pytest.approx(float(spearmanr(first, plain).statistic), abs=1e-12)


def test_the_least_is_exact_where_the_cells_leave_open_what_is_judged() -> None:
    draw = np.random.default_rng(7)
    x = draw.normal(size=(ROWS, 20))
    noise = np.linspace(0.1, 1.5, 20)[draw.permutation(20)]
    first, second = share(4 * x), share(4 * (x + noise * draw.normal(size=x.shape)))
    exact = [float(spearmanr(a, b).statistic) for a, b in zip(first.T, second.T, strict=True)]
    asked: list[tuple[float, float]] = []

    def same(low: float, high: float) -> bool:
        asked.append((low, high))
        return False

    assert agreement.least(first, second, same) == pytest.approx(min(exact), abs=1e-12)
    ((low, high),) = asked
    assert low < min(exact) < high
    by_cell = agreement.least(first, second, lambda _low, _high: True)
    assert by_cell != pytest.approx(min(exact), abs=1e-12)
    assert by_cell == pytest.approx(min(exact), abs=1e-5)


@pytest.mark.parametrize("order", ["C", "F"])
def test_columns_are_those_of_the_matrix_also_while_their_order_is_held(order: Any) -> None:
    draw = np.random.default_rng(9)
    first, second = (np.asarray(draw.normal(size=(2 * agreement._ROWS + 3, 19)), order=order) for _ in range(2))
    second += np.linspace(2, 1, 19) * first
    with ranks.sorted_once():
        pairs = list(agreement._pairs(first, second))
        found = agreement.least(first, second, lambda _low, _high: True)
    for matrix, columns in ((first, [a for a, _ in pairs]), (second, [b for _, b in pairs])):
        np.testing.assert_array_equal(np.column_stack(columns), matrix)
    assert found == pytest.approx(min(spearmanr(a, b).statistic for a, b in zip(first.T, second.T, strict=True)))


def test_few_rows_are_ranked_exactly() -> None:
    draw = np.random.default_rng(8)
    first, second = draw.random((2, 300, 12))
    exact = min(float(spearmanr(a, b).statistic) for a, b in zip(first.T, second.T, strict=True))
    found = agreement.least(first, second, lambda _low, _high: pytest.fail("it is known"))
    assert found == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("ones", "others"), [(3, 4), (1, 499), (250, 250)])
def test_columns_of_zeros_and_ones_need_their_counts_alone(ones: int, others: int) -> None:
    draw = np.random.default_rng(ones)
    first, second = draw.permutation(np.arange(500) < ones), draw.permutation(np.arange(500) < others)
    found = agreement.of_counts(int((first & second).sum()), ones, others, 500)
    assert found == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)
    assert agreement.of_counts(ones, ones, ones, 500) == 1
    assert agreement.of_counts(10**9, 10**9, 10**9, 10**18) == 1


def test_a_column_moves_where_a_single_row_differs() -> None:
    scores = np.full((1_000, 4), 0.3)
    scores[999, 1] = 0.4
    scores[0, 2] = 0.4
    assert agreement.moving(scores).tolist() == [False, True, True, False]
    assert agreement.moving(scores[:1]).tolist() == [False] * 4


def models(rows: int) -> tuple[Scores, Scores]:
    draw = np.random.default_rng(9)
    x = draw.normal(size=rows)
    truth = (x + draw.normal(size=rows) > 0).astype(np.intp)
    chances = [share(2 * x + draw.normal(size=rows) / 4) for _ in range(2)]
    one, other = (
        Scores(truth=truth, prediction=(p > 0.5).astype(np.intp), probability=np.c_[1 - p, p], classes=("0", "1"))
        for p in chances
    )
    return one, other


def test_the_gate_sorts_no_scores_of_many_rows_to_tell_that_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: list[int] = []
    sort = ranks._sort
    monkeypatch.setattr(ranks, "_sort", lambda values: sorts.append(values.size) or sort(values))
    ours, theirs = models(ROWS)
    exact = agreement.spearman(ours.probability[:, 1], theirs.probability[:, 1])
    sorts.clear()
    rules = Gate.model_validate({"performance": "off", "regression": {"metric": "accuracy"}, "latency": "off"})
    evidence = GateEvidence(candidate=ours, production=theirs, latencies=None, size=1, loads=True, baseline="1")
    judged = {one.name: one for one in gate.judge(evidence, rules, problem="binary").findings}
    assert (judged["stability"].outcome, sorts) == ("ok", [])
    assert judged["stability"].evidence["correlation"]["value"] == pytest.approx(exact, abs=1e-6)
    low, _ = judged["stability"].evidence["correlation"]["interval"]
    near = StabilityCheck(correlation=round(low, 4))
    stability.judge(ours, theirs, near, problem="binary", confidence=gate.confidence_at(0.95, 1))
    assert sorts == [ROWS, ROWS], "at the limit the exact coefficient is judged"


@pytest.mark.parametrize("probability", [True, False])
def test_an_answer_that_is_no_class_leaves_stability_unknown(probability: bool) -> None:
    """It once ended the gate with an error that was not its own."""
    theirs, _ = models(100)
    answers = theirs.prediction.copy()
    answers[3] = -1
    chances = theirs.probability if probability else None
    ours = Scores(truth=theirs.truth, prediction=answers, probability=chances, classes=theirs.classes)
    evidence = GateEvidence(candidate=ours, production=theirs, latencies=None, size=1, loads=True, baseline="1")
    verdict = gate.judge(evidence, Gate.model_validate({"latency": "off"}), problem="binary")
    judged = {one.name: one for one in verdict.findings}
    assert verdict.decision == "inconclusive"
    assert judged["stability"].outcome == "unknown"
    assert "negative" in judged["stability"].reason


def test_whole_numbers_are_ordered_as_the_numbers_are() -> None:
    tiny = math.ulp(0.0)
    shares = [-0.0, 0.0, tiny, 1e-310, 1e-20, 0.3, 0.5, math.nextafter(0.5, 1), 0.7, 1 - 2**-53, 1.0]
    amounts = [-math.inf, -1e300, -2.0, -1.0, -tiny, -0.0, 0.0, tiny, 0.5, 1.0, math.nextafter(1, 2), 1e300, math.inf]
    for values in (shares, amounts):
        found = ranks.whole_numbers(np.array(values)).tolist()
        assert [one < other for one, other in itertools.pairwise(found)] == [
            one < other for one, other in itertools.pairwise(values)
        ]
        assert sorted(found) == found
