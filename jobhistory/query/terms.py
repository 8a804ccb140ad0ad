"""Read criteria that people write as text: on a command line, in a search box, or in a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta, tzinfo
from uuid import UUID

from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import InvalidInput

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = re.compile(rf"(today|yesterday|{'|'.join(_WEEKDAYS)})(?: (\d\d?):(\d\d))?", re.ASCII)
_COMING_DAY = re.compile(rf"(today|tomorrow|{'|'.join(_WEEKDAYS)})(?: (\d\d?):(\d\d))?", re.ASCII)
_SEPARATOR = re.compile(r"(?<!\\),")


def read_moment(
    text: str | None, argument: str, now: datetime, zone: tzinfo | None = UTC
) -> datetime | None:
    """Return a time: a date in ISO 8601, a duration before `now`, or a word for a day.

    `"today"`, `"yesterday"` and the latest `"monday"` are the beginning of that day, which may be
    followed by a time: `"yesterday 14:00"`.

    Args:
        zone: the time zone of days, and of times without an offset; `None` for that of this
            machine.

    Raises:
        InvalidInput: if the text is none of these.
    """
    if text is None:
        return None
    with suppress(ValueError, OverflowError, OSError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else _in_zone(moment, zone)
    words = " ".join(text.lower().split())
    if words == "now":
        return now
    with suppress(ValueError, OverflowError, OSError):
        if match := _DAY.fullmatch(words):
            return _on_day(match[1], time(int(match[2] or 0), int(match[3] or 0)), now, zone)
    try:
        return now - parse_duration(words.removesuffix(" ago"), argument)
    except (InvalidInput, OverflowError):
        raise InvalidInput(
            argument,
            text,
            "is neither a duration nor a date; write it like '2h', 'today' or '2026-11-01'",
        ) from None


def read_coming_moment(
    text: str, argument: str, now: datetime, zone: tzinfo | None = UTC
) -> datetime:
    """Return a time in the future: a date in ISO 8601, a duration from `now`, or a day.

    `"tomorrow"` and the next `"monday"` are the beginning of that day, which may be followed by a
    time: `"tomorrow 9:00"`, `"today 18:00"`.

    Args:
        zone: as of `read_moment`.

    Raises:
        InvalidInput: if the text is none of these, or the time has passed.
    """
    words = " ".join(text.lower().split())
    moment = None
    with suppress(ValueError, OverflowError, OSError):
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else _in_zone(moment, zone)
    with suppress(ValueError, OverflowError, OSError):
        if match := _COMING_DAY.fullmatch(words):
            clock_time = time(int(match[2] or 0), int(match[3] or 0))
            moment = _on_coming_day(match[1], clock_time, now, zone)
    with suppress(InvalidInput, OverflowError):
        moment = moment or now + parse_duration(words.removeprefix("in "), argument)
    example = "write it like '2h', 'tomorrow 9:00' or '2030-01-01'"
    if moment is None:
        raise InvalidInput(argument, text, f"is neither a duration nor a date; {example}")
    if moment <= now:
        raise InvalidInput(argument, text, f"has passed; {example}")
    return moment


def _on_coming_day(word: str, clock_time: time, now: datetime, zone: tzinfo | None) -> datetime:
    today = now.astimezone(zone).date()
    if word in _WEEKDAYS:
        days = (_WEEKDAYS.index(word) - today.weekday() - 1) % 7 + 1
    else:
        days = 0 if word == "today" else 1
    return _in_zone(datetime.combine(today + timedelta(days=days), clock_time), zone)


def _on_day(word: str, clock_time: time, now: datetime, zone: tzinfo | None) -> datetime:
    today = now.astimezone(zone).date()
    if word in _WEEKDAYS:
        days = (today.weekday() - _WEEKDAYS.index(word)) % 7
    else:
        days = 0 if word == "today" else 1
    return _in_zone(datetime.combine(today - timedelta(days=days), clock_time), zone)


def _in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    try:
        # Without a zone, Python takes the time for one of this machine's.
        return moment.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # it has no equal in UTC, so it stands for a limit
        return moment.replace(tzinfo=UTC)


def read_list(texts: Iterable[str] | None) -> list[str]:
    r"""Return the values of texts that may be lists with commas: `"a,b"`, but `"a\,b"` is one."""
    return [value.replace("\\,", ",") for text in texts or () for value in _SEPARATOR.split(text)]


def in_list(value: str) -> str:
    """Return the text that `read_list` reads as this one value."""
    return value.replace(",", "\\,")


def read_milliseconds(duration: str | None, argument: str) -> int | None:
    """Return a duration, such as `"30s"`, in milliseconds."""
    if duration is None:
        return None
    return parse_duration(duration, argument) // timedelta(milliseconds=1)


def read_label_texts(texts: Iterable[str] | None, argument: str) -> dict[str, str] | None:
    """Return the labels of texts such as `"tenant=acme"`; `None` if there are none."""
    labels = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise InvalidInput(argument, text, "has no value; write it like 'tenant=acme'")
        labels[name] = value
    return labels or None


def read_uuid(text: str | None, argument: str) -> UUID | None:
    """Return the id of a record."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise InvalidInput(
            argument, text, "is not the id of a record; `jobhistory list --json` shows them"
        ) from None
