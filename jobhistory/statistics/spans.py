"""Spans of time in which statistics are kept, and how whole ones cover a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Span(StrEnum):
    """The length of a bucket, in UTC. Each span consists of whole buckets of the one before it."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def start(self, moment: datetime) -> datetime:
        """Return the start of the bucket that contains a time."""
        hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if self is Span.HOUR:
            return hour
        day = hour.replace(hour=0)
        return day if self is Span.DAY else day.replace(day=1)

    def next(self, start: datetime) -> datetime:
        """Return the start of the bucket after the one that starts then."""
        if self is Span.HOUR:
            return start + timedelta(hours=1)
        if self is Span.DAY:
            return start + timedelta(days=1)
        return (start + timedelta(days=32)).replace(day=1)
