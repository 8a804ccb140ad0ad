"""In which transaction an operation is: one of its own, or the one that its caller is in."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum, auto
from itertools import count
from random import uniform
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import in_greenlet

from jobhistory._runtime.commit_hooks import CommitHooks, PendingWrite
from jobhistory._runtime.ring import RingBuffer
from jobhistory.database import binds, busy, operations, revision
from jobhistory.database.circuit_breaker import CircuitBreaker, timed_out
from jobhistory.database.deadlines import Deadline, TimeLimits, current_deadline
from jobhistory.database.driver_errors import (
    is_conflict,
    is_in_aborted_transaction,
    is_missing_object,
    is_no_answer,
    is_time_out,
)
from jobhistory.database.statements.expire import Branch, Deleted, Expiry, Place, Reaped
from jobhistory.database.statements.read import WITH_IDS, records_of
from jobhistory.errors import SchemaOutOfDate, hide_values, reason
from jobhistory.execution.batch import Batch, BatchResult
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.reports import Count, FailureGroup, TaskStats
from jobhistory.schema import HistoryRecord, record_from, values_of

T = TypeVar("T")
Row = dict[str, Any]

_MOST_ATTEMPTS = 10
_FIRST_PAUSE = 0.005


class Purpose(Enum):
    """What a transaction is for, which decides how long it may take."""

    RECORD = auto()
    """A recording call of a job, which must not wait for long."""

    RECORD_MANY = auto()
    """Many rows at once that a job waits for."""

    RECORD_LATER = auto()
    """A batch of a `Recorder`: no job waits for it, and the `Recorder` tries again by itself."""

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
        ended: Callable[[T], list[Row]] = lambda _: [],
        *,
        survives: bool = False,
    ) -> T:
        """Run an operation in a session.

        Args:
            purpose: decides about time limits and retries.
            operation: does the work; what it returns is returned.
            ended: returns the rows that the operation ended, which the ring buffer gets after the
                commit.
            survives: whether failures among these are recorded even if the operation's transaction
                is rolled back.
        """

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write a new row, and return its record; see `operations.insert`."""
        return self._run(
            Purpose.RECORD, lambda session: operations.insert(session, row, may_exist=may_exist)
        )

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write the row of an ended execution; see `operations.insert_or_end` for `may_exist`."""

        def write(session: Session) -> tuple[HistoryRecord, bool]:
            if may_exist:
                return operations.insert_or_end(session, row)
            return operations.insert(session, row), True

        record, _ = self._run(Purpose.RECORD, write, _new_rows, survives=True)
        return record

    def insert_many_ended(self, rows: list[Row]) -> None:
        """Write the rows of executions that have ended."""
        self._run(
            Purpose.RECORD_MANY,
            lambda session: operations.insert_many(session, rows),
            lambda _: rows,
        )

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write how an execution ended, and return its record; see `operations.end`."""
        record, _ = self._run(
            Purpose.RECORD,
            lambda session: operations.end(session, outcome),
            _new_rows,
            survives=True,
        )
        return record

    def write(
        self, batch: Batch, *, may_exist: bool, before_commit: Callable[[], None] = lambda: None
    ) -> BatchResult:
        """Write a batch in one transaction; see `operations.write`.

        If `before_commit` raises, the transaction is rolled back.
        """

        def write(session: Session) -> BatchResult:
            written = operations.write(session, batch, may_exist=may_exist)
            before_commit()
            return written

        return self._run(Purpose.RECORD_LATER, write, lambda written: written.ended)

    def earlier(self, now: datetime) -> datetime:
        """Return the earlier of a moment and the clock of the database."""
        return self._run(Purpose.MAINTAIN, lambda session: operations.earlier(session, now))

    def reap(self, query: HistoryQuery, now: datetime, after: Place) -> Reaped:
        """End one batch of started executions as lost; see `operations.reap`."""
        return self._run(
            Purpose.MAINTAIN,
            lambda session: operations.reap(session, query, now, after),
            lambda reaped: reaped.rows,
        )

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]:
        """The records that meet the criteria, in their order, from a cursor on."""
        statement = records_of(query, after)
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

    def count_expired(self, now: datetime) -> int:
        """Return the number of rows that have expired."""
        return self._run(Purpose.READ, lambda session: operations.count_expired(session, now))

    def plan_expiry(self, now: datetime) -> Expiry:
        """Return what to delete from, and up to which moment."""
        return self._run(Purpose.MAINTAIN, lambda session: operations.plan_expiry(session, now))

    def delete_expired(
        self, branch: Branch | None, cutoff: datetime, low: Place, batch_size: int
    ) -> Deleted:
        """Delete one batch of expired rows; see `operations.delete_expired`."""
        return self._run(
            Purpose.MAINTAIN,
            lambda session: operations.delete_expired(session, branch, cutoff, low, batch_size),
        )

    def first_expired(self, branch: Branch | None, cutoff: datetime, low: Place) -> Place | None:
        """Return the place of the first row that a batch would delete."""
        return self._run(
            Purpose.MAINTAIN,
            lambda session: operations.first_expired(session, branch, cutoff, low),
        )

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
        self.limits = TimeLimits()
        self.breaker = CircuitBreaker()
        self._session_factory = session_factory
        self._engines = binds.Engines(session_factory)

    def joined(self, session: Session) -> CallersTransaction:
        """The same history, as the operations of a caller who is at work in a session."""
        return CallersTransaction(session, self)

    def _run(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        ended: Callable[[T], list[Row]] = lambda _: [],
        *,
        survives: bool = False,
    ) -> T:
        if purpose in (Purpose.READ, Purpose.MAINTAIN):
            return self._repeat(purpose, operation, ended)
        # Its own thread makes the batches of a Recorder, so these may try at any time.
        if self.breaker.is_open and purpose is not Purpose.RECORD_LATER:
            self.breaker.check()
        begun = self.breaker.clock()
        # The connections of our own engines know it; those of an app go by its driver's settings.
        deadline = Deadline(self.limits.call if purpose is Purpose.RECORD else self.limits.bulk)
        token = current_deadline.set(deadline)
        try:
            result = self._repeat(purpose, operation, ended)
        except Exception as error:
            self._judge(error, deadline, self.breaker.clock() - begun)
            raise
        finally:
            current_deadline.reset(token)
        if self.breaker.is_open:
            self.breaker.close()
        return result

    def _judge(self, error: Exception, deadline: Deadline, seconds: float) -> None:
        """Open or close the circuit breaker after an error.

        Raises:
            OperationalError: if the call was cut off at its deadline.
        """
        if deadline.failure is not None:
            self.breaker.open(deadline.failure)
            raise timed_out(error, deadline.failure) from error
        if seconds >= self.limits.call and is_no_answer(error):
            self.breaker.open(reason(error))
        else:
            self.breaker.close()

    def _repeat(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        ended: Callable[[T], list[Row]],
    ) -> T:
        """Run an operation in a transaction, and again after a conflict or while SQLite is busy."""
        wait = busy.Wait(
            self.limits.busy_maintenance if purpose is Purpose.MAINTAIN else self.limits.busy
        )
        for attempt in count(1):
            try:
                return self._run_once(purpose, operation, ended, wait)
            except DBAPIError as error:
                hide_values(error)
                self.refuse_wrong_schema(error)
                if wait.goes_on(error):
                    longest = busy.LONGEST_PAUSE
                elif is_conflict(error) and attempt < _MOST_ATTEMPTS:
                    longest = _FIRST_PAUSE * attempt**2
                else:
                    raise
            # Between those that were in each other's way, chance decides who is next.
            _sleep(uniform(0, longest))  # noqa: S311
        raise AssertionError("unreachable")

    def _run_once(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        ended: Callable[[T], list[Row]],
        wait: busy.Wait,
    ) -> T:
        arguments = binds.READING if purpose is Purpose.READ else binds.WRITING
        with self._session_factory() as session:
            bind = self._engines.bind_of(session, arguments)
            with wait.turn(bind, is_writer=purpose is not Purpose.READ), session.begin():
                as_one = purpose in (Purpose.RECORD_MANY, Purpose.RECORD_LATER)
                operations.prepare(session, self._options, bind, as_one=as_one)
                if wait.is_patient:
                    result = operation(session)
                else:
                    with wait.impatience(session, bind):
                        result = operation(session)
            # Not after the session's end: to give back its connection may fail.
            self._ring.extend(ended(result))
            return result

    def refuse_wrong_schema(self, error: DBAPIError, session: Session | None = None) -> None:
        """Raise `SchemaOutOfDate` if an error is due to the schema.

        It asks for the revision only if a table, a column or a schema does not exist, so other
        errors cost no query.

        Args:
            session: the prepared session to ask in, so that no second connection is needed; without
                it, a new session asks.
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
            return  # the first error is the one to raise

    @staticmethod
    def _refuse_outdated(session: Session) -> None:
        connection, schema = operations.place_of(session)
        revision.refuse_outdated(connection, schema=schema)


class CallersTransaction(DatabaseHistory):
    """Each operation in the transaction that a session of the caller's is in.

    On PostgreSQL it is in a savepoint, so that its errors leave that transaction usable. Failures
    are recorded even if the transaction is rolled back: after its end, in one of our own.
    """

    def __init__(self, session: Session, own: OwnTransactions) -> None:
        super().__init__(own._ring, own._schema)
        self._session = session
        self._own = own

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write a new row, and return its record; see `operations.insert`."""
        record = super().insert(row, may_exist=may_exist)
        if record.status is Status.STARTED:
            self._hooks.remember(ExecutionKey.of_row(row), row["id"], value=values_of(record))
        return record

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write the row of an ended execution; see `operations.insert_or_end` for `may_exist`."""
        try:
            return super().insert_ended(row, may_exist=may_exist)
        except SQLAlchemyError as error:
            if row["status"] is Status.FAILED and _can_be_written_later_only(error):
                return self._record_later(row)
            raise

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write how an execution ended, and return its record; see `operations.end`."""
        try:
            return super().end(outcome)
        except SQLAlchemyError as error:
            row = outcome.row or self._hooks.recall(outcome.id or outcome.key)
            if (
                row is not None
                and outcome.values["status"] is Status.FAILED
                and _can_be_written_later_only(error)
            ):
                return self._record_later(outcome._replace(row=row).ended_row())
            raise

    @property
    def _hooks(self) -> CommitHooks:
        return CommitHooks.of(self._session)

    def _run(
        self,
        purpose: Purpose,
        operation: Callable[[Session], T],
        ended: Callable[[T], list[Row]] = lambda _: [],
        *,
        survives: bool = False,
    ) -> T:
        connection = self._session.connection(bind_arguments=dict(binds.WRITING))
        # A session of our own on the caller's connection, as the records in the caller's are the
        # caller's. It ends without a trace: only a rollback of it would reach the transaction.
        session = Session(connection, join_transaction_mode="rollback_only")
        try:
            with operations.prepare(session, self._options), _savepoint(connection):
                result = operation(session)
        except DBAPIError as error:
            hide_values(error)
            self._own.refuse_wrong_schema(error, session)
            raise
        if rows := ended(result):
            self._follow(connection, rows, survives=survives)
        return result

    def _follow(self, connection: Connection, rows: list[Row], *, survives: bool) -> None:
        """Put rows into the ring buffer when they are committed, or record their failures later."""
        if not _is_in_transaction(connection):
            self._ring.extend(rows)
            return

        def on_rollback() -> None:
            for row in rows:
                if survives and row["status"] is Status.FAILED:
                    self._record_later(row)

        write = PendingWrite(
            on_commit=lambda: self._ring.extend(rows),
            on_rollback=on_rollback,
            is_committed=lambda: self._aside().holds(rows),
        )
        self._hooks.add(connection, write)

    def _record_later(self, row: Row) -> HistoryRecord:
        """Record a failure once the caller's transaction, which is lost, has ended."""
        self._hooks.at_end(lambda: self._aside().insert_ended(row, may_exist=True))
        return record_from(row)

    def _aside(self) -> Aside:
        """Return transactions on the bind of the caller's session, for after its own has ended."""
        bind = self._session.get_bind(**binds.WRITING)
        return Aside(bind, self._own)


class Aside(OwnTransactions):
    """Transactions on the bind of a caller's session, once its own transaction has ended.

    If that bind is a connection, as in many test suites, they are part of its transaction.
    """

    def __init__(self, bind: Engine | Connection, own: OwnTransactions) -> None:
        super().__init__(
            lambda: Session(bind, join_transaction_mode="create_savepoint"),
            own._ring,
            own._schema,
        )
        self.limits, self.breaker = own.limits, own.breaker

    def holds(self, rows: list[Row]) -> bool:
        """Return whether rows are in history as they are here."""
        ids = [row["id"] for row in rows]
        found = self._run(
            Purpose.RECORD,
            lambda session: operations.find(session, WITH_IDS, {"key_ids": ids}),
        )
        completed_at = {record.id: record.completed_at for record in found}
        return all(completed_at.get(row["id"]) == row["completed_at"] for row in rows)


def _new_rows(ended: tuple[HistoryRecord, bool]) -> list[Row]:
    record, is_new = ended
    return [values_of(record)] if is_new else []


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Let an error within leave the transaction as it was, where errors abort transactions."""
    if connection.dialect.name != "postgresql" or not _is_in_transaction(connection):
        yield
        return
    with connection.begin_nested():
        yield


def _is_in_transaction(connection: Connection) -> bool:
    """Return whether a connection will commit what it has written, rather than has done so."""
    if connection.dialect.name == "sqlite":
        driver_connection: Any = connection.connection.driver_connection
        return bool(driver_connection.in_transaction)
    dbapi_connection: Any = connection.connection.dbapi_connection
    return not connection.dialect.detect_autocommit_setting(dbapi_connection)


def _can_be_written_later_only(error: SQLAlchemyError) -> bool:
    """Return whether a failure that met an error can be written after the transaction only."""
    if isinstance(error, InvalidRequestError):  # as after a flush that failed
        return True
    if not isinstance(error, DBAPIError):
        return False
    return (
        error.connection_invalidated
        or is_in_aborted_transaction(error)
        or is_conflict(error)
        or is_time_out(error)
    )


def _sleep(seconds: float) -> None:
    if in_greenlet():  # of a store for asyncio, whose event loop must go on
        await_(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)
