"""How whole buckets and rows cover a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.statistics.cover import Marks, Window, cover, spans_within
from jobhistory.statistics.spans import Span

NOW = datetime(2026, 11, 28, 11, 37, 12, 345, tzinfo=UTC)
ALL = spans_within(None)
BY_DAY = spans_within(timedelta(days=7))
BY_HOUR = spans_within(timedelta(hours=36))


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def day(text):
    return at(text + "T00:00")


def covered(from_=None, to=None, *, spans=ALL, now=NOW, **marks):
    found = cover(from_, to, now=now, spans=spans, marks=Marks(**marks))
    assert found is not None
    return found


def test_a_day_that_ends_now_has_one_ragged_edge():
    found = covered(NOW - timedelta(days=1), NOW)
    assert found.edges == (Window(NOW - timedelta(days=1), at("2026-11-27T12:00")),)
    assert found.buckets[0] == (Span.HOUR, Window(at("2026-11-27T12:00"), day("2026-11-28")))
    assert found.buckets[1] == (Span.DAY, Window(day("2026-11-28"), day("2026-12-01")))
    assert found.whole.before is None, "nothing starts in the future"
    assert found == covered(NOW - timedelta(days=1))


def test_all_of_history_is_months():
    found = covered()
    assert (found.buckets, found.edges) == (((Span.MONTH, Window(None, None)),), ())


def test_the_end_of_a_window_belongs_to_it():
    ends_before = covered(day("2026-11-01"), day("2026-11-03") - timedelta(microseconds=1))
    assert ends_before.edges == ()
    ends_at = covered(day("2026-11-01"), day("2026-11-03"))
    last = Window(day("2026-11-03"), day("2026-11-03") + timedelta(microseconds=1))
    assert ends_at.edges == (last,)
    assert ends_at.whole == ends_before.whole


@pytest.mark.parametrize(
    ("from_", "to", "spans"),
    [
        (at("2026-11-20T10:10"), at("2026-11-20T11:50"), ALL),
        (at("2026-11-20T10:00"), at("2026-11-20T10:59:59"), ALL),
        (NOW - timedelta(days=400), NOW, spans_within(timedelta(minutes=90))),
        (datetime.max.replace(tzinfo=UTC), None, ALL),
    ],
)
def test_rows_answer_if_no_whole_bucket_fits(from_, to, spans):
    assert cover(from_, to, now=NOW, spans=spans) is None


def test_a_window_widens_where_shorter_buckets_are_gone():
    marks = {"hours_from": day("2026-10-24"), "days_from": day("2025-10-01")}
    begun_in_days = covered(at("2026-10-20T10:30"), **marks)
    assert begun_in_days.whole.from_ == day("2026-10-20")
    begun_in_months = covered(at("2025-09-20T10:30"), at("2026-10-20T10:30"), **marks)
    assert begun_in_months.whole == Window(day("2025-09-01"), day("2026-10-21"))
    for found in (begun_in_days, begun_in_months):
        assert (found.edges, found.is_wider) == ((), True)
    begun_in_hours = covered(at("2026-10-24T10:30"), **marks)
    assert begun_in_hours.whole.from_ == at("2026-10-24T11:00")
    assert not begun_in_hours.is_wider


def test_a_window_widens_where_rows_are_gone():
    found = covered(
        at("2026-11-20T10:30"), at("2026-11-20T20:30"), rows_from=at("2026-11-20T15:00")
    )
    assert found.whole == Window(at("2026-11-20T10:00"), at("2026-11-20T20:00"))
    assert found.is_wider
    assert len(found.edges) == 1, "its end is as it was"


@pytest.mark.parametrize(
    ("from_", "to", "whole"),
    [
        ("2026-10-20T08:00", "2026-10-20T14:00", ("2026-10-20T00:00", "2026-10-21T00:00")),
        ("2026-10-20T23:00", "2026-10-21T01:00", ("2026-10-20T00:00", "2026-10-22T00:00")),
        ("2025-09-03T08:00", "2025-09-04T08:00", ("2025-09-01T00:00", "2025-10-01T00:00")),
        ("2026-11-20T10:10", "2026-11-20T10:20", ("2026-11-20T10:00", "2026-11-20T11:00")),
    ],
)
def test_a_window_without_a_whole_bucket_widens_where_rows_are_gone(from_, to, whole):
    marks = {"hours_from": day("2026-10-24"), "days_from": day("2025-10-01")}
    found = covered(at(from_), at(to), rows_from=at("2026-11-20T15:00"), **marks)
    assert found.whole == Window(*map(at, whole))
    assert (found.edges, found.is_wider) == ((), True)


def test_a_series_reads_rows_where_its_buckets_are_gone():
    marks = {"hours_from": day("2026-10-24"), "days_from": day("2025-10-01")}
    by_hour = covered(spans=BY_HOUR, **marks)
    assert by_hour.edges == (Window(None, day("2026-10-24")),)
    assert by_hour.buckets == ((Span.HOUR, Window(day("2026-10-24"), None)),)
    by_day = covered(spans=BY_DAY, **marks)
    assert by_day.edges == (Window(None, day("2025-10-01")),)
    assert by_day.buckets == ((Span.DAY, Window(day("2025-10-01"), None)),)


moments = st.datetimes(datetime(2025, 1, 1), NOW.replace(tzinfo=None)).map(
    lambda moment: moment.replace(tzinfo=UTC)
) | st.integers(0, 24 * 30).map(lambda hours: day("2026-10-20") + timedelta(hours=hours))
marks = st.builds(
    lambda hours, more_days, rows_from: Marks(
        Span.DAY.start(NOW - timedelta(days=hours)),
        Span.MONTH.start(NOW - timedelta(days=hours + more_days)),
        rows_from,
    ),
    st.integers(0, 60),
    st.integers(0, 400),
    st.none() | moments.map(Span.HOUR.start),
)


@given(st.none() | moments, st.none() | moments, st.sampled_from([ALL, BY_DAY, BY_HOUR]), marks)
def test_buckets_and_edges_cover_the_window_once(from_, to, spans, marks):
    if from_ and to and from_ > to:
        from_, to = to, from_
    found = cover(from_, to, now=NOW, spans=spans, marks=marks)
    if found is None:
        return
    windows = [window for _, window in found.buckets]
    assert (windows[0].from_, windows[-1].before) == found.whole
    parts = sorted([found.whole, *found.edges], key=lambda w: w.from_ or day("0001-01-01"))
    for tiles in (windows, parts):
        for one, next_ in pairwise(tiles):
            assert one.before == next_.from_, "there is neither a gap nor an overlap"
    for span, window in found.buckets:
        assert span in spans
        assert all(each == span.start(each) for each in window if each is not None)
        kept_from = {Span.HOUR: marks.hours_from, Span.DAY: marks.days_from}.get(span)
        assert kept_from is None or (window.from_ is not None and window.from_ >= kept_from)
    end = None if to is None or to >= NOW else to + timedelta(microseconds=1)
    begin, before = parts[0].from_, parts[-1].before
    if found.is_wider:
        assert begin is None or from_ is None or begin <= from_
        assert before is None or end is None or before >= end
    else:
        assert (begin, before) == (from_, end)
