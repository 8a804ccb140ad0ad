"""Charts and their axes, as pure functions."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.web.charts import (
    Line,
    Place,
    count_scale,
    lines,
    share_bar,
    sparkline,
    stacked_bars,
    time_scale,
)
from jobhistory.web.timeline import Timeline
from jobhistory.web.window import Window

NOW = datetime(2026, 3, 29, 12, 20, tzinfo=UTC)


def timeline(since, most=100, until=None):
    return Timeline.of(Window.read(since, until, NOW), most)


@pytest.mark.parametrize(
    ("since", "most", "bucket", "number"),
    [
        ("15m", 96, timedelta(minutes=1), 15),
        ("1h", 31, timedelta(minutes=2), 30),
        ("24h", 31, timedelta(hours=1), 25),  # the first and the last are in the window in part
        ("7d", 96, timedelta(hours=3), 57),
        ("7d", 31, timedelta(hours=6), 29),
        ("30d", 31, timedelta(days=1), 31),
        ("90d", 96, timedelta(days=1), 91),
        ("90d", 31, timedelta(weeks=1), 13),
    ],
)
def test_buckets_fit_the_window(since, most, bucket, number):
    found = timeline(since, most)
    assert found.bucket == bucket
    assert len(found.buckets) == number
    assert found.start <= found.from_ < found.start + bucket


def test_buckets_of_old_hours_are_days():
    assert timeline("60d", until="50d").bucket == timedelta(days=1)


def test_a_week_of_many_tasks_has_buckets_of_days():
    week = Window.read("7d", None, NOW)
    assert Timeline.of(week, 31, tasks=50).bucket == timedelta(days=1)
    assert Timeline.of(week, 31, tasks=20).bucket == timedelta(hours=6)


def test_a_window_of_many_years_shows_the_last_of_them():
    found = timeline("3650d")
    assert found.is_clipped
    assert found.from_ == NOW - timedelta(weeks=52)


def test_ticks_are_round_times_in_the_zone_also_when_clocks_change():
    ticks = timeline("24h").ticks(ZoneInfo("Europe/Berlin"))
    assert [tick.text for tick in ticks] == ["18:00", "Mar 29", "06:00", "12:00"]
    ends = [tick.place for tick in ticks]
    hours = [round((b - a) * 25) for a, b in pairwise(ends)]
    assert hours == [6, 5, 6]


def test_ticks_of_weeks_are_mondays():
    assert [tick.text for tick in timeline("30d").ticks(UTC)] == [
        *("Mar 2", "Mar 9", "Mar 16", "Mar 23"),
        "Mar 30",
    ]


@given(
    since=st.integers(0, 10**9),
    length=st.integers(0, 10**9),
    zone=st.sampled_from(["UTC", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"]),
    most=st.sampled_from([31, 96]),
)
def test_every_window_has_some_buckets_and_a_few_ticks(since, length, zone, most):
    from_ = NOW - timedelta(seconds=since)
    found = Timeline.of(
        Window(None, None, from_, from_ + timedelta(seconds=length), NOW), most=most
    )
    assert 1 <= len(found.buckets) <= most + 1
    ticks = found.ticks(ZoneInfo(zone))
    assert len(ticks) <= 8
    assert [tick.place for tick in ticks] == sorted({tick.place for tick in ticks})


@given(most=st.integers(0, 2**63))
def test_axes_have_a_few_round_ticks_that_reach_the_greatest_value(most):
    for scale in (count_scale(most), time_scale(most)):
        assert scale.top >= most
        assert 1 <= len(scale.ticks) <= 3
        assert scale.ticks[-1][0] == scale.top


@pytest.mark.parametrize(
    ("most", "texts"),
    [
        (0, ["1 ms"]),
        (700, ["500 ms", "1 s"]),
        (2_500, ["1 s", "2 s", "3 s"]),
        (80_000, ["30 s", "1 m", "1.5 m"]),
        (4_000_000, ["30 m", "1 h", "1.5 h"]),
    ],
)
def test_times_on_an_axis_have_whole_units(most, texts):
    assert [text for _, text in time_scale(most).ticks] == texts


def test_numbers_on_an_axis_are_round():
    assert [text for _, text in count_scale(2_400).ticks] == ["1,000", "2,000", "3,000"]


def test_a_bar_stands_at_the_place_of_its_bucket():
    places = [Place("a"), Place("b", "./?q=x"), Place("c")]
    chart = stacked_bars(places, {"failed": [0, 0, 1], "completed": [1, 0, 1]}, [], "Runs.")
    bars = re.findall(r'class="(failed|completed)" x="([\d.]+)"', chart)
    assert bars == [("failed", "321"), ("completed", "1"), ("completed", "321")]
    assert '<a href="./?q=x" tabindex="-1"><rect class="place" x="160"' in chart
    assert 'role="img" aria-label="Runs."' in chart


def test_a_line_has_gaps():
    places = [Place(str(each)) for each in range(5)]
    chart = lines(places, [Line("p50", [1, 2, None, 3, None])], [], "Times.")
    assert chart.count("<polyline") == 1
    assert chart.count("<circle") == 1


def test_texts_in_charts_are_escaped():
    place = Place('<b>"&', 'javascript:"<')
    chart = stacked_bars([place], {"completed": [1]}, [], '"><script>')
    assert "<b>" not in chart
    assert "<script>" not in chart
    assert '"<' not in chart


def test_charts_have_no_inline_style():
    charts = [
        stacked_bars([Place("a")], {"completed": [1]}, timeline("1h").ticks(UTC), "Runs."),
        sparkline([1, 2], [0, 1], "Runs."),
        share_bar(0.5),
    ]
    assert "style" not in "".join(charts)


def test_charts_of_nothing_are_empty():
    assert "<path" not in sparkline([0, 0], [0, 0], "No runs.")
    assert "<circle" not in lines([Place("a")], [Line("p50", [None])], [], "No times.")
