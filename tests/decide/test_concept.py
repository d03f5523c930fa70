"""Concept: a rise of the errors over time is found, said since when, and not made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tasks.decide.concept import DAY, judge
from tasks.decide.influence import Unmeasurable
from tasks.policy import ConceptTrigger, Labels
from tasks.records import Finding, Look

START = datetime(2026, 1, 1, tzinfo=UTC)
BASELINE = (100, 1000)
RULES = ConceptTrigger()


def day(number: int, rows: int, wrong: int, labelled: int | None = None) -> Look:
    known = rows if labelled is None else labelled
    return Look(start=START + number * DAY, requests=rows, errors=0, slow=0, labelled=known, wrong=wrong)


def judged(
    looks: list[Look],
    rules: ConceptTrigger = RULES,
    baseline: tuple[int, int] | None = BASELINE,
    after: int | None = None,
) -> Finding:
    now = START + (len(looks) if after is None else after) * DAY
    return judge(looks, baseline, rules, now=now, limit=None)


def test_errors_as_at_training_are_no_drift_and_what_would_have_been_found_is_told() -> None:
    found = judged([day(number, 100, 10) for number in range(30)])
    assert (found.outcome, found.n) == ("ok", 3000)
    assert "would have been found" in found.reason
    assert BASELINE[0] / BASELINE[1] < found.evidence["visible"] < 0.25
    shown = judged([day(number, 100, 2 + round(100 * found.evidence["visible"])) for number in range(30)])
    assert shown.outcome == "breach", "what is said to be visible is seen"


def test_a_rise_in_the_middle_fires_and_says_since_when() -> None:
    found = judged([day(number, 100, 10 if number < 60 else 30) for number in range(75)])
    assert (found.outcome, found.urgency) == ("breach", "high")
    since = datetime.fromisoformat(found.evidence["since"])
    assert abs(since - (START + 60 * DAY)) <= 2 * DAY
    assert "since about 2026-03-0" in found.reason
    assert found.value == pytest.approx(0.3, abs=0.02)
    assert found.interval is not None
    assert found.interval[0] > (found.threshold or 1)


def test_a_rise_within_the_tolerance_never_fires() -> None:
    tolerant = ConceptTrigger(tolerate=0.1)
    assert judged([day(number, 1000, 180) for number in range(90)], tolerant).outcome == "ok"
    assert judged([day(number, 1000, 180) for number in range(90)]).outcome == "breach"


def test_a_small_holdout_leaves_more_open_than_a_large_one() -> None:
    looks = [day(number, 100, 16) for number in range(40)]
    assert judged(looks, baseline=(10, 100)).outcome == "ok"
    assert judged(looks, baseline=(10_000, 100_000)).outcome == "breach"


def test_rows_without_a_label_count_as_right_so_wrong_ones_that_are_labelled_first_raise_no_alarm() -> None:
    """Of 1,000 answers a day 100 are wrong; the labels of the wrong ones are there, of the others hardly any."""
    looks = [day(number, 1000, 100, labelled=150) for number in range(20)]
    assert judged(looks).outcome == "ok"
    assert "(20,000 in all)" in judged(looks).reason
    as_if_complete = [day(number, 150, 100) for number in range(20)]
    assert judged(as_if_complete).outcome == "breach", "counting labelled rows only would have alarmed"


def test_with_a_delay_only_days_that_are_old_enough_count_and_of_those_the_labelled_rows() -> None:
    rules = ConceptTrigger(labels=Labels(delay=timedelta(days=7)))
    young = [day(number, 1000, 100, labelled=110) for number in range(20, 27)]
    old = [day(number, 1000, 20, labelled=200) for number in range(20)]
    found = judged([*old, *young], rules, after=27)
    assert (found.outcome, found.n) == ("ok", 4000)
    bad = [day(number, 1000, 60, labelled=200) for number in range(20)]
    assert judged([*bad, *young], rules, after=27).outcome == "breach", "half as many labels hide nothing"
    with pytest.raises(Unmeasurable, match="0 labelled rows older than 7 days"):
        judged(bad, rules, after=7)


@pytest.mark.parametrize(
    ("baseline", "looks", "why"),
    [
        (None, [day(0, 500, 50)], "were not kept"),
        ((0, 0), [day(0, 500, 50)], "were not kept"),
        ((11, 10), [day(0, 500, 50)], "is no share"),
        (BASELINE, [], "0 labelled rows since training, 100 are needed"),
        (BASELINE, [day(0, 500, 5, labelled=99)], "99 labelled rows"),
        (BASELINE, [day(0, 500, 501)], "contradict each other"),
        (BASELINE, [day(0, 500, -1)], "contradict each other"),
        ((99, 100), [day(0, 500, 50)], "no rise could show"),
    ],
)
def test_without_evidence_it_is_unknown_and_says_why(
    baseline: tuple[int, int] | None, looks: list[Look], why: str
) -> None:
    with pytest.raises(Unmeasurable, match=why):
        judged(looks, baseline=baseline)


def test_in_regression_an_error_is_told_by_how_far_it_is_off() -> None:
    looks = [day(number, 100, 30) for number in range(20)]
    found = judge(looks, BASELINE, RULES, now=START + 20 * DAY, limit=12.5)
    assert "off by more than 12.5" in found.reason


@pytest.mark.parametrize("holdout", [300, 10_000_000])
def test_versions_that_err_as_they_did_are_alarmed_about_at_most_as_rarely_as_promised(holdout: int) -> None:
    """Over 200 days, asked every day; of a small holdout, which is drawn too, the share of errors is hardly known."""
    draw = np.random.default_rng(5)
    alarms, runs, rules = 0, 300, ConceptTrigger(false_alarms=0.05, tolerate=1e-9)
    for _ in range(runs):
        wrong = int(draw.binomial(holdout, 0.2))
        looks = [day(number, 50, int(count)) for number, count in enumerate(draw.binomial(50, 0.2, 200))]
        alarms += judged(looks, rules, baseline=(wrong, holdout)).outcome == "breach"
    assert alarms / runs <= 0.05


def test_a_rise_of_ten_points_is_found_within_days() -> None:
    draw, delays = np.random.default_rng(6), []
    for _ in range(40):
        counts = [*draw.binomial(100, 0.1, 60), *draw.binomial(100, 0.25, 30)]
        looks = [day(number, 100, int(count)) for number, count in enumerate(counts)]
        found = next((end for end in range(61, 91) if judged(looks[:end]).outcome == "breach"), 999)
        delays.append(found - 60)
    assert np.median(delays) <= 8
    assert max(delays) <= 30
