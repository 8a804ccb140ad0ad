"""What is usual in a sample that has outages in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

_MINUTE = timedelta(minutes=1)
_UNUSUAL = 5
_SHARE_OF_OUTAGES = 15

_ROUND = tuple(
    number * unit
    for unit, numbers in (
        (timedelta(seconds=1), (1, 2, 5, 10, 15, 20, 30, 45)),
        (_MINUTE, (1, 2, 3, 5, 10, 15, 20, 30, 45)),
        (timedelta(hours=1), (1, 2, 3, 4, 6, 8, 12, 18)),
        (timedelta(days=1), (1, 2, 3, 4, 5, 7, 10, 14, 21, 30, 45, 60, 90, 180, 365)),
    )
    for number in numbers
)


def outages_among(days: int) -> int:
    """Return on how many days of a sample something unusual may have happened."""
    return max(1, days // _SHARE_OF_OUTAGES)


def usual_most(sample: Iterable[tuple[datetime, timedelta]]) -> timedelta:
    """Return the largest duration that is usual. The sample must not be empty.

    Of each day, only the largest counts. Those of some days do not, at most one in 15, if they are
    more than five times as large as all others.
    """
    of_days: dict[object, timedelta] = {}
    for moment, duration in sample:
        day = moment.date()
        of_days[day] = max(duration, of_days.get(day, duration))
    largest = sorted(of_days.values(), reverse=True)
    ignored = range(1, outages_among(len(largest)) + 1 if len(largest) > 1 else 1)
    for number in reversed(ignored):
        if number < len(largest) and largest[number - 1] > _UNUSUAL * largest[number]:
            return largest[number]
    return largest[0]


def rounded_up(duration: timedelta) -> timedelta:
    """Return the next duration that people would write."""
    return next((each for each in _ROUND if each >= duration), duration)


def shortest_arc(
    sorted_values: Sequence[float], circle: float, share: float
) -> tuple[float, float]:
    """Return the start and the length of the shortest arc of a circle with a share of values."""
    count = len(sorted_values)
    held = max(1, -int(-count * share // 1))
    turned = [*sorted_values, *(value + circle for value in sorted_values)]
    length, start = min((turned[at + held - 1] - turned[at], turned[at]) for at in range(count))
    return start, length
