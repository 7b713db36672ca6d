"""Durations as a user writes them."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import OptionError
from millstream.windows.duration import parse_duration_us

UNITS_US = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3_600 * 10**6,
    "d": 86_400 * 10**6,
    "w": 7 * 86_400 * 10**6,
}


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("90s", 90_000_000),
        ("1h 30m", 5_400_000_000),
        ("1h30m", 5_400_000_000),
        ("  2 d  ", 172_800_000_000),
        ("1.5ms", 1_500),
        ("0s", 0),
        ("1w 1us", 604_800_000_001),
    ],
)
def test_a_text_is_the_sum_of_its_parts(text: str, microseconds: int) -> None:
    assert parse_duration_us(text) == microseconds


@given(parts=st.lists(st.tuples(st.integers(0, 999), st.sampled_from(list(UNITS_US))), min_size=1))
def test_whole_parts_add_up_exactly(parts: list[tuple[int, str]]) -> None:
    text = " ".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration_us(text) == sum(number * UNITS_US[unit] for number, unit in parts)


@given(number=st.decimals(0, 10**6, places=3), unit=st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_fractions_are_exact_to_the_microsecond(number: object, unit: str) -> None:
    assert parse_duration_us(f"{number}{unit}") == Fraction(str(number)) * UNITS_US[unit]


@given(duration=st.timedeltas())
def test_a_timedelta_is_taken_exactly(duration: timedelta) -> None:
    assert timedelta(microseconds=parse_duration_us(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "  ", "5", "h", "1 hour", "1x", "-1s", "1h,30m", "1..5s", ".5s", "1e3s", "s1"]
)
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(OptionError, match="not a duration"):
        parse_duration_us(text)


def test_another_type_is_no_duration() -> None:
    with pytest.raises(OptionError, match="not a duration: 5"):
        parse_duration_us(5)  # type: ignore[arg-type]  # what a user may give
