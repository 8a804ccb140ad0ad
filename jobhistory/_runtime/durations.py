"""Read durations that people write, such as a retention."""

from __future__ import annotations

from datetime import datetime, timedelta

from pytimeparse.timeparse import timeparse

from jobhistory.errors import InvalidInput
from jobhistory.typing import Duration

_EXAMPLE = "write it like '30 days' or '12h'"
_LONGEST_TEXT = 100  # the parser takes quadratic time for unreadable text


def parse_duration(value: Duration, argument: str) -> timedelta:
    """Return a positive duration.

    Raises:
        InvalidInput: if it is zero, negative, unreadable, too long for a `timedelta`, without a
            unit, or a clock time such as `"1:30"`, which may mean minutes or hours.
    """
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, str):
        duration = _parse_text(value, argument)
    elif isinstance(value, (int, float)):
        raise InvalidInput(argument, value, f"has no unit; {_EXAMPLE}")
    else:
        raise InvalidInput(argument, value, f"is not a duration; {_EXAMPLE}")
    if duration <= timedelta(0):
        raise InvalidInput(argument, value, f"is not positive; {_EXAMPLE}")
    return duration


def _parse_text(text: str, argument: str) -> timedelta:
    if len(text) > _LONGEST_TEXT or ":" in text:
        raise InvalidInput(argument, text, f"is not a duration; {_EXAMPLE}")
    try:
        seconds = timeparse(text)
        if seconds is None:
            raise InvalidInput(argument, text, f"is not a duration; {_EXAMPLE}")
        return timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidInput(argument, text, f"is too long; {_EXAMPLE}") from None


def parse_retention(value: Duration | None, *, now: datetime) -> timedelta | None:
    """Return how long rows are kept; `None` and `"never"` mean that they do not expire.

    Raises:
        InvalidInput: as `parse_duration`, and if a row inserted now would expire after the year
            9999.
    """
    if value is None or value == "never":
        return None
    retention = parse_duration(value, "history_retention")
    if retention > datetime.max.replace(tzinfo=now.tzinfo) - now:
        raise InvalidInput("history_retention", value, f"ends after the year 9999; {_EXAMPLE}")
    return retention
