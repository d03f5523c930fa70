"""Slices: no segment pays for the average, none is dropped in silence, and chance alone finds none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.decide.gate import judge
from tasks.dossier import Dossier, pack, unpack
from tasks.evidence import segments_of
from tasks.policy import Gate, RegressionCheck, SliceCheck
from tasks.records import Finding, GateEvidence, Scores, Segments, Verdict

OFF: dict[str, Any] = {"performance": None, "stability": None, "latency": None, "size": None, "fresh_process": False}
METRIC = RegressionCheck(metric="accuracy")


ALONE = Gate(**OFF, regression=None, slices=[{"by": "contract", "metric": "accuracy"}])


def gate(**changes: Any) -> Gate:
    return Gate(**OFF, regression=METRIC, slices=[{"by": "contract", **changes}])


def evidence(
    sizes: tuple[int, ...], harm: tuple[float, ...], *, seed: int = 0, better: float = 0.1, **changes: Any
) -> GateEvidence:
    """Production is right on 85 %; the candidate mends a tenth of its mistakes, and makes new ones per segment."""
    draw = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    truth = draw.integers(0, 2, codes.size)
    right = draw.random(codes.size) < 0.85
    ours = np.where(right, draw.random(codes.size) >= np.array(harm)[codes] / 0.85, draw.random(codes.size) < better)
    answers = [
        Scores(truth=truth, prediction=np.where(good, truth, 1 - truth), classes=("0", "1")) for good in (ours, right)
    ]
    fields: dict[str, Any] = {"latencies": None, "size": None, "loads": None, "baseline": "1"}
    names = tuple(f"s{number}" for number in range(len(sizes)))
    fields["segments"] = (Segments(by="contract", names=names, codes=codes.astype(np.int16)),)
    return GateEvidence(**{"candidate": answers[0], "production": answers[1]} | fields | changes)


def sliced(verdict: Verdict) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.name.startswith("slice")]


def test_harm_to_one_segment_fails_although_the_average_is_better() -> None:
    harmed = evidence((8000, 1000), (0.0, 0.12), better=0.3)
    assert judge(harmed, Gate(**OFF, regression=METRIC), problem="binary").decision == "pass"
    verdict = judge(harmed, gate(), problem="binary")
    assert verdict.decision == "fail"
    assert verdict.findings[0].name == "slice contract = s1"
    assert "worse by more than the margin 0.05, 2 segments counted" in verdict.findings[0].reason
    assert verdict.having("breach") == verdict.findings[:1]


def test_a_candidate_that_harms_nobody_passes_and_every_segment_is_told_of() -> None:
    verdict = judge(evidence((5000, 3000, 60), (0.0, 0.0, 0.0)), gate(), problem="binary")
    assert verdict.decision == "pass", verdict.reason
    assert {finding.name: finding.outcome for finding in sliced(verdict)} == {
        "slice contract = s0": "ok",
        "slice contract = s1": "ok",
        "slice contract = s2": "exempt",
    }
    small = next(finding for finding in verdict.findings if finding.name == "slice contract = s2")
    assert (small.n, small.reason) == (60, "60 rows, 100 are needed to judge it")


def test_a_segment_that_cannot_be_judged_holds_the_gate_where_the_policy_says_so() -> None:
    few = evidence((5000, 60), (0.0, 0.0))
    assert judge(few, gate(too_small="unknown"), problem="binary").decision == "inconclusive"
    open_ended = evidence((5000, 150), (0.0, 0.07))
    reported = judge(open_ended, gate(), problem="binary")
    assert reported.decision == "pass"
    assert "not shown to be worse; a loss of about 0." in sliced(reported)[0].reason
    assert judge(open_ended, gate(prove="safety"), problem="binary").decision == "inconclusive"


def test_a_segment_with_one_class_has_no_ranking_and_says_so() -> None:
    given = evidence((5000, 200), (0.0, 0.0))
    truth = given.candidate.truth.copy()
    truth[5000:] = 0
    draw = np.random.default_rng(1)
    made = []
    for _ in range(2):
        positive = np.clip(0.3 + 0.4 * truth + draw.normal(0, 0.1, truth.size), 0, 1)
        probability = np.column_stack([1 - positive, positive])
        made.append(
            Scores(truth=truth, prediction=(positive > 0.5).astype(int), probability=probability, classes=("0", "1"))
        )
    single = GateEvidence(
        candidate=made[0],
        production=made[1],
        latencies=None,
        size=None,
        loads=None,
        baseline="1",
        segments=given.segments,
    )
    for small, decision in (("reported", "pass"), ("unknown", "inconclusive")):
        verdict = judge(single, gate(metric="roc_auc", too_small=small), problem="binary")
        assert verdict.decision == decision, verdict.reason
        assert "one class only" in sliced(verdict)[0].reason


def test_a_column_that_is_not_there_is_no_pass() -> None:
    verdict = judge(evidence((5000,), (0.0,), segments=()), gate(), problem="binary")
    assert verdict.decision == "inconclusive"
    assert "no feature column 'contract'" in verdict.reason


def test_the_first_model_has_nobody_to_be_compared_with() -> None:
    verdict = judge(evidence((500,), (0.0,), production=None, baseline=None), gate(), problem="binary")
    assert (verdict.findings[0].name, verdict.findings[0].outcome) == ("slices", "exempt")


def test_production_without_scores_is_no_pass() -> None:
    lost = evidence((500,), (0.0,), production=None, baseline_reason="it did not load")
    verdict = judge(lost, gate(), problem="binary")
    assert (verdict.findings[0].name, verdict.findings[0].outcome) == ("slices", "unknown")


def test_among_twenty_segments_chance_alone_finds_none() -> None:
    """Each is worse by exactly the margin; with a test of its own for each, one candidate of six would fail."""
    draws = [evidence((150,) * 20, (0.05,) * 20, seed=seed, better=0.0) for seed in range(300)]
    failed = [judge(one, ALONE, problem="binary").decision == "fail" for one in draws]
    assert np.mean(failed) <= 0.05


def test_safety_lets_a_bad_segment_through_as_rarely_as_promised() -> None:
    draws = [evidence((2000, 400, 2000), (0.0, 0.05, 0.0), seed=seed, better=0.0) for seed in range(300)]
    safe = ALONE.model_copy(update={"slices": (SliceCheck(by="contract", metric="accuracy", prove="safety"),)})
    passed = [judge(one, safe, problem="binary").decision == "pass" for one in draws]
    assert np.mean(passed) <= 0.05


def test_segments_that_were_only_looked_at_for_harm_carry_no_pass() -> None:
    """Of many bad ones, one may look good by chance, and the others are too few rows to tell."""
    good = evidence((3000, 3000), (0.0, 0.0))
    verdict = judge(good, ALONE, problem="binary")
    assert {finding.outcome for finding in sliced(verdict)} == {"ok"}
    assert verdict.decision == "inconclusive"
    safe = ALONE.model_copy(update={"slices": (SliceCheck(by="contract", metric="accuracy", prove="safety"),)})
    assert judge(good, safe, problem="binary").decision == "pass"


def test_segments_come_back_from_the_ledger() -> None:
    given = evidence((500, 100), (0.0, 0.0))
    back = unpack(pack(Dossier("gate", {"evidence": given, "rules": gate()}))).given
    assert judge(problem="binary", **back) == judge(given, gate(), problem="binary")


# Which segment a row belongs to.


def names(values: list[Any], **changes: Any) -> list[str]:
    found = segments_of(
        pd.DataFrame({"x": pd.Series(values, dtype=changes.pop("dtype", object))}), SliceCheck(by="x", **changes)
    )
    return [found.names[code] for code in found.codes]


def test_rare_values_are_one_segment_and_missing_ones_another() -> None:
    told = names(["a"] * 5 + ["b"] * 4 + ["c", "d", None], most=2)
    assert told == ["a"] * 5 + ["b"] * 4 + ["(others)"] * 2 + ["(missing)"]


def test_a_number_is_cut_at_its_quartiles_unless_it_has_few_values() -> None:
    told = names([float(number) for number in range(100)] + [None], dtype=float)
    assert [told.count(name) for name in dict.fromkeys(told)] == [25, 25, 25, 25, 1]
    assert told[0] == "up to 24"
    assert told[99] == "above 74"
    assert names([1.0, 2.0, None], dtype=float) == ["1", "2", "(missing)"]


def test_a_column_without_any_value_is_one_segment() -> None:
    assert names([None, None], dtype=float) == ["(missing)"] * 2


@pytest.mark.parametrize("broken", [{"by": ""}, {"by": "x", "min_rows": 1}, {"by": "x", "prove": "hope"}, {}])
def test_a_slice_that_makes_no_sense_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"by|min_rows|prove"):
        Gate(slices=[broken])


def test_slices_can_be_written_as_off() -> None:
    assert Gate.model_validate({"slices": "off"}).slices == ()


def test_every_text_is_in_the_segment_of_its_value_or_among_the_others() -> None:
    draw = np.random.default_rng(0)
    column = pd.Series(draw.choice(np.array(["a", "b", "c", "d", "e", None], dtype=object), 400), dtype=object)
    found = segments_of(pd.DataFrame({"contract": column}), SliceCheck(by="contract", most=3))
    kept = column.value_counts(sort=True).index[:3]
    wanted = ["(missing)" if value is None else value if value in set(kept) else "(others)" for value in column]
    assert [found.names[code] for code in found.codes] == wanted
