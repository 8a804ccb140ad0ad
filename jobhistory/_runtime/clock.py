"""Moments in time: aware, in UTC, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobhistory.errors import InvalidInput


def utc_now() -> datetime:
    """The default clock: the system's time, in UTC."""
    return datetime.now(UTC)


def in_utc(moment: datetime, argument: str) -> datetime:
    """The same moment in UTC.

    Raises:
        InvalidInput: if it is not a `datetime`, has no time zone, or has no equal in UTC between
            the years 1 and 9999.
    """
    if type(moment) is datetime and moment.tzinfo is UTC:  # as nearly all are
        return moment
    if not isinstance(moment, datetime):
        raise InvalidInput(argument, moment, "is not a datetime; write it like datetime.now(UTC)")
    if moment.utcoffset() is None:
        raise InvalidInput(
            argument,
            moment,
            "has no time zone; write it like datetime(2026, 11, 1, tzinfo=UTC)",
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(
            argument, moment, "is out of range in UTC; give one between the years 1 and 9999"
        ) from None


def before(moment: datetime, duration: timedelta) -> datetime:
    """Return the moment that is a duration before another one; the first one of all if too long."""
    try:
        return moment - duration
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
