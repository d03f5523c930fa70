"""Triggers: when to retrain, said in one line with its numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tasks.decide.triggers import decide
from tasks.policy import DriftTrigger, PerformanceTrigger, Triggers
from tasks.records import ColumnProfile, Finding, Look, Measurement, Profile, Signals, Span, Verdict, to_plain

TRAINED = datetime(2024, 4, 1, tzinfo=UTC)
NOW = datetime(2024, 4, 15, tzinfo=UTC)
STILL, MOVED = (500, 500, 0), (900, 100, 0)


def column(name: str, counts: tuple[int, ...] = STILL) -> ColumnProfile:
    return ColumnProfile(name=name, kind="category", categories=("a", "b"), counts=counts)


def accuracy(value: float, n: int = 5000, error: float | None = None) -> Measurement:
    exact = math.sqrt(max(value * (1 - value), 0.0) / n) if math.isfinite(value) else None
    return Measurement(metric="accuracy", value=value, error=error if error is not None else exact, n=n)


def profile(baseline: Measurement | None = None, columns: int = 20) -> Profile:
    span = Span(start=TRAINED - timedelta(days=180), end=TRAINED)
    return Profile(
        columns=tuple(column(f"f{i}") for i in range(columns)),
        prediction=column("(prediction)"),
        metrics=(baseline or accuracy(0.8),),
        rows=1000,
        labelled=1000,
        trained_at=TRAINED,
        trained=span,
        holdout=span,
        fingerprint="x",
        source_version="v1",
    )


def signals(drifted: int = 0, **changes: object) -> Signals:
    fields: dict[str, object] = {
        "now": NOW,
        "profile": profile(),
        "production": "3",
        "recent": tuple(column(f"f{i}", MOVED if i < drifted else STILL) for i in range(20)),
        "recent_prediction": column("(prediction)"),
        "performance": accuracy(0.8),
        "errors": steady(),
        "labelled_since": 1000,
        "source_version": "v1",
    }
    return Signals(**(fields | changes))  # type: ignore[arg-type]


def steady(days: int = 14, rows: int = 100, wrong: int = 20) -> tuple[Look, ...]:
    """So many days in which as many answers were wrong as at training."""
    counts = {"requests": rows, "errors": 0, "slow": 0, "labelled": rows, "wrong": wrong}
    return tuple(Look(start=TRAINED + timedelta(days=day), **counts) for day in range(days))


def finding(verdict: Verdict, name: str) -> Finding:
    return next(one for one in verdict.findings if one.name == name)


def test_the_textbook_case() -> None:
    rules = Triggers(
        age=timedelta(days=14),
        drift=DriftTrigger(share_of_features=0.3),
        performance=PerformanceTrigger(metric="accuracy", floor=0.75),
    )
    verdict = decide(signals(drifted=7), rules)
    assert verdict.decision == "retrain"
    assert verdict.reason.startswith("Retrain model: true — age: trained 14 days ago")
    assert "drift: 7 of 20 features drifted (0.35, limit 0.3): f0, f1" in verdict.reason
    assert finding(verdict, "performance").outcome == "ok"
    assert "\n" not in verdict.reason
    assert verdict.urgency == "medium"


def test_nothing_fired_says_what_was_looked_at() -> None:
    verdict = decide(signals(), Triggers())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("Retrain model: false — looked at age (trained 14 days ago")
    for name in ("drift", "performance", "concept", "prediction", "volume", "upstream"):
        assert f"{name} (" in verdict.reason
    assert verdict.urgency is None


def test_no_trigger_at_all_keeps_and_says_so() -> None:
    off = Triggers(age=None, drift=None, performance=None, concept=None, prediction=None, volume=None, upstream=False)
    verdict = decide(signals(drifted=20), off)
    assert verdict.decision == "keep"
    assert "no trigger is enabled" in verdict.reason


def test_the_first_model_is_trained_without_a_signal() -> None:
    verdict = decide(Signals(now=NOW), Triggers())
    assert verdict.decision == "retrain"
    assert "first model" in verdict.reason


def test_a_production_version_without_a_profile_is_unknown_and_no_crash() -> None:
    verdict = decide(signals(profile=None), Triggers())
    assert verdict.decision == "keep"
    assert finding(verdict, "age").outcome == "unknown"
    assert finding(verdict, "drift").outcome == "unknown"
    assert "unknown: age (the reference profile of version 3 could not be read)" in verdict.reason


def test_an_event_always_retrains_with_its_urgency() -> None:
    rules = Triggers(retrain_when="all")
    verdict = decide(signals(event="a new price list\nfrom sales", event_urgency="critical"), rules)
    assert verdict.decision == "retrain"
    assert verdict.urgency == "critical"
    assert "event: a new price list from sales" in verdict.reason


# age


@pytest.mark.parametrize(("days", "outcome"), [(13.99, "ok"), (14, "breach"), (20, "breach")])
def test_a_reached_age_counts(days: float, outcome: str) -> None:
    verdict = decide(signals(now=TRAINED + timedelta(days=days)), Triggers(age=timedelta(days=14)))
    assert finding(verdict, "age").outcome == outcome


def test_a_clock_that_went_backwards_is_unknown() -> None:
    verdict = decide(signals(now=TRAINED - timedelta(days=1)), Triggers())
    assert finding(verdict, "age").outcome == "unknown"
    assert "future" in finding(verdict, "age").reason


def test_a_moment_without_a_zone_is_unknown_and_no_type_error() -> None:
    verdict = decide(signals(now=NOW.replace(tzinfo=None)), Triggers())
    assert finding(verdict, "age").outcome == "unknown"


# drift


@pytest.mark.parametrize(
    ("drifted", "outcome", "urgency"), [(6, "ok", None), (7, "breach", "medium"), (12, "breach", "high")]
)
def test_the_share_of_drifted_features_must_exceed_the_limit(drifted: int, outcome: str, urgency: str | None) -> None:
    found = finding(decide(signals(drifted=drifted), Triggers()), "drift")
    assert (found.outcome, found.urgency) == (outcome, urgency)
    assert found.value == drifted / 20
    assert len(found.evidence["features"]) == drifted


def test_columns_that_could_not_be_judged_never_count_as_calm_when_they_could_tip_it() -> None:
    recent = tuple(column(f"f{i}", MOVED if i < 4 else (20, 20, 0) if i < 9 else STILL) for i in range(20))
    found = finding(decide(signals(recent=recent), Triggers()), "drift")
    assert found.outcome == "unknown"
    assert "5 could not be judged" in found.reason
    assert decide(signals(recent=recent), Triggers()).decision == "keep"


def test_recent_data_that_are_empty_are_unknown() -> None:
    recent = tuple(column(f"f{i}", (0, 0, 0)) for i in range(20))
    assert finding(decide(signals(recent=recent), Triggers()), "drift").outcome == "unknown"
    assert finding(decide(signals(recent=None), Triggers()), "drift").outcome == "unknown"


# performance


@pytest.mark.parametrize(
    ("value", "outcome", "urgency"),
    [(0.79, "ok", None), (0.77, "breach", "medium"), (0.73, "breach", "high"), (0.95, "ok", None)],
)
def test_a_drop_against_the_versions_own_baseline(value: float, outcome: str, urgency: str | None) -> None:
    found = finding(decide(signals(performance=accuracy(value)), Triggers()), "performance")
    assert (found.outcome, found.urgency) == (outcome, urgency)


@pytest.mark.parametrize(("baseline", "now"), [(0.83, 0.80), (0.80, 0.77), (0.9, 0.87)])
def test_a_reached_drop_counts_whatever_binary_fractions_make_of_it(baseline: float, now: float) -> None:
    given = signals(profile=profile(accuracy(baseline, n=50_000)), performance=accuracy(now, n=50_000))
    assert finding(decide(given, Triggers()), "performance").outcome == "breach"


def test_a_drop_that_chance_could_give_is_unknown_and_says_how_many_labels_would_tell() -> None:
    found = finding(decide(signals(performance=accuracy(0.75, n=150)), Triggers()), "performance")
    assert found.outcome == "unknown"
    assert "more labels would tell" in found.reason


def test_what_would_have_been_found_is_told_and_found_nineteen_times_of_twenty() -> None:
    calm = finding(decide(signals(performance=accuracy(0.79, n=412)), Triggers()), "performance")
    assert "with 412 labels a loss of 8.3 points or more would have been found" in calm.reason
    visible, baseline, draw, found = calm.evidence["visible"], accuracy(0.8), np.random.default_rng(1), 0
    for _ in range(400):
        now = accuracy(float(draw.binomial(412, 0.8 - visible)) / 412, n=412)
        then = accuracy(float(draw.binomial(baseline.n, 0.8)) / baseline.n)
        judged = finding(decide(signals(profile=profile(then), performance=now), Triggers()), "performance")
        found += judged.outcome == "breach"
    assert 0.91 <= found / 400 <= 0.99


def test_no_label_helps_when_the_baseline_itself_is_too_rough() -> None:
    rough = signals(profile=profile(accuracy(0.8, n=50)), performance=accuracy(0.75, n=150))
    assert "no number of labels" in finding(decide(rough, Triggers()), "performance").reason


def test_the_relative_form_is_a_share_of_the_baseline() -> None:
    rules = Triggers(performance=PerformanceTrigger(relative_drop=0.1))
    assert finding(decide(signals(performance=accuracy(0.73)), rules), "performance").outcome == "ok"
    assert finding(decide(signals(performance=accuracy(0.71)), rules), "performance").outcome == "breach"


def test_below_the_floor_is_critical_whatever_the_baseline() -> None:
    rules = Triggers(performance=PerformanceTrigger(floor=0.75))
    low = signals(profile=profile(accuracy(0.7)), performance=accuracy(0.7))
    verdict = decide(low, rules)
    assert verdict.urgency == "critical"
    assert "under the floor 0.75" in verdict.reason
    chance = signals(profile=profile(accuracy(0.74)), performance=accuracy(0.74, n=200))
    assert finding(decide(chance, rules), "performance").outcome == "unknown"


def test_of_a_loss_more_is_worse() -> None:
    def loss(value: float) -> Measurement:
        return Measurement(metric="rmse", value=value, error=0.05, n=1000, greater_is_better=False)

    rules = Triggers(performance=PerformanceTrigger(metric="rmse", drop=0.5, floor=5.0))
    for now, outcome, urgency in (
        (2.0, "ok", None),
        (3.8, "breach", "medium"),
        (6.0, "breach", "critical"),
        (1.0, "ok", None),
    ):
        found = finding(decide(signals(profile=profile(loss(3.0)), performance=loss(now)), rules), "performance")
        assert (found.outcome, found.urgency) == (outcome, urgency)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_unknown(value: float) -> None:
    broken = Measurement(metric="accuracy", value=value, error=0.01, n=1000)
    rules = Triggers(performance=PerformanceTrigger(floor=0.75))
    assert finding(decide(signals(performance=broken), rules), "performance").outcome == "unknown"
    assert finding(decide(signals(profile=profile(broken)), rules), "performance").outcome == "unknown"


def test_missing_and_few_labels_are_insufficient_and_no_crash() -> None:
    rules = Triggers(performance=PerformanceTrigger(floor=0.75))
    assert finding(decide(signals(performance=None), rules), "performance").outcome == "unknown"
    few = finding(decide(signals(performance=accuracy(0.2, n=99)), rules), "performance")
    assert few.outcome == "unknown"
    assert "99 labelled rows" in few.reason


def test_another_metric_than_the_policys_is_not_compared() -> None:
    rules = Triggers(performance=PerformanceTrigger(metric="f1"))
    assert finding(decide(signals(), rules), "performance").outcome == "unknown"


# volume, prediction, upstream


@pytest.mark.parametrize(("rows", "outcome"), [(49_999, "ok"), (50_000, "breach"), (None, "unknown"), (-1, "unknown")])
def test_a_reached_volume_counts(rows: int | None, outcome: str) -> None:
    assert finding(decide(signals(labelled_since=rows), Triggers()), "volume").outcome == outcome


@pytest.mark.parametrize(
    ("rows", "learned", "outcome"),
    [
        (2199, 1100, "ok"),
        (2200, 1100, "breach"),
        (1999, 1000, "ok"),
        (2000, 1000, "breach"),
        (None, 1000, "unknown"),
        (-1, 1000, "unknown"),
        (5, 0, "unknown"),
    ],
)
def test_a_version_that_learned_from_few_rows_is_trained_again_soon(
    rows: int | None, learned: int, outcome: str
) -> None:
    seen = signals(labelled_since=rows)
    assert seen.profile is not None
    seen = replace(seen, profile=replace(seen.profile, rows=learned))
    found = decide(seen, Triggers(growth=2.0))
    assert finding(found, "growth").outcome == outcome
    if outcome != "unknown":
        assert f"of the {learned:,} that it was trained on" in finding(found, "growth").reason
    assert "growth" not in [one.name for one in decide(seen, Triggers()).findings]


def test_answers_that_moved_are_of_high_urgency() -> None:
    verdict = decide(signals(recent_prediction=column("(prediction)", MOVED)), Triggers())
    assert verdict.decision == "retrain"
    assert verdict.urgency == "high"
    assert finding(decide(signals(recent_prediction=None), Triggers()), "prediction").outcome == "unknown"


def test_an_upstream_change_names_the_column_or_the_versions() -> None:
    verdict = decide(signals(schema=("column f3 is text, was a number",)), Triggers())
    assert "upstream: column f3 is text, was a number" in verdict.reason
    assert verdict.urgency == "medium"
    changed = decide(signals(source_version="v2"), Triggers())
    assert "from version v1 to v2" in changed.reason
    assert finding(decide(signals(source_version=None), Triggers()), "upstream").outcome == "unknown"


# combination


def test_two_triggers_that_were_both_required_do_not_retrain_alone() -> None:
    rules = Triggers(retrain_when="drift and performance")
    assert decide(signals(drifted=20), rules).decision == "keep"
    assert decide(signals(performance=accuracy(0.7)), rules).decision == "keep"
    both = decide(signals(drifted=20, performance=accuracy(0.7)), rules)
    assert both.decision == "retrain"
    assert "fired, but `drift and performance` needs more: drift" in decide(signals(drifted=20), rules).reason


def test_all_needs_every_enabled_trigger() -> None:
    shared = {"age": timedelta(days=14), "concept": None, "prediction": None, "volume": None, "upstream": False}
    rules = Triggers(retrain_when="all", **shared)  # type: ignore[arg-type]
    assert decide(signals(drifted=20), rules).decision == "keep"
    assert decide(signals(drifted=20, performance=accuracy(0.7)), rules).decision == "retrain"


def test_an_unknown_never_tips_and_is_named() -> None:
    rules = Triggers(retrain_when="drift and performance")
    verdict = decide(signals(drifted=20, performance=None, unavailable={"performance": "label store is down"}), rules)
    assert verdict.decision == "keep"
    assert "unknown: performance (label store is down)" in verdict.reason
    either = Triggers(retrain_when="drift or performance")
    assert decide(signals(drifted=20, performance=None), either).decision == "retrain"


def test_everything_unavailable_keeps_production() -> None:
    dead = Signals(now=NOW, production="3", unavailable=dict.fromkeys(Triggers().enabled, "the database is down"))
    verdict = decide(dead, Triggers())
    assert verdict.decision == "keep"
    assert {one.outcome for one in verdict.findings} == {"unknown"}
    assert verdict.reason.count("the database is down") == 7


def test_a_verdict_is_plain_json() -> None:
    rules = Triggers(performance=PerformanceTrigger(floor=0.75))
    verdict = decide(signals(drifted=7, performance=accuracy(0.7)), rules)
    json.dumps(to_plain(verdict), allow_nan=False)
    for one in verdict.findings:
        json.dumps([one.value, one.interval, one.n, dict(one.evidence)])


# After a rollback.


def rolled_back(hours_ago: float) -> dict[str, object]:
    return {"rolled_back_from": "4", "rolled_back_at": NOW - timedelta(hours=hours_ago)}


def test_no_trigger_retrains_right_after_a_rollback() -> None:
    rules = Triggers(age=timedelta(days=14))
    assert decide(signals(drifted=7), rules).decision == "retrain"
    verdict = decide(signals(drifted=7, **rolled_back(3)), rules)
    assert verdict.decision == "keep"
    assert "fired, but version 4 was rolled back from 3 hours ago, and no trigger counts before" in verdict.reason
    assert finding(verdict, "age").outcome == "breach", "what fired is still told"
    assert finding(verdict, "cool_down").evidence["rolled_back_from"] == "4"


@pytest.mark.parametrize(
    ("hours", "rules"),
    [
        (24, Triggers(age=timedelta(days=14))),
        (3, Triggers(age=timedelta(days=14), rollback_cool_down=timedelta(hours=3))),
        (3, Triggers(age=timedelta(days=14), rollback_cool_down=None)),
    ],
)
def test_after_the_cool_down_triggers_count_again(hours: float, rules: Triggers) -> None:
    verdict = decide(signals(**rolled_back(hours)), rules)
    assert verdict.decision == "retrain"
    assert all(one.name != "cool_down" for one in verdict.findings)


def test_an_event_with_its_reason_retrains_all_the_same_and_the_rollback_is_told() -> None:
    verdict = decide(signals(event="the data are mended", **rolled_back(1)), Triggers())
    assert verdict.decision == "retrain"
    assert verdict.reason.startswith("Retrain model: true — event: the data are mended; although version 4 was rolled")


def test_a_quiet_day_after_a_rollback_says_once_that_nothing_counts_yet() -> None:
    verdict = decide(signals(**rolled_back(1)), Triggers())
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("Retrain model: false — version 4 was rolled back from 1 hour ago")
    assert verdict.reason.count("rolled back") == 1


def test_a_model_without_production_does_not_cool_down() -> None:
    first = Signals(now=NOW, rolled_back_from="4", rolled_back_at=NOW)
    assert decide(first, Triggers()).decision == "retrain"
