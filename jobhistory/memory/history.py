"""The same verbs without a database: history for as long as the process lives."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from threading import RLock
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from jobhistory._runtime.commit_hooks import CommitHooks, PendingWrite
from jobhistory._runtime.fork import register_for_fork
from jobhistory._runtime.ring import RingBuffer
from jobhistory.database.statements.expire import Branch, Deleted, Expiry, Place, Reaped
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, InvalidInput
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
    is_lost,
    lost,
    not_found,
)
from jobhistory.execution.status import Status
from jobhistory.memory.reports import failures_of, stats_of
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.reports import Count, FailureGroup, TaskStats
from jobhistory.sanitize.truncate import ascii_lower
from jobhistory.schema import HistoryRecord, record_from, values_of

logger = logging.getLogger(__name__)

STARTED_LIMIT = 10_000
"""How many executions may be under way at once before the oldest is forgotten."""

Row = dict[str, Any]


class _Started:
    """The rows of executions under way, in the order in which they came; not thread-safe."""

    def __init__(self) -> None:
        self._by_id: dict[UUID, Row] = {}
        self._by_key: dict[ExecutionKey, dict[UUID, Row]] = {}

    def add(self, row: Row) -> None:
        """Add a row that is not there."""
        self._by_id[row["id"]] = row
        self._by_key.setdefault(ExecutionKey.of_row(row), {})[row["id"]] = row

    def pop(self, id_: UUID) -> Row | None:
        """Remove the row with an id, and return it; `None` if it is not there."""
        row = self._by_id.pop(id_, None)
        if row is not None:
            key = ExecutionKey.of_row(row)
            del self._by_key[key][id_]
            if not self._by_key[key]:
                del self._by_key[key]
        return row

    def ended_by(self, outcome: Outcome) -> Row | None:
        """Return the row that an outcome ends: the newest of those with its ids."""
        if outcome.id is not None:
            return self._by_id.get(outcome.id)
        return next(iter(_newest_first(self._by_key.get(outcome.key, {}).values())), None)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)


class MemoryHistory:
    """Executions under way in a table of its own, ended ones in the ring buffer; thread-safe.

    A forked child begins with an empty history of its own.
    """

    def __init__(self, ended: RingBuffer[Row]) -> None:
        self._ended = ended
        self.reset_after_fork()
        register_for_fork(self)

    def reset_after_fork(self) -> None:
        """Forget everything, in a forked child; the ring buffer does so itself."""
        self._started = _Started()
        # Those whose outcome waits for the commit of a caller's transaction.
        self._ending: dict[UUID, Row] = {}
        self._lock = RLock()  # a signal handler may run while its own thread holds it

    def joined(self, session: Session) -> JoinedMemory:
        """The same history, as the operations of a caller who is at work in a session."""
        return JoinedMemory(session, self)

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Keep a new row, and return its record; with `may_exist`, the one that has its id."""
        with self._lock:
            if may_exist and (existing := self.with_id_of(row)):
                return record_from(existing)
            if len(self._started) >= STARTED_LIMIT:
                forgotten = next(iter(self._started))
                self._started.pop(forgotten["id"])
                logger.warning(
                    "forgot the started execution of job %r: more than %d are under way in memory",
                    forgotten["job_id"],
                    STARTED_LIMIT,
                )
            self._started.add(row)
        return record_from(row)

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Keep the row of an ended execution, or its outcome if it has started.

        Raises:
            ExecutionAlreadyFinished: if it may exist, and has ended with another outcome.
            InvalidInput: if it may exist, and is of another job or task.
        """
        with self._lock:
            existing = self.with_id_of(row) if may_exist else None
            if existing is not None:
                return self.end(_outcome_of(row, existing))
            self._ended.append(row)
            return record_from(row)

    def insert_many_ended(self, rows: list[Row]) -> None:
        """Keep the rows of ended executions."""
        self._ended.extend(rows)

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Note how an execution ended and move it into the ring buffer; return its record.

        Raises:
            ExecutionNotFound: if no execution of that key has started.
            ExecutionAlreadyFinished: if it has ended with another outcome.
        """
        with self._lock:
            started, row = self._end(outcome)
            if started is not None:
                self._buffer(row)
        return record_from(row)

    def end_for_now(self, outcome: Outcome) -> tuple[Row | None, Row]:
        """Do as `end` without the ring buffer; return the row before, if it is new, and after."""
        with self._lock:
            return self._end(outcome)

    def hold(self, row: Row) -> None:
        """Note the row of an execution that has ended for now."""
        with self._lock:
            self._ending[row["id"]] = row

    def keep(self, id_: UUID) -> None:
        """Move an execution that has ended for now into the ring buffer."""
        with self._lock:
            if id_ in self._ending:
                self._buffer(self._ending[id_])

    def take_back(self, id_: UUID, before: Row | None = None) -> None:
        """Forget an execution, or put back the row that it was before it ended for now."""
        with self._lock:
            self._ending.pop(id_, None)
            self._started.pop(id_)
            if before is not None and before["status"] is Status.STARTED:
                self._started.add(before)
            elif before is not None:  # it had been presumed lost
                self._ended.append(before)

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None] = lambda: None
    ) -> BatchResult:
        """Keep the rows and the outcomes of a batch, as far as history allows."""
        before_commit()
        written = BatchResult([], [])
        for operation in batch.operations:
            try:
                if isinstance(operation, Outcome):
                    written.ended.append(values_of(self.end(operation)))
                elif operation["status"].is_outcome:
                    record = self.insert_ended(operation, may_exist=may_exist)
                    written.ended.append(values_of(record))
                else:
                    self.insert(operation, may_exist=may_exist)
            except (ExecutionNotFound, ExecutionAlreadyFinished, InvalidInput) as refusal:
                if not isinstance(operation, Outcome):
                    operation = Outcome(ExecutionKey.of_row(operation), operation)
                written.refused.append((operation, refusal))
        return written

    def earlier(self, now: datetime) -> datetime:
        """Return a moment as it is: without a database there is one clock."""
        return now

    def reap(self, query: HistoryQuery, now: datetime, after: Place) -> Reaped:
        """End the oldest started executions that meet the criteria as lost."""
        with self._lock:
            found = (row for row in self._started if _meets(row, query))
            oldest = _newest_first(found)[::-1][: query.limit]
            ended = [row | lost(row["started_at"], now) for row in oldest]
            for row in ended:
                self._started.pop(row["id"])
                self._buffer(row)
        last = Place(ended[-1]["started_at"], ended[-1]["id"]) if ended else None
        return Reaped(len(ended), ended, last)

    def _end(self, outcome: Outcome) -> tuple[Row | None, Row]:
        """The row that had started, unless it had ended before, and the one that has ended."""
        started = self._started.ended_by(outcome)
        if started is not None:
            row = outcome._replace(row=started).ended_row()
            self._started.pop(row["id"])
            self._ending[row["id"]] = row
            return started, row
        every_ended = (*self._ending.values(), *self._ended.last())
        ended = _newest_first(row for row in every_ended if _is_of(row, outcome))
        if not ended:
            raise not_found(outcome)
        record = record_from(ended[0])
        if is_lost(record):
            row = outcome._replace(row=ended[0]).ended_row()
            self._ended.discard(lambda row: bool(row["id"] == record.id))
            self._ending[row["id"]] = row
            return ended[0], row
        if not outcome.agrees_with(record):
            raise ExecutionAlreadyFinished(record)
        return None, ended[0]

    def with_id_of(self, row: Row) -> Row | None:
        """Return the row with the id of another one, which must be of the same job and task."""
        for existing in self._rows():
            if existing["id"] == row["id"]:
                check_same_job(row, record_from(existing))
                return existing
        return None

    def _buffer(self, row: Row) -> None:
        self._ending.pop(row["id"], None)
        self._ended.append(row)

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]:
        """The records that meet the criteria, in their order, from a cursor on."""
        rows = _newest_first(self._meeting(query))
        if query.order == "oldest":
            rows.reverse()
        if after is not None:
            end = (after.started_at, after.id)
            is_behind = operator.gt if query.order == "oldest" else operator.lt
            rows = [row for row in rows if is_behind((row["started_at"], row["id"]), end)]
        return [record_from(row) for row in rows[: query.limit]]

    def count(self, query: HistoryQuery, cap: int | None) -> Count:
        """How many executions meet the criteria, up to a cap."""
        return Count.up_to(len(self._meeting(query)), cap)

    def stats(self, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]:
        """The statistics of each task, in each bucket of time."""
        return stats_of(self._meeting(query), bucket)

    def failures(self, query: HistoryQuery) -> list[FailureGroup]:
        """The kinds of failures, the most frequent first."""
        return failures_of(self._meeting(query), query.limit)

    def plan_expiry(self, now: datetime) -> Expiry:
        """Return what to delete from, and up to which moment."""
        return Expiry(now)

    def count_expired(self, now: datetime) -> int:
        """Return the number of records that have expired."""
        return sum(_has_expired(row, now) for row in self._rows())

    def first_expired(self, branch: Branch | None, cutoff: datetime, low: Place) -> None:
        """Return no place, as nothing refuses to be deleted here."""

    def delete_expired(
        self, branch: Branch | None, cutoff: datetime, low: Place, batch_size: int
    ) -> Deleted:
        """Forget all records that have expired, in one batch, as there is no one to be blocked."""
        with self._lock:
            started = [row for row in self._started if _has_expired(row, cutoff)]
            for row in started:
                self._started.pop(row["id"])
            ended = self._ended.discard(lambda row: _has_expired(row, cutoff))
        deleted = len(started) + ended
        return Deleted(deleted, deleted, None)

    def _meeting(self, query: HistoryQuery) -> list[Row]:
        return [row for row in self._rows() if _meets(row, query)]

    def _rows(self) -> list[Row]:
        with self._lock:  # so that an execution is in one of the two, not in both or neither
            return [*self._started, *self._ending.values(), *self._ended.last()]


class JoinedMemory:
    """The same verbs in a caller's transaction: what it does not commit is taken back.

    Others see that something has started before the commit, but no outcome in the ring buffer.
    Failures stay, as they do in a database.
    """

    def __init__(self, session: Session, memory: MemoryHistory) -> None:
        self._session = session
        self._memory = memory
        self.find = memory.find
        self.count = memory.count
        self.stats = memory.stats
        self.failures = memory.failures

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Keep a new row, and return its record; with `may_exist`, the one that has its id."""
        connection = self._hooks.connection()
        existing = self._memory.with_id_of(row) if may_exist else None
        if existing is not None:
            record = record_from(existing)
        else:
            record = self._memory.insert(row, may_exist=may_exist)
            write = PendingWrite(
                on_commit=lambda: None,
                on_rollback=lambda: self._memory.take_back(row["id"]),
                is_committed=lambda: False,
            )
            self._hooks.add(connection, write)
        if record.status is Status.STARTED:
            self._hooks.remember(ExecutionKey.of_row(row), row["id"], value=values_of(record))
        return record

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Keep the row of an ended execution; see `MemoryHistory.insert_ended`."""
        existing = self._memory.with_id_of(row) if may_exist else None
        if existing is not None:
            return self.end(_outcome_of(row, existing))
        try:
            self._hold(row, survives=True)
        except InvalidRequestError:
            if row["status"] is not Status.FAILED:
                raise
            self._record_later(row)
        return record_from(row)

    def insert_many_ended(self, rows: list[Row]) -> None:
        """Keep the rows of ended executions."""
        for row in rows:
            self._hold(row, survives=False)

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Note how an execution ended, and return its record."""
        try:
            connection = self._hooks.connection()
        except InvalidRequestError:
            row = outcome.row or self._hooks.recall(outcome.id or outcome.key)
            if row is None or outcome.values["status"] is not Status.FAILED:
                raise
            row = outcome._replace(row=row).ended_row()
            self._record_later(row)
            return record_from(row)
        before, row = self._memory.end_for_now(outcome)
        if before is not None:
            self._follow(connection, row, before, survives=True)
        return record_from(row)

    @property
    def _hooks(self) -> CommitHooks:
        return CommitHooks.of(self._session)

    def _hold(self, row: Row, *, survives: bool) -> None:
        connection = self._hooks.connection()
        self._memory.hold(row)
        self._follow(connection, row, None, survives=survives)

    def _follow(
        self, connection: Connection | None, row: Row, before: Row | None, *, survives: bool
    ) -> None:
        def on_rollback() -> None:
            self._memory.take_back(row["id"], before)
            if survives and row["status"] is Status.FAILED:
                self._record_later(row)

        write = PendingWrite(lambda: self._memory.keep(row["id"]), on_rollback, lambda: False)
        self._hooks.add(connection, write)

    def _record_later(self, row: Row) -> None:
        self._hooks.at_end(lambda: self._memory.insert_ended(row, may_exist=True))


def _outcome_of(row: Row, existing: Row) -> Outcome:
    """Return the outcome that a whole row has, for an execution that is there already."""
    values = {name: row.get(name) for name in OUTCOME_COLUMNS}
    return Outcome(ExecutionKey.of_row(row), values, existing)


def _is_of(row: Row, outcome: Outcome) -> bool:
    if outcome.id is not None:
        return bool(row["id"] == outcome.id)
    return ExecutionKey.of_row(row) == outcome.key


def _newest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)


def _has_expired(row: Row, cutoff: datetime) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= cutoff


def _meets(row: Row, query: HistoryQuery) -> bool:
    return (
        (query.from_ is None or row["started_at"] >= query.from_)
        and (query.to is None or row["started_at"] <= query.to)
        and (query.task_identifier is None or row["task_identifier"] in query.task_identifier)
        and (query.status is None or row["status"] in query.status)
        and (query.job_id is None or row["job_id"] == query.job_id)
        and (query.correlation_id is None or row["correlation_id"] == query.correlation_id)
        and (query.worker_id is None or row["worker_id"] == query.worker_id)
        and (query.error_type is None or row.get("error_type") == query.error_type)
        and (query.error_contains is None or _has_error(row, query.error_contains))
        and (query.min_execution_time_ms is None or _took(row, query.min_execution_time_ms))
    )


def _took(row: Row, at_least: int) -> bool:
    milliseconds = row.get("execution_time_ms")
    return milliseconds is not None and milliseconds >= at_least


def _has_error(row: Row, text: str) -> bool:
    if row.get("error_type") is None:
        return False
    error = f"{row['error_type']}: {row.get('error_message') or ''}"
    return ascii_lower(text) in ascii_lower(error)
