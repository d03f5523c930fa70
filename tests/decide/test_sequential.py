"""The e-process: looking every minute does not raise more alarms than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.decide.eprocess import trace
from tasks.decide.sequential import ODDS, at_once, mixed, replay, smallest_visible

ALARM = math.log(100)


def alarms(rng: np.random.Generator, rate: float, p0: float, *, looks: int, requests: int, watches: int) -> np.ndarray:
    bad = rng.binomial(requests, rate, (watches, looks))
    return replay(bad, np.full((watches, looks), requests), p0, looks).max(axis=-1) >= ALARM


@pytest.mark.parametrize(("p0", "looks", "requests"), [(0.1, 30, 20), (0.01, 30, 100), (0.05, 240, 10)])
def test_a_healthy_version_raises_an_alarm_in_at_most_one_watch_of_a_hundred(
    p0: float, looks: int, requests: int
) -> None:
    raised = alarms(np.random.default_rng(0), p0, p0, looks=looks, requests=requests, watches=4000)
    assert raised.mean() <= 0.01


def test_its_mean_under_the_tolerated_rate_is_exactly_one() -> None:
    chance = np.array([math.comb(5, bad) * 0.1**bad * 0.9 ** (5 - bad) for bad in range(6)])
    paths = np.array([(one, two, three) for one in range(6) for two in range(6) for three in range(6)])
    e = np.exp(replay(paths, np.full(paths.shape, 5), 0.1, 3)[:, -1])
    assert (chance[paths].prod(axis=1) * e).sum() == pytest.approx(1)


def test_a_bad_version_is_found_early_and_a_late_change_soon() -> None:
    rng = np.random.default_rng(0)
    found = replay(rng.binomial(20, 0.3, (200, 30)), np.full((200, 30), 20), 0.1, 30) >= ALARM
    assert np.median(found.argmax(axis=1)) <= 5
    rates = np.where(np.arange(240) < 120, 0.01, 0.05)
    late = replay(rng.binomial(100, rates, (100, 240)), np.full((100, 240), 100), 0.01, 240) >= ALARM
    assert late.any(axis=1).all()
    assert np.median(late.argmax(axis=1)) <= 132


def test_looks_without_requests_change_nothing_beyond_the_restarts() -> None:
    quiet = replay([3, 0, 0, 0], [10, 0, 0, 0], 0.1, 4)
    assert quiet == pytest.approx(np.full(4, quiet[0]))


def test_a_replay_gives_the_same_answer_and_a_longer_one_keeps_the_past() -> None:
    bad, total = [1, 4, 0, 7], [20, 30, 10, 40]
    assert replay(bad, total, 0.1, 30)[:2] == pytest.approx(replay(bad[:2], total[:2], 0.1, 30))


def test_the_first_look_is_the_formula() -> None:
    expected = 0.3
    for ratio in ODDS:
        odds = ratio / 9
        p1 = odds / (1 + odds)
        expected += 0.7 / 4 * (p1 / 0.1) ** 3 * ((1 - p1) / 0.9) ** 7
    assert replay([3], [10], 0.1, 5)[0] == pytest.approx(math.log(expected))


def test_a_concurrent_baseline_may_set_the_tolerated_share_of_every_look() -> None:
    rng = np.random.default_rng(0)
    canary, baseline = np.linspace(10, 200, 30).astype(int), np.full(30, 300)  # traffic ramps up
    shared = np.where(np.arange(30) % 10 < 3, 0.05, 0.01)  # incidents that hit both
    errors = rng.binomial(canary, shared, (2000, 30)), rng.binomial(baseline, shared, (2000, 30))
    share = 1.2 * canary / (1.2 * canary + baseline)
    raised = replay(errors[0], errors[0] + errors[1], share, 30).max(axis=-1) >= ALARM
    assert raised.mean() <= 0.01


def test_more_looks_than_planned_are_judged_too() -> None:
    assert replay([0] * 3 + [20] * 3, [20] * 6, 0.1, 3)[-1] > ALARM


@pytest.mark.parametrize(
    ("bad", "total", "p0", "planned"),
    [
        ([2], [1], 0.1, 1),
        ([math.nan], [1], 0.1, 1),
        ([-1], [1], 0.1, 1),
        ([0], [1], 0.0, 1),
        ([0], [1], 1.0, 1),
        ([0], [1], 0.1, 0),
    ],
)
def test_impossible_counts_are_refused(bad: list[float], total: list[int], p0: float, planned: int) -> None:
    with pytest.raises(ValueError, match=r"must be|planned"):
        replay(bad, total, p0, planned)


def test_the_mean_of_several_is_one_of_them() -> None:
    one = replay([3, 9], [10, 10], 0.1, 5)
    assert mixed([one, one]) == pytest.approx(one)
    assert mixed([one, np.zeros(2)])[-1] == pytest.approx(math.log((math.exp(one[-1]) + 1) / 2))
    with pytest.raises(ValueError, match="at least one metric"):
        mixed([])


def test_counts_without_an_order_bet_everything_at_once() -> None:
    assert at_once(0, 0, 0.01) == pytest.approx(0)
    rng = np.random.default_rng(0)
    values = [math.exp(at_once(int(bad), 50, 0.1)) for bad in rng.binomial(50, 0.1, 20_000)]
    assert np.mean(values) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("requests", "rate"), [(500, 0.03), (2000, 0.019)])
def test_the_smallest_visible_rate_is_the_published_one(requests: int, rate: float) -> None:
    assert smallest_visible(requests, 0.01, ALARM) == pytest.approx(rate, rel=0.15)


def test_what_is_visible_would_indeed_have_raised_the_alarm() -> None:
    rate = smallest_visible(600, 0.1, ALARM)
    assert rate is not None
    counts = np.full(30, 20)
    assert replay(rate * counts, counts, 0.1, 30).max() >= ALARM - 1e-6
    assert smallest_visible(3, 0.5, ALARM) is None
    assert smallest_visible(0, 0.1, ALARM) is None


@pytest.mark.parametrize("planned", [1, 2, 30, 200])
def test_one_process_in_plain_numbers_is_the_same_as_many_in_arrays(planned: int) -> None:
    rng = np.random.default_rng(planned)
    total = rng.integers(0, 5_000, 200)
    for p0, truth in ((0.05, 0.04), (0.1, 0.3), (0.01, 0.5), (0.5, 0.0)):
        bad = rng.binomial(total, truth)
        plain = trace(bad.tolist(), total.tolist(), p0, planned)
        assert plain == pytest.approx(replay(bad, total, p0, planned).tolist(), rel=1e-9, abs=1e-9)
        assert all(map(math.isfinite, plain))


@pytest.mark.parametrize(
    ("bad", "total", "p0", "planned"),
    [([3], [2], 0.1, 1), ([-1], [2], 0.1, 1), ([1], [2], 0.0, 1), ([1], [2], 1.0, 1), ([1], [2], 0.1, 0)],
)
def test_plain_numbers_that_cannot_be_are_refused(bad: list[int], total: list[int], p0: float, planned: int) -> None:
    with pytest.raises(ValueError, match=r"counts|tolerated|planned"):
        trace(bad, total, p0, planned)
