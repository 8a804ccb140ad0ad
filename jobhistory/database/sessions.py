"""The transactions of a store: its own ones, or the one that its caller is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from jobhistory.database import binds, busy, revision
from jobhistory.database.circuit_breaker import CircuitBreaker, timed_out
from jobhistory.database.deadlines import Deadline, TimeLimits, current_deadline
from jobhistory.database.driver_errors import (
    is_conflict,
    is_in_aborted_transaction,
    is_missing_object,
    is_no_answer,
    is_time_out,
)
from jobhistory.database.history import DatabaseHistory
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.transaction import Purpose, Transaction
from jobhistory.errors import SchemaOutOfDate, hide_values, reason
from jobhistory.execution.outcome import ExecutionKey, Outcome
from jobhistory.execution.status import Status
from jobhistory.schema import HistoryRecord, record_from, values_of

T = TypeVar("T")
Row = dict[str, Any]

_MOST_ATTEMPTS = 10
_FIRST_PAUSE = 0.005


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
        """Return the same history in the transaction of a caller's session."""
        return CallersTransaction(session, self)

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction of its own, within the time limits of its purpose.

        Raises:
            HistoryUnavailable: if the circuit breaker is open.
            SchemaOutOfDate: if the table is missing or outdated.
            OperationalError: if the call was cut off at its deadline.
        """
        if purpose in (Purpose.READ, Purpose.MAINTAIN):
            return self._repeat(purpose, operation)
        # The thread of a Recorder makes its batches, so these may try at any time.
        if self.breaker.is_open and purpose is not Purpose.RECORD_LATER:
            self.breaker.check()
        begun = self.breaker.clock()
        # The connections of our own engines know it. Those of an app obey its driver's settings.
        deadline = Deadline(self.limits.call if purpose is Purpose.RECORD else self.limits.bulk)
        token = current_deadline.set(deadline)
        try:
            result = self._repeat(purpose, operation)
        except Exception as error:
            self._judge(error, deadline, self.breaker.clock() - begun)
            raise
        finally:
            current_deadline.reset(token)
        if self.breaker.is_open:
            self.breaker.close()
        return result

    def refuse_wrong_schema(
        self, error: DBAPIError, transaction: Transaction | None = None
    ) -> None:
        """Raise `SchemaOutOfDate` if an error is due to the schema.

        It asks for the revision only if a table, a column or a schema does not exist, so other
        errors cost no query.

        Args:
            transaction: the transaction to ask in, so that no second connection is needed; without
                it, a new session asks.
        """
        if not is_missing_object(error):
            return
        try:
            if transaction is None:
                with self._session_factory() as session:
                    bind = self._engines.bind_of(session, binds.WRITING)
                    with session.begin():
                        _refuse_outdated(Transaction(session, self.options, bind))
            else:
                _refuse_outdated(transaction)
        except SchemaOutOfDate as wrong:
            raise wrong from error
        except SQLAlchemyError:
            return  # the first error is the one to raise

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

    def _repeat(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation; retry it after a conflict, and while SQLite is busy."""
        is_writer = purpose is not Purpose.READ
        as_one = purpose in (Purpose.RECORD_MANY, Purpose.RECORD_LATER)
        is_maintenance = purpose is Purpose.MAINTAIN
        seconds = self.limits.busy_maintenance if is_maintenance else self.limits.busy
        wait: busy.Wait | None = None
        for attempt in count(1):
            try:
                with self._session_factory() as session:
                    route = binds.WRITING if is_writer else binds.READING
                    bind = self._engines.bind_of(session, route)
                    wait = wait or busy.Wait(bind, seconds, is_writer=is_writer)
                    with wait.turn(), session.begin():
                        transaction = Transaction(session, self.options, bind, as_one=as_one)
                        if wait.is_patient:
                            result = operation(transaction)
                        else:
                            with wait.impatience(transaction.connection):
                                result = operation(transaction)
                    # Before the session closes: giving back its connection may fail.
                    if transaction.ended:
                        self.ring.extend(transaction.ended)
                    return result
            except DBAPIError as error:
                longest = self._longest_pause(error, wait, attempt)
            # Chance decides which of those that were in each other's way is next.
            _sleep(uniform(0, longest))  # noqa: S311
        raise AssertionError("unreachable")

    def _longest_pause(self, error: DBAPIError, wait: busy.Wait | None, attempt: int) -> float:
        """Return the maximum number of seconds to wait before a retry.

        Raises:
            DBAPIError: the error, if a retry cannot help.
            SchemaOutOfDate: in its place, if it is due to the schema.
        """
        hide_values(error)
        self.refuse_wrong_schema(error)
        if wait is not None and wait.goes_on(error):
            return busy.LONGEST_PAUSE
        if is_conflict(error) and attempt < _MOST_ATTEMPTS:
            return _FIRST_PAUSE * attempt**2
        raise error


class CallersTransaction(DatabaseHistory):
    """Each operation in the transaction of a caller's session.

    On PostgreSQL it is in a savepoint, so that its errors leave that transaction usable. Failures
    are recorded even if the transaction is rolled back: after its end, in one of our own.
    """

    def __init__(self, session: Session, own: OwnTransactions) -> None:
        super().__init__(own.ring, own.schema)
        self._session = session
        self._own = own

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write a new row, and remember it in case that the transaction is lost."""
        record = super().insert(row, may_exist=may_exist)
        if record.status is Status.STARTED:
            self._hooks.remember(ExecutionKey.of_row(row), row["id"], value=values_of(record))
        return record

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write the row of an ended execution; a failure later, if the transaction is lost."""
        try:
            return super().insert_ended(row, may_exist=may_exist)
        except SQLAlchemyError as error:
            if row["status"] is Status.FAILED and _can_be_written_later_only(error):
                return self._record_later(row)
            raise

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write an outcome; a failure later, if the transaction is lost."""
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

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in the caller's transaction."""
        connection = self._session.connection(bind_arguments=dict(binds.WRITING))
        # A session of our own on the caller's connection, as the records in the caller's session
        # are the caller's. Only a rollback of it would affect the transaction.
        session = Session(connection, join_transaction_mode="rollback_only")
        transaction = Transaction(session, self.options)
        try:
            with session, _savepoint(connection):
                result = operation(transaction)
        except DBAPIError as error:
            hide_values(error)
            self._own.refuse_wrong_schema(error, transaction)
            raise
        if transaction.ended:
            self._follow(connection, transaction.ended, survives=transaction.survives)
        return result

    def _follow(self, connection: Connection, rows: list[Row], *, survives: bool) -> None:
        """Put rows into the ring buffer when they are committed, or record their failures later."""
        if not _is_in_transaction(connection):
            self.ring.extend(rows)
            return

        def on_rollback() -> None:
            for row in rows:
                if survives and row["status"] is Status.FAILED:
                    self._record_later(row)

        write = PendingWrite(
            on_commit=lambda: self.ring.extend(rows),
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
            own.ring,
            own.schema,
        )
        self.limits, self.breaker = own.limits, own.breaker

    def holds(self, rows: list[Row]) -> bool:
        """Return whether rows are in history as they are here."""
        ids = [row["id"] for row in rows]
        found = self.run(
            Purpose.RECORD, lambda transaction: transaction.find(WITH_IDS, {"key_ids": ids})
        )
        completed_at = {record.id: record.completed_at for record in found}
        return all(completed_at.get(row["id"]) == row["completed_at"] for row in rows)


def _refuse_outdated(transaction: Transaction) -> None:
    revision.refuse_outdated(transaction.connection, schema=transaction.schema)


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
