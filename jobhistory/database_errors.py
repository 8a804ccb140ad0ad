"""What an error of a database means, whichever driver raised it."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

_MISSING_TABLE = "42P01"
_MISSING_STATES = frozenset(
    {
        _MISSING_TABLE,
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


def is_missing_table(error: DBAPIError, name: str) -> bool:
    """Return whether PostgreSQL says that the table of a name does not exist."""
    return sqlstate(error) == _MISSING_TABLE and name in str(error.orig)


def is_conflict(error: DBAPIError) -> bool:
    """Return whether the database gave up a transaction that may succeed when it is repeated."""
    return sqlstate(error) in _CONFLICT_STATES


def is_in_aborted_transaction(error: DBAPIError) -> bool:
    """Return whether PostgreSQL refuses all but a rollback, as an earlier statement has failed."""
    return sqlstate(error) == "25P02"
