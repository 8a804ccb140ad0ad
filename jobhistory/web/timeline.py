"""Time as charts divide it: buckets of statistics, and ticks that people can read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cached_property
from typing import NamedTuple

from jobhistory.query.reports import FIRST_BUCKET
from jobhistory.web.window import Window

LONGEST = timedelta(weeks=52)
"""The longest time that charts show. Statistics by day are kept for longer, by default."""

_HOURS_KEPT = timedelta(days=34)  # a day less than stores keep by default, as they keep whole days
_MOST_HOURS = timedelta(hours=5000)
_DAY = timedelta(days=1)
_SHORT = timedelta(hours=3)
_MINUTES = tuple(timedelta(minutes=length) for length in (1, 2, 5, 10))
_HOURS = tuple(timedelta(hours=length) for length in (1, 3, 6))
_DAYS = (_DAY, timedelta(weeks=1), timedelta(weeks=4))

_UNITS = (("d", _DAY), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)))

_TICK_STEPS = (
    *(timedelta(minutes=length) for length in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=length) for length in (1, 2, 3, 6, 12)),
    *(timedelta(days=length) for length in (1, 2, 7, 14, 28, 91)),
)
_MOST_TICKS = 6


class Tick(NamedTuple):
    """A moment that an axis names: its place, from 0 to 1, and its name."""

    place: float
    text: str


@dataclass(frozen=True)
class Timeline:
    """The buckets that cover a window, without a gap.

    Attributes:
        start, end: the start of the first bucket, and the end of the last one.
        bucket: the length of each.
        from_: the first moment of the window that the buckets show.
        is_clipped: whether the window begins before the first bucket.
    """

    start: datetime
    end: datetime
    bucket: timedelta
    from_: datetime
    is_clipped: bool

    @classmethod
    def of(cls, window: Window, most: int, *, tasks: int = 1) -> Timeline:
        """Return the timeline of a window, with about as many buckets as given, or fewer.

        Buckets of minutes come from rows, so only short windows have them. All others consist of
        whole hours or days, which statistics answer without rows. Statistics by hour of many tasks
        over many days would be many thousands, so these have buckets of days.

        Args:
            window: the window.
            most: the greatest number of buckets, except for one that the window begins or ends in.
            tasks: the number of tasks whose statistics are wanted.
        """
        end = window.now if window.to is None else min(window.to, window.now)
        longest = min(LONGEST, end - FIRST_BUCKET)
        is_clipped = window.from_ is None or end - window.from_ > longest
        from_ = end - longest if window.from_ is None or is_clipped else window.from_
        end = max(end, from_)
        bucket = _bucket(end - from_, window.now - from_, most, tasks)
        start = from_ - (from_ - FIRST_BUCKET) % bucket
        number = max(1, -((start - end) // bucket))
        last = datetime.max.replace(tzinfo=UTC)
        number = min(number, (last - start) // bucket)
        return cls(start, start + number * bucket, bucket, from_, is_clipped)

    @property
    def bucket_text(self) -> str:
        """The length of a bucket as people write it, such as `"6h"`."""
        unit, length = next(each for each in _UNITS if not self.bucket % each[1])
        return f"{self.bucket // length}{unit}"

    @cached_property
    def buckets(self) -> list[datetime]:
        """The start of each bucket, in order."""
        number = (self.end - self.start) // self.bucket
        return [self.start + index * self.bucket for index in range(number)]

    def ticks(self, zone: tzinfo) -> list[Tick]:
        """Return a few round times in a zone, in order."""
        length = self.end - self.start
        if not length:  # at the end of the year 9999
            return []
        step = next((each for each in _TICK_STEPS if length / each <= _MOST_TICKS), _TICK_STEPS[-1])
        try:
            return self._ticks(zone, step)
        except OverflowError:  # local times before the year 1 or after the year 9999
            return []

    def _ticks(self, zone: tzinfo, step: timedelta) -> list[Tick]:
        first = self.start.astimezone(zone).date()
        if step > _DAY:  # at the same days, whatever the window: weeks begin on a Monday
            first -= timedelta(days=(first.toordinal() - 1) % step.days)
        local = datetime.combine(first, time())
        found: dict[datetime, Tick] = {}
        while (moment := local.replace(tzinfo=zone).astimezone(UTC)) <= self.end:
            if moment >= self.start:
                place = (moment - self.start) / (self.end - self.start)
                found.setdefault(moment, Tick(place, _tick_text(local)))
            local += step
        return [found[moment] for moment in sorted(found)]


def _bucket(length: timedelta, age: timedelta, most: int, tasks: int) -> timedelta:
    # Rows would have to answer for hours of which no statistics are kept.
    has_hours = age < _HOURS_KEPT and tasks * length <= _MOST_HOURS
    lengths = _MINUTES if length <= _SHORT else ()
    if length <= _DAY or has_hours:
        lengths += _HOURS
    lengths += _DAYS
    return next((each for each in lengths if length / each <= most), lengths[-1])


def _tick_text(local: datetime) -> str:
    return f"{local:%b} {local.day}" if local.time() == time() else f"{local:%H:%M}"
