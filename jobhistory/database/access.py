"""Access to a database for one transaction: through a session of the app, or directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from jobhistory.database import binds
from jobhistory.errors import InvalidInput, JobHistoryError

# Setting it costs no round trip, and the library would gain only conflicts from a higher level.
_ISOLATION: dict[str, Any] = {"isolation_level": "READ COMMITTED"}


class EngineSessions(sessionmaker[Session]):
    """Makes sessions on an engine. Transactions need none: they use the engine's connections.

    Args:
        engine: the engine.
        is_ours: whether the library made the engine.
    """

    def __init__(self, engine: Engine, *, is_ours: bool = False) -> None:
        super().__init__(engine)
        self.engine = engine
        self.is_ours = is_ours


class Access(Protocol):
    """Access to a database, for one transaction.

    Attributes:
        bind: the engine or connection.
        options: execution options of the app.
    """

    bind: binds.Bind
    options: dict[str, Any]

    def begin(self, *, as_one: bool, as_statements: bool) -> Any:
        """Return a context manager for a transaction, which yields its connection.

        Args:
            as_one: run the statements in one transaction of the database, even if the engine is in
                AUTOCOMMIT mode. PostgreSQL engines of the library are in this mode, which saves
                round trips for single statements.
            as_statements: begin no transaction, because each statement is one.
        """
        ...


class EngineAccess:
    """Access through a connection of an engine, which is returned to the pool at the end."""

    __slots__ = ("_connection", "bind", "options")

    def __init__(self, engine: Engine) -> None:
        self.bind: binds.Bind = engine
        self.options: dict[str, Any] = {}
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    @contextmanager
    def begin(self, *, as_one: bool, as_statements: bool) -> Iterator[Connection]:
        """Yield a connection in a transaction."""
        connection = self._connection = self.bind.engine.connect()
        if as_statements:
            with _unless_interrupted(connection):
                yield connection
            return
        is_postgresql = self.bind.dialect.name == "postgresql"
        if as_one and is_postgresql:
            connection = connection.execution_options(**_ISOLATION)
        with connection.begin():
            if as_one and not is_postgresql:
                _begin_unless_begun(connection)
            with _unless_interrupted(connection):
                yield connection


class SessionAccess:
    """Access through a session of the app, which has not executed any statement."""

    def __init__(self, session: Session, bind: binds.Bind) -> None:
        self.bind = bind
        # Since SQLAlchemy 2.1, sessions also have execution options.
        self.options: dict[str, Any] = dict(getattr(session, "execution_options", {}))
        self._session = session

    @contextmanager
    def begin(self, *, as_one: bool, as_statements: bool) -> Iterator[Connection]:
        """Yield the session's connection in a transaction."""
        bind = self.bind
        # If the bind is a connection, it is already in a transaction.
        is_free = as_one and isinstance(bind, Engine)
        is_postgresql = bind.dialect.name == "postgresql"
        with self._session.begin():
            connection = self._session.connection(
                bind_arguments={"bind": bind},
                execution_options=_ISOLATION if is_free and is_postgresql else None,
            )
            if is_free and not is_postgresql:
                _begin_unless_begun(connection)
            if isinstance(bind, Connection):  # the caller's transaction goes on
                yield connection
            else:
                with _unless_interrupted(connection):
                    yield connection


@contextmanager
def _unless_interrupted(connection: Connection) -> Iterator[None]:
    """Invalidate a connection of PostgreSQL if something else than an error of ours interrupts it.

    The exception of a signal handler, such as a time limit of a job, may interrupt a statement. As
    the server has not answered it, the rollback would fail, and its error hide the exception.
    SQLAlchemy does this for exceptions such as `KeyboardInterrupt`.
    """
    try:
        yield
    except (SQLAlchemyError, JobHistoryError):
        raise
    except Exception as error:
        if connection.dialect.name == "postgresql":
            connection.invalidate(error)
        raise


@contextmanager
def through_session(
    session_factory: Callable[[], Session], engines: binds.Engines, route: dict[str, Any]
) -> Iterator[Access]:
    """Yield the access through a new session, which closes at the end.

    Raises:
        InvalidInput: if the factory returns something else, or a session that is in use.
    """
    session = session_factory()
    if not isinstance(session, Session):
        raise InvalidInput("session_factory", session_factory, not_a_session(session, Session))
    if session.in_transaction():
        raise InvalidInput(
            "session_factory",
            session_factory,
            "returned a session that is in use; return a new one at each call, or record in the "
            "transaction of that session with in_session(session)",
        )
    with session:
        yield SessionAccess(session, engines.bind_of(session, route))


def not_a_session(value: object, wanted: type) -> str:
    """Return the remedy for a factory that returns something else than a session."""
    return (
        f"returned an object of type {type(value).__name__}; "
        f"return a new {wanted.__name__} at each call"
    )


def _begin_unless_begun(connection: Connection) -> None:
    """Begin a transaction on SQLite, unless its driver or a listener of the app does so.

    The driver's commit and rollback end it. Changing the isolation level instead would lose the
    app's setting.
    """
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.isolation_level is None and not driver_connection.in_transaction:
        connection.exec_driver_sql("BEGIN")
