"""The conditions and orders of the SQL that finds records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Tuple,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from jobhistory.database.functions import contains, unforeseen
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.sanitize.truncate import ascii_lower
from jobhistory.schema import HistoryRecord

STARTED: ColumnElement[Any] = literal_column("'started'")

NEWEST_OF_ONE = (HistoryRecord.started_at.desc().nulls_last(), HistoryRecord.id.desc())
"""The order of the index of a job."""

# Running executions started recently. In the order of an index, the database would read most of
# history before it reaches them, so this is an order that no index has.
RUNNING_SINCE = case((HistoryRecord.status == STARTED, HistoryRecord.started_at))
RUNNING_LONGEST_FIRST = (RUNNING_SINCE.asc(), HistoryRecord.id.asc())

NOT_NULL_IF: dict[Status, InstrumentedAttribute[Any]] = {
    Status.FAILED: HistoryRecord.error_type,
    Status.PARTIAL_SUCCESS: HistoryRecord.failed_steps,
}
"""By status, the column that is not NULL in these executions only. Partial indexes use it."""

POSITION = tuple_(HistoryRecord.started_at, HistoryRecord.id)
"""The place of an execution in the order of pages.

Compared as a whole: with OR, the database would read all earlier pages.
"""

WITH_ID = select(HistoryRecord).where(
    HistoryRecord.id == unforeseen(bindparam("key_id", type_=HistoryRecord.id.type))
)
"""The execution with this id, by one plan for all ids also where the table has partitions."""

WITH_IDS = select(HistoryRecord).where(HistoryRecord.id.in_(bindparam("key_ids", expanding=True)))
"""The executions with these ids."""


def planned_records_of(query: HistoryQuery, after: Cursor | None) -> Select[HistoryRecord]:
    """Return the statement for the records after a cursor, by a plan of the database's choice."""
    statement = select(HistoryRecord).where(*criteria_of(query)).limit(query.limit)
    if query.order is None:
        return statement
    is_oldest_first = query.order == "oldest"
    if after is not None:
        is_after = place_of(after) < POSITION if is_oldest_first else place_of(after) > POSITION
        statement = statement.where(is_after)
    is_running = is_oldest_first and query.status == (Status.STARTED,)
    order = RUNNING_LONGEST_FIRST if is_running else order_of(HistoryRecord, query)
    return statement.order_by(*order)


def place_of(cursor: Cursor) -> Tuple:
    """Return the place of a cursor, to compare with `POSITION`."""
    return tuple_(
        literal(cursor.started_at, HistoryRecord.started_at.type),
        literal(cursor.id, HistoryRecord.id.type),
    )


def order_of(columns: Any, query: HistoryQuery) -> list[ColumnElement[Any]]:
    """Return the order of a query, by the columns of a table or a subquery."""
    if query.order == "oldest":
        return [columns.started_at.asc(), columns.id.asc()]
    return [columns.started_at.desc(), columns.id.desc()]


def order_with_nulls_of(columns: Any, query: HistoryQuery) -> list[ColumnElement[Any]]:
    """Return the same order, as the indexes with `NULLS FIRST` have it."""
    if query.order == "oldest":
        return [columns.started_at.asc().nulls_first(), columns.id.asc()]
    return [columns.started_at.desc().nulls_last(), columns.id.desc()]


def criteria_of(query: HistoryQuery) -> list[ColumnElement[bool]]:
    """Return the conditions of the criteria that are given, with all that the planner can use."""
    criteria: list[ColumnElement[bool]] = []
    if query.from_ is not None:
        criteria.append(HistoryRecord.started_at >= query.from_)
    if query.to is not None:
        criteria.append(HistoryRecord.started_at <= query.to)
    if query.status is not None:
        is_one_of = one_of(HistoryRecord.status, query.status)
        # Only for what runs, the index on the status is worth reading.
        is_running = Status.STARTED in query.status
        criteria.append(is_one_of if is_running else deemed_frequent(is_one_of))
        if len(query.status) == 1 and query.status[0] in NOT_NULL_IF:
            criteria.append(NOT_NULL_IF[query.status[0]].is_not(None))
    if query.error_contains is not None:
        criteria.append(HistoryRecord.error_type.is_not(None))
    return criteria + other_criteria_of(replace(query, status=None))


def other_criteria_of(query: HistoryQuery) -> list[ColumnElement[bool]]:
    """Return the conditions of the criteria that are given, except those of the window."""
    criteria: list[ColumnElement[bool]] = []
    if query.task_identifier is not None:
        criteria.append(one_of(HistoryRecord.task_identifier, query.task_identifier))
    if query.status is not None:
        # The planner would multiply the frequency of failures with that of error types.
        criteria.append(deemed_frequent(one_of(HistoryRecord.status, query.status)))
    if query.job_id is not None:
        criteria.append(HistoryRecord.job_id == query.job_id)
    if query.correlation_id is not None:
        criteria.append(HistoryRecord.correlation_id == query.correlation_id)
    if query.worker_id is not None:
        criteria.append(one_of(HistoryRecord.worker_id, query.worker_id))
    if query.worker_id_starts_with is not None:
        # Not LIKE, which ignores case on SQLite.
        start = func.substr(HistoryRecord.worker_id, 1, len(query.worker_id_starts_with))
        criteria.append(start == query.worker_id_starts_with)
    if query.min_attempt is not None:
        criteria.append(HistoryRecord.attempt_number >= query.min_attempt)
    for name, value in query.labels or ():
        criteria.append(HistoryRecord.labels[name].as_string() == value)
    if query.parent_id is not None:
        criteria.append(HistoryRecord.parent_id == query.parent_id)
    if query.trace_id is not None:
        criteria.append(HistoryRecord.trace_id == query.trace_id)
    if query.error_type is not None:
        criteria.append(one_of(HistoryRecord.error_type, (query.error_type,)))
    if query.error_contains is not None:
        error = HistoryRecord.error_type + ": " + func.coalesce(HistoryRecord.error_message, "")
        criteria.append(contains(error, literal(ascii_lower(query.error_contains), String)))
    if query.min_execution_time_ms is not None:
        criteria.append(HistoryRecord.execution_time_ms >= query.min_execution_time_ms)
    return criteria


def deemed_frequent(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return a condition that is true if all of these are.

    PostgreSQL has no statistics for it, and estimates that nearly all rows meet it.
    """
    return case((and_(*conditions), literal_column("1"))).is_not(None)


def one_of(
    column: InstrumentedAttribute[Any] | ColumnElement[Any], values: tuple[Any, ...]
) -> ColumnElement[bool]:
    """Return the condition that a column has one of these values."""
    if not values:
        return false()
    # Written into the SQL, quoted by SQLAlchemy. With a parameter, a prepared statement's generic
    # plan would suit values of average frequency, and read the whole table for a rare one. But a
    # setting of the connection decides what a backslash in a quoted text means.
    quotable = not any("\\" in str(value) for value in values)
    one = len(values) == 1
    value = bindparam(
        None,
        values[0] if one else values,
        type_=column.type,
        expanding=not one,
        literal_execute=quotable,
        unique=True,
    )
    return column == value if one else column.in_(value)
