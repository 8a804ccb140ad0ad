"""A history in a database: its operations, independent of how transactions are managed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from jobhistory._runtime.batches import Batches
from jobhistory._runtime.ring import RingBuffer
from jobhistory.database import (
    expiring,
    expiry,
    failures,
    folding,
    lost_workers,
    overlap,
    recorder_batch,
    recounting,
    rollups,
    writes,
)
from jobhistory.database.archiving import Sink
from jobhistory.database.expectations import ExpectationOperations
from jobhistory.database.pruning import Pruning
from jobhistory.database.purging import Purging
from jobhistory.database.retention import read_applied
from jobhistory.database.statements.counted import COUNT
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.database.statements.pages import count_of, records_of
from jobhistory.database.statements.read import WITH_ID
from jobhistory.database.statements.reports import stats_of, workers_of
from jobhistory.database.statements.write import (
    HEARTBEAT,
    INSERT,
    exchange_label,
)
from jobhistory.database.transaction import Purpose, Transaction, in_transaction
from jobhistory.execution.batch import Batch, BatchResult, Counted
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.retention import Retention
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.query.lost import LostQuery
from jobhistory.query.overlap import Claim, Overlap
from jobhistory.query.reports import (
    FIRST_BUCKET,
    Count,
    FailureGroup,
    Percentiles,
    TaskStats,
    WaitingForPartition,
    WorkerActivity,
)
from jobhistory.query.retention import RetentionCoverage
from jobhistory.query.rollups import Question
from jobhistory.schema import HistoryRecord, record_from
from jobhistory.statistics.ever import TaskMeasures
from jobhistory.statistics.keeping import Keeping

T = TypeVar("T")
Row = dict[str, Any]


class DatabaseHistory(ExpectationOperations):
    """The operations on executions in a database. Subclasses choose the transaction.

    After the commit, ended executions are appended to the ring buffer.

    Args:
        statements: those that write outcomes, which depend on the retention.
        declared: the retention of the store; `None` if it declares no rules.
        keeping: how long statistics are kept.
    """

    def __init__(
        self,
        ring: RingBuffer[Row],
        schema: str | None,
        statements: OutcomeStatements,
        declared: Retention | None,
        keeping: Keeping,
    ) -> None:
        self.keeping = keeping
        self.ring = ring
        self.declared = declared
        self.statements = statements
        self.schema = schema
        self.options: dict[str, Any] = (
            {} if schema is None else {"schema_translate_map": {None: schema}}
        )

    @abstractmethod
    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction and return its result."""

    @property
    @abstractmethod
    def commits(self) -> bool:
        """Whether each operation is committed at its end, and not by the caller."""

    @in_transaction(Purpose.RECORD)
    def insert(
        self, transaction: Transaction, row: Row, *, may_exist: bool = False
    ) -> HistoryRecord:
        """Write a new row and return its record.

        With `may_exist`, return the existing record with this id, if there is one.

        Raises:
            InvalidInput: if the existing record belongs to another job or task.
        """
        if not may_exist:
            transaction.write(INSERT, row)
        elif not writes.insert_new(transaction, row):
            return writes.find_same(transaction, row)
        transaction.started.append(row["id"])
        return record_from(row, shares_json=True)

    @in_transaction(Purpose.RECORD_AS_ONE)
    def claim(self, transaction: Transaction, row: Row, rivals: Overlap, now: datetime) -> Claim:
        """Write a new row, unless another execution of its task runs, see `overlap.claim`."""
        return overlap.claim(transaction, row, rivals, self.declared, now)

    @in_transaction(Purpose.RECORD_AS_ONE)
    def end_lost(
        self, transaction: Transaction, rivals: Overlap, now: datetime
    ) -> list[HistoryRecord]:
        """End the executions of a task that are lost, the oldest first, and return them."""
        return overlap.end_lost(transaction, rivals, self.declared, now)

    @in_transaction(Purpose.RECORD)
    def insert_ended(
        self, transaction: Transaction, row: Row, *, may_exist: bool = False
    ) -> HistoryRecord:
        """Write the row of an ended execution and return its record.

        With `may_exist`, write only the outcome if there is a started row with this id, and nothing
        if that row already has the same outcome.

        Raises:
            ExecutionAlreadyFinished: if the existing row has another outcome.
            InvalidInput: if the existing row belongs to another job or task.
        """
        transaction.survives = True
        if may_exist:
            return writes.insert_or_end(transaction, row, self.statements)
        transaction.write(INSERT, row)
        transaction.ended.append(row)
        return record_from(row)

    @in_transaction(Purpose.RECORD)
    def count_only(self, transaction: Transaction, row: Row) -> HistoryRecord:
        """Count an ended execution in the statistics, without its row. Return its record."""
        transaction.write(COUNT, writes.queued(Counted.of(row)))
        transaction.counted = 1
        return record_from(row)

    @in_transaction(Purpose.RECORD_MANY)
    def insert_many_ended(self, transaction: Transaction, rows: list[Row]) -> None:
        """Write the rows of ended executions in bulk."""
        writes.insert_many(transaction, rows)
        transaction.ended = rows

    def observe(self, row: Row) -> None:
        """Add an execution that ended elsewhere to the ring buffer."""
        self.ring.append(row)

    @in_transaction(Purpose.RECORD)
    def heartbeat(self, transaction: Transaction, id_: UUID, job_id: str, values: Row) -> bool:
        """Write signs of life of a started execution, and return whether there is one.

        Ended executions stay as they are.
        """
        which = {"key_id": id_, "key_job_id": job_id}
        return bool(transaction.execute(HEARTBEAT, which | values).rowcount)

    @in_transaction(Purpose.RECORD)
    def exchange_label(
        self,
        transaction: Transaction,
        id_: UUID,
        job_id: str,
        name: str,
        old: str | None,
        new: str | None,
    ) -> bool:
        """Replace one label of an ended execution, and return whether it was the old one.

        `None` stands for no label. Of concurrent calls with the same old label, one succeeds.
        """
        values = {"key_id": id_, "key_job_id": job_id, "old_label": old, "new_label": new}
        return bool(transaction.execute(exchange_label(name), values).rowcount)

    @in_transaction(Purpose.RECORD)
    def end(self, transaction: Transaction, outcome: Outcome) -> HistoryRecord:
        """Write an outcome and return the record. Repeating the same outcome changes nothing.

        Raises:
            ExecutionNotFound: if no such execution has started.
            ExecutionAlreadyFinished: if the execution has another outcome.
        """
        transaction.survives = True
        return writes.end(transaction, outcome, self.statements)[0]

    @in_transaction(Purpose.RECORD_LATER)
    def write(
        self,
        transaction: Transaction,
        batch: Batch,
        *,
        may_exist: bool,
        before_commit: Callable[[], None] = lambda: None,
    ) -> BatchResult:
        """Write a batch of a `Recorder`, see `recorder_batch.write`.

        If `before_commit` raises, the transaction is rolled back.
        """
        result = recorder_batch.write(transaction, batch, self.statements, may_exist=may_exist)
        before_commit()
        transaction.ended = result.ended
        transaction.started = [row["id"] for row in batch.rows if not row["status"].is_outcome]
        return result

    @in_transaction(Purpose.READ)
    def get(self, transaction: Transaction, id_: UUID) -> HistoryRecord | None:
        """Return the record with an id; `None` if there is none."""
        return next(iter(transaction.find(WITH_ID, {"key_id": id_})), None)

    @in_transaction(Purpose.READ)
    def find(
        self, transaction: Transaction, query: HistoryQuery, after: Cursor | None = None
    ) -> list[HistoryRecord]:
        """Return the records that match the criteria, in order, starting after a cursor."""
        return transaction.find(*records_of(query, after, transaction.layout))

    @in_transaction(Purpose.READ)
    def count(
        self,
        transaction: Transaction,
        query: HistoryQuery,
        cap: int | None,
        now: datetime | None = None,
    ) -> Count:
        """Return the number of executions that match the criteria, up to a cap.

        With the current time, executions whose rows are gone count as well.
        """
        if now is not None:
            known = rollups.count(transaction, Question(query, None, now))
            if known is not None:
                return Count.up_to(known, cap)
        counting = count_of(query, cap, transaction.layout)
        return Count.up_to(transaction.execute(*counting).scalar_one(), cap)

    @in_transaction(Purpose.READ)
    def stats(
        self,
        transaction: Transaction,
        query: HistoryQuery,
        bucket: timedelta | None,
        now: datetime | None = None,
    ) -> list[TaskStats]:
        """Return the statistics of each task, one per bucket of time if `bucket` is given.

        With the current time, rollups are used where possible.
        """
        if now is not None:
            known = rollups.stats(transaction, Question(query, bucket, now))
            if known is not None:
                return known
        values: list[tuple[Any, ...]] = [
            (*row[:10], Percentiles(*row[10:15]), Percentiles(*row[15:20]), *row[20:], True)
            for row in transaction.execute(stats_of(query, bucket, transaction.dialect))
        ]
        found = [TaskStats(*each) for each in values]
        # Sorted here, because databases collate text differently.
        return sorted(
            found, key=lambda stats: (stats.task_identifier, stats.bucket or FIRST_BUCKET)
        )

    @in_transaction(Purpose.READ)
    def measures(self, transaction: Transaction) -> dict[str, TaskMeasures]:
        """Return the measures of all executions, deleted ones included, by task.

        Raises:
            StatisticsDenied: if the role may not read statistics of everything.
        """
        return rollups.measures(transaction)

    @in_transaction(Purpose.READ)
    def failure_groups(
        self, transaction: Transaction, query: HistoryQuery, known_for: timedelta | None = None
    ) -> list[FailureGroup]:
        """Return the groups of failures, the most frequent group first.

        `known_for` is how long before the window to search for the same failures.
        """
        return failures.groups_of(transaction, query, known_for)

    @in_transaction(Purpose.READ)
    def workers(self, transaction: Transaction, query: HistoryQuery) -> list[WorkerActivity]:
        """Return what each worker did, last seen first."""
        rows = transaction.execute(workers_of(query, transaction.dialect))
        return [WorkerActivity(*row) for row in rows]

    @in_transaction(Purpose.READ)
    def count_expired(
        self, transaction: Transaction, now: datetime, *, by_partition: bool = False
    ) -> int:
        """Return the number of rows that `expire` would delete."""
        by_partition = by_partition and self.commits
        return expiry.count_deleted(transaction, self.declared, now, by_partition=by_partition)

    @in_transaction(Purpose.READ)
    def waiting_for_partition(self, transaction: Transaction, now: datetime) -> WaitingForPartition:
        """Return how many expired rows wait for their partition, and until when."""
        return (
            expiry.count_waiting(transaction, now) if self.commits else WaitingForPartition(0, None)
        )

    @in_transaction(Purpose.READ)
    def retention(self, transaction: Transaction, now: datetime) -> list[RetentionCoverage]:
        """Return how many rows each rule covers, and how many `expire` would change and delete."""
        default = self.statements.retention.default
        return expiry.coverage_of(transaction, self.declared, default, now)

    @in_transaction(Purpose.READ)
    def applied_retention(self, transaction: Transaction) -> Retention | None:
        """Return the retention that `expire` has applied last, or is applying."""
        applied = read_applied(transaction)[1]
        return None if applied is None else applied.retention

    def fold_first(self, now: datetime) -> None:
        """Fold statistics, unless the role may not."""
        folding.fold_first(self, Pruning(self, self.keeping, now))

    def expire(
        self,
        now: datetime,
        batches: Batches,
        *,
        by_partition: bool = False,
        archive: Sink | None = None,
    ) -> int:
        """Delete expired rows in batches and return their number, see `expiring.expire`."""
        self.fold_first(now)
        return expiring.expire(
            self, self.declared, now, batches, by_partition=by_partition, archive=archive
        )

    @in_transaction(Purpose.READ)
    def count_waiting(self, transaction: Transaction) -> int:
        """Return the number of rows in the queue of ended executions."""
        return folding.count_waiting(transaction)

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def fold_once(self, transaction: Transaction, batch_size: int) -> bool:
        """Fold one batch, and return whether more may wait."""
        return folding.fold_batch(transaction, batch_size).rows >= batch_size

    def fold(self, now: datetime, batches: Batches) -> int:
        """Move executions that have ended from the queue to the rollups; return their number.

        Then delete old rollups.
        """
        return folding.fold(self, batches, Pruning(self, self.keeping, now))

    @in_transaction(Purpose.MAINTAIN_AS_ONE)
    def recount(self, transaction: Transaction, from_: datetime, to: datetime) -> int:
        """Count rows again, see `recounting.recount`."""
        return recounting.recount(transaction, from_, to)

    def purge(self, query: HistoryQuery, batches: Batches) -> int:
        """Delete the rows that meet the criteria in batches, oldest first; return their number.

        The ring buffer forgets them as well.
        """
        purging = Purging(
            self,
            replace(query, limit=batches.size, order="oldest"),
            forget=lambda ids: self.ring.discard(lambda row: row["id"] in ids),
        )
        deleted = batches.run(purging.delete_batch)
        purging.report()
        return deleted

    def reap_lost(self, lost: LostQuery, now: datetime, batches: Batches) -> int:
        """End the executions of lost workers in batches and return their number."""
        return lost_workers.reap(self, self.declared, lost, now, batches)
