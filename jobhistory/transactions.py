"""In which transaction an operation is: one of its own, or the one that its caller is in."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, auto
from itertools import count
from random import uniform
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import in_greenlet

from jobhistory import binds, migrate, operations, statements
from jobhistory.after_commit import after_commit
from jobhistory.answers import Count, FailureGroup, TaskStats
from jobhistory.criteria import Cursor, HistoryQuery
from jobhistory.database_errors import is_conflict, is_missing_object, is_missing_table
from jobhistory.errors import SchemaOutOfDate
from jobhistory.executions import Batch, Outcome, Written
from jobhistory.models import TABLE_NAME, HistoryRecord, values_of
from jobhistory.ring import RingBuffer

T = TypeVar("T")
Row = dict[str, Any]

_MOST_ATTEMPTS = 10
_FIRST_PAUSE = 0.005


class Purpose(Enum):
    """What a transaction is for, which decides how long it may take."""

    RECORD = auto()
    """A recording call of a job, which must not wait for long."""

    RECORD_MANY = auto()
    """Many rows at once: `record_many`, and the batches of a `Recorder`."""

    READ = auto()
    """A question."""

    MAINTAIN = auto()
    """A batch of expiry, or of the search for lost workers."""


class DatabaseHistory(ABC):
    """The `operations` on a database, and the ring buffer after the commit of what they wrote."""

    def __init__(self, ring: RingBuffer[Row], schema: str | None) -> None:
        self._ring = ring
        self._schema = schema

    @abstractmethod
    def _run(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        buffer: Callable[[T], None] = lambda _: None,
    ) -> T:
        """Run an operation in a session, and `buffer` what it returned after its commit."""

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write a new row, and return its record; see `operations.insert`."""
        return self._run(
            Purpose.RECORD, lambda session: operations.insert(session, row, may_exist=may_exist)
        )

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write the row of an ended execution; see `operations.insert_or_end` for `may_exist`."""
        if may_exist:
            record, _ = self._run(
                Purpose.RECORD,
                lambda session: operations.insert_or_end(session, row),
                self._buffer_new,
            )
            return record
        return self._run(
            Purpose.RECORD,
            lambda session: operations.insert(session, row),
            lambda _: self._ring.append(row),
        )

    def insert_many_ended(self, rows: list[Row]) -> None:
        """Write the rows of executions that have ended."""
        self._run(
            Purpose.RECORD_MANY,
            lambda session: operations.insert_many(session, rows),
            lambda _: self._ring.extend(rows),
        )

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write how an execution ended, and return its record; see `operations.end`."""
        record, _ = self._run(
            Purpose.RECORD, lambda session: operations.end(session, outcome), self._buffer_new
        )
        return record

    def write(self, batch: Batch, *, again: bool) -> Written:
        """Write a batch; see `operations.write`."""
        return self._run(
            Purpose.RECORD_MANY,
            lambda session: operations.write(session, batch, again=again),
            lambda written: self._ring.extend(written.ended),
        )

    def reap(self, query: HistoryQuery, now: datetime) -> list[Row]:
        """End one batch of started executions as lost, and return their rows."""
        return self._run(
            Purpose.MAINTAIN,
            lambda session: operations.reap(session, query, now),
            self._ring.extend,
        )

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]:
        """The records that meet the criteria, in their order, from a cursor on."""
        statement = statements.records_of(query, after)
        return self._run(Purpose.READ, lambda session: operations.find(session, statement))

    def count(self, query: HistoryQuery, cap: int | None) -> Count:
        """How many executions meet the criteria, up to a cap."""
        return self._run(Purpose.READ, lambda session: operations.count(session, query, cap))

    def stats(self, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]:
        """The statistics of each task, in each bucket of time."""
        return self._run(Purpose.READ, lambda session: operations.stats(session, query, bucket))

    def failures(self, query: HistoryQuery) -> list[FailureGroup]:
        """The kinds of failures, the most frequent first."""
        return self._run(Purpose.READ, lambda session: operations.failures(session, query))

    def count_expired(self, cutoff: datetime) -> int:
        """How many rows have expired at the cutoff."""
        return self._run(Purpose.READ, lambda session: operations.count_expired(session, cutoff))

    def delete_expired(
        self, cutoff: datetime, low_water: datetime, batch_size: int
    ) -> tuple[int, int, datetime]:
        """Delete one batch of expired rows; see `operations.delete_expired`."""
        return self._run(
            Purpose.MAINTAIN,
            lambda session: operations.delete_expired(session, cutoff, low_water, batch_size),
        )

    def _buffer_new(self, ended: tuple[HistoryRecord, bool]) -> None:
        record, is_new = ended
        if is_new:
            self._ring.append(values_of(record))

    @property
    def _options(self) -> dict[str, Any]:
        return {} if self._schema is None else {"schema_translate_map": {None: self._schema}}


class OwnTransactions(DatabaseHistory):
    """Each operation in a session and a transaction of its own."""

    def __init__(
        self,
        session_factory: Callable[[], Session],
        ring: RingBuffer[Row],
        schema: str | None,
    ) -> None:
        super().__init__(ring, schema)
        self._session_factory = session_factory
        self._engines = binds.Engines(session_factory)

    def joined(self, session: Session) -> CallersTransaction:
        """The same history, as the operations of a caller who is at work in a session."""
        return CallersTransaction(session, self)

    def _run(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        buffer: Callable[[T], None] = lambda _: None,
    ) -> T:
        for attempt in count(1):
            try:
                return self._run_once(purpose, operation, buffer)
            except DBAPIError as error:
                self.refuse_wrong_schema(error)
                if not is_conflict(error) or attempt == _MOST_ATTEMPTS:
                    raise
            # Between the two that were in each other's way, chance decides who is first next time.
            _sleep(uniform(0, _FIRST_PAUSE * attempt**2))  # noqa: S311
        raise AssertionError("unreachable")

    def _run_once(
        self, purpose: Purpose, operation: Callable[[Session], T], buffer: Callable[[T], None]
    ) -> T:
        arguments = binds.READING if purpose is Purpose.READ else binds.WRITING
        with self._session_factory() as session:
            bind = self._engines.bind_of(session, arguments)
            with session.begin():
                operations.prepare(session, self._options, bind)
                result = operation(session)
            # Not after the session's end: to give back its connection may fail.
            buffer(result)
            return result

    def refuse_wrong_schema(self, error: DBAPIError, session: Session | None = None) -> None:
        """Raise `SchemaOutOfDate` if an error is due to the schema.

        It asks for the revision only if a table, a column or a schema does not exist, so other
        errors cost no query.

        Args:
            session: the prepared session to ask in, so that no second connection is needed; without
                it, the question has a transaction of its own. An aborted transaction answers
                nothing; then an error that names the table as missing is enough.
        """
        if not is_missing_object(error):
            return
        try:
            if session is None:
                with self._session_factory() as session:
                    bind = self._engines.bind_of(session, binds.WRITING)
                    with session.begin():
                        self._refuse_outdated(operations.prepare(session, self._options, bind))
            else:
                self._refuse_outdated(session)
        except SchemaOutOfDate as wrong:
            raise wrong from error
        except SQLAlchemyError:
            # The first error is the one to raise, unless it tells enough.
            if session is not None and is_missing_table(error, TABLE_NAME):
                raise SchemaOutOfDate(None, migrate.HEAD) from error

    @staticmethod
    def _refuse_outdated(session: Session) -> None:
        connection, schema = operations.place_of(session)
        migrate.refuse_outdated(connection, schema=schema)


class CallersTransaction(DatabaseHistory):
    """Each operation in the transaction that a session of the caller's is in."""

    def __init__(self, session: Session, own: OwnTransactions) -> None:
        super().__init__(own._ring, own._schema)
        self._session = session
        self._own = own

    def _run(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        buffer: Callable[[T], None] = lambda _: None,
    ) -> T:
        connection = self._session.connection(bind_arguments=dict(binds.WRITING))
        # A session of our own on the caller's connection, as the records in the caller's are the
        # caller's. It ends without a trace: only a rollback of it would reach the transaction.
        session = Session(connection, join_transaction_mode="rollback_only")
        try:
            with operations.prepare(session, self._options):
                result = operation(session)
        except DBAPIError as error:
            self._own.refuse_wrong_schema(error, session)
            raise
        after_commit(self._session, lambda: buffer(result))
        return result


def _sleep(seconds: float) -> None:
    if in_greenlet():  # of a store for asyncio, whose event loop must go on
        await_(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
