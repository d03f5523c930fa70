"""Shadow: promote, reject or need more, and never a yes out of nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tasks.decide.shadow import judge, side, smallest_visible
from tasks.policy import Shadow
from tasks.records import LiveShadow, ShadowEvidence, Span, Verdict, to_plain

SPAN = Span(start=datetime(2024, 4, 1, tzinfo=UTC), end=datetime(2024, 4, 8, tzinfo=UTC))
RULES = Shadow()


def shadow(
    wins: int = 0, losses: int = 0, ties: int = 0, requests: int | None = None, failures: int = 0
) -> ShadowEvidence:
    answered = wins + losses + ties if requests is None else requests
    return ShadowEvidence(
        wins=wins, losses=losses, ties=ties, requests=answered, agreements=answered, failures=failures, span=SPAN
    )


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in verdict.findings}


def test_a_better_challenger_is_promoted_and_a_worse_one_rejected() -> None:
    assert judge(shadow(120, 40, 840), RULES).decision == "promote"
    verdict = judge(shadow(40, 120, 840), RULES)
    assert verdict.decision == "reject"
    assert "only the challenger was right on 40, only the champion on 120 of 1,000" in verdict.reason


def test_an_equal_challenger_is_promoted_in_the_end() -> None:
    assert judge(shadow(30, 30, 100), RULES).decision == "wait"
    assert judge(shadow(500, 500, 19_000), RULES).decision == "promote"


def test_where_a_gain_is_worth_having_only_a_better_challenger_goes_out() -> None:
    better = Shadow(worth_having=0.02)
    assert judge(shadow(500, 500, 19_000), RULES).decision == "promote", "it loses next to nothing"
    equal = judge(shadow(500, 500, 19_000), better)
    assert equal.decision == "reject"
    assert "gains less than 2%" in equal.reason
    assert judge(shadow(30, 30, 100), better).decision == "wait"
    good = judge(shadow(120, 40, 840), better)
    assert good.decision == "promote"
    assert re.search(r"it is better; with 1,000 labels a gain of [\d.]+% or more would have been found", good.reason)
    assert judge(shadow(40, 120, 840), better).decision == "reject"
    comparison = next(one for one in good.findings if one.name == "comparison")
    assert (comparison.threshold, comparison.margin) == (0.0, 0.02)


def test_few_labels_wait_and_say_about_how_many_more_are_needed() -> None:
    verdict = judge(shadow(3, 2, 20), RULES)
    assert verdict.decision == "wait"
    assert re.search(r"about [\d,]+ to [\d,]+ more labels are needed", verdict.reason)


def test_no_labels_wait() -> None:
    verdict = judge(shadow(requests=5000), RULES)
    assert verdict.decision == "wait"
    assert "none of 5,000 requests has a label yet" in verdict.reason


def test_no_requests_wait_and_say_how_to_record_them_or_to_turn_it_off() -> None:
    verdict = judge(shadow(), RULES)
    assert verdict.decision == "wait"
    assert "request log" in verdict.reason
    assert "shadow: off" in verdict.reason
    assert set(outcomes(verdict).values()) == {"unknown"}


def test_a_challenger_that_cannot_answer_is_rejected_although_it_is_right_where_it_can() -> None:
    verdict = judge(shadow(120, 40, 840, failures=40), RULES)
    assert verdict.decision == "reject"
    assert "failed on 40 of 1,040" in verdict.reason
    dead = judge(shadow(failures=300), RULES)
    assert dead.decision == "reject"


def test_a_few_failures_that_could_be_chance_wait() -> None:
    verdict = judge(shadow(120, 10, 70, failures=4), RULES)
    assert outcomes(verdict) == {"comparison": "ok", "agreement": "exempt", "failures": "unknown"}
    assert verdict.decision == "wait"
    assert judge(shadow(120, 40, 840, failures=5), RULES).decision == "promote"


@pytest.mark.parametrize(
    "broken",
    [shadow(wins=10, requests=5), shadow(wins=-1, losses=2, requests=10), shadow(wins=float("nan"), requests=5)],  # type: ignore[arg-type]
)
def test_counts_that_contradict_each_other_wait(broken: ShadowEvidence) -> None:
    verdict = judge(broken, RULES)
    assert verdict.decision == "wait"
    assert "contradict" in verdict.reason


@pytest.mark.parametrize(("worse_by", "wrong"), [(0.02, "promote"), (0.0, "reject")])
def test_asking_ten_times_is_wrong_no_more_often_than_promised(worse_by: float, wrong: str) -> None:
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(400):
        daily = rng.multinomial(200, [0.06 - worse_by / 2, 0.06 + worse_by / 2, 0.88], 10).cumsum(axis=0)
        for wins, losses, ties in daily.tolist():
            decision = judge(shadow(wins, losses, ties), RULES).decision
            if decision != "wait":
                errors += decision == wrong
                break
    assert errors / 400 <= 0.05


def test_the_evidence_has_mean_one_at_its_bound() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(40, [0.10, 0.12, 0.78], 10_000)
    values = [np.exp(side(*counts, -0.02).log_e) for counts in draws.tolist()]
    assert np.mean(values) == pytest.approx(1, abs=0.06)


def test_a_verdict_is_plain_json() -> None:
    verdict = judge(shadow(3, 2, 20), RULES)
    json.dumps(to_plain(verdict), allow_nan=False)
    for finding in verdict.findings:
        json.dumps([finding.value, finding.interval, finding.n, dict(finding.evidence)])


# Live, beside Production.

LIVE = Shadow(live=timedelta(hours=1), live_requests=300)
BETTER = shadow(120, 40, 840)


def live(minutes: float, requests: int, failures: int = 0) -> ShadowEvidence:
    since = SPAN.end - timedelta(minutes=minutes) if requests else None
    return replace(BETTER, live=LiveShadow(since=since, requests=requests, failures=failures))


def test_a_live_shadow_has_to_last_and_to_answer_enough() -> None:
    assert judge(live(60, 300), LIVE).decision == "promote"
    for seen, missing in (
        (live(59, 300), "answered live for 59 minutes of 1 hour so far"),
        (live(60, 299), "299 of 300 live requests"),
        (live(0, 0), "no live request yet"),
        (BETTER, "no live request yet"),
    ):
        verdict = judge(seen, LIVE)
        assert (verdict.decision, outcomes(verdict)["live"]) == ("wait", "unknown")
        assert missing in verdict.reason


def test_a_policy_without_a_live_shadow_asks_for_none() -> None:
    assert "live" not in outcomes(judge(BETTER, RULES))
    assert judge(live(1, 1, 1), RULES).decision == "promote"


def test_live_failures_are_not_hidden_by_many_replayed_requests() -> None:
    seen = replace(live(60, 400, 40), requests=20_000)
    assert judge(seen, LIVE).decision == "reject"
    assert "failed on 40 of 400 live requests: more than 1%" in judge(seen, LIVE).reason
    assert judge(live(60, 400, 6), LIVE).decision == "wait", "too few to tell"
    assert judge(live(60, 400, 4), LIVE).decision == "promote"
    assert judge(live(5, 60, 50), LIVE).decision == "reject", "what is shown needs no hour"


@pytest.mark.parametrize(("requests", "failures"), [(1, 2), (-1, 0), (5, -1)])
def test_live_counts_that_contradict_each_other_promote_nobody(requests: int, failures: int) -> None:
    broken = LiveShadow(since=SPAN.start, requests=requests, failures=failures)
    verdict = judge(replace(BETTER, live=broken), LIVE)
    assert verdict.decision == "wait"
    assert "contradict each other" in verdict.reason


# What it could have seen.


def test_an_answer_says_which_loss_would_have_been_found() -> None:
    promoted = judge(shadow(500, 500, 19_000), RULES)
    assert re.search(r"with 20,000 labels a loss of 0\.\d+% or more would have been found", promoted.reason)
    assert "with 3 labels not even losing all of them would have been found" in judge(shadow(0, 0, 3), RULES).reason
    assert "would have been found" not in judge(shadow(requests=50), RULES).reason


@pytest.mark.parametrize(("labels", "differ"), [(400, 0.1), (2000, 0.1), (2000, 0.3)])
def test_that_loss_is_found_nineteen_times_of_twenty(labels: int, differ: float) -> None:
    loss = smallest_visible(labels, differ, -np.log(RULES.false_promotion))
    assert loss is not None
    both = max(differ, loss)
    shares = [(both - loss) / 2, (both + loss) / 2, 1 - both]
    draws = np.random.default_rng(0).multinomial(labels, shares, 400)
    found = [side(int(lost), int(won), int(ties), 0.0).log_e >= -np.log(0.05) for won, lost, ties in draws]
    assert 0.92 <= np.mean(found) <= 0.98
