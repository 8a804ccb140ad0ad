"""Keep the theme and the time zone that a viewer chooses, in cookies."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from jobhistory.errors import InvalidInput
from jobhistory.web.asking import Steps
from jobhistory.web.context import THEME_COOKIE, THEMES, Context
from jobhistory.web.http import redirect
from jobhistory.web.times import ZONE_COOKIE, zone_named

_SECONDS = 365 * 86_400


def preferences(page: Context) -> Steps:
    """Store a choice in a cookie, and go back to the view that offered it."""
    cookies = []
    theme, zone = page.request.parameter("theme"), page.request.parameter("zone")
    if theme is not None:
        if theme not in THEMES:
            raise InvalidInput("theme", theme, f"is not a theme; write one of {', '.join(THEMES)}")
        cookies.append(_cookie(THEME_COOKIE, theme))
    if zone is not None:
        if zone != "local" and zone_named(zone) is None:
            raise InvalidInput("zone", zone, "is not a time zone; write it like 'Europe/Berlin'")
        cookies.append(_cookie(ZONE_COOKIE, zone))
    return redirect(_back(page), *cookies)
    yield  # so that it is a generator, as views are


def _back(page: Context) -> str:
    """Return the relative URL of the view that offered the choice; never one of another site."""
    view = page.request.parameter("view") or ""
    if not re.fullmatch("[a-z-]*", view):
        view = ""
    return page.link(view, **dict(parse_qsl(page.request.parameter("query") or "")))


def _cookie(name: str, value: str) -> tuple[str, str]:
    return ("Set-Cookie", f"{name}={value}; Max-Age={_SECONDS}; SameSite=Lax; HttpOnly")
