"""The transactions of a store: separate ones, or the transaction of its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.orm import Session

from jobhistory._runtime.commit_hooks import CommitHooks, PendingWrite
from jobhistory._runtime.randomness import random_number
from jobhistory._runtime.ring import RingBuffer
from jobhistory.database import binds, busy, revision
from jobhistory.database.access import Access, EngineAccess, EngineSessions, through_session
from jobhistory.database.changes import DatabaseChanges
from jobhistory.database.circuit_breaker import CircuitBreaker, timed_out
from jobhistory.database.deadlines import Deadline, TimeLimits, current_deadline
from jobhistory.database.driver_errors import (
    is_conflict,
    is_denied,
    is_in_aborted_transaction,
    is_missing_object,
    is_no_answer,
    is_outdated_plan,
    is_time_out,
)
from jobhistory.database.folding import OverdueFolding, fold_overdue
from jobhistory.database.history import DatabaseHistory
from jobhistory.database.layout import forget_outdated
from jobhistory.database.notifier import Notifier
from jobhistory.database.pausing import sleep
from jobhistory.database.prepared import PreparedStatements
from jobhistory.database.retries import Retries
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.transaction import Purpose, Transaction
from jobhistory.errors import SchemaOutOfDate, hide_values, reason
from jobhistory.execution.outcome import SURVIVE_ROLLBACK, ExecutionKey, Outcome
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.schema import HistoryRecord, record_from, values_of
from jobhistory.statistics.keeping import Keeping
from jobhistory.typing import Random

T = TypeVar("T")
Row = dict[str, Any]


class OwnTransactions(DatabaseHistory):
    """A history that runs each operation in a separate session and transaction.

    Attributes:
        random: returns the random numbers of the pauses before retries.
    """

    def __init__(
        self,
        session_factory: Callable[[], Session],
        ring: RingBuffer[Row],
        schema: str | None,
        statements: OutcomeStatements,
        declared: Retention | None,
        keeping: Keeping,
        *,
        notify: bool = False,
    ) -> None:
        super().__init__(ring, schema, statements, declared, keeping)
        self.notifier = Notifier(self.own_engine) if notify else None
        self.limits = TimeLimits()
        self.breaker = CircuitBreaker()
        self.overdue = OverdueFolding()
        self.random: Random = random_number
        self._session_factory = session_factory
        self._engines = binds.Engines(session_factory)
        self._prepared = (
            PreparedStatements.of(session_factory.engine, schema)
            if isinstance(session_factory, EngineSessions) and session_factory.is_ours
            else None
        )

    def in_session(self, session: Session) -> CallersTransaction:
        """Return a view of this history that runs in the transaction of a caller's session."""
        return CallersTransaction(session, self)

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a separate transaction, within the time limit of its purpose.

        Reads and maintenance have no time limit, and ignore the circuit breaker.

        Raises:
            HistoryUnavailable: if the circuit breaker is open.
            SchemaOutOfDate: if the table is missing or outdated.
            OperationalError: if the call was aborted at its deadline.
        """
        if purpose in (Purpose.READ, Purpose.MAINTAIN, Purpose.MAINTAIN_AS_ONE):
            return self._retry(purpose, operation)
        # Batches of a Recorder ignore the breaker, because only the Recorder's thread waits.
        if self.breaker.is_open and purpose is not Purpose.RECORD_LATER:
            self.breaker.check()
        rows = 0

        def counted(transaction: Transaction) -> T:
            nonlocal rows
            result = operation(transaction)
            rows = len(transaction.ended) + transaction.counted
            return result

        begun = self.breaker.clock()
        # Engines of the library enforce the deadline. Those of an app follow its driver's settings.
        is_call = purpose in (Purpose.RECORD, Purpose.RECORD_AS_ONE)
        deadline = Deadline(self.limits.call if is_call else self.limits.bulk)
        token = current_deadline.set(deadline)
        try:
            result = self._retry(purpose, counted)
        except Exception as error:
            self._update_breaker(error, deadline, self.breaker.clock() - begun)
            raise
        finally:
            current_deadline.reset(token)
        if self.breaker.is_open:
            self.breaker.close()
        if self.overdue.is_to_be_tried(rows):
            self.overdue.attempt(self._fold_overdue)
        return result

    @property
    def commits(self) -> bool:
        """Whether each operation is committed at its end; not if sessions share a transaction."""
        with self._access(binds.WRITING) as access:
            return not isinstance(access.bind, Connection)

    def _fold_overdue(self) -> None:
        """Fold a batch if too much waits, unless sessions are in a transaction of the app."""
        if not self.commits:
            return
        token = current_deadline.set(Deadline(self.limits.call))
        try:
            self._retry(Purpose.FOLD_OVERDUE, fold_overdue)
        finally:
            current_deadline.reset(token)

    def _busy_seconds(self, purpose: Purpose) -> float:
        """Return the time limit for retries while SQLite is busy."""
        if purpose is Purpose.FOLD_OVERDUE:
            return 0
        is_maintenance = purpose in (Purpose.MAINTAIN, Purpose.MAINTAIN_AS_ONE)
        return self.limits.busy_maintenance if is_maintenance else self.limits.busy

    def refuse_wrong_schema(
        self, error: DBAPIError, transaction: Transaction | None = None
    ) -> None:
        """Raise `SchemaOutOfDate` if an error is due to a missing or outdated schema.

        The revision is queried only if the error says that a table, a column or a schema does not
        exist.

        Args:
            error: the error of a statement.
            transaction: the transaction to query in, so that no second connection is needed;
                `None` means a new session.
        """
        if not is_missing_object(error):
            return
        try:
            if transaction is None:
                with (
                    self._access(binds.WRITING) as access,
                    access.begin(as_one=False, as_statements=False) as connection,
                ):
                    _refuse_outdated(self._transaction(access, connection))
            else:
                _refuse_outdated(transaction)
        except SchemaOutOfDate as wrong:
            raise wrong from error
        except SQLAlchemyError:
            return  # the caller raises the original error

    def _update_breaker(self, error: Exception, deadline: Deadline, seconds: float) -> None:
        """Open or close the circuit breaker after an error.

        Raises:
            OperationalError: if the call was aborted at its deadline.
        """
        if deadline.failure is not None:
            self.breaker.open(deadline.failure)
            raise timed_out(error, deadline.failure) from error
        if seconds >= self.limits.call and is_no_answer(error):
            self.breaker.open(reason(error))
        else:
            self.breaker.close()

    def _retry(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation, with retries after conflicts and while SQLite is busy."""
        is_writer = purpose is not Purpose.READ
        as_one = purpose not in (Purpose.RECORD, Purpose.READ, Purpose.MAINTAIN)
        seconds = self._busy_seconds(purpose)
        prepared = self._prepared
        if purpose is not Purpose.RECORD or not (prepared and prepared.are_usable):
            prepared = None
        wait: busy.Wait | None = None
        retries = Retries(self.random)
        while True:
            try:
                with self._access(binds.WRITING if is_writer else binds.READING) as access:
                    wait = wait or busy.Wait(access.bind, seconds, is_writer=is_writer)
                    begun = access.begin(as_one=as_one, as_statements=prepared is not None)
                    with wait.turn(), begun as connection:
                        transaction = self._transaction(access, connection, prepared)
                        result = _result(operation, transaction, access.bind, wait)
                        changed = transaction.changed if self.notifies(transaction) else []
                    # Done before the connection is returned, which may fail.
                    self.note_committed(transaction.ended, changed)
                    return result
            except DBAPIError as error:
                pause = self._pause_after(error, wait, retries)
            sleep(pause)

    def notifies(self, transaction: Transaction) -> bool:
        """Return whether followers are notified of what a transaction changes."""
        return self.notifier is not None and transaction.dialect == "postgresql"

    def note_committed(self, ended: list[Row], changed: list[UUID]) -> None:
        """Append ended executions to the ring buffer, and notify followers of changed ones."""
        if ended:
            self.ring.extend(ended)
        if changed and self.notifier is not None:
            self.notifier.add(changed)

    def changes(self) -> DatabaseChanges:
        """Return the history as a source of changes."""
        return DatabaseChanges(self)

    def close(self) -> None:
        """Send notifications that wait, within a second, and end their sender."""
        if self.notifier is not None:
            self.notifier.close()

    def own_engine(self, route: dict[str, Any] = binds.WRITING) -> tuple[Engine, dict[str, Any]]:
        """Return the engine for an `OwnConnection`, and the execution options of statements."""
        with self._access(route) as access:
            return access.bind.engine, {**access.options, **self.options}

    def _access(self, route: dict[str, Any]) -> AbstractContextManager[Access]:
        factory = self._session_factory
        if isinstance(factory, EngineSessions):
            return EngineAccess(self._engines.made_safe(factory.engine))
        return through_session(factory, self._engines, route)

    def _transaction(
        self, access: Access, connection: Connection, prepared: PreparedStatements | None = None
    ) -> Transaction:
        return Transaction(connection, {**access.options, **self.options}, prepared)

    def _pause_after(self, error: DBAPIError, wait: busy.Wait | None, retries: Retries) -> float:
        """Return the pause before a retry, in seconds.

        Raises:
            DBAPIError: the given error, if the operation should not be retried.
            SchemaOutOfDate: if the error is due to a missing or outdated schema.
        """
        hide_values(error)
        self.refuse_wrong_schema(error)
        pause = None if wait is None else retries.pause_after(error, wait)
        if pause is not None:
            return pause
        if is_denied(error):
            error.add_note("'jobhistory db check', run as this role, prints the grants it lacks")
        raise error


class CallersTransaction(DatabaseHistory):
    """A history that runs each operation in the transaction of a caller's session.

    On PostgreSQL, operations run in a savepoint, so that their errors leave the transaction usable.
    Failures are recorded even if the transaction is rolled back: after its end, in a separate
    transaction.
    """

    def __init__(self, session: Session, own: OwnTransactions) -> None:
        super().__init__(own.ring, own.schema, own.statements, own.declared, own.keeping)
        self._session = session
        self._own = own

    @property
    def commits(self) -> bool:
        """Whether each operation is committed at its end: the caller commits."""
        return False

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write a new row, and remember it in case the transaction fails."""
        record = super().insert(row, may_exist=may_exist)
        if record.status is Status.STARTED:
            self._hooks.remember(ExecutionKey.of_row(row), row["id"], value=values_of(record))
        return record

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord:
        """Write the row of an ended execution, or a failure later if the transaction has failed."""
        try:
            return super().insert_ended(row, may_exist=may_exist)
        except SQLAlchemyError as error:
            if row["status"] in SURVIVE_ROLLBACK and _can_be_written_later_only(error):
                return self._record_later(row)
            raise

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Write an outcome, or a failure later if the transaction has failed."""
        try:
            return super().end(outcome)
        except SQLAlchemyError as error:
            row = outcome.row or self._hooks.recall(outcome.id or outcome.key)
            if (
                row is not None
                and outcome.values["status"] in SURVIVE_ROLLBACK
                and _can_be_written_later_only(error)
            ):
                return self._record_later(
                    outcome._replace(row=row).ended_row(self.statements.retention)
                )
            raise

    @property
    def _hooks(self) -> CommitHooks:
        return CommitHooks.of(self._session)

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in the caller's transaction."""
        connection = self._session.connection(bind_arguments=dict(binds.WRITING))
        # Not the caller's session, because the objects in it belong to the caller.
        transaction = Transaction(connection, self.options)
        try:
            with _savepoint(connection):
                result = operation(transaction)
        except DBAPIError as error:
            forget_outdated(connection.dialect, error)
            hide_values(error)
            self._own.refuse_wrong_schema(error, transaction)
            raise
        changed = transaction.changed if self._own.notifies(transaction) else []
        if transaction.ended or changed:
            self._follow(connection, transaction.ended, changed, survives=transaction.survives)
        return result

    def _follow(
        self, connection: Connection, rows: list[Row], changed: list[UUID], *, survives: bool
    ) -> None:
        """Note rows and changes after the commit, or record failures after a rollback."""
        if not _is_in_transaction(connection):
            self._own.note_committed(rows, changed)
            return

        def on_rollback() -> None:
            for row in rows:
                if survives and row["status"] in SURVIVE_ROLLBACK:
                    self._record_later(row)

        write = PendingWrite(
            on_commit=lambda: self._own.note_committed(rows, changed),
            on_rollback=on_rollback,
            is_committed=lambda: not rows or self._later().holds(rows),
        )
        self._hooks.add(connection, write)

    def _record_later(self, row: Row) -> HistoryRecord:
        """Record a failure after the end of the caller's transaction, which has failed."""
        self._hooks.at_end(lambda: self._later().insert_ended(row, may_exist=True))
        return record_from(row)

    def _later(self) -> LaterTransactions:
        """Return separate transactions on the bind of the caller's session."""
        bind = self._session.get_bind(**binds.WRITING)
        return LaterTransactions(bind, self._own)


class LaterTransactions(OwnTransactions):
    """A history on the bind of a caller's session, for use after the caller's transaction.

    If the bind is a connection, as in many test suites, operations are part of its transaction.
    """

    def __init__(self, bind: Engine | Connection, own: OwnTransactions) -> None:
        super().__init__(
            lambda: Session(bind, join_transaction_mode="create_savepoint"),
            own.ring,
            own.schema,
            own.statements,
            own.declared,
            own.keeping,
        )
        self.limits, self.breaker, self.notifier = own.limits, own.breaker, own.notifier
        self.overdue = OverdueFolding(is_on=False)  # the bind may be in the caller's transaction

    def holds(self, rows: list[Row]) -> bool:
        """Return whether the history contains these rows with the same `completed_at`."""
        ids = [row["id"] for row in rows]
        found = self.run(
            Purpose.RECORD, lambda transaction: transaction.find(WITH_IDS, {"key_ids": ids})
        )
        completed_at = {record.id: record.completed_at for record in found}
        return all(completed_at.get(row["id"]) == row["completed_at"] for row in rows)


def _result(
    operation: Callable[[Transaction], T],
    transaction: Transaction,
    bind: binds.Bind,
    wait: busy.Wait,
) -> T:
    """Run an operation once. Close a connection whose prepared statements no longer work."""
    try:
        if wait.is_patient:
            return operation(transaction)
        with wait.impatience(transaction.connection):
            return operation(transaction)
    except DBAPIError as error:
        # An app's session may be bound to a connection, which is the app's.
        if is_outdated_plan(error) and isinstance(bind, Engine):
            transaction.connection.invalidate(error)
            error.connection_invalidated = True
        raise


def _refuse_outdated(transaction: Transaction) -> None:
    revision.refuse_outdated(transaction.connection, schema=transaction.schema)


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Run the block in a savepoint if errors abort transactions, that is, on PostgreSQL."""
    if connection.dialect.name != "postgresql" or not _is_in_transaction(connection):
        yield
        return
    with connection.begin_nested():
        yield


def _is_in_transaction(connection: Connection) -> bool:
    """Return whether writes on a connection await a commit; `False` in AUTOCOMMIT mode."""
    if connection.dialect.name == "sqlite":
        driver_connection: Any = connection.connection.driver_connection
        return bool(driver_connection.in_transaction)
    dbapi_connection: Any = connection.connection.dbapi_connection
    return not connection.dialect.detect_autocommit_setting(dbapi_connection)


def _can_be_written_later_only(error: SQLAlchemyError) -> bool:
    """Return whether, after an error, a failure can be written only after the transaction."""
    if isinstance(error, InvalidRequestError):  # for example, after a failed flush
        return True
    if not isinstance(error, DBAPIError):
        return False
    return (
        error.connection_invalidated
        or is_in_aborted_transaction(error)
        or is_conflict(error)
        or is_time_out(error)
    )
