"""Ranges of time, and the ranges of ids that stand for them.

An execution id begins with the milliseconds of its start, so the ids of a range of time are a range
of ids.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

Every: TypeAlias = Literal["day", "week", "month"]
"""The length of a partition."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MILLISECOND = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_RANDOM_BITS = 80


def start_of(moment: datetime, every: Every) -> datetime:
    """Return the start of the day, week or month that contains a moment: midnight in UTC.

    A week starts on Monday.
    """
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if every == "day":
        return midnight
    if every == "week":
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1)


def next_start(moment: datetime, every: Every) -> datetime:
    """Return the first start of a day, week or month after a moment."""
    start = start_of(moment, every)
    if every == "day":
        return start + timedelta(days=1)
    if every == "week":
        return start + timedelta(days=7)
    return start_of(start + timedelta(days=31), every)


def first_id(moment: datetime) -> UUID:
    """Return the smallest UUID of the millisecond of a moment. Times before 1970 count as 1970."""
    return UUID(int=max(0, (moment - _EPOCH) // _MILLISECOND) << _RANDOM_BITS)


def moment_of(execution_id: UUID) -> datetime:
    """Return the time of an execution id, in UTC, rounded down to a millisecond.

    Ids of times after the year 9999 count as its last millisecond.
    """
    return _EPOCH + min(execution_id.int >> _RANDOM_BITS, _LAST_MILLISECOND) * _MILLISECOND
