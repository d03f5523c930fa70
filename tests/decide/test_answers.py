"""Answers that can show nothing are no pass, whatever number the metric comes out as."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.decide.answers import constant
from tasks.decide.gate import judge
from tasks.decide.influence import LOSSES, Unmeasurable
from tasks.dossier import Dossier, pack, unpack
from tasks.policy import Gate, PerformanceCheck, RegressionCheck
from tasks.records import Finding, GateEvidence, Scores, Verdict, to_plain
from tasks.retrial import reach

OFF: dict[str, Any] = {"regression": None, "stability": None, "latency": None, "size": None, "fresh_process": False}
N = 2000


def scores(truth: np.ndarray, positive: np.ndarray, threshold: float = 0.5, **changes: Any) -> Scores:
    positive = np.asarray(positive, dtype=float)
    made = Scores(
        truth=truth,
        prediction=(positive > threshold).astype(int),
        probability=np.column_stack([1 - positive, positive]),
        classes=("no", "yes"),
    )
    return replace(made, **changes)


def rows(rate: float = 0.4, seed: int = 0, strength: float = 3.0, at: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a good model's probability of yes."""
    draw = np.random.default_rng(seed)
    truth = (draw.random(N) < rate).astype(int)
    return truth, 1 / (1 + np.exp(-strength * (truth - 0.5) + at - draw.normal(size=N)))


def judged(candidate: Scores, metric: str = "accuracy", floor: float | None = 0.85, **changes: Any) -> Verdict:
    rules = Gate(**{**OFF, "performance": PerformanceCheck(metric=metric, at_least=floor), **changes.pop("rules", {})})
    problem = "binary" if candidate.classes else "regression"
    fields = {"candidate": candidate, "production": None, "latencies": None, "size": None, "loads": None}
    evidence = GateEvidence(**{**fields, "known": candidate.classes, **changes})
    dossier = Dossier("gate", {"evidence": evidence, "rules": rules, "problem": problem})
    verdict = reach(dossier)
    assert to_plain(reach(unpack(pack(dossier)))) == to_plain(verdict)
    return verdict


def said(verdict: Verdict, name: str = "answers") -> Finding | None:
    return next((one for one in verdict.findings if one.name == name), None)


def test_of_a_good_model_there_is_nothing_to_be_said() -> None:
    verdict = judged(scores(*rows()), floor=0.8)
    assert verdict.decision == "pass", verdict.reason
    assert said(verdict) is None


def test_a_constant_answer_of_a_first_model_fails_although_its_accuracy_clears_the_floor() -> None:
    truth, _ = rows(rate=0.01)
    verdict = judged(scores(truth, np.full(N, 0.01)))
    assert verdict.decision == "fail"
    assert verdict.reason.startswith(
        f"answers: all 2,000 rows are answered 'no', although {truth.sum()} of them are not"
    )
    bare = judged(scores(truth, np.full(N, 0.01), probability=None))
    assert (bare.decision, said(bare).outcome) == ("fail", "breach")  # type: ignore[union-attr]


def test_a_model_that_never_says_yes_is_judged_by_its_probabilities_or_not_at_all() -> None:
    truth, positive = rows(rate=0.03)
    rare = scores(truth, 0.4 * positive)
    assert not rare.prediction.any()
    verdict = judged(rare)
    assert verdict.decision == "inconclusive"
    assert "accuracy cannot see whether it tells them apart; judge by a metric of its probabilities" in verdict.reason
    assert judged(rare, "roc_auc").decision == "pass"


def test_a_constant_number_fails_where_the_labels_differ() -> None:
    truth = np.random.default_rng(0).normal(size=N)
    verdict = judged(Scores(truth=truth, prediction=np.full(N, 0.1)), "mae", 1.0)
    assert verdict.decision == "fail"
    assert "all 2,000 rows get the same answer, 0.1, although their labels differ" in verdict.reason
    assert judged(Scores(truth=truth, prediction=truth + 0.1), "mae", 1.0).decision == "pass"


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1_weighted", "f1_macro", "log_loss", "brier"])
def test_labels_of_one_class_show_nothing(metric: str) -> None:
    verdict = judged(scores(np.zeros(N, dtype=int), np.full(N, 0.01)), metric, 0.3 if metric in LOSSES else 0.85)
    assert verdict.decision == "inconclusive"
    assert "answers: all 2,000 labels of the holdout are 'no': rows of one class do not show" in verdict.reason


@pytest.mark.parametrize(("new", "decision"), [(100, "fail"), (3, "pass")])
def test_a_class_that_the_model_has_never_heard_of_is_named_with_its_share(new: int, decision: str) -> None:
    truth = np.arange(N) % 2
    truth[-new:] = 2
    probability = np.zeros((N, 3))
    probability[np.arange(N), np.where(truth < 2, truth, 0)] = 1
    candidate = Scores(
        truth=truth, prediction=probability.argmax(axis=1), probability=probability, classes=("a", "b", "7")
    )
    verdict = judged(candidate, floor=0.8, known=("a", "b"))
    finding = said(verdict)
    assert (verdict.decision, finding is not None) == (decision, True)
    assert f"{new} of 2,000 rows ({100 * new / N:.3g}%) are '7', which the model does not know" in str(finding)
    assert said(judged(candidate, floor=0.8, known=("a", "b", "7"))) is None


def test_probabilities_that_are_none_pass_by_no_metric_not_even_one_of_the_answers_alone() -> None:
    truth, positive = rows(strength=6.0)
    good = scores(truth, positive)
    assert judged(good, metric="accuracy").decision == "pass"
    assert good.probability is not None
    verdict = judged(replace(good, probability=1000 * good.probability), metric="accuracy")
    assert verdict.decision == "inconclusive"
    assert "are below 0 or above 1" in verdict.reason


def test_predict_may_not_contradict_the_probabilities_that_are_judged() -> None:
    good = scores(*rows())
    turned = judged(replace(good, prediction=1 - good.prediction), "roc_auc")
    assert turned.decision == "inconclusive"
    assert "predict and predict_proba contradict each other: 'yes' has the probability" in turned.reason
    assert judged(scores(*rows(), threshold=0.9), "roc_auc").decision == "pass"


def several(seed: int = 0, sure: float = 2.0) -> Scores:
    """Three classes, one of them rare, and a model whose answer is the likeliest."""
    draw = np.random.default_rng(seed)
    truth = draw.choice(3, N, p=[0.5, 0.45, 0.05])
    raw = np.exp(sure * np.eye(3)[truth] + np.log([0.5, 0.45, 0.05]) + draw.normal(size=(N, 3)))
    probability = raw / raw.sum(axis=1, keepdims=True)
    return Scores(truth=truth, prediction=probability.argmax(1), probability=probability, classes=("a", "b", "c"))


@pytest.mark.parametrize("order", [[1, 2, 0], [1, 0, 2]])
def test_columns_in_another_order_than_the_classes_contradict_the_answers(order: list[int]) -> None:
    good = several(sure=4.0)
    assert good.probability is not None
    assert judged(good, floor=0.7).decision == "pass"
    turned = judged(replace(good, probability=good.probability[:, order]), floor=0.7)
    assert turned.decision == "inconclusive"
    assert "contradict each other: 'a' has the probability" in turned.reason
    assert "see that the columns are in the order of the model's classes_" in turned.reason


@pytest.mark.parametrize("seed", range(20))
def test_the_likeliest_class_never_contradicts_even_where_none_is_likely(seed: int) -> None:
    assert said(judged(several(seed, sure=0.3), floor=0.1)) is None
    given = np.full((N, 3), [0.34, 0.33, 0.33])
    given[N // 2 :] = [0.45, 0.55, 0.0]  # the first class is likelier where it is not the answer
    odd = replace(several(), probability=given, prediction=given.argmax(axis=1))
    assert said(judged(odd, floor=0.1)) is None


def test_rows_without_an_answer_are_told_by_their_number() -> None:
    truth, positive = rows(strength=6.0)
    good = scores(truth, positive)
    answers = good.prediction.copy()
    answers[:30] = -1
    for metric, own in (("accuracy", {}), ("own", {"own": lambda truth, answer, _: float((truth == answer).mean())})):
        evidence = GateEvidence(
            candidate=replace(good, prediction=answers),
            production=None,
            latencies=None,
            size=None,
            loads=None,
            known=("no", "yes"),
        )
        rules = Gate(**{**OFF, "performance": PerformanceCheck(metric=metric, at_least=0.6)})
        verdict = judge(evidence, rules, problem="binary", custom=own)
        assert verdict.decision == "inconclusive"
        assert verdict.reason.startswith("answers: 30 of 2,000 rows get no answer: predict gives null or NaN")
        assert [one.outcome for one in verdict.findings if one.name == "performance"] == ["unknown"]


@pytest.mark.parametrize("off", [1.5, 0.8])
def test_probabilities_that_do_not_sum_to_one_are_told_whatever_is_judged(off: float) -> None:
    good = scores(*rows())
    verdict = judged(replace(good, probability=off * good.probability), floor=0.8)
    assert verdict.decision == "inconclusive"
    assert "they are no probabilities" in verdict.reason


# Without a floor, and with one that is none.


@pytest.mark.parametrize(
    ("metric", "decision"),
    [("roc_auc", "pass"), ("f1", "pass"), ("log_loss", "pass"), ("balanced_accuracy", "pass"), ("recall", "fail")],
)
def test_without_a_floor_a_first_model_must_be_better_than_always_answering_the_same(
    metric: str, decision: str
) -> None:
    verdict = judged(scores(*rows()), metric, None)
    assert verdict.decision == decision, verdict.reason
    assert "always answering" in verdict.reason
    draw = np.random.default_rng(3).random(N)
    guessing = judged(scores(rows()[0], draw), metric, None)
    assert guessing.decision in {"fail", "inconclusive"}
    assert "set gate.performance.at_least" in guessing.reason


@pytest.mark.parametrize("metric", ["r2", "rmse", "mae", "pinball_90"])
def test_of_numbers_the_constant_answer_is_the_one_that_the_metric_likes_best(metric: str) -> None:
    truth = np.random.default_rng(0).exponential(size=N)
    held = Scores(truth=truth, prediction=truth)
    best = constant(metric, held, None)
    wanted = {"r2": truth.mean(), "rmse": truth.mean(), "mae": np.median(truth), "pinball_90": np.quantile(truth, 0.9)}
    assert best.scores.prediction[0] == pytest.approx(wanted[metric])
    near = Scores(truth=truth, prediction=truth + 0.3 * np.random.default_rng(1).normal(size=N))
    assert judged(near, metric, None).decision == "pass"
    shuffled = Scores(truth=truth, prediction=np.random.default_rng(2).permutation(truth))
    assert judged(shuffled, metric, None).decision == "fail"


def test_a_floor_that_a_constant_answer_clears_too_is_none() -> None:
    truth, _ = rows(rate=0.01)
    drawn = (np.random.default_rng(5).random(N) < 0.01).astype(int)
    guessing = judged(scores(truth, drawn))
    assert guessing.decision == "fail"
    assert "clears the floor 0.85, which always answering 'no' clears too: accuracy" in guessing.reason
    truth, positive = rows(rate=0.1, strength=9.0)
    assert judged(scores(truth, positive)).decision == "pass"


@pytest.mark.parametrize("metric", ["recall", "precision"])
def test_of_one_side_alone_guessing_is_no_model(metric: str) -> None:
    """Of recall a constant answer is rightly the best, so it is another metric that tells who guesses."""
    assert judged(scores(*rows(rate=0.9, strength=9.0)), metric).decision == "pass"
    truth, _ = rows(rate=0.9)
    drawn = np.random.default_rng(7).random(N) < 0.97
    guessing = judged(scores(truth, drawn, probability=None), metric)
    assert guessing.decision == "inconclusive"
    assert "clears the floor 0.85, which answers that are drawn by lot may do too: balanced_acc" in guessing.reason
    drawn[truth == 1] |= np.random.default_rng(8).random(N)[truth == 1] < 0.5
    assert judged(scores(truth, drawn, probability=None), "recall", known=None).decision == "pass"


def test_a_function_that_sorts_what_it_is_given_changes_nothing_that_is_judged() -> None:
    truth = np.random.default_rng(0).normal(size=N)
    sorted_ = Scores(truth=truth.copy(), prediction=np.sort(truth))

    def own(truth: np.ndarray, prediction: np.ndarray, _: Any) -> float:
        error = -float(np.abs(truth - prediction).mean())
        truth.sort()
        return error

    evidence = GateEvidence(candidate=sorted_, production=None, latencies=None, size=None, loads=None, known=())
    rules = Gate(**{**OFF, "performance": PerformanceCheck(metric="own")})
    verdict = judge(evidence, rules, problem="regression", custom={"own": own})
    assert (verdict.decision, np.array_equal(sorted_.truth, truth)) == ("fail", True)


def test_where_production_is_compared_with_a_constant_answer_is_not_asked_for() -> None:
    truth, positive = rows(rate=0.05, strength=5.0)
    one = scores(truth, positive)
    rules = {"regression": RegressionCheck(metric="f1_weighted")}
    alone = judged(one)
    beside = judged(one, production=one, baseline="1", rules=rules)
    assert "always answering" in alone.reason
    assert beside.decision == "pass", beside.reason
    assert "always answering" not in beside.reason


def test_a_metric_without_a_constant_answer_needs_a_floor() -> None:
    for own in (lambda *_: float("nan"), lambda *_: 1 / 0):
        with pytest.raises(Unmeasurable, match="no constant answer has a value of own"):
            constant("own", scores(*rows()), own)
    evidence = GateEvidence(
        candidate=scores(*rows(), probability=None),
        production=None,
        latencies=None,
        size=None,
        loads=None,
        known=("no", "yes"),
    )
    rules = Gate(**{**OFF, "performance": PerformanceCheck(metric="roc_auc")})
    verdict = judge(evidence, rules, problem="binary")
    assert verdict.decision == "inconclusive"
    assert "no floor for roc_auc in the policy, and no constant answer has a value of roc_auc" in verdict.reason
    assert "set gate.performance.at_least" in verdict.reason


def test_nothing_but_the_artifact_is_no_evidence_for_the_answers() -> None:
    rules = {"performance": None, "size": 10**6}
    verdict = judged(scores(*rows()), size=1000, rules=rules)
    assert verdict.decision == "inconclusive"
    assert "nothing speaks for the candidate's answers" in verdict.reason
    own = Finding(name="content", outcome="ok", reason="fine")
    assert judged(scores(*rows()), size=1000, rules=rules, extra=(own,)).decision == "pass"


def test_evidence_from_before_this_was_looked_at_is_judged_as_it_was() -> None:
    truth, _ = rows(rate=0.01)
    always = scores(truth, np.full(N, 0.01))
    assert judged(always, known=None).decision == "pass"
    assert said(judged(always, known=None)) is None
    assert judged(always, "roc_auc", None, known=None, size=1, rules={"size": 10}).decision == "pass"
