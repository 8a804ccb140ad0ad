"""The slots of cron expressions are the times at which Debian's cron starts jobs."""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.local_time import offset_at
from jobhistory.expectations.schedule import Cron
from tests import debian_cron
from tests.checkers import Checker, completed

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)

CHANGES = {
    "Europe/Berlin": (datetime(2026, 3, 29), datetime(2026, 10, 25)),
    "America/New_York": (datetime(2026, 3, 8), datetime(2026, 11, 1)),
    "Australia/Lord_Howe": (datetime(2026, 4, 5), datetime(2026, 10, 4)),  # half an hour
    "Africa/Casablanca": (datetime(2026, 2, 15), datetime(2026, 3, 22)),  # back for Ramadan
    "Africa/Cairo": (datetime(2026, 4, 24), datetime(2026, 10, 30)),  # at midnight
    "Pacific/Apia": (datetime(2011, 12, 30), datetime(2012, 4, 1)),  # skipped a day
}

EXPRESSIONS = (
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "0,30 2 * * *",
    "0 2,3 * * *",
    "0 1-4 * * *",
    "15 1-5/2 * * *",
    "5-25/10 2 * * *",
    "17 0-23 * * *",
    "30 0 * * *",
    "0 0 * * 0",
    "0 0 1 * *",
    "10 2 29 3 *",
    "45 1,2 * * 1-5",
    "* * * * *",
    "*/15 * * * *",
    "*/15 2 * * *",
    "* 2 * * *",
    "*/20 1-3 * * *",
    "0 * * * *",
    "30 * * * *",
    "30 */2 * * *",
    "10,40 */3 * * 6,0",
)


def whole_minutes(starts):
    """Starts without the second that cron takes to wake up, and its pauses after a gap."""
    return [start.replace(second=0) for start in starts]


def times_of(expression, timezone, from_, to):
    """The starts without the second that cron takes to wake up, and its pauses after a gap."""
    starts = debian_cron.starts(timezone, [expression], from_, to)[expression]
    return [start.replace(second=0) for start in starts]


def slots_of(expression, timezone, from_, to):
    """The slots of a period of any length: `slots` returns at most 1,000."""
    cron, found = Cron(expression, timezone), []
    while from_ <= to:
        end = min(to, from_ + timedelta(hours=12) - MICROSECOND)
        found += cron.slots((), from_, end)
        from_ = end + MICROSECOND
    return found


def around(day):
    noon = day.replace(hour=12, tzinfo=UTC)
    return noon - 2 * DAY, noon + 2 * DAY


@pytest.mark.parametrize("timezone", CHANGES)
def test_slots_are_when_debians_cron_starts_jobs_on_days_with_a_clock_change(timezone):
    for day in CHANGES[timezone]:
        from_, to = around(day)
        assert offset_at(timezone, from_) != offset_at(timezone, to)
        for expression in EXPRESSIONS:
            expected = times_of(expression, timezone, from_, to)
            assert slots_of(expression, timezone, from_ + MINUTE, to) == expected, expression


numbers = st.one_of(
    st.just("*"),
    st.sampled_from(["*/2", "*/3", "0", "1", "2", "3", "1,2", "2-3", "0-5/2", "1-4"]),
)
minutes = st.one_of(numbers, st.sampled_from(["*/15", "30", "59", "0,30", "10-50/20"]))
days = st.sampled_from(["*", "1", "25", "29", "*/2", "1-15"])
weekdays = st.sampled_from(["*", "0", "7", "1-5", "6", "*/3"])
expressions = st.builds("{} {} {} * {}".format, minutes, numbers, days, weekdays)
zones = st.sampled_from([*CHANGES])


@given(expressions, zones, st.integers(0, 1))
def test_any_slots_are_when_debians_cron_starts_jobs(expression, timezone, number):
    from_, to = around(CHANGES[timezone][number])
    expected = times_of(expression, timezone, from_, to)
    assert slots_of(expression, timezone, from_ + MINUTE, to) == expected


@given(expressions, zones, st.integers(0, 1), st.integers(0, 3 * 24 * 60 * 60))
def test_the_next_slot_is_the_first_of_those_that_follow(expression, timezone, number, seconds):
    from_, to = around(CHANGES[timezone][number])
    now = from_ + timedelta(seconds=seconds)
    following = slots_of(expression, timezone, now + MICROSECOND, to)
    found = Cron(expression, timezone).next_slot(None, now)
    assert found == following[0] if following else found > to


@given(expressions, zones, st.integers(1, 700))
def test_the_slots_of_adjoining_periods_add_up(expression, timezone, hours):
    from_ = datetime(2026, 2, 1, tzinfo=UTC)
    middle, to = from_ + timedelta(hours=hours), from_ + timedelta(days=60)
    cron = Cron(expression, timezone)
    whole = cron.slots((), from_, to)
    parts = cron.slots((), from_, middle - MICROSECOND) + cron.slots((), middle, to)
    assert whole == parts[-1000:]


def test_a_slot_that_is_years_away_is_found():
    leap_day = Cron("0 12 29 2 *", "Europe/Berlin")
    now = datetime(2096, 2, 29, 11, tzinfo=UTC)
    assert leap_day.next_slot(None, now) == datetime(2104, 2, 29, 11, tzinfo=UTC)


YEAR = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
A_YEAR_IN = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


@pytest.mark.parametrize("timezone", A_YEAR_IN)
def test_a_year_without_and_with_missed_runs(timezone):
    """Cron starts each job when it should: no verdict. Each start that is left out: one."""
    started = debian_cron.starts(timezone, EXPRESSIONS, *YEAR)
    for number, (expression, starts) in enumerate(started.items()):
        random = Random(number)
        for part in parts_of_the_year(timezone, starts):
            checks = [random.choice(part) + random.random() * DAY / 4 for _ in range(30)]
            assert missed_in(expression, timezone, part, checks) == []
            candidates = [start for start in part[2::5] if start + 2 * GRACE < part[-1]]
            dropped = random.sample(candidates, min(4, len(candidates)))
            kept = [start for start in part if start not in dropped]
            checks += [start + GRACE + SECOND for start in dropped]
            checks += [kept[bisect_right(kept, start)] + SECOND for start in dropped]
            due = sorted(start.replace(second=0) for start in dropped)
            assert missed_in(expression, timezone, kept, checks) == due


GRACE = timedelta(minutes=5)


def parts_of_the_year(timezone, starts):
    """The whole year, or of a frequent job the days around the changes of the clocks."""
    if len(starts) < 1000:
        return [starts]
    return [
        [start for start in starts if from_ <= start <= to]
        for from_, to in map(around, CHANGES[timezone])
    ]


def missed_in(expression, timezone, starts, checks):
    """Return the slots that verdicts name, one for each row of checks that name them."""
    expectation = Expectation("task", cron=expression, timezone=timezone, grace=GRACE)
    runs = [completed(start, start + SECOND) for start in starts]
    checker = Checker(expectation, runs, declared_at=starts[0] - MINUTE)
    found, before = [], []
    for now in sorted(checks):
        if starts[0] <= now <= starts[-1]:
            verdicts = checker.check(now).verdicts
            slots = [slot for verdict in verdicts for slot in verdict.slots]
            found += [slot for slot in slots if slot not in before]
            before = slots
    return found


PAGE = Path(__file__).parents[1] / "docs" / "howto" / "clock-changes.md"
ROWS = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)


def in_words(starts, night):
    """Starts from 01:00 to 04:00 in local time, as the table shows them."""
    zone = ZoneInfo("Europe/Berlin")
    local = [start.astimezone(zone) for start in starts]
    shown = [each for each in local if each.date() == night.date() and 1 <= each.hour < 4]
    return "; ".join(
        f"{', '.join(f'{each:%H:%M}' for each in of_name)} {name}"
        for name, of_name in groupby(shown, datetime.tzname)
    )


@pytest.mark.parametrize("expression", [row[0] for row in ROWS])
@pytest.mark.parametrize("times", [times_of, slots_of])
def test_the_documentation_shows_when_debians_cron_starts_jobs(expression, times):
    shown = next(row[1:] for row in ROWS if row[0] == expression)
    found = [
        in_words(times(expression, "Europe/Berlin", *around(night)), night) or "none"
        for night in CHANGES["Europe/Berlin"]
    ]
    assert found == [*shown]


def test_the_documentation_shows_each_kind_of_expression():
    assert len(ROWS) >= 12
