"""Cause: what every version suffers from rolls none back, and what only one does is no excuse for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest

from tasks.decide.health import judge
from tasks.policy import Health
from tasks.records import Beside, Finding, HealthEvidence, Look, Verdict

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = Health()
LOOKS = 30


def look(minute: int, requests: int, **bad: int) -> Look:
    counts = {"errors": 0, "slow": 0, "labelled": 0, "wrong": 0} | bad
    return Look(start=START + minute * MINUTE, requests=requests, **counts)


def evidence(
    ours: list[Look], other: list[Look] | None, role: Literal["canary", "shadow"] = "canary"
) -> HealthEvidence:
    now = START + len(ours) * MINUTE
    seen = HealthEvidence(looks=tuple(ours), now=now, started=START, last_request=now)
    if other is None:
        return replace(seen, alone="no other version answers at the same time")
    return replace(seen, beside=Beside(version="2", role=role, looks=tuple(other)))


def verdict(ours: list[Look], other: list[Look] | None, **changes: Any) -> Verdict:
    seen = evidence(ours, other, changes.pop("role", "canary"))
    return judge(seen, changes.pop("rules", RULES), problem="binary", planned_looks=LOOKS)


def cause(result: Verdict) -> Finding:
    return next(one for one in result.findings if one.name == "shared_cause")


def test_both_bad_at_once_is_frozen_and_asks_for_a_person() -> None:
    ours, other = [look(i, 95, errors=40) for i in range(10)], [look(i, 50, errors=20) for i in range(10)]
    result = verdict(ours, other)
    assert result.decision == "frozen"
    assert (cause(result).outcome, cause(result).evidence["page"]) == ("breach", True)
    assert "a cause that both share, which no rollback mends" in result.reason
    assert "error_rate: 200 of its 500 requests failed" in cause(result).reason


def test_bad_beside_a_version_that_does_well_is_the_versions_own() -> None:
    ours, other = [look(i, 95, errors=40) for i in range(10)], [look(i, 50, errors=1) for i in range(10)]
    result = verdict(ours, other)
    assert result.decision == "unhealthy"
    assert cause(result).outcome == "ok"
    assert "the cause is the version's own" in result.reason


def test_as_long_as_the_other_has_answered_too_little_nothing_moves() -> None:
    ours, other = [look(i, 95, errors=40) for i in range(5)], [look(i, 1) for i in range(5)]
    result = verdict(ours, other)
    assert result.decision == "frozen"
    assert (cause(result).outcome, cause(result).evidence["page"]) == ("unknown", True)
    assert "has not answered enough to tell" in result.reason


@pytest.mark.parametrize(
    "other",
    [
        None,
        [look(i, 0) for i in range(10)],
        [look(i + 3, 50) for i in range(10)],
        [look(i, 50, errors=51) for i in range(10)],
        [look(i, 50, errors=-1) for i in range(10)],
    ],
)
def test_without_a_second_version_it_is_said_what_cannot_be_known_and_it_goes_back_as_ever(
    other: list[Look] | None,
) -> None:
    result = verdict([look(i, 95, errors=40) for i in range(10)], other)
    assert result.decision == "unhealthy"
    assert cause(result).outcome == "unknown"
    assert (
        "it cannot be told whether the cause is the version's own; it was bad from the first look on" in result.reason
    )


def test_without_a_second_version_it_is_said_when_it_began() -> None:
    ours = [look(i, 95, errors=1 if i < 12 else 50) for i in range(16)]
    result = verdict(ours, None)
    assert "it was bad 12 minutes after the start of this watch" in result.reason
    assert cause(result).evidence["began"] == (START + 12 * MINUTE).isoformat()


def test_a_shadow_tells_of_wrong_answers_and_not_of_failures() -> None:
    failing = [look(i, 95, errors=40) for i in range(10)]
    alone = verdict(failing, [look(i, 50, errors=20) for i in range(10)], role="shadow")
    assert alone.decision == "unhealthy"
    assert "shares no failure" in cause(alone).reason
    wrong = [look(i, 100, labelled=100, wrong=60) for i in range(10)]
    assert verdict(wrong, wrong, role="shadow").decision == "frozen"
    right = [look(i, 100, labelled=100, wrong=5) for i in range(10)]
    assert verdict(wrong, right, role="shadow").decision == "unhealthy"


def test_another_version_is_looked_at_by_what_the_watched_one_is_bad_at() -> None:
    """Slow all the same, but it does not fail: the failures are the watched version's own."""
    ours = [look(i, 95, errors=40) for i in range(10)]
    assert verdict(ours, [look(i, 50, slow=50) for i in range(10)]).decision == "unhealthy"


def test_a_healthy_version_is_never_asked_for_its_cause() -> None:
    ours = [look(i, 95, errors=2) for i in range(LOOKS)]
    result = verdict(ours, [look(i, 50, errors=40) for i in range(LOOKS)])
    assert result.decision == "healthy"
    assert all(one.name != "shared_cause" for one in result.findings)


def test_when_an_incident_of_both_is_over_the_watch_goes_on_without_it() -> None:
    def arm(requests: int, **after: int) -> list[Look]:
        return [look(i, requests, errors=requests // 2) if i < 8 else look(i, requests, **after) for i in range(14)]

    result = verdict(arm(100), arm(50))
    assert result.decision == "unknown", "nothing is healthy before its time, and nothing is rolled back"
    assert "left out: until 2026-03-02 09:08:00 UTC version 2, a canary, is bad at the same time" in result.reason
    assert not any(one.evidence.get("page") for one in result.findings)
    own = verdict(
        [*arm(100)[:8], *(look(i, 100, errors=60) for i in range(10, 24))],
        [*arm(50)[:8]] + [look(i, 50) for i in range(10, 24)],
    )
    assert own.decision == "frozen", "as long as it never ended it is one incident"


def test_what_it_does_alone_after_an_incident_of_both_is_its_own() -> None:
    ours = [look(i, 100, errors=50 if i < 8 or i >= 12 else 0) for i in range(18)]
    other = [look(i, 50, errors=25 if i < 8 else 0) for i in range(18)]
    decisions = [verdict(ours[:end], other[:end]).decision for end in range(3, 19)]
    assert decisions[:6] == ["frozen"] * 6
    assert "unknown" in decisions[6:]
    assert decisions[-1] == "unhealthy"


def gone(ours: list[Look], other: list[Look]) -> Verdict:
    seen = evidence(ours, other)
    assert seen.beside is not None
    left = replace(seen, beside=replace(seen.beside, serving=False))
    return judge(left, RULES, problem="binary", planned_looks=LOOKS)


def test_what_both_went_through_stays_shared_when_the_other_has_gone() -> None:
    ours = [look(i, 95, errors=40) for i in range(10)]
    other = [look(i, 50, errors=20) if i < 6 else look(i, 0) for i in range(10)]
    assert gone(ours, other).decision == "frozen"


def test_a_canary_that_was_bad_and_has_gone_excuses_nothing_that_came_later() -> None:
    ours = [look(i, 95, errors=0 if i < 8 else 40) for i in range(16)]
    other = [look(i, 50, errors=30) if i < 6 else look(i, 0) for i in range(16)]
    result = gone(ours, other)
    assert result.decision == "unhealthy"
    assert "had gone before that could be told" in result.reason


# As often as promised.


def ended(draw: np.random.Generator, ours: float, other: float, *, share: float, begin: int) -> str:
    """What a watch of a minute a look first does: ``unhealthy`` is a rollback, and it is then over."""
    total, beside = draw.poisson(200 * (1 - share), LOOKS), draw.poisson(200 * share, LOOKS)
    rates = np.where(np.arange(LOOKS) < begin, 0.01, 1.0)
    bad = draw.binomial(total, np.where(rates < 1, rates, ours))
    worse = draw.binomial(beside, np.where(rates < 1, rates, other))
    mine = [look(i, int(total[i]), errors=int(bad[i])) for i in range(LOOKS)]
    theirs = [look(i, int(beside[i]), errors=int(worse[i])) for i in range(LOOKS)]
    decisions = [verdict(mine[:end], theirs[:end]).decision for end in range(begin + 1, LOOKS + 1)]
    return "unhealthy" if "unhealthy" in decisions else decisions[-1]


def test_incidents_of_both_arms_roll_back_as_rarely_as_promised_and_all_are_frozen() -> None:
    draw = np.random.default_rng(3)
    seen = [
        ended(draw, rate, rate, share=share, begin=int(draw.integers(0, 15)))
        for rate in (0.2, 0.4, 0.9)
        for share in (0.05, 0.25, 0.5)
        for _ in range(8)
    ]
    assert seen.count("unhealthy") <= 1
    assert seen.count("frozen") >= len(seen) - 1


def test_what_only_the_watched_version_suffers_from_is_rolled_back() -> None:
    draw = np.random.default_rng(4)
    seen = [
        ended(draw, rate, 0.01, share=share, begin=int(draw.integers(0, 15)))
        for rate in (0.3, 0.9)
        for share in (0.05, 0.25, 0.5)
        for _ in range(6)
    ]
    assert seen.count("unhealthy") >= len(seen) - 1
