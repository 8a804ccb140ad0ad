"""A history in a database: its operations, independent of how transactions are managed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from jobhistory._runtime.batches import Batches
from jobhistory._runtime.ring import RingBuffer
from jobhistory.database import expiry, lost_workers, recorder_batch, writes
from jobhistory.database.functions import FINGERPRINT
from jobhistory.database.purging import Purging
from jobhistory.database.statements.pages import count_of, records_of
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.statements.reports import failures_of, stats_of
from jobhistory.database.statements.write import (
    HEARTBEAT,
    INSERT,
    INSERT_NEW,
    exchange_label,
)
from jobhistory.database.transaction import Purpose, Transaction, in_transaction
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import Outcome
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.query.lost import LostQuery
from jobhistory.query.reports import FIRST_BUCKET, Count, FailureGroup, Percentiles, TaskStats
from jobhistory.sanitize.fingerprint import fingerprint
from jobhistory.schema import HistoryRecord, record_from

T = TypeVar("T")
Row = dict[str, Any]


class DatabaseHistory(ABC):
    """The operations on executions in a database. Subclasses choose the transaction.

    After the commit, ended executions are appended to the ring buffer.
    """

    def __init__(self, ring: RingBuffer[Row], schema: str | None) -> None:
        self.ring = ring
        self.schema = schema
        self.options: dict[str, Any] = (
            {} if schema is None else {"schema_translate_map": {None: schema}}
        )

    @abstractmethod
    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction and return its result."""

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
        elif transaction.write(INSERT_NEW[transaction.dialect], row) != 1:
            return writes.find_same(transaction, row)
        return record_from(row, shares_json=True)

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
            return writes.insert_or_end(transaction, row)
        transaction.write(INSERT, row)
        transaction.ended.append(row)
        return record_from(row)

    @in_transaction(Purpose.RECORD_MANY)
    def insert_many_ended(self, transaction: Transaction, rows: list[Row]) -> None:
        """Write the rows of ended executions in bulk."""
        writes.insert_many(transaction, rows)
        transaction.ended = rows

    @in_transaction(Purpose.RECORD)
    def heartbeat(self, transaction: Transaction, id_: UUID, values: Row) -> bool:
        """Write signs of life of a started execution, and return whether there is one.

        Ended executions stay as they are.
        """
        return bool(transaction.execute(HEARTBEAT, {"key_id": id_} | values).rowcount)

    @in_transaction(Purpose.RECORD)
    def exchange_label(
        self, transaction: Transaction, id_: UUID, name: str, old: str | None, new: str | None
    ) -> bool:
        """Replace one label of an ended execution, and return whether it was the old one.

        `None` stands for no label. Of concurrent calls with the same old label, one succeeds.
        """
        values = {"key_id": id_, "old_label": old, "new_label": new}
        return bool(transaction.execute(exchange_label(name), values).rowcount)

    @in_transaction(Purpose.RECORD)
    def end(self, transaction: Transaction, outcome: Outcome) -> HistoryRecord:
        """Write an outcome and return the record. Repeating the same outcome changes nothing.

        Raises:
            ExecutionNotFound: if no such execution has started.
            ExecutionAlreadyFinished: if the execution has another outcome.
        """
        transaction.survives = True
        return writes.end(transaction, outcome)[0]

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
        result = recorder_batch.write(transaction, batch, may_exist=may_exist)
        before_commit()
        transaction.ended = result.ended
        return result

    @in_transaction(Purpose.READ)
    def get(self, transaction: Transaction, id_: UUID) -> HistoryRecord | None:
        """Return the record with an id; `None` if there is none."""
        return next(iter(transaction.find(WITH_IDS, {"key_ids": [id_]})), None)

    @in_transaction(Purpose.READ)
    def find(
        self, transaction: Transaction, query: HistoryQuery, after: Cursor | None = None
    ) -> list[HistoryRecord]:
        """Return the records that match the criteria, in order, starting after a cursor."""
        return transaction.find(*records_of(query, after))

    @in_transaction(Purpose.READ)
    def count(self, transaction: Transaction, query: HistoryQuery, cap: int | None) -> Count:
        """Return the number of executions that match the criteria, up to a cap."""
        return Count.up_to(transaction.execute(*count_of(query, cap)).scalar_one(), cap)

    @in_transaction(Purpose.READ)
    def stats(
        self, transaction: Transaction, query: HistoryQuery, bucket: timedelta | None
    ) -> list[TaskStats]:
        """Return the statistics of each task, one per bucket of time if `bucket` is given."""
        values: list[tuple[Any, ...]] = [
            (*row[:9], Percentiles(*row[9:13]), Percentiles(*row[13:17]), *row[17:])
            for row in transaction.execute(stats_of(query, bucket, transaction.dialect))
        ]
        found = [TaskStats(*each) for each in values]
        # Sorted here, because databases collate text differently.
        return sorted(
            found, key=lambda stats: (stats.task_identifier, stats.bucket or FIRST_BUCKET)
        )

    @in_transaction(Purpose.READ)
    def failure_groups(self, transaction: Transaction, query: HistoryQuery) -> list[FailureGroup]:
        """Return the groups of failures, the most frequent group first."""
        connection = transaction.connection
        # SQLite has no regular expressions. The function is created once per connection, because
        # SQLite refuses to replace it while another statement is running.
        if transaction.dialect == "sqlite" and FINGERPRINT not in connection.info:
            connection.connection.create_function(FINGERPRINT, 1, fingerprint, deterministic=True)
            connection.info[FINGERPRINT] = True
        session = transaction.loader
        rows = session.execute(failures_of(query), execution_options=transaction.options)
        groups = [FailureGroup(*row) for row in rows]
        session.expunge_all()
        return groups

    @in_transaction(Purpose.READ)
    def count_expired(self, transaction: Transaction, now: datetime) -> int:
        """Return the number of expired rows."""
        return expiry.count_expired(transaction, now)

    def expire(self, now: datetime, batches: Batches) -> int:
        """Delete expired rows in batches and return their number, see `expiry.Expiring`."""
        return expiry.expire(self, now, batches)

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
        return lost_workers.reap(self, lost, now, batches)
