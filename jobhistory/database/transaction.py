"""One transaction of the library: its connection, and what all its statements share."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, Select
from sqlalchemy.orm import Session

from jobhistory.database import binds
from jobhistory.schema import HistoryRecord

H = TypeVar("H", bound="RunsTransactions")
P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

# Does not cost a round trip. A higher level would only add conflicts to what the library does.
_ISOLATION = {"isolation_level": "READ COMMITTED"}


class Purpose(Enum):
    """The purpose of a transaction, which decides about time limits and retries."""

    RECORD = auto()
    """A recording call of a job, which must not wait for long."""

    RECORD_MANY = auto()
    """Many rows at once that a job waits for."""

    RECORD_LATER = auto()
    """A batch of a `Recorder`: no job waits for it, and the `Recorder` retries it."""

    READ = auto()
    """A read."""

    MAINTAIN = auto()
    """A batch of expiry, or of the search for lost workers."""


class Transaction:
    """A transaction in a session of the library, in which nobody else's objects are.

    Operations neither commit nor close it.

    Attributes:
        connection: the connection that all statements run on.
        ended: the rows of executions that ended in this transaction. The ring buffer gets them
            after the commit.
        survives: whether the failures among these are recorded even if the caller's transaction is
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
            session: a session that has not run anything yet.
            options: the execution options of all statements.
            bind: the engine or connection that the statements run on, for a session with a choice.
            as_one: make the statements one transaction of the database, also if the engine is in
                AUTOCOMMIT mode. PostgreSQL engines that the library makes are in this mode, as it
                saves round trips for single rows.
        """
        self._session = session
        # SQLAlchemy 2.1 has options of the session, too.
        self._options = {**getattr(session, "execution_options", {}), **options}
        self.ended: list[Row] = []
        self.survives = False
        if bind is None:
            self.connection = session.connection()
            return
        # A connection is in a transaction already.
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
            statement, parameters, execution_options={**self._options, **options}
        )

    def find(
        self, statement: Select[HistoryRecord], parameters: dict[str, Any] | None = None
    ) -> list[HistoryRecord]:
        """Return the records that a statement selects, in its order."""
        session = self.loader
        records = list(session.scalars(statement, parameters, execution_options=self._options))
        session.expunge_all()  # before the commit, which might expire them
        return records

    @property
    def loader(self) -> Session:
        """A session that loads records over the connection."""
        if type(self._session).get_bind is Session.get_bind:
            return self._session
        # It would choose an engine again, perhaps a follower that lacks what we just wrote.
        return Session(self.connection, join_transaction_mode="rollback_only")


class RunsTransactions(Protocol):
    """An object that decides in which transaction its operations run."""

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


def _begin_unless_begun(connection: Connection) -> None:
    """Begin a transaction on SQLite, if neither its driver nor a listener of the app does so.

    The driver's commit and rollback end it. To change the mode and back would lose the app's.
    """
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.isolation_level is None and not driver_connection.in_transaction:
        connection.exec_driver_sql("BEGIN")
