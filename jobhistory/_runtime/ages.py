"""Times relative to now, as people say them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta


def relative(moment: datetime, now: datetime) -> str:
    """Return a time relative to now: `"3 min ago"`, `"in 2 h"`, `"just now"`."""
    return _relative(moment, now, _length)


def relative_in_words(moment: datetime, now: datetime) -> str:
    """Return a time relative to now: `"3 minutes ago"`, `"in 2 hours"`, `"just now"`."""
    return _relative(moment, now, _words)


def _relative(moment: datetime, now: datetime, say: Callable[[timedelta], str]) -> str:
    past = now - moment
    length = abs(past)
    if length < timedelta(seconds=1):
        return "just now"
    return f"{say(length)} ago" if past > timedelta(0) else f"in {say(length)}"


def _length(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit != "min" and seconds >= size and seconds % size == 0):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _words(length: timedelta) -> str:
    number, unit = _length(length).split()
    word = {"d": "day", "h": "hour", "min": "minute", "s": "second"}[unit]
    return f"{int(number):,} {word}{'s' * (number != '1')}"
