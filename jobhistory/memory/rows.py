"""The storage of a history in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any
from uuid import UUID

from jobhistory._runtime.fork import register_for_fork
from jobhistory._runtime.ring import RingBuffer
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status

Row = dict[str, Any]


class Rows:
    """Started executions in insertion order, and the ring buffer of ended ones.

    An outcome in a caller's transaction is pending until the commit. Each method is thread-safe;
    hold `lock` to make several calls atomic. A forked child starts with no rows.
    """

    def __init__(self, ring: RingBuffer[Row]) -> None:
        self._ring = ring
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Remove all rows. The ring buffer empties itself."""
        self.lock = RLock()  # reentrant, as a signal handler may interrupt the thread that holds it
        self._started: dict[UUID, Row] = {}
        self._started_by_key: dict[ExecutionKey, dict[UUID, Row]] = {}
        self._pending: dict[UUID, Row] = {}

    def put(self, row: Row, *, is_pending: bool = False) -> None:
        """Add a row, or replace the row with its id."""
        with self.lock:
            self.remove(row["id"])
            if row["status"] is Status.STARTED:
                self._started[row["id"]] = row
                self._started_by_key.setdefault(ExecutionKey.of_row(row), {})[row["id"]] = row
            elif is_pending:
                self._pending[row["id"]] = row
            else:
                self._ring.append(row)

    def update(self, id_: UUID, values: Row) -> bool:
        """Replace values of the started row with an id, and return whether there is one."""
        with self.lock:
            row = self._started.get(id_)
            if row is not None:  # not changed in place, because another thread may be reading it
                row = self._started[id_] = row | values
                self._started_by_key[ExecutionKey.of_row(row)][id_] = row
            return row is not None

    def replace_ended(self, old: Row, new: Row) -> bool:
        """Put a row in the place of an ended one, and return whether that was there."""
        with self.lock:
            return self._ring.replace(old, new)

    def commit(self, row: Row) -> None:
        """Move a pending row to the ring buffer, unless it was removed or replaced."""
        with self.lock:
            if self._pending.get(row["id"]) is row:
                self.put(row)

    def remove(self, id_: UUID) -> None:
        """Remove the started or pending row with an id."""
        with self.lock:
            self._pending.pop(id_, None)
            row = self._started.pop(id_, None)
            if row is not None:
                key = ExecutionKey.of_row(row)
                del self._started_by_key[key][id_]
                if not self._started_by_key[key]:
                    del self._started_by_key[key]

    def discard(self, unwanted: Callable[[Row], bool]) -> int:
        """Remove the unwanted started and ended rows, and return their number."""
        with self.lock:
            started = [row for row in self._started.values() if unwanted(row)]
            for row in started:
                self.remove(row["id"])
            return len(started) + self._ring.discard(unwanted)

    def all(self) -> list[Row]:
        """Return all rows."""
        with self.lock:  # otherwise a row that ends meanwhile could appear twice or not at all
            return [*self._started.values(), *self._pending.values(), *self._ring.last()]

    def started(self) -> list[Row]:
        """Return the started rows, in insertion order."""
        with self.lock:
            return list(self._started.values())

    def evict(self, limit: int) -> Row | None:
        """Remove and return the oldest started row, if there are `limit` started rows or more."""
        with self.lock:
            if len(self._started) < limit:
                return None
            oldest = next(iter(self._started.values()))
            self.remove(oldest["id"])
            return oldest

    def started_by(self, outcome: Outcome) -> Row | None:
        """Return the started row that an outcome ends; of several with its ids, the newest."""
        with self.lock:
            if outcome.id is not None:
                return self._started.get(outcome.id)
            rows = newest_first(self._started_by_key.get(outcome.key, {}).values())
        return next(iter(rows), None)

    def ended_by(self, outcome: Outcome) -> Row | None:
        """Return the newest ended row with the ids of an outcome."""
        with self.lock:
            ended = (*self._pending.values(), *self._ring.last())
        return next(iter(newest_first(row for row in ended if _is_of(row, outcome))), None)


def newest_first(rows: Iterable[Row]) -> list[Row]:
    """Return the rows ordered by `started_at` and `id`, descending."""
    return sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)


def _is_of(row: Row, outcome: Outcome) -> bool:
    if outcome.id is not None:
        return bool(row["id"] == outcome.id)
    return ExecutionKey.of_row(row) == outcome.key
