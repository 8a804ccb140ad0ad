"""What a history offers to those who follow it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol
from uuid import UUID

from jobhistory._runtime.wakers import WatchingWaker
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.marks import Mark
from jobhistory.schema import HistoryRecord


class Listener(Protocol):
    """Hears which executions have changed."""

    def heard(self) -> tuple[set[UUID], bool]:
        """Return the ids that arrived since the last call, and whether others have changed.

        It does not wait. It raises an error if nothing arrives any more.
        """
        ...

    def break_off(self) -> None:
        """Hear no more, as if the connection were lost. Any thread may call it."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class Source(Protocol):
    """A history that can be followed. Criteria are `lasting`, except those of `records`."""

    @property
    def page_size(self) -> int:
        """The maximum number of marks in a page."""
        ...

    @property
    def is_interruptible(self) -> bool:
        """Whether a task that reads may be cancelled halfway."""
        ...

    def started_since(
        self, query: HistoryQuery, moment: datetime, after: Cursor | None
    ) -> list[Mark]:
        """Return a page of the executions that started then or later, the oldest first."""
        ...

    def ended_since(self, query: HistoryQuery, moment: datetime) -> list[Mark]:
        """Return those among the newest executions that started before and ended after it."""
        ...

    def running(self, query: HistoryQuery, since: datetime) -> list[Mark]:
        """Return executions that have not ended, of those that started then or later."""
        ...

    def marks_of(self, query: HistoryQuery, ids: Collection[UUID]) -> list[Mark]:
        """Return the executions with these ids that meet the criteria."""
        ...

    def records(self, query: HistoryQuery, ids: Collection[UUID]) -> list[HistoryRecord]:
        """Return the records with these ids that meet all criteria."""
        ...

    def newest(self, query: HistoryQuery, number: int) -> list[HistoryRecord]:
        """Return the newest records that meet all criteria, the newest first."""
        ...

    def listen(self, waker: WatchingWaker) -> Listener | None:
        """Start to listen, and wake the waker when something arrives; `None` if that is impossible.

        An error means that it may be possible later.
        """
        ...
