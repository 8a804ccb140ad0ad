"""How many executions have started since a list was shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobhistory.errors import InvalidInput
from jobhistory.query.criteria import replace
from jobhistory.query.terms import read_moment
from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.http import tagged
from jobhistory.web.listing import Listing

_CAP = 1000
_NEXT = timedelta(microseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - _NEXT


def news(page: Context) -> Steps:
    """Show how many executions of a list started after a mark, and the way to them.

    It is a part of the list, which asks for it again and again.
    """
    mark = read_moment(page.request.parameter("mark"), "mark", page.now)
    if mark is None:
        raise InvalidInput("mark", mark, "is not a time; write it like '2026-11-01T08:00:00Z'")
    listing = Listing.of(page)
    after = min(mark, _LAST) + _NEXT
    query = replace(listing.matching, from_=max(after, listing.window.from_ or after))
    count = yield ask("count", query, cap=_CAP, reads="what started after the newest one shown")
    return tagged(page.render("news.html", count=count), page.request)
