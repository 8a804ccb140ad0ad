"""Which executions a list shows: the list itself, its exports, and the news about it."""

from __future__ import annotations

from dataclasses import dataclass

from jobhistory.database.statements.pages import reads_one_page
from jobhistory.query.criteria import HistoryQuery
from jobhistory.web.context import Context
from jobhistory.web.window import Window

_DEFAULT_WINDOW = "24h"


@dataclass(frozen=True)
class Listing:
    """Which executions a list shows.

    If no index finds them, a list shows what started in the last 24 hours, unless a window is given
    or `since` is `all`.

    Attributes:
        matching: the criteria, without an order and a limit.
        query: the same, in the order of the list.
        window: the window of time.
        is_indexed: whether a page costs the same in a history of any size.
        default: the length of the window if none is given; `None` for all of history.
    """

    matching: HistoryQuery
    query: HistoryQuery
    window: Window
    is_indexed: bool
    default: str | None

    @classmethod
    def of(cls, page: Context) -> Listing:
        """Return the list that the URL names.

        Raises:
            InvalidInput: if the URL names none.
        """
        is_indexed = _is_indexed(page.query(page.window()))
        default = None if is_indexed else _DEFAULT_WINDOW
        window = page.window(default)
        order = page.request.parameter("order") or "newest"
        query = page.query(window, order=order)
        return cls(page.query(window), query, window, is_indexed, default)


def _is_indexed(query: HistoryQuery) -> bool:
    # A job and a correlation id have few executions, so the database can look at each of them.
    has_few = query.job_id is not None or query.correlation_id is not None
    return has_few or reads_one_page(query)
