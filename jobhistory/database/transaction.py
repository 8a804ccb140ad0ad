"""A transaction of the library: its connection and its execution options."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, Select
from sqlalchemy.orm import Session

from jobhistory.database import binds
from jobhistory.sanitize.json_text import decoded
from jobhistory.schema import HistoryRecord

H = TypeVar("H", bound="RunsTransactions")
P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

# Setting it costs no round trip, and the library would gain only conflicts from a higher level.
_ISOLATION = {"isolation_level": "READ COMMITTED"}


class Purpose(Enum):
    """The purpose of a transaction, which determines its time limits and retries."""

    RECORD = auto()
    """A recording call. The job that makes it must not wait long."""

    RECORD_MANY = auto()
    """A call that records many rows, and for which the caller waits."""

    RECORD_LATER = auto()
    """A batch of a `Recorder`. No job waits for it, and the `Recorder` retries it."""

    READ = auto()
    """A read."""

    MAINTAIN = auto()
    """A batch of expiry, or of the search for lost workers."""


class Transaction:
    """A transaction in a session of the library, which contains no objects of the app.

    Operations neither commit nor close it.

    Attributes:
        connection: the connection of all statements.
        ended: the rows of executions that ended in this transaction. After the commit, they are
            appended to the ring buffer.
        survives: whether failures among these are recorded even if the caller's transaction is
            rolled back.
    """

    __slots__ = ("_options", "_session", "connection", "ended", "survives")

    def __init__(
        self,
        session: Session,
        options: dict[str, Any],
        bind: binds.Bind | None = None,
        *,
        as_one: bool = False,
    ) -> None:
        """Prepare the session.

        Args:
            session: a session that has not executed any statement.
            options: the execution options of all statements.
            bind: the engine or connection to use; `None` if the session has only one connection.
            as_one: run the statements in one database transaction, even if the engine is in
                AUTOCOMMIT mode. PostgreSQL engines of the library are in this mode, which saves
                round trips for single statements.
        """
        self._session = session
        # Since SQLAlchemy 2.1, sessions also have execution options.
        self._options = {**getattr(session, "execution_options", {}), **options}
        self.ended: list[Row] = []
        self.survives = False
        if bind is None:
            self.connection = session.connection()
            return
        # If the bind is a connection, it is already in a transaction.
        is_free = as_one and isinstance(bind, Engine)
        is_postgresql = bind.dialect.name == "postgresql"
        self.connection = session.connection(
            bind_arguments={"bind": bind},
            execution_options=_ISOLATION if is_free and is_postgresql else None,
        )
        if is_free and not is_postgresql:
            _begin_unless_begun(self.connection)

    @property
    def dialect(self) -> str:
        """The name of the database's dialect."""
        return self.connection.dialect.name

    @property
    def options(self) -> dict[str, Any]:
        """The execution options of the statements."""
        return self._options

    @property
    def schema(self) -> str | None:
        """The schema that holds the table; `None` for the connection's default."""
        options = {**self.connection.get_execution_options(), **self._options}
        schema: str | None = (options.get("schema_translate_map") or {}).get(None)
        return schema

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """Execute a statement; `options` replace its execution options."""
        return self.connection.execute(
            statement, _with_values(parameters), execution_options={**self._options, **options}
        )

    def find(
        self, statement: Select[HistoryRecord], parameters: dict[str, Any] | None = None
    ) -> list[HistoryRecord]:
        """Return the records that a statement selects, in order and detached."""
        session = self.loader
        records = list(session.scalars(statement, parameters, execution_options=self._options))
        session.expunge_all()  # before the commit, which may expire them
        return records

    @property
    def loader(self) -> Session:
        """A session that loads records on the connection."""
        if type(self._session).get_bind is Session.get_bind:
            return self._session
        # A session that routes would choose again, perhaps a replica that lacks recent writes.
        return Session(self.connection, join_transaction_mode="rollback_only")


class RunsTransactions(Protocol):
    """An object that chooses the transaction in which operations run."""

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction and return its result."""
        ...


def in_transaction(
    purpose: Purpose,
) -> Callable[[Callable[Concatenate[H, Transaction, P], T]], Callable[Concatenate[H, P], T]]:
    """Decorate a method so that `run` calls it with a transaction."""

    def decorate(
        operation: Callable[Concatenate[H, Transaction, P], T],
    ) -> Callable[Concatenate[H, P], T]:
        @wraps(operation)
        def method(self: H, *args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(
                purpose, lambda transaction: operation(self, transaction, *args, **kwargs)
            )

        return cast("Callable[Concatenate[H, P], T]", method)

    return decorate


def _with_values(parameters: Any) -> Any:
    """Return parameters with JSON values in place of their text, which SQLAlchemy would encode."""
    if isinstance(parameters, dict):
        return {name: decoded(value) for name, value in parameters.items()}
    return [_with_values(each) for each in parameters] if parameters else parameters


def _begin_unless_begun(connection: Connection) -> None:
    """Begin a transaction on SQLite, unless its driver or a listener of the app does so.

    The driver's commit and rollback end it. Changing the isolation level instead would lose the
    app's setting.
    """
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.isolation_level is None and not driver_connection.in_transaction:
        connection.exec_driver_sql("BEGIN")
