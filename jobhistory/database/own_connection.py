"""A connection for one long-lived task of the library, outside of the engine's pool."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from jobhistory.database.deadlines import Deadline, current_deadline, guard_of
from jobhistory.database.transaction import Transaction


@dataclass(frozen=True)
class OwnConnection:
    """A connection in AUTOCOMMIT mode that does not belong to a pool. For one thread or task.

    Attributes:
        connection: the connection.
        options: the execution options of statements.
    """

    connection: Connection
    options: dict[str, Any]

    @classmethod
    def open(cls, engine: Engine, options: dict[str, Any]) -> OwnConnection:
        """Connect, as the engine does, and leave its pool as it was."""
        # The pool's guard of a connection ends when the connection returns, which this one never
        # does.
        token = current_deadline.set(None)
        try:
            connection = engine.connect()
        finally:
            current_deadline.reset(token)
        connection.detach()
        # As an execution option, it would be reset on the next connection in the pool's place.
        own = cls(connection, options)
        engine.dialect.set_isolation_level(own._dbapi_connection, "AUTOCOMMIT")
        return own

    @property
    def _dbapi_connection(self) -> Any:
        return self.connection.connection.dbapi_connection

    @property
    def driver_connection(self) -> Any:
        """The connection of the driver."""
        # A detached connection of SQLAlchemy has no attribute for it any more.
        return self.connection.dialect.get_driver_connection(self._dbapi_connection)

    @property
    def schema(self) -> str | None:
        """The schema that holds the table; `None` for the connection's default."""
        return Transaction(self.connection, self.options).schema

    def execute(self, statement: Any, parameters: Any = None, *, seconds: float) -> Any:
        """Execute a statement; after this many seconds, break the connection."""
        guard = guard_of(self.driver_connection)
        if guard is not None:
            guard.turn_on(Deadline(seconds))
        try:
            result = self.connection.execute(statement, parameters or {})
            self.connection.commit()  # the database has done so
            return result
        finally:
            if guard is not None:
                guard.close()

    def break_off(self) -> None:
        """Break the connection, which then fails. Any thread may call it."""
        guard = guard_of(self.driver_connection)
        if guard is not None:
            guard.shut_down()

    def close(self) -> None:
        """Close the connection, whatever its state is."""
        # SQLAlchemy would first roll back, and log an error if the connection is lost.
        with suppress(Exception):
            self.connection.dialect.do_terminate(self._dbapi_connection)
        self.connection.invalidate()
        self.connection.close()
