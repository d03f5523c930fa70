"""Estimate: how many answers are right is told before labels, and not told where what it rests on has failed."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.decide.estimate import judge
from tasks.decide.triggers import decide
from tasks.policy import Triggers
from tasks.profile import sureness
from tasks.records import Scores, Signals, Sureness


def answers(
    draw: np.random.Generator, n: int, *, ease: float, lies: float = 1.0, labelled: float = 1.0, classes: int = 2
) -> tuple[Scores, float]:
    """A classifier of some classes; how sure it is, is true up to a power. Also the share that is truly right."""
    logits = ease * draw.normal(size=(n, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([draw.choice(classes, p=one) for one in true])
    said = true**lies / (true**lies).sum(axis=1, keepdims=True)
    prediction = said.argmax(axis=1)
    right = float((prediction == truth).mean())
    shown = np.where(draw.random(n) < labelled, truth, -1)
    names = tuple("abcdef"[:classes])
    return Scores(truth=shown, prediction=prediction, probability=said, classes=names), right


def degrees(scores: Scores) -> tuple[Sureness, ...]:
    found = sureness(scores)
    assert found is not None
    return found


@pytest.mark.parametrize("classes", [2, 4])
def test_the_true_share_lies_in_the_interval(classes: int) -> None:
    draw, inside = np.random.default_rng(classes), 0
    for _ in range(30):
        before, _ = answers(draw, 1500, ease=2.0, classes=classes)
        now, right = answers(draw, 800, ease=1.6, labelled=0.0, classes=classes)
        found = judge(degrees(before), degrees(now))
        assert (found.outcome, found.evidence["estimate"]) == ("exempt", True)
        assert found.interval is not None
        inside += found.interval[0] <= right <= found.interval[1]
    assert inside >= 28


def test_probabilities_that_were_none_from_the_start_give_no_estimate() -> None:
    draw = np.random.default_rng(3)
    before, _ = answers(draw, 1500, ease=1.0, lies=6.0, classes=4)
    now, _ = answers(draw, 800, ease=1.0, lies=6.0, labelled=0.0, classes=4)
    found = judge(degrees(before), degrees(now))
    assert found.outcome == "unknown"
    assert "its probabilities were off by" in found.reason


def test_harder_rows_are_estimated_to_be_answered_worse() -> None:
    draw = np.random.default_rng(1)
    before, was = answers(draw, 4000, ease=3.0)
    now, right = answers(draw, 4000, ease=1.5, labelled=0.0)
    found = judge(degrees(before), degrees(now))
    assert found.value == pytest.approx(right, abs=0.03)
    assert right < was - 0.05
    assert "an estimate before labels" in found.reason


def test_labels_that_contradict_it_leave_no_estimate() -> None:
    """The world has changed: the model is as sure as ever, and wrong."""
    draw = np.random.default_rng(2)
    before, _ = answers(draw, 4000, ease=2.0)
    now, _ = answers(draw, 1000, ease=2.0, labelled=0.2)
    turned = Scores(
        truth=np.where(now.truth >= 0, 1 - now.truth, -1),
        prediction=now.prediction,
        probability=now.probability,
        classes=now.classes,
    )
    assert judge(degrees(before), degrees(now)).outcome == "exempt"
    found = judge(degrees(before), degrees(turned))
    assert found.outcome == "unknown"
    assert "its probabilities do not mean what they did" in found.reason


def test_answers_as_sure_as_none_was_before_are_not_estimated() -> None:
    before = (*[Sureness(0, 0, 0, 0.0)] * 5, *[Sureness(500, 500, 400, 400.0)] * 2, *[Sureness(0, 0, 0, 0.0)] * 3)
    now = (*[Sureness(0, 0, 0, 0.0)] * 9, Sureness(500, 0, 0, 0.0))
    found = judge(before, now)
    assert found.outcome == "unknown"
    assert "only 0% of the recent answers are as sure as answers of the holdout were" in found.reason


@pytest.mark.parametrize("now", [(), tuple([Sureness(9, 0, 0, 0.0)] * 10)])
def test_too_few_answers_are_no_estimate(now: tuple[Sureness, ...]) -> None:
    assert judge(tuple([Sureness(100, 100, 90, 90.0)] * 10), now).outcome == "unknown"


def test_without_probabilities_there_is_none() -> None:
    known = np.array([0, 1])
    assert sureness(Scores(truth=known, prediction=known, classes=("a", "b"))) is None


def test_nothing_follows_from_it() -> None:
    from test_triggers import finding, profile, signals

    described = profile()
    dire = {"sureness": tuple([Sureness(100, 0, 0, 0.0)] * 10)}
    known = {"sureness": tuple([Sureness(100, 100, 10, 10.0)] * 10)}
    object.__setattr__(described, "sureness", known["sureness"])
    given: Signals = signals(profile=described, **dire)
    verdict = decide(given, Triggers())
    assert verdict.decision == "keep"
    assert finding(verdict, "estimate").value == pytest.approx(0.1, abs=0.02)
