"""Periods between two changes of the clocks of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Span:
    """A period in which local time is UTC plus a constant offset.

    Attributes:
        start, end: times in UTC; the end is not part of it.
        offset: local time minus UTC.
        reached: the latest local time that clocks showed before, without a time zone. It is after
            the local start if they went back, before it if they went forward, and else equal.
    """

    start: datetime
    end: datetime
    offset: timedelta
    reached: datetime

    @property
    def local_start(self) -> datetime:
        """The start in local time, without a time zone."""
        return self.local(self.start)

    @property
    def local_end(self) -> datetime:
        """The end in local time, without a time zone."""
        return self.local(self.end)

    def local(self, moment: datetime) -> datetime:
        """Return a time in UTC in local time, without a time zone."""
        return moment.replace(tzinfo=None) + self.offset

    def utc(self, local: datetime) -> datetime:
        """Return a local time in UTC."""
        return (local - self.offset).replace(tzinfo=UTC)


def spans(timezone: str, from_: datetime) -> Iterator[Span]:
    """Yield the periods from a time in UTC on, in order, without an end.

    A period that began at most a day before comes as a whole. Each year begins a new one.
    """
    reached = None
    for year in range((from_ - _DAY).year, datetime.max.year):
        starts = (_new_year(year), *_changes(timezone, year), _new_year(year + 1))
        for start, end in pairwise(starts):
            span = Span(start, end, offset_at(timezone, start), reached or datetime.min)
            if reached is None:
                span = Span(start, end, span.offset, span.local_start)
            if end > from_:
                yield span
            reached = max(span.reached, span.local_end)


def offset_at(timezone: str, moment: datetime) -> timedelta:
    """Return local time minus UTC."""
    offset = moment.astimezone(zone_of(timezone)).utcoffset()
    assert offset is not None  # zones of zoneinfo have one at all times
    return offset


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name."""
    return ZoneInfo(name)


@lru_cache(maxsize=1024)
def _changes(timezone: str, year: int) -> tuple[datetime, ...]:
    """Return when clocks change in a year, unless they change twice within a day."""
    days = 366
    moments = [_new_year(year) - _SECOND + number * _DAY for number in range(days + 1)]
    offsets = [offset_at(timezone, moment) for moment in moments]
    return tuple(
        _first_with(timezone, moments[number], moments[number - 1])
        for number in range(1, days + 1)
        if offsets[number] != offsets[number - 1] and moments[number].year == year
    )


def _first_with(timezone: str, moment: datetime, before: datetime) -> datetime:
    """Return the first second that has the offset of a moment and not of one before it."""
    offset = offset_at(timezone, moment)
    while moment - before > _SECOND:
        middle = before + (moment - before) // _SECOND // 2 * _SECOND
        if offset_at(timezone, middle) == offset:
            moment = middle
        else:
            before = middle
    return moment


def _new_year(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC)
