"""Criteria that people write as text, on a command line and in the search box of the page."""

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import InvalidInput
from jobhistory.query.terms import in_list, read_coming_moment, read_list, read_moment

NOW = datetime(2026, 11, 28, 1, 30, 15, tzinfo=UTC)  # a Saturday, but still Friday in New York
NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-11-28T01:30:15"),
        ("10m", "2026-11-28T01:20:15"),
        ("2 h ago", "2026-11-27T23:30:15"),
        ("2 Hours  Ago", "2026-11-27T23:30:15"),
        ("today", "2026-11-28T00:00:00"),
        (" Today ", "2026-11-28T00:00:00"),
        ("today 0:45", "2026-11-28T00:45:00"),
        ("yesterday", "2026-11-27T00:00:00"),
        ("yesterday  14:05", "2026-11-27T14:05:00"),
        ("saturday", "2026-11-28T00:00:00"),
        ("sunday", "2026-11-22T00:00:00"),
        ("monday 9:00", "2026-11-23T09:00:00"),
        ("2026-11-01", "2026-11-01T00:00:00"),
        ("2026-11-01 14:00", "2026-11-01T14:00:00"),
        ("2026-11-01T14:00+02:00", "2026-11-01T12:00:00"),
    ],
)
def test_a_time_is_a_date_a_duration_before_now_or_a_word(text, expected):
    assert read_moment(text, "--since", NOW) == datetime.fromisoformat(expected + "Z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("today", datetime(2026, 11, 27, 5, tzinfo=UTC)),
        ("yesterday 14:00", datetime(2026, 11, 26, 19, tzinfo=UTC)),
        ("sunday", datetime(2026, 11, 22, 5, tzinfo=UTC)),
        ("2026-11-27", datetime(2026, 11, 27, 5, tzinfo=UTC)),
        ("2026-07-01 14:00", datetime(2026, 7, 1, 18, tzinfo=UTC)),
        ("2026-07-01 14:00Z", datetime(2026, 7, 1, 14, tzinfo=UTC)),
    ],
)
def test_days_and_times_without_an_offset_are_those_of_a_time_zone(text, expected):
    assert read_moment(text, "--since", NOW, NEW_YORK) == expected


def test_a_day_may_be_longer_than_24_hours():
    later = datetime(2026, 11, 2, 12, tzinfo=UTC)  # the day after the clocks went back
    today, yesterday = (
        read_moment(word, "--since", later, NEW_YORK) for word in ("today", "yesterday")
    )
    assert today - yesterday == timedelta(hours=25)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no tzset()")
def test_the_time_zone_of_this_machine(monkeypatch):
    before = os.environ.get("TZ")
    try:
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        for text in ("today", "yesterday 14:00", "monday", "2026-07-01 14:00"):
            expected = read_moment(text, "--since", NOW, NEW_YORK)
            assert read_moment(text, "--since", NOW, None) == expected
    finally:
        monkeypatch.setenv("TZ", before) if before else monkeypatch.delenv("TZ")
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "tomorrow",
        "today 24:00",
        "today 9",
        "today14:00",
        "ago",
        "2h before",
        "moonday",
        "2026-13-01",
    ],
)
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(InvalidInput, match="'2h', 'today' or '2026-11-01'") as caught:
        read_moment(text, "--since", NOW)
    assert (caught.value.argument, caught.value.value) == ("--since", text)


def test_a_day_before_the_year_1_is_no_error_of_ours():
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    with pytest.raises(InvalidInput):
        read_moment("yesterday", "--since", datetime(1, 1, 1, tzinfo=UTC), first.tzinfo)


def test_a_list_has_commas_and_a_comma_of_a_value_has_a_backslash():
    assert read_list(["failed,started", "cancelled"]) == ["failed", "started", "cancelled"]
    assert read_list([r"a\,b,c"]) == ["a,b", "c"]
    assert read_list(["a\\", "b\\c,d"]) == ["a\\", "b\\c", "d"]
    assert read_list(None) == []


@given(st.lists(st.one_of(st.text(), st.text(alphabet="a\\,"))))
def test_every_value_can_be_written_in_a_list(values):
    assert read_list(map(in_list, values)) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", "2026-11-28T14:00+00:00"),
        ("in 3 days", "2026-12-01T12:00+00:00"),
        ("2026-12-24", "2026-12-24T00:00+00:00"),
        ("2026-12-24T08:00+02:00", "2026-12-24T06:00+00:00"),
        ("today 18:00", "2026-11-28T18:00+00:00"),
        ("tomorrow", "2026-11-29T00:00+00:00"),
        ("Saturday", "2026-12-05T00:00+00:00"),
        ("monday 9:00", "2026-11-30T09:00+00:00"),
    ],
)
def test_times_to_come(text, expected):
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)  # a Saturday
    assert read_coming_moment(text, "--until", now) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text", ["", "now", "today 11:00", "2h ago", "2026-11-28", "tomorrow 25:00"]
)
def test_times_that_do_not_come(text):
    with pytest.raises(InvalidInput, match=r"--until .* write it like '2h'"):
        read_coming_moment(text, "--until", datetime(2026, 11, 28, 12, tzinfo=UTC))
