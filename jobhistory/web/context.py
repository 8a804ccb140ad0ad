"""What a view knows about the request: the window, the search, the viewer, and how to render."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from jobhistory._runtime.ages import relative
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.web import search
from jobhistory.web.access import Access
from jobhistory.web.asking import Asked
from jobhistory.web.http import Answer, Request
from jobhistory.web.rendering import render
from jobhistory.web.settings import Settings
from jobhistory.web.snippets import SnippetWriter
from jobhistory.web.times import exact, zone_of
from jobhistory.web.window import Window

THEME_COOKIE = "jobhistory_theme"
_MOST_FOLDERS = 20
THEMES = ("system", "light", "dark")


_OF_ONE_PAGE = ("after", "sql")
"""The parameters that no link repeats."""

_WINDOWED = ("", "tasks", "task", "failures", "grid", "expectations")


@dataclass
class Context:
    """What a view knows about the request that it answers.

    Attributes:
        request: the request.
        settings: what the app says about the page.
        access: what the viewer may see.
        view: the name of the view, which is the path.
        now: the time of the request.
        snippets: writes how to ask the questions of the view elsewhere.
        asked: the questions that the view has asked so far.
    """

    request: Request
    settings: Settings
    access: Access
    view: str
    now: datetime
    snippets: SnippetWriter
    asked: list[Asked] = field(default_factory=list)

    @property
    def shows_payloads(self) -> bool:
        """Whether the viewer may see payloads."""
        return self.access is Access.EVERYTHING

    @cached_property
    def theme(self) -> str:
        """The theme that the viewer has chosen."""
        theme = self.request.cookies.get(THEME_COOKIE, "system")
        return theme if theme in THEMES else "system"

    @cached_property
    def zone_name(self) -> str:
        """The name of the time zone that the viewer has chosen."""
        return zone_of(self.request)[0]

    @cached_property
    def zone(self) -> tzinfo:
        """The time zone that the viewer has chosen."""
        return zone_of(self.request)[1]

    @cached_property
    def search_text(self) -> str:
        """The text in the search box."""
        return self.request.parameter("q") or ""

    def window(self, default: str | None = None) -> Window:
        """Return the window that the search box names, or else the URL.

        Args:
            default: how long it is if neither says where it starts; `None` for all of history. A
                `since` of `all` stands for all of history.

        Raises:
            InvalidInput: if they name no valid window.
        """
        terms = search.window_of(self.search_text)
        since, until = (
            terms.get(name, self.request.parameter(name)) for name in search.WINDOW_TERMS
        )
        return Window.read(since, until, self.now, default, self.zone)

    def query(self, window: Window, **more: Any) -> HistoryQuery:
        """Return the criteria of the search box and the window, and more.

        Raises:
            InvalidInput: if a term cannot be read.
        """
        criteria = search.criteria_of(self.search_text)
        return coerce(criteria | {"from_": window.from_, "to": window.to} | more, {})

    def link(self, view: str, /, **parameters: str | None) -> str:
        """Return a relative URL of a view, with those parameters that are not `None`."""
        given = {name: value for name, value in parameters.items() if value is not None}
        query = urlencode(given, errors="replace")
        url = f"{self.up}{view}" or "./"
        return f"{url}?{query}" if query else url

    @cached_property
    def up(self) -> str:
        """The way up to where the page is mounted, from a URL with more slashes than views have."""
        return "../" * min(self.view.count("/"), _MOST_FOLDERS)

    def menu_link(self, view: str) -> str:
        """Return a relative URL of a view, with the window of the URL if both have one to choose.

        The search box may name another window, but that stays with the search.
        """
        keeps = self.view in _WINDOWED and view in _WINDOWED
        names = search.WINDOW_TERMS if keeps else ()
        return self.link(view, **{name: self.request.parameter(name) for name in names})

    def this(self, **changes: str | None) -> str:
        """Return a relative URL of this view with changed parameters; `None` removes one."""
        return self.other(self.view, **changes)

    def other(self, view: str, /, **changes: str | None) -> str:
        """Return a relative URL of another view with the parameters of this one, as `this` does."""
        given: dict[str, str | None] = dict(self.request.parameters)
        for name in _OF_ONE_PAGE:
            given.pop(name, None)
        return self.link(view, **(given | changes))

    def narrowed(self, name: str, value: str) -> str:
        """Return a relative URL of this view with one more term in the search box."""
        return self.this(q=search.narrowed(self.search_text, name, value))

    def preference(self, **choice: str) -> str:
        """Return a relative URL that stores a choice of the viewer and comes back to this view."""
        return self.link("preferences", **choice, view=self.view, query=self.request.query)

    def when(self, moment: datetime | None) -> Markup | str:
        """Return a time as an element: relative, with the exact time as its title."""
        if moment is None:
            return "-"
        return Markup('<time data-relative datetime="{}" title="{}">{}</time>').format(
            moment.isoformat(), exact(moment, self.zone, "milliseconds"), relative(moment, self.now)
        )

    def exact(self, moment: datetime) -> str:
        """Return a time in the zone of the viewer, to the minute."""
        return exact(moment, self.zone, "minutes")

    def column_name(self, moment: datetime) -> str:
        """Return a short name for a time: the day where one begins, or else the hour."""
        local = moment.astimezone(self.zone)
        return f"{local:%b} {local.day}" if local.hour == local.minute == 0 else f"{local:%H:%M}"

    def clock_time(self, moment: datetime | None) -> Markup | str:
        """Return a time as an element: exact, in the zone of the viewer."""
        if moment is None:
            return "-"
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            moment.isoformat(), relative(moment, self.now), exact(moment, self.zone)
        )

    def render(self, template: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Answer:
        """Return the answer with a template, which gets these values and the context as `page`."""
        return Answer(render(template, page=self, **values), int(status))
