"""The storage of a history in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from threading import RLock
from typing import Any, Protocol
from uuid import UUID

from jobhistory._runtime.fork import register_for_fork
from jobhistory._runtime.ring import RingBuffer
from jobhistory.execution.batch import Counted
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status
from jobhistory.memory.rollups import Rollups
from jobhistory.statistics.cover import EVERYTHING, Cover
from jobhistory.statistics.ended import Ended, counted, ended
from jobhistory.statistics.ever import TaskMeasures
from jobhistory.statistics.keeping import Keeping
from jobhistory.typing import Clock

Row = dict[str, Any]


class RowListener(Protocol):
    """What hears which rows change."""

    def note(self, ids: Iterable[UUID]) -> None:
        """Note that rows have changed. The caller holds the lock of the rows."""
        ...


class Rows:
    """Started executions in insertion order, and the ring buffer of ended ones.

    An outcome in a caller's transaction is pending until the commit; then `rollups` count it. Each
    method is thread-safe; hold `lock` to make several calls atomic. A forked child starts with no
    rows.
    """

    def __init__(self, ring: RingBuffer[Row], clock: Clock, keeping: Keeping) -> None:
        self._ring = ring
        self._clock = clock
        self._keeping = keeping
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Remove all rows. The ring buffer empties itself."""
        self.lock = RLock()  # reentrant, as a signal handler may interrupt the thread that holds it
        self._started: dict[UUID, Row] = {}
        self._started_by_key: dict[ExecutionKey, dict[UUID, Row]] = {}
        self._pending: dict[UUID, Row] = {}
        self._replaced: dict[UUID, Row] = {}  # outcomes that pending ones replace
        self.rollups = Rollups(self._clock, self._keeping)
        self.listeners: set[RowListener] = set()

    def _tell(self, *ids: UUID) -> None:
        for listener in self.listeners:
            listener.note(ids)

    def put(self, row: Row, replaced: Row | None = None, *, is_pending: bool = False) -> None:
        """Add a row, or replace the row with its id.

        Args:
            replaced: the outcome that the row replaces, if it ended before.
        """
        with self.lock:
            if row["id"] in self._pending:
                replaced = self._replaced.get(row["id"])
            self.remove(row["id"])
            if row["status"] is Status.STARTED:
                self._started[row["id"]] = row
                self._started_by_key.setdefault(ExecutionKey.of_row(row), {})[row["id"]] = row
            elif is_pending:
                self._pending[row["id"]] = row
                if replaced is not None:
                    self._replaced[row["id"]] = replaced
            else:
                self.restore(row)
                self.rollups.add(counted(row, replaced))
            if row["id"] not in self._pending:
                self._tell(row["id"])

    def append(self, row: Row) -> None:
        """Add an ended row, whichever rows with its id there are."""
        with self.lock:
            self.restore(row)
            self.rollups.add(counted(row))
            self._tell(row["id"])

    def restore(self, row: Row) -> None:
        """Add an ended row that counts already."""
        with self.lock:
            evicted = self._ring.append(row)
            if evicted is not None:
                self.rollups.lose(evicted)

    def take(self, row: Row) -> None:
        """Remove an ended row, which another one replaces."""
        with self.lock:
            self._ring.discard(lambda each: bool(each["id"] == row["id"]))

    def update(self, id_: UUID, values: Row) -> bool:
        """Replace values of the started row with an id, and return whether there is one."""
        with self.lock:
            row = self._started.get(id_)
            if row is not None:  # not changed in place, because another thread may be reading it
                row = self._started[id_] = row | values
                self._started_by_key[ExecutionKey.of_row(row)][id_] = row
            return row is not None

    def count_only(self, execution: Counted) -> None:
        """Count an ended execution that has no row."""
        with self.lock:
            self.rollups.add([ended(execution.values)._replace(is_stored=False)])

    def replace_ended(self, old: Row, new: Row) -> bool:
        """Put a row in the place of an ended one, and return whether that was there."""
        with self.lock:
            return self._ring.replace(old, new)

    def commit(self, row: Row) -> None:
        """Move a pending row to the ring buffer, unless it was removed or replaced."""
        with self.lock:
            if self._pending.get(row["id"]) is row:
                self.put(row, self._replaced.get(row["id"]))

    def remove(self, id_: UUID) -> None:
        """Remove the started or pending row with an id."""
        with self.lock:
            self._pending.pop(id_, None)
            self._replaced.pop(id_, None)
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
            for row in (*started, *filter(unwanted, self._ring.last())):
                self.rollups.lose(row)
            for row in started:
                self.remove(row["id"])
            return len(started) + self._ring.discard(unwanted)

    def all(self) -> list[Row]:
        """Return all rows."""
        with self.lock:  # otherwise a row that ends meanwhile could appear twice or not at all
            return [*self._started.values(), *self._pending.values(), *self._ring.last()]

    def committed(self) -> list[Row]:
        """Return all rows, except those that end in a transaction which is not committed."""
        with self.lock:
            return [*self._started.values(), *self._ring.last()]

    def measured(self, cover: Cover) -> Iterator[Ended]:
        """Yield the executions in a cover that no rollup counts yet."""
        with self.lock:
            uncommitted = (
                each
                for id_, row in self._pending.items()
                for each in counted(row, self._replaced.get(id_))
            )
            for each in (*self.rollups.queue, *uncommitted):
                if cover.whole.holds(each.started_at):
                    yield each
            for row in self._started.values():
                if cover.whole.holds(row["started_at"]):
                    yield ended(row)
            for row in self.all() if cover.edges else ():
                if any(edge.holds(row["started_at"]) for edge in cover.edges):
                    yield ended(row)

    def measures(self) -> dict[str, TaskMeasures]:
        """Return the measures of all executions, without outcomes that are pending, by task."""
        found: defaultdict[str, TaskMeasures] = defaultdict(TaskMeasures)
        with self.lock:
            for task, month, measures in self.rollups.read(EVERYTHING, None):
                found[task].see_start(month)
                found[task].ended.add(measures)
            for each in self.rollups.queue:
                found[each.task_identifier].see_start(each.started_at)
                found[each.task_identifier].ended.count(each)
            for row in self._started.values():
                at = row["started_at"]
                found[row["task_identifier"]].add_running(1, at, at)
        return found

    def fold(self) -> None:
        """Add all that has ended to the rollups, and forget old ones."""
        with self.lock:
            self.rollups.fold()

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
