"""A history without a database, which lives as long as the process."""

from __future__ import annotations

import logging
import operator
from collections import defaultdict
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
from jobhistory.execution.batch import Batch, BatchResult, Counted
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    SURVIVE_ROLLBACK,
    ExecutionKey,
    Outcome,
    check_same_job,
    lost_outcome,
    not_found,
)
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.memory.changes import MemoryChanges
from jobhistory.memory.expectations import MemoryExpectations
from jobhistory.memory.reports import failures_of, stats_of, workers_of
from jobhistory.memory.retention import coverage_of, to_delete
from jobhistory.memory.rows import Rows, newest_first
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.lost import LostQuery
from jobhistory.query.matching import matches
from jobhistory.query.overlap import Claim, Overlap
from jobhistory.query.reports import (
    Count,
    FailureGroup,
    TaskStats,
    WaitingForPartition,
    WorkerActivity,
    before_window,
)
from jobhistory.query.retention import RetentionCoverage
from jobhistory.query.rollups import Key, Question, count_of, is_of_known
from jobhistory.query.rollups import stats_of as stats_of_rollups
from jobhistory.schema import HistoryRecord, record_from, values_of
from jobhistory.statistics.cover import Cover
from jobhistory.statistics.ever import TaskMeasures
from jobhistory.statistics.keeping import Keeping
from jobhistory.statistics.measures import Measures
from jobhistory.typing import Clock

logger = logging.getLogger(__name__)

STARTED_LIMIT = 10_000
"""The maximum number of started executions. A new one beyond it evicts the oldest."""

Row = dict[str, Any]


class MemoryHistory(MemoryExpectations):
    """Started executions, and the ring buffer of ended ones. Thread-safe.

    With a session, writes belong to the session's transaction. Reads see them at once, but the
    ring buffer gets outcomes after the commit. A rollback restores the previous rows and then
    records failures again, as a history in a database does.
    """

    def __init__(self, rows: Rows, retention: Retention, session: Session | None = None) -> None:
        super().__init__(rows)
        self._retention = retention
        self._session = session

    @classmethod
    def on(
        cls, ring: RingBuffer[Row], retention: Retention, clock: Clock, keeping: Keeping
    ) -> MemoryHistory:
        """Return a history that appends ended executions to a ring buffer.

        Args:
            clock: returns the current time.
            keeping: how long statistics are kept.
        """
        return cls(Rows(ring, clock, keeping), retention)

    def in_session(self, session: Session) -> MemoryHistory:
        """Return a view of this history that writes in the transaction of a caller's session."""
        return MemoryHistory(self._rows, self._retention, session)

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

    def claim(self, row: Row, rivals: Overlap, now: datetime) -> Claim:
        """Add a new row, unless another execution of its task runs; end those that are lost."""
        with self._rows.lock:
            claim = self._cleared(rivals, now)
            if claim.holder is None:
                self.insert(row)
        return claim

    def end_lost(self, rivals: Overlap, now: datetime) -> list[HistoryRecord]:
        """End the executions of a task that are lost, the oldest first, and return them."""
        with self._rows.lock:
            return self._cleared(rivals, now).lost

    def _cleared(self, rivals: Overlap, now: datetime) -> Claim:
        def end(found: list[HistoryRecord]) -> list[HistoryRecord]:
            searches = rivals.lost_among(found, now)
            return [record_from(row) for lost in searches for row in self._end(lost, now)]

        return rivals.cleared(lambda: self.find(rivals.query), end)

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

    def count_only(self, row: Row) -> HistoryRecord:
        """Count an ended execution in the statistics, without its row. Return its record."""
        self._count(Counted.of(row))
        return record_from(row)

    def _count(self, execution: Counted) -> None:
        """Count an execution; in a session, after the commit."""
        count = partial(self._rows.count_only, execution)
        if self._session is None:
            count()
        else:
            write = PendingWrite(count, on_rollback=lambda: None, is_committed=lambda: False)
            self._hooks.add(self._connection(), write)

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

    def observe(self, row: Row) -> None:
        """Add an execution that ended elsewhere to the ring buffer."""
        self._rows.append(row)

    def heartbeat(self, id_: UUID, job_id: str, values: Row) -> bool:
        """Write signs of life of a started execution, and return whether there is one.

        Ended executions stay as they are.
        """
        return self._rows.update(id_, values)

    def exchange_label(
        self, id_: UUID, job_id: str, name: str, old: str | None, new: str | None
    ) -> bool:
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
                self._rows.take(found)
            row = outcome._replace(row=found).ended_row(self._retention)
            self._put(row, found, connection)
        return record_from(row)

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None] = lambda: None
    ) -> BatchResult:
        """Write the rows and outcomes of a batch, and return those that the history refused."""
        before_commit()
        result = BatchResult([], [])
        for operation in batch.operations:
            if isinstance(operation, Counted):
                self._count(operation)
                continue
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

    def count(self, query: HistoryQuery, cap: int | None, now: datetime | None = None) -> Count:
        """Return the number of executions that match the criteria, up to a cap.

        With the current time, executions that are no longer in memory count as well.
        """
        if now is not None:
            known = self._counted(Question(query, None, now))
            if known is not None:
                return Count.up_to(known, cap)
        return Count.up_to(len(self._matching(query)), cap)

    def stats(
        self, query: HistoryQuery, bucket: timedelta | None, now: datetime | None = None
    ) -> list[TaskStats]:
        """Return the statistics of each task, one per bucket of time if `bucket` is given.

        With the current time, rollups are used where possible.
        """
        if now is not None and is_of_known(query):
            question = Question(query, bucket, now)
            with self._rows.lock:
                marks = self._rows.rollups.marks
                read = partial(self._measures, question)
                holds_unstored = partial(self._holds_unstored, question)
                known = stats_of_rollups(question, marks, read, holds_unstored)
            if known is not None:
                return known
        return stats_of(self._matching(query), bucket)

    def measures(self) -> dict[str, TaskMeasures]:
        """Return the measures of all executions, forgotten ones included, by task."""
        return self._rows.measures()

    def failure_groups(
        self, query: HistoryQuery, known_for: timedelta | None = None
    ) -> list[FailureGroup]:
        """Return the groups of failures, the most frequent group first.

        `known_for` is how long before the window to search for the same failures.
        """
        before = before_window(query, known_for)
        earlier = None
        if before is not None:
            rows = self._matching(before)
            earlier = [row for row in rows if row["started_at"] != query.from_]
        return failures_of(self._matching(query), query.limit, earlier)

    def workers(self, query: HistoryQuery) -> list[WorkerActivity]:
        """Return what each worker did, last seen first."""
        return workers_of(self._matching(query), query.limit)

    def count_expired(self, now: datetime, *, by_partition: bool = False) -> int:
        """Return the number of records that `expire` would remove."""
        return len(to_delete(self._rows.all(), self._retention, now))

    def retention(self, now: datetime) -> list[RetentionCoverage]:
        """Return how many records each rule covers, and how many `expire` would delete."""
        return coverage_of(self._rows.all(), self._retention, now)

    def applied_retention(self) -> Retention | None:
        """Return the retention that the history keeps for other stores: none."""
        return None

    def waiting_for_partition(self, now: datetime) -> WaitingForPartition:
        """Return that nothing waits, because there are no partitions."""
        return WaitingForPartition(0, None)

    def expire(
        self,
        now: datetime,
        batches: Batches,
        *,
        by_partition: bool = False,
        archive: Any = None,
    ) -> int:
        """Remove expired records and return their number.

        One batch does all the work, because no other process waits for it.

        Raises:
            InvalidInput: if an archive is to get them.
        """
        if archive is not None:
            remedy = "needs a database; a store in memory has nothing to archive"
            raise InvalidInput("archive", archive.location, remedy)

        def do_batch() -> tuple[int, bool]:
            with self._rows.lock:
                ids = to_delete(self._rows.all(), self._retention, now)
                return self._rows.discard(lambda row: row["id"] in ids), True

        return batches.run(do_batch)

    def count_waiting(self) -> int:
        """Return 0, as for `fold`."""
        return 0

    def fold_once(self, batch_size: int) -> bool:
        """Return whether more may wait."""
        return False

    def fold(self, now: datetime, batches: Batches) -> int:
        """Forget old statistics, and return 0: they are up to date."""
        self._rows.fold()
        return batches.run(lambda: (0, True))

    def recount(self, from_: datetime, to: datetime) -> int:
        """Return 0: nothing can have been missed."""
        return 0

    def purge(self, query: HistoryQuery, batches: Batches) -> int:
        """Remove the records that meet the criteria, in one batch, and return their number."""
        return batches.run(lambda: (self._rows.discard(lambda row: matches(row, query)), True))

    def changes(self) -> MemoryChanges:
        """Return the history as a source of changes."""
        return MemoryChanges(self._rows)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def reap_lost(self, lost: LostQuery, now: datetime, batches: Batches) -> int:
        """End the executions of lost workers in batches and return their number."""
        return batches.run(partial(self._reap, lost.at(now), now))

    def _reap(self, lost: LostQuery, now: datetime) -> tuple[int, bool]:
        ended = len(self._end(lost, now))
        return ended, ended < (lost.query.limit or 0)

    def _end(self, lost: LostQuery, now: datetime) -> list[Row]:
        """End the oldest executions that are lost, up to the limit, and return their rows."""
        with self._rows.lock:
            found = newest_first(row for row in self._rows.started() if _is_lost(row, lost))
            ended = []
            for row in found[::-1][: lost.query.limit]:
                outcome = lost_outcome(row, now, lost.heartbeat_before is not None)
                outcome["expires_at"] = self._retention.expiry_after(row, Status.FAILED)
                ended.append(row | outcome)
                self._rows.put(ended[-1])
        return ended

    def _counted(self, question: Question) -> int | None:
        wanted = question.query.status
        statuses = tuple(Status) if wanted is None else wanted

        def read(cover: Cover) -> int:
            found = self._measures(question, cover).values()
            return sum(each.number_of(status) for each in found for status in statuses)

        with self._rows.lock:
            marks = self._rows.rollups.marks
            return count_of(question, marks, read, partial(self._holds_unstored, question))

    def _holds_unstored(self, question: Question, cover: Cover) -> bool:
        return self._rows.rollups.holds_unstored(cover, question.query.task_identifier)

    def _measures(self, question: Question, cover: Cover) -> dict[Key, Measures]:
        tasks = question.query.task_identifier
        found: defaultdict[Key, Measures] = defaultdict(Measures)
        for task, bucket, measures in self._rows.rollups.read(cover, tasks):
            found[question.key_of(task, bucket)].add(measures)
        for each in self._rows.measured(cover):
            if tasks is None or each.task_identifier in tasks:
                found[question.key_of(each.task_identifier, each.started_at)].count(each)
        return found

    def _matching(self, query: HistoryQuery) -> list[Row]:
        return [row for row in self._rows.all() if matches(row, query)]

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
        had_ended = earlier is not None and earlier["status"].is_outcome
        replaced = earlier if had_ended else None
        self._rows.put(row, replaced, is_pending=self._session is not None)
        if self._session is None:
            return

        def undo() -> None:
            self._rows.remove(row["id"])
            if replaced is not None:
                self._rows.restore(replaced)
            elif earlier is not None:
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
        row = outcome._replace(row=row).ended_row(self._retention)
        self._record_later(row)
        return record_from(row)

    def _record_later(self, row: Row) -> None:
        own = MemoryHistory(self._rows, self._retention)
        self._hooks.at_end(lambda: own.insert_ended(row, may_exist=True))

    def _connection(self) -> Connection | None:
        return None if self._session is None else self._hooks.connection()

    @property
    def _hooks(self) -> CommitHooks:
        assert self._session is not None
        return CommitHooks.of(self._session)


def _is_lost(row: Row, lost: LostQuery) -> bool:
    if not matches(row, lost.query) or (lost.ids is not None and row["id"] not in lost.ids):
        return False
    if lost.heartbeat_before is None:
        return True
    heartbeat: datetime | None = row.get("heartbeat_at")
    return heartbeat is not None and heartbeat <= lost.heartbeat_before
