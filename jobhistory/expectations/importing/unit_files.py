"""Unit files of systemd: their settings, and its lengths of time."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import timedelta

_CONTINUED = re.compile(r"\\\n")
_SECTION = re.compile(r"\[([^\]]*)\]")
_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "M": timedelta(seconds=2629800),
    "y": timedelta(seconds=31557600),
}
_SYNONYMS = {
    **dict.fromkeys(("usec", "µs", "μs"), "us"),
    "msec": "ms",
    **dict.fromkeys(("", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("week", "weeks"), "w"),
    **dict.fromkeys(("month", "months"), "M"),
    **dict.fromkeys(("year", "years"), "y"),
}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Zµμ]*)", re.ASCII)


def read_settings(text: str, section: str) -> dict[str, list[str]]:
    """Return the settings in a section of a unit file, each with its values in order.

    An empty value removes those before it.
    """
    settings: defaultdict[str, list[str]] = defaultdict(list)
    current = ""
    for line in map(str.strip, _CONTINUED.sub(" ", text).split("\n")):
        if not line or line[0] in "#;":
            continue
        heading = _SECTION.fullmatch(line)
        name, equals, value = line.partition("=")
        if heading:
            current = heading[1]
        elif current == section and equals:
            key, value = name.rstrip(), value.lstrip()
            settings[key] = [*settings[key], value] if value else []
    return dict(settings)


def read_span(text: str) -> timedelta | None:
    """Return a length of time, such as `1h 30min`, or `90` for seconds; `None` if it is none."""
    total, place = timedelta(), 0
    while place < len(text.rstrip()):
        match = _SPAN.match(text, place)
        unit = _UNITS.get(_SYNONYMS.get(match[2], match[2])) if match else None
        if match is None or unit is None:
            return None
        try:
            total += float(match[1]) * unit
        except OverflowError:
            return None
        place = match.end()
    return total if text.strip() else None
