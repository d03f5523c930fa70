"""Budget: over all triggers and any stretch of time, healthy data start no more retrainings than the policy allows."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decide.budget import CHANCE, allowance, spending, within
from tasks.decide.triggers import decide
from tasks.policy import DriftTrigger, FalseRetrains, PerformanceTrigger, Triggers
from tasks.records import ColumnProfile, Look, Measurement, Profile, Signals, Span, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ONE = FalseRetrains(at_most=1, per=30 * DAY)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(hours=st.lists(st.floats(0, 24 * 90), min_size=1, max_size=60), start=st.integers(0, 59))
def test_in_no_stretch_of_time_is_more_spent_than_the_budget(hours: list[float], start: int) -> None:
    moments = np.cumsum(hours)
    spent = [spending(ONE, timedelta(hours=gap)) for gap in hours]
    first = moments[min(start, len(hours) - 1)]
    inside = [one for one, moment in zip(spent, moments, strict=True) if first <= moment < first + 24 * 30]
    assert math.fsum(inside) <= ONE.at_most + 1e-9


@pytest.mark.parametrize(
    ("every", "least"), [(timedelta(minutes=10), 0.7), (timedelta(hours=1), 0.7), (DAY, 0.7), (7 * DAY, 0.6)]
)
def test_a_schedule_spends_most_of_the_budget_and_never_more(every: timedelta, least: float) -> None:
    times = int(ONE.per / every) + 1
    spent = spending(ONE, 90 * DAY) + (times - 1) * spending(ONE, every)
    assert least <= times * spending(ONE, every) <= ONE.at_most
    assert spent <= ONE.at_most, "also when nobody evaluated for months before"


@pytest.mark.parametrize("gap", [timedelta(0), timedelta(hours=-3)])
def test_an_evaluation_at_the_moment_of_the_last_one_may_start_nothing_by_chance(gap: timedelta) -> None:
    assert spending(ONE, gap) == 0
    rules = Triggers(false_retrains=ONE)
    moved = decide(signals(drifted=4, now=START + 5 * DAY, evaluated_at=START + 5 * DAY - gap), rules)
    assert moved.decision == "keep"
    assert {one.outcome for one in moved.findings if one.name in CHANCE} == {"unknown"}


def test_the_levels_are_never_looser_than_the_policys_own() -> None:
    generous = Triggers(false_retrains=FalseRetrains(at_most=1000, per=DAY))
    assert generous.concept is not None
    allowed = allowance(signals(now=START + 30 * DAY), generous)
    strict = within(generous, allowed)
    assert strict.drift == generous.drift
    assert strict.performance == generous.performance
    assert strict.concept == generous.concept


def test_what_may_be_spent_is_told_and_shared_by_what_chance_can_set_off() -> None:
    verdict = decide(signals(evaluated_at=START), Triggers(false_retrains=ONE, concept=None))
    told = next(one for one in verdict.findings if one.name == "budget")
    assert told.evidence["triggers"] == ["drift", "performance", "prediction"]
    assert told.value == pytest.approx(0.75 * 10 / 30)
    assert told.evidence["each"] == pytest.approx(0.25 / 3)
    assert "may start 1 retraining(s) in 30 days" in told.reason


def test_without_a_budget_nothing_is_said_of_one() -> None:
    assert all(one.name != "budget" for one in decide(signals(), Triggers()).findings)


def test_a_true_change_still_retrains_within_the_budget() -> None:
    rules = Triggers(false_retrains=FalseRetrains(at_most=0.05, per=30 * DAY))
    verdict = decide(signals(drifted=4, evaluated_at=START + 9 * DAY), rules)
    assert verdict.decision == "retrain"
    assert [one.name for one in verdict.having("breach")] == ["drift"]


COUNTS = (250, 250, 250, 250, 0)
MOVED = (700, 100, 100, 100, 0)


def column(name: str, counts: tuple[int, ...] = COUNTS) -> ColumnProfile:
    return ColumnProfile(name=name, kind="category", categories=("a", "b", "c", "d"), counts=counts)


def profile(accuracy: float = 0.8, holdout: int = 2000) -> Profile:
    span = Span(start=START - 90 * DAY, end=START)
    error = math.sqrt(accuracy * (1 - accuracy) / holdout)
    return Profile(
        columns=tuple(column(f"f{number}") for number in range(4)),
        prediction=column("(prediction)"),
        metrics=(Measurement(metric="accuracy", value=accuracy, error=error, n=holdout),),
        rows=8000,
        labelled=10_000,
        trained_at=START,
        trained=span,
        holdout=span,
        fingerprint="x",
        errors=(round((1 - accuracy) * holdout), holdout),
    )


def signals(drifted: int = 0, **changes: object) -> Signals:
    fields: dict[str, object] = {
        "now": START + 10 * DAY,
        "profile": profile(),
        "production": "1",
        "recent": tuple(column(f"f{number}", MOVED if number < drifted else COUNTS) for number in range(4)),
        "recent_prediction": column("(prediction)"),
        "performance": Measurement(metric="accuracy", value=0.8, error=0.01, n=1600),
        "errors": (Look(start=START, requests=1600, errors=0, slow=0, labelled=1600, wrong=320),),
        "labelled_since": 1600,
    }
    return Signals(**(fields | changes))  # type: ignore[arg-type]


def healthy_month(draw: np.random.Generator, rules: Triggers, every: timedelta, rows: int) -> int:
    """Retrainings that a month of data exactly as at training starts; evaluated anew on the rows since training."""
    wrong, total, retrained = 0, 0, 0
    counted = np.zeros((5, 4), dtype=int)
    looks: list[Look] = []
    share = 0.2
    hits = int(draw.binomial(400, share))
    base = profile(1 - hits / 400, 400)
    for step in range(1, int(30 * DAY / every) + 1):
        bad = int(draw.binomial(rows, share))
        wrong, total = wrong + bad, total + rows
        counted += draw.multinomial(rows, [0.25] * 4, size=5)
        at = START + (step - 1) * every
        looks.append(Look(start=at, requests=rows, errors=0, slow=0, labelled=rows, wrong=bad))
        accuracy = 1 - wrong / total
        error = math.sqrt(accuracy * (1 - accuracy) / total)
        seen = Signals(
            now=START + step * every,
            profile=base,
            production="1",
            recent=tuple(column(f"f{number}", (*counted[number].tolist(), 0)) for number in range(4)),
            recent_prediction=column("(prediction)", (*counted[4].tolist(), 0)),
            performance=Measurement(metric="accuracy", value=accuracy, error=error, n=total),
            errors=tuple(looks),
            labelled_since=total,
            evaluated_at=at,
        )
        retrained += decide(seen, rules).decision == "retrain"
    return retrained


EAGER = {
    "age": None,
    "volume": None,
    "upstream": False,
    # As eager as they come: every one of them would retrain healthy data by itself, again and again.
    "drift": DriftTrigger(psi=0.001, share_of_features=0.01, null_share=0.01, false_alarms=0.4),
    "performance": PerformanceTrigger(metric="accuracy", drop=0.001, confidence=0.6, min_labels=20),
}


def test_healthy_data_start_no_more_retrainings_than_allowed_where_the_triggers_alone_start_many() -> None:
    draw = np.random.default_rng(11)
    loose = Triggers(**EAGER)  # type: ignore[arg-type]
    strict = Triggers(**EAGER, false_retrains=FalseRetrains(at_most=0.5, per=30 * DAY))  # type: ignore[arg-type]
    months = 12
    without = sum(healthy_month(draw, loose, DAY, 60) for _ in range(months))
    assert without / months > 2, "so eager are they"
    within_budget = sum(healthy_month(draw, strict, DAY, 60) for _ in range(3 * months))
    assert within_budget / (3 * months) <= 0.5


def test_a_verdict_with_a_budget_is_of_the_triggers() -> None:
    assert isinstance(decide(signals(), Triggers(false_retrains=ONE)), Verdict)
