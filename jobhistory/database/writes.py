"""Write rows and outcomes in a transaction, and find those that are there already."""

from __future__ import annotations

from typing import Any

from jobhistory.database import postgresql_copy
from jobhistory.database.deadlines import current_deadline
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.statements.write import (
    FINISH,
    FINISH_BY_ID,
    FINISHED,
    FINISHED_BY_ID,
    INSERT,
    INSERT_OR_FINISH,
    REPLACE_LOST,
)
from jobhistory.database.transaction import Transaction
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
    is_lost,
    not_found,
)
from jobhistory.schema import COLUMN_NAMES, COLUMNS, HistoryRecord, record_from, values_of

Row = dict[str, Any]

_MOST_ROWS = 10_000
"""The maximum number of rows in one statement: the time limit of a call is for these."""

_OTHER_OUTCOME_COLUMNS = [
    name for name in OUTCOME_COLUMNS if name not in ("completed_at", "execution_time_ms")
]


def insert_many(transaction: Transaction, rows: list[Row]) -> None:
    """Write new rows in the fastest way that the database has."""
    if not rows:
        return
    connection, options = transaction.connection, transaction.options
    is_psycopg = connection.dialect.driver == "psycopg"
    copies = is_psycopg and postgresql_copy.is_allowed(connection, options)
    for first in range(0, len(rows), _MOST_ROWS):
        some = rows[first : first + _MOST_ROWS]
        if copies:
            postgresql_copy.copy_rows(connection, some, options)
        else:
            transaction.execute(INSERT, [complete(row) for row in some])
        if (deadline := current_deadline.get()) is not None:
            deadline.restart()  # the database answers


def insert_or_end(transaction: Transaction, row: Row) -> HistoryRecord:
    """Write the row of an ended execution, or its outcome into the started row with its id.

    If the execution has ended with the same outcome, nothing changes.

    Raises:
        ExecutionAlreadyFinished: if the execution has ended with another outcome.
        InvalidInput: if the row with its id is of another job or task.
    """
    statement = INSERT_OR_FINISH[transaction.dialect].returning(*COLUMNS)
    written = transaction.execute(statement, complete(row)).mappings().one_or_none()
    if written is not None:
        return _ended(transaction, written)
    record = find_same(transaction, row)
    if record.status != row["status"]:
        raise ExecutionAlreadyFinished(record)
    return record


def find_same(transaction: Transaction, row: Row) -> HistoryRecord:
    """Return the record with the id of a row.

    Raises:
        InvalidInput: if it is of another job or task.
    """
    records = transaction.find(WITH_IDS, {"key_ids": [row["id"]]})
    if not records:  # it has just expired
        raise ExecutionNotFound(None, None, None, execution_id=row["id"])
    check_same_job(row, records[0])
    return records[0]


def end(transaction: Transaction, outcome: Outcome) -> tuple[HistoryRecord, bool]:
    """Write an outcome; return the record, and whether it was written now.

    If the execution has ended with the same outcome, nothing changes.

    Raises:
        ExecutionNotFound: if no such execution has started.
        ExecutionAlreadyFinished: if it has ended with another outcome.
    """
    ids: dict[str, Any]
    values = dict(outcome.values)
    values["ended_at"] = values.pop("completed_at")
    values["took_ms"] = values.pop("execution_time_ms")
    if outcome.id is not None:
        finish, finished, ids = FINISH_BY_ID, FINISHED_BY_ID, {"key_id": outcome.id}
    else:
        finish, finished, ids = FINISH, FINISHED, key_parameters(outcome.key)
    row = transaction.execute(finish, ids | values).mappings().one_or_none()
    if row is not None:
        return _ended(transaction, row), True
    record = _only(transaction.find(finished, ids), outcome)
    if is_lost(record):
        ids = {"key_id": record.id}
        values = dict.fromkeys(_OTHER_OUTCOME_COLUMNS) | values
        row = transaction.execute(REPLACE_LOST, ids | values).mappings().one_or_none()
        if row is not None:
            return _ended(transaction, row), True
        # Another outcome has just replaced it.
        record = _only(transaction.find(FINISHED_BY_ID, ids), outcome)
    if not outcome.agrees_with(record):
        raise ExecutionAlreadyFinished(record)
    return record, False


def key_parameters(key: ExecutionKey) -> dict[str, str]:
    """Return the parameters of the statements that find executions by a key."""
    return {
        "key_job_id": key.job_id,
        "key_worker_id": key.worker_id,
        "key_correlation_id": key.correlation_id,
    }


def complete(row: Row) -> Row:
    """Return a row with a value for each column, as many sets of parameters must be alike."""
    return {name: row.get(name) for name in COLUMN_NAMES}


def _ended(transaction: Transaction, written: Any) -> HistoryRecord:
    record = record_from(written, shares_json=True)
    transaction.ended.append(values_of(record))
    return record


def _only(records: list[HistoryRecord], outcome: Outcome) -> HistoryRecord:
    if not records:
        raise not_found(outcome)
    return records[0]
