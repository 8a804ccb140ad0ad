"""A history without a database, which lives as long as the process."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session

from jobhistory._runtime.batches import Batches
from jobhistory._runtime.commit_hooks import CommitHooks, PendingWrite
from jobhistory._runtime.ring import RingBuffer
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, InvalidInput
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    SURVIVE_ROLLBACK,
    ExecutionKey,
    Outcome,
    check_same_job,
    lost_outcome,
    not_found,
)
from jobhistory.execution.status import Status
from jobhistory.memory.reports import failures_of, stats_of
from jobhistory.memory.rows import Rows, newest_first
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.lost import LostQuery
from jobhistory.query.reports import Count, FailureGroup, TaskStats
from jobhistory.sanitize.truncate import ascii_lower
from jobhistory.schema import HistoryRecord, record_from, values_of

logger = logging.getLogger(__name__)

STARTED_LIMIT = 10_000
"""The maximum number of started executions. A new one beyond it evicts the oldest."""

Row = dict[str, Any]


class MemoryHistory:
    """Started executions, and the ring buffer of ended ones. Thread-safe.

    With a session, writes belong to the session's transaction. Reads see them at once, but the
    ring buffer gets outcomes after the commit. A rollback restores the previous rows and then
    records failures again, as a history in a database does.
    """

    def __init__(self, rows: Rows, session: Session | None = None) -> None:
        self._rows = rows
        self._session = session

    @classmethod
    def on(cls, ring: RingBuffer[Row]) -> MemoryHistory:
        """Return a history that appends ended executions to a ring buffer."""
        return cls(Rows(ring))

    def in_session(self, session: Session) -> MemoryHistory:
        """Return a view of this history that writes in the transaction of a caller's session."""
        return MemoryHistory(self._rows, session)

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Add a new row and return its record.

        With `may_exist`, return the existing record with this id, if there is one.

        Raises:
            InvalidInput: if the existing record belongs to another job or task.
        """
        connection = self._connection()
        with self._rows.lock:
            existing = self._same(row) if may_exist else None
            if existing is None:
                self._evict()
                self._put(row, None, connection)
            record = record_from(existing or row)
        if self._session is not None and record.status is Status.STARTED:
            self._hooks.remember(ExecutionKey.of_row(row), row["id"], value=values_of(record))
        return record

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Add the row of an ended execution and return its record.

        With `may_exist`, write only the outcome if there is a started row with this id, and nothing
        if that row already has the same outcome.

        Raises:
            ExecutionAlreadyFinished: if the existing row has another outcome.
            InvalidInput: if the existing row belongs to another job or task.
        """
        with self._rows.lock:
            if may_exist and (existing := self._same(row)):
                values = {name: row.get(name) for name in OUTCOME_COLUMNS}
                return self.end(Outcome(ExecutionKey.of_row(row), values, existing))
            try:
                self._put(row, None, self._connection())
            except InvalidRequestError:
                if row["status"] not in SURVIVE_ROLLBACK:
                    raise
                self._record_later(row)
        return record_from(row)

    def insert_many_ended(self, rows: list[Row]) -> None:
        """Add the rows of ended executions.

        Raises:
            IntegrityError: if a row with one of the ids exists, as in a database.
        """
        connection = self._connection()
        with self._rows.lock:
            ids = {row["id"] for row in self._rows.all()}
            for row in rows:
                if row["id"] in ids:
                    duplicate = ValueError(f"there are two executions with the id {row['id']}")
                    raise IntegrityError(None, None, duplicate)
                ids.add(row["id"])
            for row in rows:
                self._put(row, None, connection, survives=False)

    def heartbeat(self, id_: UUID, values: Row) -> bool:
        """Write signs of life of a started execution, and return whether there is one.

        Ended executions stay as they are.
        """
        return self._rows.update(id_, values)

    def exchange_label(self, id_: UUID, name: str, old: str | None, new: str | None) -> bool:
        """Replace one label of an ended execution, and return whether it was the old one.

        `None` stands for no label.
        """
        with self._rows.lock:
            row = next((row for row in self._rows.all() if row["id"] == id_), None)
            if row is None or row["status"] is Status.STARTED:
                return False
            labels = dict(row.get("labels") or {})
            if labels.pop(name, None) != old:
                return False
            if new is not None:
                labels[name] = new
            return self._rows.replace_ended(row, row | {"labels": labels or None})

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write an outcome and return the record. Repeating the same outcome changes nothing.

        Raises:
            ExecutionNotFound: if no such execution has started.
            ExecutionAlreadyFinished: if the execution has another outcome.
        """
        try:
            connection = self._connection()
        except InvalidRequestError as error:
            return self._end_later(outcome, error)
        with self._rows.lock:
            found = self._rows.started_by(outcome)
            if found is None:
                found = self._rows.ended_by(outcome)
                if found is None:
                    raise not_found(outcome)
                record = record_from(found)
                if not outcome.replaces(record):
                    if not outcome.agrees_with(record):
                        raise ExecutionAlreadyFinished(record)
                    return record
                self._rows.discard(lambda row: bool(row["id"] == record.id))
            row = outcome._replace(row=found).ended_row()
            self._put(row, found, connection)
        return record_from(row)

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None] = lambda: None
    ) -> BatchResult:
        """Write the rows and outcomes of a batch, and return those that the history refused."""
        before_commit()
        result = BatchResult([], [])
        for operation in batch.operations:
            try:
                if isinstance(operation, Outcome):
                    result.ended.append(values_of(self.end(operation)))
                elif operation["status"].is_outcome:
                    record = self.insert_ended(operation, may_exist=may_exist)
                    result.ended.append(values_of(record))
                else:
                    self.insert(operation, may_exist=may_exist)
            except (ExecutionNotFound, ExecutionAlreadyFinished, InvalidInput) as refusal:
                if not isinstance(operation, Outcome):
                    operation = Outcome(ExecutionKey.of_row(operation), operation)
                result.refused.append((operation, refusal))
        return result

    def get(self, id_: UUID) -> HistoryRecord | None:
        """Return the record with an id; `None` if there is none."""
        found = (record_from(row) for row in self._rows.all() if row["id"] == id_)
        return next(found, None)

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]:
        """Return the records that match the criteria, in order, starting after a cursor."""
        rows = newest_first(self._matching(query))
        if query.order == "oldest":
            rows.reverse()
        if after is not None:
            end = (after.started_at, after.id)
            is_after = operator.gt if query.order == "oldest" else operator.lt
            rows = [row for row in rows if is_after((row["started_at"], row["id"]), end)]
        return [record_from(row) for row in rows[: query.limit]]

    def count(self, query: HistoryQuery, cap: int | None) -> Count:
        """Return the number of executions that match the criteria, up to a cap."""
        return Count.up_to(len(self._matching(query)), cap)

    def stats(self, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]:
        """Return the statistics of each task, one per bucket of time if `bucket` is given."""
        return stats_of(self._matching(query), bucket)

    def failure_groups(self, query: HistoryQuery) -> list[FailureGroup]:
        """Return the groups of failures, the most frequent group first."""
        return failures_of(self._matching(query), query.limit)

    def count_expired(self, now: datetime) -> int:
        """Return the number of records that have expired."""
        return sum(_has_expired(row, now) for row in self._rows.all())

    def expire(self, now: datetime, batches: Batches) -> int:
        """Remove expired records and return their number.

        One batch does all the work, because no other process waits for it.
        """
        return batches.run(lambda: (self._rows.discard(lambda row: _has_expired(row, now)), True))

    def purge(self, query: HistoryQuery, batches: Batches) -> int:
        """Remove the records that meet the criteria, in one batch, and return their number."""
        return batches.run(lambda: (self._rows.discard(lambda row: _matches(row, query)), True))

    def reap_lost(self, lost: LostQuery, now: datetime, batches: Batches) -> int:
        """End the executions of lost workers in batches and return their number."""
        return batches.run(partial(self._reap, lost.at(now), now))

    def _reap(self, lost: LostQuery, now: datetime) -> tuple[int, bool]:
        limit = lost.query.limit
        with self._rows.lock:
            found = newest_first(row for row in self._rows.started() if _is_lost(row, lost))
            oldest = found[::-1][:limit]
            for row in oldest:
                self._rows.put(row | lost_outcome(row, now, lost.heartbeat_before is not None))
        return len(oldest), len(oldest) < (limit or 0)

    def _matching(self, query: HistoryQuery) -> list[Row]:
        return [row for row in self._rows.all() if _matches(row, query)]

    def _same(self, row: Row) -> Row | None:
        """Return the existing row with the id of `row`, which must have the same job and task."""
        for existing in self._rows.all():
            if existing["id"] == row["id"]:
                check_same_job(row, record_from(existing))
                return existing
        return None

    def _evict(self) -> None:
        evicted = self._rows.evict(STARTED_LIMIT)
        if evicted is not None:
            logger.warning(
                "evicted the started execution of job %r: the limit of %d started executions "
                "is reached",
                evicted["job_id"],
                STARTED_LIMIT,
            )

    def _put(
        self, row: Row, earlier: Row | None, connection: Connection | None, *, survives: bool = True
    ) -> None:
        """Write a row. If the session's transaction is rolled back, restore the earlier row."""
        self._rows.put(row, is_pending=self._session is not None)
        if self._session is None:
            return

        def undo() -> None:
            self._rows.remove(row["id"])
            if earlier is not None:
                self._rows.put(earlier)
            if survives and row["status"] in SURVIVE_ROLLBACK:
                self._record_later(row)

        write = PendingWrite(partial(self._rows.commit, row), undo, lambda: False)
        self._hooks.add(connection, write)

    def _end_later(self, outcome: Outcome, error: InvalidRequestError) -> HistoryRecord:
        """Record a failure after the end of the caller's transaction, which cannot be used.

        Raises:
            InvalidRequestError: the error of that transaction, if the outcome does not survive it.
        """
        row = outcome.row or self._hooks.recall(outcome.id or outcome.key)
        if row is None or outcome.values["status"] not in SURVIVE_ROLLBACK:
            raise error
        row = outcome._replace(row=row).ended_row()
        self._record_later(row)
        return record_from(row)

    def _record_later(self, row: Row) -> None:
        own = MemoryHistory(self._rows)
        self._hooks.at_end(lambda: own.insert_ended(row, may_exist=True))

    def _connection(self) -> Connection | None:
        return None if self._session is None else self._hooks.connection()

    @property
    def _hooks(self) -> CommitHooks:
        assert self._session is not None
        return CommitHooks.of(self._session)


def _has_expired(row: Row, cutoff: datetime) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= cutoff


def _is_lost(row: Row, lost: LostQuery) -> bool:
    if not _matches(row, lost.query):
        return False
    if lost.heartbeat_before is None:
        return True
    heartbeat: datetime | None = row.get("heartbeat_at")
    return heartbeat is not None and heartbeat <= lost.heartbeat_before


def _matches(row: Row, query: HistoryQuery) -> bool:
    return (
        (query.from_ is None or row["started_at"] >= query.from_)
        and (query.to is None or row["started_at"] <= query.to)
        and (query.task_identifier is None or row["task_identifier"] in query.task_identifier)
        and (query.status is None or row["status"] in query.status)
        and (query.job_id is None or row["job_id"] == query.job_id)
        and (query.correlation_id is None or row["correlation_id"] == query.correlation_id)
        and (query.worker_id is None or row["worker_id"] in query.worker_id)
        and (query.worker_id_starts_with is None or _is_worker(row, query.worker_id_starts_with))
        and (query.min_attempt is None or row["attempt_number"] >= query.min_attempt)
        and (query.labels is None or _has_labels(row, query.labels))
        and (query.parent_id is None or row.get("parent_id") == query.parent_id)
        and (query.trace_id is None or row.get("trace_id") == query.trace_id)
        and (query.error_type is None or row.get("error_type") == query.error_type)
        and (query.error_contains is None or _has_error(row, query.error_contains))
        and (query.min_execution_time_ms is None or _took(row, query.min_execution_time_ms))
    )


def _is_worker(row: Row, prefix: str) -> bool:
    return str(row["worker_id"]).startswith(prefix)


def _has_labels(row: Row, labels: tuple[tuple[str, str], ...]) -> bool:
    given = row.get("labels") or {}
    return all(given.get(name) == value for name, value in labels)


def _took(row: Row, at_least: int) -> bool:
    milliseconds = row.get("execution_time_ms")
    return milliseconds is not None and milliseconds >= at_least


def _has_error(row: Row, text: str) -> bool:
    if row.get("error_type") is None:
        return False
    error = f"{row['error_type']}: {row.get('error_message') or ''}"
    return ascii_lower(text) in ascii_lower(error)
