"""Read durations that people write, such as a retention, and write them for people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobhistory.errors import InvalidInput

if TYPE_CHECKING:  # it imports asyncio, and `jobhistory run` starts its command without it
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
    from pytimeparse.timeparse import timeparse  # which compiles many patterns

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


def duration_text(duration: timedelta) -> str:
    """Return a duration of whole seconds as text, such as `"1 day 12 hours"`, to parse again."""
    minutes, seconds = divmod(duration // timedelta(seconds=1), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = {"day": days, "hour": hours, "minute": minutes, "second": seconds}
    return " ".join(f"{count} {unit}{'s' * (count != 1)}" for unit, count in parts.items() if count)


def took(milliseconds: int | None) -> str:
    """Return a duration as text: `"850 ms"`, `"2.5 s"`, `"3 m 20 s"`, `"26 h 5 m"`."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    if minutes < 60:
        return f"{minutes} m {seconds} s"
    return f"{minutes // 60} h {minutes % 60} m"
