"""Learning: sound feedback is learned, feedback that Production is far off on is not, and little is waited for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.decide.learning import doubtful, judge
from tasks.policy import Learn
from tasks.records import LearningEvidence, Verdict, to_plain

RULES = Learn(batch=50, holdout=500, most=500)
SOUND = LearningEvidence(
    production="3",
    known_good=True,
    waiting=200,
    newest=500,
    batches=((50, 5), (50, 4), (50, 8), (50, 5)),
    holdout=(500, 52),
    expected=(1000, 100),
)


def learning(**changes: Any) -> Verdict:
    verdict = judge(replace(SOUND, **changes), RULES, problem="binary")
    json.dumps(to_plain(verdict))
    return verdict


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in verdict.findings}


def test_sound_feedback_is_learned_with_its_numbers() -> None:
    verdict = learning()
    assert verdict.decision == "learn"
    assert "200 labelled requests wait beside the newest 500, which judge" in verdict.reason
    assert "wrong on 52 of the newest 500, 22.7% are tolerated" in verdict.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"known_good": False}, "has not finished its watch"),
        ({"waiting": 49, "batches": ()}, "49 labelled requests wait, 50 are needed"),
        ({"newest": 499}, "of which there are 499"),
        ({"fresh": 49}, "50 are needed for another try"),
        ({"expected": None}, "is not known; train one"),
        ({"expected": (0, 0)}, "is not known; train one"),
        ({"holdout": None}, "not looked at"),
        ({"holdout": (0, 0)}, "no labelled request is there to judge by"),
    ],
)
def test_what_is_missing_is_waited_for_and_named(changes: dict[str, Any], said: str) -> None:
    verdict = learning(**changes)
    assert verdict.decision == "wait"
    assert said in verdict.reason


def test_flipped_labels_among_the_newest_hold_everything() -> None:
    verdict = learning(holdout=(500, 450))
    assert (verdict.decision, outcomes(verdict)["holdout"]) == ("hold", "breach")
    assert "look at the labels" in verdict.reason
    assert learning(holdout=(500, 450), waiting=10, batches=()).decision == "wait", "there is nothing to learn from"


def test_a_batch_of_flipped_labels_is_set_aside_and_the_others_are_learned() -> None:
    mixed = replace(SOUND, batches=((50, 5), (50, 44), (50, 30), (50, 6)))
    assert doubtful(mixed, RULES, "binary") == (False, True, True, False)
    verdict = judge(mixed, RULES, problem="binary")
    assert (verdict.decision, outcomes(verdict)["batches"]) == ("learn", "breach")
    assert "2 of 4 batches are set aside" in verdict.reason


def test_nothing_but_doubtful_batches_is_set_aside() -> None:
    assert learning(batches=((50, 44), (50, 30))).decision == "set-aside"


def test_labels_that_the_version_cannot_say_are_told_and_decide_nothing() -> None:
    verdict = learning(unseen=(("maybe", 3), ("perhaps", 1)), unfit=2)
    assert verdict.decision == "learn"
    (labels, columns) = verdict.findings[-2:]
    assert (labels.outcome, labels.n, columns.n) == ("breach", 4, 2)
    assert "'maybe' (3), 'perhaps' (1)" in labels.reason


def test_in_regression_an_answer_that_is_far_off_is_wrong() -> None:
    rules = RULES
    assert judge(replace(SOUND, expected=None), rules, problem="regression").decision == "learn"
    assert judge(replace(SOUND, holdout=(500, 300)), rules, problem="regression").decision == "hold"


def test_sound_feedback_is_held_or_loses_a_batch_as_rarely_as_the_policy_says() -> None:
    """Production as bad as its holdout said and the tolerance on top: the worst that is still sound."""
    draw, alarms, trials = np.random.default_rng(1), 0, 2000
    for _ in range(trials):
        expected = (1000, int(draw.binomial(1000, 0.1)))
        bad = 0.1 + RULES.tolerate
        found = replace(
            SOUND,
            expected=expected,
            batches=tuple((50, int(draw.binomial(50, bad))) for _ in range(4)),
            holdout=(500, int(draw.binomial(500, bad))),
        )
        verdict = judge(found, RULES, problem="binary")
        alarms += verdict.decision == "hold" or outcomes(verdict)["batches"] == "breach"
    assert alarms <= 30, "one in a hundred, and what chance adds in two thousand"


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_batch_of_wrong_labels_is_seen_at_once(share: float) -> None:
    draw = np.random.default_rng(2)
    seen = 0
    for _ in range(200):
        flipped = int(draw.binomial(50, share))
        seen += doubtful(replace(SOUND, batches=((50, flipped),)), RULES, "binary")[0]
    assert seen >= 198
