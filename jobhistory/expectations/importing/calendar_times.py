"""systemd's calendar events, such as `Mon..Fri 08:00`, as cron expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jobhistory.errors import InvalidInput
from jobhistory.expectations.importing.found import Unsuitable
from jobhistory.expectations.schedule import read_timezone

_SHORT = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "semi-annually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {name: number for number, name in enumerate(_WEEKDAYS, start=1)} | {
    name[:3]: number for number, name in enumerate(_WEEKDAYS, start=1)
}
_ANY_WEEKDAY = "|".join(sorted(_NUMBERS, key=len, reverse=True))
_WEEKDAY = re.compile(rf"(?:{_ANY_WEEKDAY}|\.\.|-|,)+", re.IGNORECASE)
_FIELD = r"[\d*/.,~]+"
_DATE = re.compile(rf"(?:({_FIELD})-)?({_FIELD}?)[-~]({_FIELD})")
_TIME = re.compile(rf"({_FIELD}):({_FIELD})(?::({_FIELD}))?")
_ITEM = re.compile(r"(\d+)(?:\.\.(\d+))?(?:/(\d+))?", re.ASCII)
_WEEKDAY_ITEM = re.compile(r"([a-z]+)(?:(?:\.\.|-)([a-z]+))?", re.IGNORECASE)


class CalendarTime(NamedTuple):
    """A cron expression, and the time zone that is written with it, if any."""

    cron: str
    timezone: str | None


def read_calendar(text: str) -> CalendarTime:
    """Return a calendar event as a cron expression with the same times.

    Raises:
        Unsuitable: if there is none, or the text cannot be read.
    """
    words, timezone = _without_zone(text.split())
    if len(words) == 1:
        words = _SHORT.get(words[0].lower(), words[0]).split()
    unread = [*words]
    weekday = unread.pop(0) if unread and _WEEKDAY.fullmatch(unread[0]) else None
    date = _DATE.fullmatch(unread[0]) if unread else None
    time = _TIME.fullmatch(unread[-1]) if unread else None
    if not words or len(unread) != (date is not None) + (time is not None):
        raise Unsuitable(f"{text!r} cannot be read as a calendar event")
    if date is not None and "~" in date[0]:
        raise Unsuitable("cron does not count days from the end of the month")
    year, month, day = date.groups() if date else ("*", "*", "*")
    hour, minute, second = time.groups() if time else ("0", "0", "0")
    if year not in (None, "*"):
        raise Unsuitable("cron has no years")
    if (second or "0").strip("0"):
        raise Unsuitable("cron has no seconds")
    fields: tuple[str, ...] = (
        _field(minute, range(60)),
        _field(hour, range(24)),
        _field(day, range(1, 32)),
        _field(month, range(1, 13)),
        "*" if weekday is None else _weekdays(weekday),
    )
    if fields[0] == "*" != fields[1]:
        # With a star, cron would repeat a minute when clocks go back, which systemd does not.
        fields = ("0-59", *fields[1:])
    if fields[2] != "*" != fields[4]:
        raise Unsuitable("cron cannot require both a day and a weekday")
    return CalendarTime(" ".join(fields), timezone)


def _without_zone(words: Sequence[str]) -> tuple[Sequence[str], str | None]:
    last = words[-1] if words else ""
    if not last[:1].isalpha() or last.lower() in _SHORT or _WEEKDAY.fullmatch(last):
        return words, None
    if last.upper() == "UTC":
        return words[:-1], "UTC"
    try:
        return words[:-1], read_timezone(last, "time zone")
    except InvalidInput as error:
        raise Unsuitable(str(error)) from None


def _field(text: str, numbers: range) -> str:
    """Return a field as cron writes it. A step without an end goes on to the end."""
    if text == "*":
        return "*"
    items = []
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise Unsuitable(f"{text!r} cannot be read as part of a calendar event")
        first, last, step = (None if each is None else int(each) for each in match.groups())
        assert first is not None
        if last is None:
            last = first if step is None else numbers[-1]
        if first not in numbers or last not in numbers or first > last or step == 0:
            raise Unsuitable(f"{text!r} is out of range")
        items.append((first, last, step or 1))
    return _written(items, numbers)


def _weekdays(text: str) -> str:
    items = []
    for item in text.strip(",").split(","):
        match = _WEEKDAY_ITEM.fullmatch(item)
        first, last = match.groups() if match else ("", None)
        numbers = [_NUMBERS.get(name.lower(), 0) for name in (first, last or first)]
        if 0 in numbers or numbers[0] > numbers[1]:
            raise Unsuitable(f"{text!r} cannot be read as weekdays")
        items.append((numbers[0], numbers[1], 1))
    return _written(items, range(1, 8))


def _written(items: Iterable[tuple[int, int, int]], numbers: range) -> str:
    """Return ranges with steps as cron writes them."""
    parts = []
    covered: set[int] = set()
    for first, last, step in items:
        covered.update(range(first, last + 1, step))
        if last - first < step:
            parts.append(str(first))
        else:
            parts.append(f"{first}-{last}" + (f"/{step}" if step > 1 else ""))
    return "*" if covered.issuperset(numbers) else ",".join(parts)
