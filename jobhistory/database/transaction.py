"""A transaction of the library: its connection and its execution options."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from jobhistory.database.layout import Layout, layout_of
from jobhistory.database.prepared import PreparedStatements
from jobhistory.sanitize.json_text import decoded
from jobhistory.schema import HistoryRecord, loaded_record

H = TypeVar("H", bound="RunsTransactions")
P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]


class Purpose(Enum):
    """The purpose of a transaction, which determines its time limits and retries."""

    RECORD = auto()
    """A recording call. The job that makes it must not wait long."""

    RECORD_AS_ONE = auto()
    """A recording call whose statements must be one transaction."""

    RECORD_MANY = auto()
    """A call that records many rows, and for which the caller waits."""

    RECORD_LATER = auto()
    """A batch of a `Recorder`. No job waits for it, and the `Recorder` retries it."""

    READ = auto()
    """A read."""

    MAINTAIN = auto()
    """A batch of expiry, or of the search for lost workers."""

    MAINTAIN_AS_ONE = auto()
    """A batch of maintenance whose statements must be one transaction."""

    FOLD_OVERDUE = auto()
    """A batch of folding by a recording call, which must not wait for a busy database."""


class Transaction:
    """A transaction of the library on a connection.

    Operations neither commit nor close it.

    Args:
        connection: the connection of all statements.
        options: the execution options of all statements.
        prepared: executes the statements that write single rows; `None` if SQLAlchemy does.

    Attributes:
        ended: the rows of executions that ended in this transaction. After the commit, they are
            appended to the ring buffer.
        survives: whether failures among these are recorded even if the caller's transaction is
            rolled back.
        counted: the number of executions that are only counted.
        started: the ids of executions that started in this transaction.
    """

    __slots__ = ("_options", "_prepared", "connection", "counted", "ended", "started", "survives")

    def __init__(
        self,
        connection: Connection,
        options: dict[str, Any],
        prepared: PreparedStatements | None = None,
    ) -> None:
        self.connection = connection
        self._options = options
        self._prepared = prepared
        self.ended: list[Row] = []
        self.started: list[UUID] = []
        self.survives = False
        self.counted = 0

    @property
    def changed(self) -> list[UUID]:
        """The ids of executions that started or ended in this transaction."""
        return [*self.started, *(row["id"] for row in self.ended)]

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

    @property
    def layout(self) -> Layout:
        """The layout of the table, which the first call on an engine reads."""
        return layout_of(self.connection, self.schema)

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """Execute a statement; `options` replace its execution options."""
        return self.connection.execute(
            statement, _with_values(parameters), execution_options={**self._options, **options}
        )

    def write(self, statement: Any, parameters: Row) -> int:
        """Execute a statement that writes rows, and return their number."""
        if self._prepared is not None:
            return self._prepared.write(self.connection, statement, parameters)
        count: int = self.execute(statement, parameters).rowcount
        return count

    def returned(self, statement: Any, parameters: Row) -> HistoryRecord | None:
        """Execute a statement that returns at most one row, with all columns; return its record."""
        if self._prepared is not None:
            return self._prepared.returned(self.connection, statement, parameters)
        found = self.execute(statement, parameters)
        row = found.one_or_none()
        return None if row is None else loaded_record(zip(found.keys(), row, strict=True))

    def find(self, statement: Any, parameters: dict[str, Any] | None = None) -> list[HistoryRecord]:
        """Return the records that a statement selects, in order and detached."""
        found = self.execute(statement, parameters)
        names = list(found.keys())
        return [loaded_record(zip(names, row, strict=True)) for row in found.all()]

    @property
    def loader(self) -> Session:
        """A session that loads records on the connection. Only its rollback would affect it."""
        return Session(self.connection, join_transaction_mode="rollback_only")


class RunsTransactions(Protocol):
    """An object that chooses the transaction in which operations run."""

    def run(self, purpose: Purpose, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a transaction and return its result."""
        ...


class CommitsTransactions(RunsTransactions, Protocol):
    """Such an object that knows who commits."""

    @property
    def commits(self) -> bool:
        """Whether each operation is committed at its end, and not by the caller."""
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
