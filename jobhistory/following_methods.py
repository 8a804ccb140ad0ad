"""The method of stores that follows the history."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from jobhistory.base_store import AnyCriteria
from jobhistory.execution.rows import RowBuilder
from jobhistory.following.feeds import ChangeFeed, Follow, Followable, Following
from jobhistory.typing import Duration, IterateCriteria


class FollowingMethods:
    """Follows the history.

    Args:
        followed: the history.
    """

    def __init__(self, rows: RowBuilder, followed: Followable) -> None:
        self._rows = rows
        self._followed = followed

    def follow(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        since: datetime | None = None,
        last: int = 0,
        interval: Duration = "2s",
        **named: Unpack[IterateCriteria],
    ) -> Follow:
        """Return an iterator over executions as they start and as they end, from now on.

        It waits for changes, and never ends by itself: `close` ends it, or the end of a
        `with` block. Each change comes once: an execution with the status `started`, and the
        same one again with its outcome. If both happen between two looks at history, or if it was
        recorded at its end only, it comes once, with the outcome. Within a look, the earliest
        change comes first.

        On PostgreSQL, stores with `notify=True` announce their executions, which then come within
        about half a second. What no store announces comes within ten seconds or, if nothing is
        announced, every two. It listens on a separate connection. Where that is impossible, as on
        SQLite, through a pooler such as PgBouncer, or on a read-only replica, it looks every
        `interval`.

        Without an announcement that names them, it misses two kinds of executions: those whose
        transaction commits more than a minute after they started, and those recorded at their end
        that are written more than a minute after it, or are not among the newest 10,000. When it
        begins, it takes note of the executions that run and started within a day. It watches up to
        10,000.

        An outage is logged once. It keeps trying, and then yields what it has missed. In memory, it
        misses what leaves the ring buffer before it looks.

        Args:
            criteria, named: as for `iterate`.
            since: also yield what has started since this time, the oldest first, as it is now.
            last: first yield so many of the newest executions, the oldest first.
            interval: the time between two looks at history if nothing is announced.

        Raises:
            InvalidInput: if an argument cannot be used.
            sqlalchemy.exc.SQLAlchemyError: if history cannot be read at the beginning.
        """
        following = Following(
            self._followed,
            self._rows.now,
            criteria,
            named,
            since=since,
            last=last,
            interval=interval,
        )
        return Follow(ChangeFeed(following))
