"""Quantities are read as people write them, and nothing is guessed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.units import format_duration, format_size, parse_duration, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", timedelta(days=30)),
        ("90s", timedelta(seconds=90)),
        ("50ms", timedelta(milliseconds=50)),
        ("1.5h", timedelta(hours=1.5)),
        ("15m", timedelta(minutes=15)),
        ("2 w", timedelta(days=14)),
        ("1h30m", timedelta(minutes=90)),
    ],
)
def test_durations_read_as_people_write_them(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("value", [30, 1.5, True, "30", "", "d", "-3d", "3 parsecs", "1d or so", None, [1]])
def test_a_duration_without_a_unit_is_an_error_that_shows_the_value_and_the_way_out(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no duration; write a number and a unit, such as 30d") as caught:
        parse_duration(value)
    assert repr(value) in str(caught.value)


@given(st.integers(min_value=1, max_value=10**11))
@settings(max_examples=60, deadline=None)
def test_a_formatted_duration_is_read_back_exactly(milliseconds: int) -> None:
    length = timedelta(milliseconds=milliseconds)
    assert abs(parse_duration(format_duration(length)) - length) <= timedelta(microseconds=1)


@given(st.sampled_from(["d", "h", "m", "s"]), st.integers(min_value=1, max_value=10_000))
@settings(max_examples=60, deadline=None)
def test_whole_durations_come_back_without_loss(unit: str, number: int) -> None:
    length = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(length)) == length


@pytest.mark.parametrize(
    ("value", "expected"),
    [("20%", 0.2), ("2pt", 0.02), ("3pp", 0.03), (0.2, 0.2), (1, 1.0), ("0.5", 0.5), ("-2pt", -0.02)],
)
def test_shares_in_percent_points_and_plain_numbers(value: object, expected: float) -> None:
    assert parse_share(value) == expected


@pytest.mark.parametrize("value", [True, "", "a lot", "5 percent", "1e-3%", None])
def test_what_is_no_share_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no share; write 20%"):
        parse_share(value)


@given(st.integers(min_value=0, max_value=100))
@settings(max_examples=40, deadline=None)
def test_points_are_exactly_the_decimal_they_read_as(points: int) -> None:
    assert parse_share(f"{points}pt") == float(f"{points / 100:.2f}")


@pytest.mark.parametrize(
    ("value", "expected"), [("500MB", 500_000_000), ("1.5GiB", 1_610_612_736), ("12B", 12), (7, 7), ("3 KB", 3000)]
)
def test_sizes_decimal_and_binary(value: object, expected: int) -> None:
    assert parse_size(value) == expected


@pytest.mark.parametrize("value", [True, "500", "500mb", "", 1.5, None])
def test_a_size_without_a_known_unit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no size; write a number and a unit"):
        parse_size(value)


@given(st.integers(min_value=1, max_value=10**12))
@settings(max_examples=60, deadline=None)
def test_a_formatted_size_is_read_back_to_three_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)
