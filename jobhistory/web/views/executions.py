"""The list of executions."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from jobhistory.expectations.missed import MissedRun, MissedTime, among
from jobhistory.query.criteria import replace
from jobhistory.query.cursor import Page
from jobhistory.query.reports import Count
from jobhistory.schema import HistoryRecord
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.http import redirect
from jobhistory.web.listing import Listing
from jobhistory.web.missed import missed_in
from jobhistory.web.resolving import resolve

_PAGE_SIZE = 50
_COUNT_CAP = 10_000


def executions(page: Context) -> Steps:
    """Show a page of the executions that meet the search."""
    meaning = yield from resolve(page)
    if meaning is not None:
        return redirect(meaning)
    listing = Listing.of(page)
    after = page.request.parameter("after")
    reads = "one page, by an index" if listing.is_indexed else "the window, until a page is full"
    query = replace(listing.query, limit=_PAGE_SIZE)
    found = yield ask("page", query, after=after, reads=reads)
    count = None if after else (yield from _count(listing, found))
    entries = yield from _entries(page, listing, found, after)
    return page.render(
        "executions.html",
        listing=listing,
        found=found,
        entries=entries,
        count=count,
        is_first=after is None,
        mark=None if after else _mark(page, listing, found),
    )


def _entries(
    page: Context, listing: Listing, found: Page, after: str | None
) -> Generator[Ask, Any, list[HistoryRecord | MissedRun]]:
    """Return the executions of a page, and among them the runs that were missed at the time."""
    time = MissedTime.of_page(listing.query, found, after, page.now)
    if time is None:
        return [*found.records]
    missed = yield from missed_in(time)
    return among(found.records, missed, order=listing.query.order)


def _mark(page: Context, listing: Listing, first: Page) -> str | None:
    """Return the time after which executions are news; `None` if they would not come first."""
    if not listing.window.is_live or listing.query.order == "oldest":
        return None
    newest = first.records[0].started_at if first.records else page.now
    return newest.isoformat()


def _count(listing: Listing, first: Page) -> Generator[Ask, Any, Count | None]:
    """Return how many executions the list has; `None` if counting them may take long."""
    if first.next_cursor is None:
        return Count(len(first))
    if not listing.is_indexed:
        return None
    count: Count = yield ask(
        "count", listing.matching, cap=_COUNT_CAP, reads=f"an index, up to {_COUNT_CAP} entries"
    )
    return count
