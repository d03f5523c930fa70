"""Counters as increases: whole numbers, none lost, none made up, the same whoever asks when."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.counters import Series, by_look, fitted, fitted_labels, increases, restarts

SECOND = 1000


def series(*counts: int, start: int = 0, **labels: str) -> Series:
    """Samples every second."""
    return Series(labels, tuple((start + number * SECOND, count) for number, count in enumerate(counts)))


def test_differences_are_counted_and_the_first_sample_is_not() -> None:
    assert increases(series(100, 103, 103, 110), frozenset(), []) == [(1000, 3), (2000, 0), (3000, 7)]


def test_a_counter_that_began_while_its_process_was_looked_at_counts_from_zero() -> None:
    began = series(4, 9, start=5000)
    assert increases(began, frozenset(), [4000, 5000, 6000]) == [(5000, 4), (6000, 5)]
    assert increases(began, frozenset(), [5000, 6000]) == [(6000, 5)], "whoever has only begun to look does not know"


def test_after_a_restart_the_count_is_what_came_since() -> None:
    assert increases(series(10, 12, 3, 5), frozenset(), []) == [(1000, 2), (2000, 3), (3000, 2)]


def test_a_restart_seen_in_one_counter_is_one_of_all_counters_of_the_process() -> None:
    """The busy one passed its old value before it was seen again; read alone, it would have 20 instead of 40."""
    quiet = series(5, 1, job="a", instance="x")
    busy = series(20, 40, job="a", instance="x")
    other = series(20, 40, job="a", instance="y")
    found = restarts([quiet, busy, other])
    assert increases(busy, found["a", "x"], []) == [(1000, 40)]
    assert increases(other, found["a", "y"], []) == [(1000, 20)]


def test_a_sample_at_the_end_of_a_look_belongs_to_it() -> None:
    found = [(0, 1), (1, 2), (1000, 4), (1001, 8), (2000, 16), (2001, 32)]
    assert by_look(found, start=0, tick=1000, looks=2) == [6, 24]


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    every=st.integers(1, 7000),
    tick=st.integers(1, 9000),
    cut=st.integers(0, 60),
)
def test_nothing_is_lost_and_a_later_question_has_the_same_answer_about_the_past(
    steps: list[int], every: int, tick: int, cut: int
) -> None:
    counts = [sum(steps[: number + 1]) for number in range(len(steps))]
    whole = Series({}, tuple((every * (number + 1), count) for number, count in enumerate(counts)))
    looks = -(-whole.samples[-1][0] // tick)
    found = by_look(increases(whole, frozenset(), [0]), start=0, tick=tick, looks=looks)
    assert sum(found) == counts[-1]
    asked = min(looks, cut)
    early = Series({}, tuple(one for one in whole.samples if one[0] <= asked * tick))
    assert by_look(increases(early, frozenset(), [0]), start=0, tick=tick, looks=asked) == found[:asked]


def test_what_is_counted_a_scrape_early_goes_into_the_next_look() -> None:
    assert fitted([2, 0, 5], [3, 0, 1]) == ([2, 0, 2], 0)
    assert fitted([2, 0], [3, 2]) == ([2, 0], 3)


def test_labels_keep_their_order_and_their_share_of_wrong_ones() -> None:
    assert fitted_labels([10, 10], [10, 10], [1, 9]) == [(10, 1), (10, 9)]
    assert fitted_labels([4, 10, 0], [10, 2, 5], [5, 2, 0]) == [(4, 2), (8, 5), (0, 0)]
    half = fitted_labels([50] * 10, [100] * 10, [15] * 10)
    assert sum(some for some, _ in half) == 500
    assert 70 <= sum(bad for _, bad in half) <= 75, "those that do not fit take their wrong ones with them"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), max_size=20))
def test_labels_never_contradict_the_requests(rows: list[tuple[int, int, int]]) -> None:
    requests = [one for one, _, _ in rows]
    labelled = [some for _, some, _ in rows]
    wrong = [min(some, bad) for _, some, bad in rows]
    found = fitted_labels(requests, labelled, wrong)
    assert all(0 <= bad <= some <= total for total, (some, bad) in zip(requests, found, strict=True))
    for k in range(len(rows)):
        assert sum(some for some, _ in found[: k + 1]) <= sum(labelled[: k + 1]), "none before it came"
    assert sum(bad for _, bad in found) <= sum(wrong)
