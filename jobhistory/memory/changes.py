"""Reads of a history in memory for those who follow it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from jobhistory._runtime.wakers import WatchingWaker
from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.memory.rows import Rows, newest_first
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.marks import Mark
from jobhistory.query.matching import matches
from jobhistory.schema import HistoryRecord, record_from

Row = dict[str, Any]

_MOST_IDS = 1000


class MemoryChanges:
    """The changes of a history in memory. It sees what is committed."""

    page_size = sys.maxsize
    is_interruptible = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def started_since(
        self, query: HistoryQuery, moment: datetime, after: Cursor | None
    ) -> list[Mark]:
        """Return the executions that started then or later, the oldest first."""
        return self._marks(query, lambda row: row["started_at"] >= moment)

    def ended_since(self, query: HistoryQuery, moment: datetime) -> list[Mark]:
        """Return the executions that started before and ended after it."""
        return self._marks(query, lambda row: _ended_at(row) >= moment > row["started_at"])

    def running(self, query: HistoryQuery, since: datetime) -> list[Mark]:
        """Return the executions that have not ended, of those that started then or later."""
        return self._marks(
            query, lambda row: row["status"] is Status.STARTED and row["started_at"] >= since
        )

    def marks_of(self, query: HistoryQuery, ids: Collection[UUID]) -> list[Mark]:
        """Return the executions with these ids that meet the criteria."""
        wanted = set(ids)
        return self._marks(query, lambda row: row["id"] in wanted)

    def records(self, query: HistoryQuery, ids: Collection[UUID]) -> list[HistoryRecord]:
        """Return the records with these ids that meet all criteria."""
        wanted = set(ids)
        rows = self._rows.committed()
        return [record_from(row) for row in rows if row["id"] in wanted and matches(row, query)]

    def newest(self, query: HistoryQuery, number: int) -> list[HistoryRecord]:
        """Return the newest records that meet all criteria, the newest first."""
        rows = newest_first(row for row in self._rows.committed() if matches(row, query))
        return [record_from(row) for row in rows[:number]]

    def listen(self, waker: WatchingWaker) -> MemoryListener:
        """Start to listen."""
        return MemoryListener(self._rows, waker)

    def _marks(self, query: HistoryQuery, is_wanted: Callable[[Row], bool]) -> list[Mark]:
        rows = (row for row in self._rows.committed() if is_wanted(row) and matches(row, query))
        return [_mark_of(row) for row in reversed(newest_first(rows))]


class MemoryListener:
    """Hears which rows change. Thread-safe."""

    def __init__(self, rows: Rows, waker: WatchingWaker) -> None:
        self._rows = rows
        self._waker = waker
        self._ids: set[UUID] = set()
        self._are_others = False
        rows.listeners.add(self)

    def note(self, ids: Iterable[UUID]) -> None:
        """Note that rows have changed. The caller holds the lock of the rows."""
        self._ids.update(ids)
        if len(self._ids) > _MOST_IDS:
            self._ids.clear()
            self._are_others = True
        self._waker.wake()

    def heard(self) -> tuple[set[UUID], bool]:
        """Return the ids since the last call, and whether others have changed."""
        with self._rows.lock:
            heard = self._ids, self._are_others
            self._ids, self._are_others = set(), False
        return heard

    def break_off(self) -> None:
        """Do nothing: nobody waits until what it hears is taken."""

    def close(self) -> None:
        """Stop listening."""
        self._rows.listeners.discard(self)


def _ended_at(row: Row) -> datetime:
    ended_at: datetime | None = row.get("completed_at")
    started_at: datetime = row["started_at"]
    return started_at if ended_at is None else ended_at


def _mark_of(row: Row) -> Mark:
    return Mark(
        row["id"],
        row["started_at"],
        row["status"],
        row.get("completed_at"),
        row.get("error_type") == WORKER_LOST,
    )
