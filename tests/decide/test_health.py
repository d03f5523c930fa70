"""Health: unhealthy only on evidence, healthy only on evidence, and otherwise neither."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tasks.decide.health import judge, unread_since
from tasks.policy import Health, Labels
from tasks.records import Finding, HealthEvidence, Look, Verdict, to_plain

START = datetime(2024, 4, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = Health()


def look(
    minute: int, requests: int = 100, *, errors: int = 0, slow: int = 0, labelled: int = 0, wrong: int = 0
) -> Look:
    return Look(
        start=START + minute * MINUTE, requests=requests, errors=errors, slow=slow, labelled=labelled, wrong=wrong
    )


def watch(
    *looks: Look, now: datetime | None = None, unavailable: str | None = None, partial: str | None = None
) -> HealthEvidence:
    moment = now or START + len(looks) * MINUTE
    served = [one.start for one in looks if one.requests]
    return HealthEvidence(
        looks=looks,
        now=moment,
        started=START,
        last_request=served[-1] if served else None,
        unavailable=unavailable,
        partial=partial,
    )


def verdict(evidence: HealthEvidence, rules: Health = RULES, problem: str = "binary") -> Verdict:
    return judge(evidence, rules, problem=problem, planned_looks=30)


def finding(result: Verdict, name: str) -> Finding:
    return next(one for one in result.findings if one.name == name)


def test_a_watch_that_ran_its_looks_without_an_alarm_is_healthy_and_says_what_it_could_have_seen() -> None:
    result = verdict(watch(*(look(i, errors=5, slow=2) for i in range(30))))
    assert result.decision == "healthy"
    assert "would have shown" in result.reason
    assert finding(result, "error_rate").outcome == "ok"
    assert "150 of 3,000 requests failed" in finding(result, "error_rate").reason
    assert finding(result, "accuracy").outcome == "unknown"
    assert "0 labels" in finding(result, "accuracy").reason


def test_before_its_looks_are_over_nothing_is_healthy() -> None:
    result = verdict(watch(*(look(i) for i in range(29))))
    assert result.decision == "unknown"
    assert result.reason.startswith("watching, 29 of 30 looks")


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("error_rate", {"errors": 25}),
        ("latency_p95", {"slow": 20}),
        ("accuracy", {"labelled": 100, "wrong": 40}),
    ],
)
def test_each_metric_can_raise_the_alarm_and_is_named(name: str, bad: dict[str, int]) -> None:
    result = verdict(watch(*(look(i, **bad) for i in range(10))))
    assert result.decision == "unhealthy"
    assert [one.name for one in result.having("breach")] == [name]
    assert name in result.reason


def test_an_alarm_stands_although_it_is_calm_again() -> None:
    looks = [look(i, errors=40) for i in range(5)] + [look(i) for i in range(5, 30)]
    assert verdict(watch(*looks)).decision == "unhealthy"


def test_accuracy_is_unused_in_regression() -> None:
    looks = [look(i, labelled=100, wrong=100) for i in range(30)]
    assert verdict(watch(*looks), problem="regression").decision == "healthy"
    assert verdict(watch(*looks)).decision == "unhealthy"


def test_wrong_labels_that_come_first_raise_no_false_alarm() -> None:
    # 90 % right; in each minute the ten wrong answers have been labelled and nothing else yet.
    looks = [look(i, labelled=10, wrong=10) for i in range(30)]
    assert verdict(watch(*looks)).decision == "healthy"


def test_labels_that_arrive_days_later_are_judged_too() -> None:
    looks = [look(i, labelled=100, wrong=35) for i in range(30)]
    result = verdict(watch(*looks, now=START + timedelta(days=3)))
    assert result.decision == "unhealthy"


def test_a_healthy_version_at_low_traffic_is_not_rolled_back() -> None:
    rng = np.random.default_rng(0)
    rolled_back = 0
    for _ in range(300):
        errors, slow = rng.binomial(5, 0.1, 30), rng.binomial(5, 0.05, 30)
        result = verdict(watch(*(look(i, 5, errors=int(errors[i]), slow=int(slow[i])) for i in range(30))))
        rolled_back += result.decision == "unhealthy"
    assert rolled_back / 300 <= 0.01


# no evidence


def test_no_requests_are_neither_healthy_nor_unhealthy_and_page_after_the_deadline() -> None:
    early = verdict(watch(*(look(i, 0) for i in range(10))))
    assert early.decision == "unknown"
    assert finding(early, "traffic").evidence["page"] is False
    late = verdict(watch(*(look(i, 0) for i in range(30))))
    assert late.decision == "unknown"
    assert finding(late, "traffic").evidence["page"] is True
    assert "no evidence since 2024-04-01 00:00:00 UTC (30 minutes)" in late.reason


def test_too_few_requests_cannot_end_healthy() -> None:
    result = verdict(watch(*(look(i, 3) for i in range(30))))
    assert result.decision == "unknown"
    assert "90 requests" in result.reason
    assert "100 are needed" in result.reason


def test_no_looks_at_all_is_unknown() -> None:
    assert verdict(watch()).decision == "unknown"


def test_a_source_that_is_down_is_unknown_although_the_past_looked_bad() -> None:
    evidence = watch(*(look(i, errors=100) for i in range(10)), unavailable="connection refused")
    result = verdict(evidence)
    assert result.decision == "unknown"
    assert "connection refused" in result.reason
    assert finding(result, "traffic").evidence["page"] is False
    later = verdict(replace(evidence, now=START + timedelta(hours=1)))
    assert finding(later, "traffic").evidence["page"] is True


def test_traffic_that_fell_silent_before_the_end_is_no_health() -> None:
    looks = [look(i) for i in range(10)] + [look(i, 0) for i in range(10, 30)]
    result = verdict(watch(*looks))
    assert result.decision == "unknown"
    assert finding(result, "traffic").evidence["page"] is True


@pytest.mark.parametrize(
    "broken", [{"requests": math.nan}, {"errors": math.nan}, {"errors": 101}, {"errors": -1}, {"wrong": 1}]
)
def test_counts_that_are_no_counts_are_unknown(broken: dict[str, float]) -> None:
    looks = [look(i) for i in range(29)] + [replace(look(29), **broken)]  # type: ignore[arg-type]
    result = verdict(watch(*looks))
    assert result.decision == "unknown"
    assert "cannot be judged" in result.reason


def test_no_metric_enabled_is_no_health() -> None:
    off = Health(error_rate=None, latency_p95=None, accuracy=None)
    assert verdict(watch(*(look(i) for i in range(30))), off).decision == "unknown"


def test_a_watch_without_looks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        judge(watch(), RULES, problem="binary", planned_looks=0)


def test_the_same_evidence_gives_the_same_answer_as_plain_json() -> None:
    for errors in (0, 40):
        evidence = watch(*(look(i, errors=errors) for i in range(30)))
        assert verdict(evidence) == verdict(evidence)
        json.dumps(to_plain(verdict(evidence)), allow_nan=False)
        for one in verdict(evidence).findings:
            json.dumps([one.value, one.interval, one.n, dict(one.evidence)])


# Labels that come late.


DELAYED = Health(labels=Labels(delay=timedelta(minutes=10)))


def test_with_a_delay_only_looks_that_are_old_enough_count_and_of_those_the_labelled_answers() -> None:
    """The labels of wrong answers come at once, those of the others after ten minutes."""
    old = [look(i, labelled=90, wrong=9) for i in range(20)]
    young = [look(i, labelled=10, wrong=10) for i in range(20, 30)]
    result = verdict(watch(*old, *young), DELAYED)
    assert finding(result, "accuracy").n == 1800
    assert result.decision == "healthy"
    assert "180 of 1,800 labelled (of those older than 10 minutes)" in result.reason


def test_with_a_delay_answers_that_never_get_a_label_hide_nothing() -> None:
    looks = [look(i, labelled=20, wrong=9) for i in range(30)]
    assert verdict(watch(*looks)).decision == "healthy", "counted as right, they hide it"
    assert verdict(watch(*looks), DELAYED).decision == "unhealthy"


def test_a_period_that_is_over_is_judged_by_when_its_labels_were_read() -> None:
    looks = watch(*(look(i, labelled=50, wrong=25) for i in range(30)))
    slow = Health(labels=Labels(delay=timedelta(days=2)))
    assert verdict(replace(looks, read_at=looks.now + timedelta(days=1)), slow).decision == "healthy"
    assert finding(verdict(looks, slow), "accuracy").outcome == "unknown"
    assert verdict(replace(looks, read_at=looks.now + timedelta(days=2)), slow).decision == "unhealthy"


def test_too_few_old_labels_are_no_accuracy() -> None:
    result = verdict(watch(*(look(i, labelled=4) for i in range(30))), DELAYED)
    assert finding(result, "accuracy").outcome == "unknown"


def day_of_labels(draw: np.random.Generator, right: float, waited: float) -> HealthEvidence:
    """A day of requests, of whose answers this share is right; labels of wrong ones come after hours, others take days.

    Args:
        draw: Of everything random.
        right: Share of right answers.
        waited: Days since its end.
    """
    ten, looks = timedelta(minutes=10), []
    for number in range(144):
        start = START + number * ten
        wrong = int(draw.binomial(20, 1 - right))
        since = (144 - number) / 144 + waited
        seen = int((draw.exponential(0.25, wrong) < since).sum())
        others = int((np.minimum(draw.exponential(3.0, 20 - wrong), 5.0) < since).sum())
        looks.append(Look(start=start, requests=20, errors=0, slow=0, labelled=seen + others, wrong=seen))
    end = START + timedelta(days=1)
    return HealthEvidence(
        looks=tuple(looks), now=end, started=START, last_request=end, read_at=end + waited * 144 * ten
    )


@pytest.mark.parametrize("labels", [None, Labels(delay=timedelta(days=5))])
def test_labels_of_wrong_answers_that_come_first_raise_no_alarm_and_hide_no_harm(labels: Labels | None) -> None:
    rules = Health(tick=timedelta(minutes=10), error_rate=None, latency_p95=None, labels=labels)
    draw = np.random.default_rng(9)

    def alarms(right: float, waited: float) -> int:
        seen = [day_of_labels(draw, right, waited) for _ in range(100)]
        return sum(judge(one, rules, problem="binary", planned_looks=144).decision == "unhealthy" for one in seen)

    assert max(alarms(0.82, waited) for waited in (0.0, 1.0, 6.0)) <= 1
    assert alarms(0.7, 6.0) >= 99


# A part of the evidence.


def test_a_part_of_the_evidence_suffices_for_an_alarm_and_for_nothing_else() -> None:
    why = "one gateway cannot be scraped"
    quiet = verdict(watch(*(look(i, errors=5) for i in range(30)), partial=why))
    assert (quiet.decision, why in quiet.reason) == ("unknown", True)
    assert finding(quiet, "error_rate").outcome == "unknown"
    assert verdict(watch(*(look(i, errors=40) for i in range(30)), partial=why)).decision == "unhealthy"


def test_since_when_evidence_is_missing_can_be_read_from_what_was_said() -> None:
    looks = [look(i) for i in range(10)]
    assert unread_since(verdict(watch(*looks))) is None
    for missing in ({"partial": "no labels"}, {"unavailable": "the disk is away"}):
        said = verdict(watch(*looks, now=START + 12 * MINUTE, **missing))
        assert unread_since(said) == START + 9 * MINUTE, "of the last request"
