"""Restraint: noise, bad data and a candidate that fails start no loop of retrainings."""

from __future__ import annotations

from datetime import timedelta

import pytest
from test_triggers import NOW, finding, signals

from tasks.decide.triggers import decide
from tasks.policy import Confirm, FalseRetrains, Triggers
from tasks.records import Evaluation

RULES = Triggers(confirm=Confirm(times=2, of=3))
HOUR = timedelta(hours=1)


def evaluation(hours_ago: float, *held: str, saw: str | None = None) -> Evaluation:
    return Evaluation(at=NOW - hours_ago * HOUR, held=held, saw=f"{hours_ago} hours ago" if saw is None else saw)


def test_what_holds_once_does_not_retrain_and_says_what_is_missing() -> None:
    verdict = decide(signals(drifted=20, saw="now"), RULES)
    assert verdict.decision == "keep"
    drift = finding(verdict, "drift")
    assert (drift.outcome, drift.urgency) == ("unknown", None)
    assert "it held in 1 of the last 1 evaluations, 2 of 3 are needed" in drift.reason
    assert "unknown: drift (20 of 20 features drifted" in verdict.reason


@pytest.mark.parametrize(
    ("earlier", "decision"),
    [
        ((evaluation(1, "drift"),), "retrain"),
        ((evaluation(1), evaluation(2, "drift")), "retrain"),
        ((evaluation(1), evaluation(2), evaluation(3, "drift")), "keep"),
        ((evaluation(1, "performance"), evaluation(2, "prediction")), "keep"),
    ],
)
def test_two_of_the_last_three_are_two_of_the_last_three(earlier: tuple[Evaluation, ...], decision: str) -> None:
    verdict = decide(signals(drifted=20, saw="now", evaluations=earlier), RULES)
    assert verdict.decision == decision


def test_what_held_before_and_does_not_hold_now_does_not_retrain() -> None:
    verdict = decide(signals(saw="now", evaluations=(evaluation(1, "drift"), evaluation(2, "drift"))), RULES)
    assert verdict.decision == "keep"
    assert finding(verdict, "drift").outcome == "ok"


def test_the_same_rows_seen_again_and_again_confirm_nothing() -> None:
    same = tuple(evaluation(number, "drift", saw="now") for number in range(1, 9))
    assert decide(signals(drifted=20, saw="now", evaluations=same), RULES).decision == "keep"
    older = tuple(evaluation(number, "drift", saw="before") for number in range(1, 9))
    three = Triggers(confirm=Confirm(times=3, of=3))
    assert decide(signals(drifted=20, saw="now", evaluations=older), three).decision == "keep"
    assert decide(signals(drifted=20, saw="now", evaluations=older), RULES).decision == "retrain"


def test_a_clock_and_a_count_need_no_second_look() -> None:
    old = Triggers(age=timedelta(days=14), confirm=Confirm(times=3, of=3))
    verdict = decide(signals(saw="now"), old)
    assert verdict.decision == "retrain"
    assert [one.name for one in verdict.having("breach")] == ["age"]


def test_a_changed_column_in_one_batch_starts_nothing() -> None:
    verdict = decide(signals(schema=("column f3 is text, was a number",), saw="now"), RULES)
    assert verdict.decision == "keep"
    assert finding(verdict, "upstream").outcome == "unknown"


def test_what_was_seen_is_kept_for_the_next_evaluation() -> None:
    verdict = decide(signals(drifted=20, saw="row 7"), RULES)
    assert finding(verdict, "confirm").evidence["saw"] == "row 7"
    assert finding(verdict, "drift").evidence["held"] is True
    assert all(one.name != "confirm" for one in decide(signals(), Triggers()).findings)


def test_an_event_needs_no_confirmation() -> None:
    assert decide(signals(event="a new price list", saw="now"), RULES).decision == "retrain"


# Cool-down after a retraining.


def test_after_any_retraining_no_trigger_counts_for_a_while() -> None:
    rules = Triggers(age=timedelta(days=14), cool_down=timedelta(hours=12))
    verdict = decide(signals(drifted=7, retrained_at=NOW - 3 * HOUR), rules)
    assert verdict.decision == "keep"
    assert "fired, but the last retraining began 3 hours ago, and no trigger counts before 2024-04-15 09:00" in (
        verdict.reason
    )
    assert finding(verdict, "age").outcome == "breach", "what fired is still told"
    assert decide(signals(drifted=7, retrained_at=NOW - 12 * HOUR), rules).decision == "retrain"
    assert decide(signals(event="asked for", retrained_at=NOW - HOUR), rules).decision == "retrain"


def test_of_two_cool_downs_the_longer_one_is_told_once() -> None:
    rules = Triggers(cool_down=timedelta(days=3), rollback_cool_down=timedelta(days=1))
    both = {"retrained_at": NOW - HOUR, "rolled_back_from": "4", "rolled_back_at": NOW - HOUR}
    verdict = decide(signals(drifted=20, **both), rules)
    told = [one for one in verdict.findings if one.name == "cool_down"]
    assert len(told) == 1
    assert "2024-04-17 23:00" in told[0].reason


# As people write it.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 per 30d", FalseRetrains(at_most=1, per=timedelta(days=30))),
        ("5% per 7d", FalseRetrains(at_most=0.05, per=timedelta(days=7))),
        ("off", None),
        ({"at_most": 2}, FalseRetrains(at_most=2, per=timedelta(days=30))),
    ],
)
def test_a_budget_is_read_as_it_is_written(text: object, expected: FalseRetrains | None) -> None:
    assert Triggers(false_retrains=text).false_retrains == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_retrains": "often"},
        {"false_retrains": "0 per 30d"},
        {"false_retrains": "1 per month"},
        {"confirm": {"times": 4, "of": 3}},
        {"cool_down": "0d"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Triggers(**wrong)  # type: ignore[arg-type]
