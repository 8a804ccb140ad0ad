"""Writing rows and outcomes in a transaction, and finding those that already exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobhistory.database import postgresql_copy
from jobhistory.database.deadlines import current_deadline
from jobhistory.database.layout import Layout
from jobhistory.database.statements.outcomes import OutcomeStatements
from jobhistory.database.statements.read import WITH_IDS
from jobhistory.database.statements.write import (
    FINISHED,
    FINISHED_BY_ID,
    FINISHED_ROW,
    INSERT,
    insert_unless_exists,
)
from jobhistory.database.transaction import Transaction
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound
from jobhistory.execution.batch import Counted
from jobhistory.execution.outcome import (
    OUTCOME_COLUMNS,
    ExecutionKey,
    Outcome,
    check_same_job,
    not_found,
)
from jobhistory.execution.status import Status
from jobhistory.schema import COLUMN_NAMES, HistoryRecord, values_of

Row = dict[str, Any]

_MAX_ROWS = 10_000
"""The maximum number of rows per statement. The time limit of a call restarts after each."""

_OTHER_OUTCOME_COLUMNS = [
    name for name in OUTCOME_COLUMNS if name not in ("completed_at", "execution_time_ms")
]


def insert_many(transaction: Transaction, rows: list[Row]) -> None:
    """Write new rows, with COPY if the driver is psycopg and the table allows it."""
    if not rows:
        return
    connection, options = transaction.connection, transaction.options
    is_psycopg = connection.dialect.driver == "psycopg"
    copies = is_psycopg and postgresql_copy.is_allowed(connection, options)
    for first in range(0, len(rows), _MAX_ROWS):
        some = rows[first : first + _MAX_ROWS]
        if copies:
            postgresql_copy.copy_rows(connection, some, options)
        else:
            transaction.execute(INSERT, [complete(row) for row in some])
        if (deadline := current_deadline.get()) is not None:
            deadline.restart()  # the database has answered


def queued(execution: Counted) -> Row:
    """Return the parameters of `COUNT`."""
    return execution.values | {"status": execution.values["status"].value}


def insert_or_end(
    transaction: Transaction, row: Row, statements: OutcomeStatements
) -> HistoryRecord:
    """Write the row of an ended execution, or only its outcome if there is a row with its id.

    If that row already has the same outcome, it stays unchanged.

    Raises:
        ExecutionAlreadyFinished: if the existing row has another outcome.
        InvalidInput: if the existing row belongs to another job or task.
    """
    layout = transaction.layout
    statement = statements.insert_or_finish_one(transaction.dialect, layout.key)
    for each in rows_to_write(transaction, layout, [row]):
        written = transaction.returned(statement, complete(each))
        if written is not None:
            return _ended(transaction, written)
    record = find_same(transaction, row)
    if record.status != row["status"]:
        raise ExecutionAlreadyFinished(record)
    return record


def insert_new(transaction: Transaction, row: Row) -> bool:
    """Write a new row, unless there is one with its id; return whether it was written."""
    layout = transaction.layout
    statement = insert_unless_exists(transaction.dialect, layout.key)
    rows = rows_to_write(transaction, layout, [row])
    return any(transaction.write(statement, each) == 1 for each in rows)


def rows_to_write(transaction: Transaction, layout: Layout, rows: list[Row]) -> list[Row]:
    """Return the rows among these that are new, or have the key of the existing row with their id.

    Where an id alone is not unique, the database would insert a row whose id belongs to another
    job, or to another start. The former are left out, and the latter get the key that exists.
    """
    if layout.ids_are_unique:
        return rows
    found = transaction.find(WITH_IDS, {"key_ids": [row["id"] for row in rows]})
    keys = {each.id: {name: getattr(each, name) for name in layout.key} for each in found}
    jobs = {each.id: each.job_id for each in found}
    return [
        row | keys.get(row["id"], {})
        for row in rows
        if jobs.get(row["id"], row["job_id"]) == row["job_id"]
    ]


def find_same(transaction: Transaction, row: Row) -> HistoryRecord:
    """Return the existing record with the id of a row.

    Raises:
        ExecutionNotFound: if it has just been deleted.
        InvalidInput: if it belongs to another job or task.
    """
    records = transaction.find(WITH_IDS, {"key_ids": [row["id"]]})
    if not records:  # for example, it has just expired
        raise ExecutionNotFound(None, None, None, execution_id=row["id"])
    check_same_job(row, records[0])
    return records[0]


def end(
    transaction: Transaction, outcome: Outcome, statements: OutcomeStatements
) -> tuple[HistoryRecord, bool]:
    """Write an outcome; return the record, and whether this call has written it.

    If the execution already has the same outcome, it stays unchanged.

    Raises:
        ExecutionNotFound: if no such execution has started.
        ExecutionAlreadyFinished: if the execution has another outcome.
    """
    ids: dict[str, Any]
    values = dict(outcome.values)
    status: Status = values["status"]
    values["ended_at"] = values.pop("completed_at")
    values["took_ms"] = values.pop("execution_time_ms")
    if outcome.row is not None:
        finish, finished, ids = statements.finish_row, FINISHED_ROW, row_parameters(outcome.row)
    elif outcome.id is not None:
        finish, finished, ids = statements.finish_by_id, FINISHED_BY_ID, {"key_id": outcome.id}
    else:
        finish, finished, ids = statements.finish, FINISHED, key_parameters(outcome.key)
    written = transaction.returned(finish[status], ids | values)
    if written is not None:
        return _ended(transaction, written), True
    record = _only(transaction.find(finished, ids), outcome)
    if outcome.replaces(record):
        ids = row_parameters(vars(record))
        values = dict.fromkeys(_OTHER_OUTCOME_COLUMNS) | values
        written = transaction.returned(statements.replace_lost[status], ids | values)
        if written is not None:
            return _ended(transaction, written), True
        # A concurrent call has replaced the presumed outcome.
        record = _only(transaction.find(FINISHED_ROW, ids), outcome)
    if not outcome.agrees_with(record):
        raise ExecutionAlreadyFinished(record)
    return record, False


def key_parameters(key: ExecutionKey) -> dict[str, str]:
    """Return the parameters of statements that find executions by their key."""
    return {
        "key_job_id": key.job_id,
        "key_worker_id": key.worker_id,
        "key_correlation_id": key.correlation_id,
    }


def row_parameters(row: Mapping[str, Any]) -> Row:
    """Return the parameters of statements that find an execution by its id and its job."""
    return {"key_id": row["id"], "key_job_id": row["job_id"]}


def complete(row: Row) -> Row:
    """Return a row with a value for each column, because executemany() needs uniform parameters."""
    return {name: row.get(name) for name in COLUMN_NAMES}


def _ended(transaction: Transaction, record: HistoryRecord) -> HistoryRecord:
    transaction.ended.append(values_of(record))
    return record


def _only(records: list[HistoryRecord], outcome: Outcome) -> HistoryRecord:
    if not records:
        raise not_found(outcome)
    return records[0]
