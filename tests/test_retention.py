from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import InvalidInput
from jobhistory._runtime.durations import parse_duration, parse_retention

NOW = datetime(2015, 11, 1, tzinfo=UTC)
UNITS = {
    "seconds": ["s", "sec", "secs", "second", "seconds"],
    "minutes": ["m", "min", "mins", "minute", "minutes"],
    "hours": ["h", "hr", "hrs", "hour", "hours"],
    "days": ["d", "day", "days"],
    "weeks": ["w", "wk", "wks", "week", "weeks"],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 days", timedelta(days=30)),
        ("12h", timedelta(hours=12)),
        ("1 week 2 days", timedelta(days=9)),
        ("1d12h", timedelta(hours=36)),
        ("1.5 hours", timedelta(minutes=90)),
        ("2 Weeks, 1 day", timedelta(days=15)),
        ("0.5s", timedelta(milliseconds=500)),
    ],
)
def test_durations_are_written_as_people_write_them(text, expected):
    assert parse_duration(text, "x") == expected


@given(
    st.fixed_dictionaries({}, optional={unit: st.integers(0, 500) for unit in UNITS}).filter(
        lambda parts: any(parts.values())
    ),
    st.data(),
)
def test_every_unit_in_every_spelling_adds_up(parts, data):
    words = [  # the largest unit first
        f"{count}{data.draw(st.sampled_from(['', ' ']))}{data.draw(st.sampled_from(UNITS[unit]))}"
        for unit, count in sorted(parts.items(), key=lambda part: list(UNITS).index(part[0]))
    ][::-1]
    assert parse_duration(" ".join(words), "x") == timedelta(**parts)


@given(st.text() | st.text("0123456789.:-+ dhmsw", max_size=20))
def test_any_text_is_a_positive_duration_or_invalid_input_that_quotes_it(text):
    try:
        assert parse_duration(text, "x") > timedelta(0)
    except InvalidInput as error:
        assert str(error).startswith("x ")
        assert "write it like '30 days' or '12h'" in str(error)
        assert error.value == text


@given(st.timedeltas() | st.integers() | st.floats() | st.none() | st.binary())
def test_any_value_is_a_retention_within_the_calendar_or_invalid_input(value):
    try:
        retention = parse_retention(value, now=NOW)
    except InvalidInput as error:
        assert error.argument == "history_retention"
    else:
        assert retention is None or NOW + retention > NOW


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "30", "1e3 days", "1 month", "1:30", "-3 days", "0 days", "0.0000001s",
     "9" * 90 + " days", "1" * 5000 + " days", "3 days ago", "1.2.3 days", "\x00"],
)  # fmt: skip
def test_an_unreadable_duration_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_retention(text, now=NOW)


def test_the_last_moment_of_the_calendar_can_still_be_reached():
    longest = datetime.max.replace(tzinfo=UTC) - NOW
    assert parse_retention(longest, now=NOW) == longest
    with pytest.raises(InvalidInput, match="ends after the year 9999"):
        parse_retention(longest + timedelta(microseconds=1), now=NOW)


@pytest.mark.parametrize("value", [None, "never"])
def test_rows_need_not_expire(value):
    assert parse_retention(value, now=NOW) is None
