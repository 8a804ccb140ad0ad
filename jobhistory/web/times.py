"""Times in the zone that a viewer has chosen."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from jobhistory.web.http import Request

ZONE_COOKIE = "jobhistory_zone"
"""The chosen zone: `"UTC"`, `"local"`, or a name such as `"Europe/Berlin"`."""

LOCAL_ZONE_COOKIE = "jobhistory_local_zone"
"""The zone of the browser, which only a script knows."""


def zone_named(name: str) -> tzinfo | None:
    """Return the time zone with a name; `None` if there is none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, a folder, too long, or no name of a zone
        return None


def zone_of(request: Request) -> tuple[str, tzinfo]:
    """Return the name of the zone that the viewer has chosen, and the zone; UTC by default."""
    chosen = request.cookies.get(ZONE_COOKIE, "UTC")
    name = request.cookies.get(LOCAL_ZONE_COOKIE, "UTC") if chosen == "local" else chosen
    zone = zone_named(name)
    return (chosen, zone) if zone is not None else ("UTC", UTC)


def exact(moment: datetime, zone: tzinfo, timespec: str = "seconds") -> str:
    """Return a time in a zone, with the abbreviation of the zone."""
    try:
        local = moment.astimezone(zone)
    except OverflowError:  # before the year 1 or after the year 9999, in that zone
        local = moment.astimezone(UTC)
    text = local.replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)
    return f"{text} {local.tzname()}"
