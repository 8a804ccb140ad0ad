"""Classification of database errors, for all drivers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_MISSING_STATES = frozenset(
    {
        "42P01",  # undefined table
        "42703",  # undefined column
        "3F000",  # undefined schema
    }
)
_MISSING_TEXTS = ("no such table", "no such column", "has no column", "unknown database")
_CONFLICT_STATES = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
    }
)
_REFUSAL_STATES = frozenset(
    {
        "P0001",  # raised by a trigger
        "21000",  # cardinality violation: two rows of one statement have the same id
        "54000",  # limit exceeded: a value is too large for an index of the app
    }
)
_REFUSING_FUNCTIONS = frozenset(
    {
        "ExecWithCheckOptions",  # row-level security, whose sqlstate is that of a missing grant
        "exec_stmt_raise",  # RAISE in a trigger, with any sqlstate
    }
)


@contextmanager
def as_sqlalchemy_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Raise SQLAlchemy's errors in place of those of a driver that the block calls itself.

    A lost connection is invalidated, and so is one whose call was interrupted, because the answer
    may still arrive.
    """
    dialect = connection.dialect
    driver = dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        is_lost = dialect.is_disconnect(error, connection.connection, None)
        if is_lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement,
            None,
            error,
            driver.Error,
            hide_parameters=True,
            connection_invalidated=is_lost,
            dialect=dialect,
        ) from error
    except Exception:
        raise
    except BaseException as interruption:
        connection.invalidate(interruption)
        raise


def sqlstate(error: DBAPIError) -> str | None:
    """Return the five-character code of PostgreSQL; `None` if the error has none."""
    cause = error.orig
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg2
    return state if isinstance(state, str) else None


def is_missing_object(error: DBAPIError) -> bool:
    """Return whether a table, a column or a schema does not exist."""
    state = sqlstate(error)
    if state is not None:
        return state in _MISSING_STATES
    return any(text in str(error.orig) for text in _MISSING_TEXTS)


def is_conflict(error: DBAPIError) -> bool:
    """Return whether the database aborted a transaction that may succeed on a retry."""
    return sqlstate(error) in _CONFLICT_STATES


def is_outdated_plan(error: DBAPIError) -> bool:
    """Return whether a prepared statement failed because the table has changed since.

    With psycopg, it would fail again on the same connection.
    """
    return _function(error) == "RevalidateCachedQuery"


def is_in_aborted_transaction(error: DBAPIError) -> bool:
    """Return whether PostgreSQL accepts only a rollback, because an earlier statement failed."""
    return sqlstate(error) == "25P02"


def is_time_out(error: DBAPIError) -> bool:
    """Return whether `lock_timeout` or `statement_timeout` of PostgreSQL aborted a statement."""
    return sqlstate(error) in ("55P03", "57014")


def is_busy(error: DBAPIError) -> bool:
    """Return whether SQLite failed because another connection was using the database."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    # The low byte is the primary result code. The other bytes add details.
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_no_answer(error: Exception) -> bool:
    """Return whether an error, if it took long, suggests that the database does not answer."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeout, TimeoutError))  # asyncpg raises the latter
    if is_busy(error):
        return False
    # Errors while connecting have no statement. 57014 is the sqlstate of `statement_timeout`.
    is_of_connection = error.connection_invalidated or error.statement is None
    return is_of_connection or sqlstate(error) == "57014"


def is_refusal(error: DBAPIError) -> bool:
    """Return whether the database refuses a row because of its values, so a retry is futile."""
    function = _function(error)
    if isinstance(error, (DataError, IntegrityError)):
        # PostgreSQL reports a missing partition as a check violation, but one can be created.
        return function != "ExecFindPartition"
    return sqlstate(error) in _REFUSAL_STATES or function in _REFUSING_FUNCTIONS


def is_denied(error: DBAPIError) -> bool:
    """Return whether the role lacks a privilege on a table of PostgreSQL."""
    return sqlstate(error) == "42501"


def _function(error: DBAPIError) -> str | None:
    """Return the name of the function that failed, in the server's source code."""
    # The server translates its messages, but not these names. psycopg and psycopg2 have them in
    # `diag`, asyncpg has them in the cause.
    function = getattr(getattr(error.orig, "diag", None), "source_function", None)
    if function is None:
        function = getattr(getattr(error.orig, "__cause__", None), "server_source_function", None)
    return function if isinstance(function, str) else None
