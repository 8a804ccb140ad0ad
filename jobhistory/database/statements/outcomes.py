"""The statements that write outcomes for a store with its retention."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Update, case, literal_column

from jobhistory.database.statements.retention import changes_expiry, expiry_after, with_expiry
from jobhistory.database.statements.write import (
    FINISH,
    FINISH_BY_ID,
    FINISH_MANY,
    FINISH_ROW,
    LOST,
    REPLACE_LOST,
    insert_or_finish,
)
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.schema import COLUMNS

_OUTCOMES = [status for status in Status if status.is_outcome]


class OutcomeStatements:
    """The statements that write outcomes, built once for the retention of a store.

    Without rules, they are those of `statements.write`. With rules, the statements of some statuses
    also change `expires_at`, unless a call passed the retention of the row. Those of completions
    never do, except if they replace the outcome of a lost worker.

    Attributes:
        retention: that of the store.
        finish, finish_row, finish_by_id, finish_many, replace_lost: the statements by status.
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention
        self.finish = _by_status(FINISH, retention)
        self.finish_row = _by_status(FINISH_ROW, retention)
        self.finish_by_id = _by_status(FINISH_BY_ID, retention)
        self.finish_many = _by_status(FINISH_MANY, retention)
        self.replace_lost = _by_status(REPLACE_LOST, retention, is_lost=LOST)
        self._inserts: dict[tuple[str, tuple[str, ...]], tuple[Any, Any]] = {}

    def insert_or_finish(self, dialect: str, key: tuple[str, ...]) -> Any:
        """Return the statement for an executemany(), see `write.insert_or_finish`."""
        return self._insert(dialect, key)[0]

    def insert_or_finish_one(self, dialect: str, key: tuple[str, ...]) -> Any:
        """Return the statement for one row, which returns the row unless it stays unchanged."""
        return self._insert(dialect, key)[1]

    def _insert(self, dialect: str, key: tuple[str, ...]) -> tuple[Any, Any]:
        if (dialect, key) not in self._inserts:
            statement = insert_or_finish(dialect, self._set_expiry, key)
            self._inserts[dialect, key] = (statement, statement.returning(*COLUMNS))
        return self._inserts[dialect, key]

    def _set_expiry(self, new: Any) -> dict[str, Any]:
        return _set_expiry(new, self.retention) if changes_expiry(self.retention) else {}


def _by_status(statement: Update, retention: Retention, **options: Any) -> dict[Status, Update]:
    return {status: with_expiry(statement, retention, status, **options) for status in _OUTCOMES}


def _set_expiry(new: Any, retention: Retention) -> dict[str, Any]:
    """Return the expiry of an existing row, which depends on the status of the new one."""
    cases = [
        (
            new.status == literal_column(f"'{status.value}'"),
            expiry_after(retention, status, is_lost=LOST),
        )
        for status in _OUTCOMES
    ]
    return {"expires_at": case(*cases, else_=COLUMNS.expires_at)}
