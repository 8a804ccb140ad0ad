"""The SQL that finds and counts records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    bindparam,
    case,
    false,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from jobhistory.database.functions import contains
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.query.cursor import Cursor
from jobhistory.sanitize.truncate import ascii_lower
from jobhistory.schema import HistoryRecord

STARTED: ColumnElement[Any] = literal_column("'started'")

_NEWEST_FIRST = (HistoryRecord.started_at.desc(), HistoryRecord.id.desc())
_OLDEST_FIRST = (HistoryRecord.started_at.asc(), HistoryRecord.id.asc())


# The same orders, written as only the indexes that start with a task, a job and so on have them.
NEWEST_OF_ONE = (HistoryRecord.started_at.desc().nulls_last(), HistoryRecord.id.desc())
_OLDEST_OF_ONE = (HistoryRecord.started_at.asc().nulls_first(), HistoryRecord.id.asc())


# Running executions started recently. In the order of an index, the database would read most of
# history before it reaches them, so this is an order that no index has.
RUNNING_SINCE = case((HistoryRecord.status == STARTED, HistoryRecord.started_at))
_RUNNING_LONGEST_FIRST = (RUNNING_SINCE.asc(), HistoryRecord.id.asc())


# For each status, the condition of the partial indexes that contain its rows.
_INDEXED_BY = {
    Status.FAILED: HistoryRecord.error_type.is_not(None),
    Status.PARTIAL_SUCCESS: HistoryRecord.failed_steps.is_not(None),
}


_MOST_PARTS = 20

WITH_IDS = select(HistoryRecord).where(HistoryRecord.id.in_(bindparam("key_ids", expanding=True)))
"""The executions with these ids."""


def records_of(query: HistoryQuery, after: Cursor | None = None) -> Select[HistoryRecord]:
    """Return the statement for the records that meet the criteria, in their order.

    Args:
        after: the position after which the records start; `None` for the first ones.
    """
    parts = _each_of_one_index(query)
    if len(parts) == 1:
        return _page(select(HistoryRecord).where(*criteria_of(query)), query, after)
    # Only times and ids until the page is known: whole records are wide.
    place: Any = select(HistoryRecord.started_at, HistoryRecord.id)
    each = [_page(place.where(*criteria_of(part)), part, after).subquery().c for part in parts]
    found = union_all(*(select(of.started_at, of.id) for of in each)).subquery()
    order = [each.asc() if query.order == "oldest" else each.desc() for each in found.c]
    ids = select(found.c.id).order_by(*order).limit(query.limit)
    return _page(select(HistoryRecord).where(HistoryRecord.id.in_(ids)), query, None)


def _page(
    statement: Select[*tuple[Any, ...]], query: HistoryQuery, after: Cursor | None
) -> Select[*tuple[Any, ...]]:
    oldest_first = query.order == "oldest"
    if after is not None:
        # A comparison of rows: with OR, the database would read all earlier pages.
        position = tuple_(HistoryRecord.started_at, HistoryRecord.id)
        end = tuple_(
            literal(after.started_at, HistoryRecord.started_at.type),
            literal(after.id, HistoryRecord.id.type),
        )
        statement = statement.where(position > end if oldest_first else position < end)
    order: tuple[ColumnElement[Any], ...]
    if oldest_first and query.status == (Status.STARTED,):
        order = _RUNNING_LONGEST_FIRST
    elif _is_of_one(query):
        order = _OLDEST_OF_ONE if oldest_first else NEWEST_OF_ONE
    else:
        order = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
    return statement.order_by(*order).limit(query.limit)


def _is_of_one(query: HistoryQuery) -> bool:
    """Return whether an index contains the matching executions in order."""
    ids = (query.job_id, query.correlation_id, query.worker_id, query.error_type)
    return len(query.task_identifier or ()) == 1 or any(id_ is not None for id_ in ids)


def _each_of_one_index(query: HistoryQuery) -> list[HistoryQuery]:
    """Return the query as several queries of one task and status, for which there are indexes.

    To find the newest executions of two tasks at once, a database may scan all of history.
    """
    tasks: list[tuple[str, ...] | None] = [(task,) for task in query.task_identifier or ()]
    statuses: list[tuple[Status, ...] | None] = [(status,) for status in query.status or ()]
    if not _INDEXED_BY.keys() >= set(query.status or ()):
        statuses = []
    parts = max(len(tasks), 1) * max(len(statuses), 1)
    if parts == 1 or parts > _MOST_PARTS or query.limit is None:
        return [query]
    return [
        replace(query, task_identifier=task, status=status)
        for task in tasks or [query.task_identifier]
        for status in statuses or [query.status]
    ]


def count_of(query: HistoryQuery, cap: int | None) -> Select[int]:
    """Return the statement that counts matching executions, up to one more than the cap."""
    if cap is None:
        return select(func.count()).select_from(HistoryRecord).where(*criteria_of(query))
    found: Select[*tuple[Any, ...]] = (
        select(literal_column("1")).select_from(HistoryRecord).where(*criteria_of(query))
    )
    return select(func.count()).select_from(found.limit(cap + 1).subquery())


def criteria_of(query: HistoryQuery) -> list[ColumnElement[bool]]:
    """Return the conditions of the criteria that are given."""
    criteria: list[ColumnElement[bool]] = []
    if query.from_ is not None:
        criteria.append(HistoryRecord.started_at >= query.from_)
    if query.to is not None:
        criteria.append(HistoryRecord.started_at <= query.to)
    if query.task_identifier is not None:
        criteria.append(_one_of(HistoryRecord.task_identifier, query.task_identifier))
    if query.status is not None:
        criteria.append(_one_of(HistoryRecord.status, query.status))
        if len(query.status) == 1 and query.status[0] in _INDEXED_BY:
            criteria.append(_INDEXED_BY[query.status[0]])
    if query.job_id is not None:
        criteria.append(HistoryRecord.job_id == query.job_id)
    if query.correlation_id is not None:
        criteria.append(HistoryRecord.correlation_id == query.correlation_id)
    if query.worker_id is not None:
        criteria.append(_one_of(HistoryRecord.worker_id, (query.worker_id,)))
    if query.error_type is not None:
        criteria.append(_one_of(HistoryRecord.error_type, (query.error_type,)))
    if query.error_contains is not None:
        criteria += _error_contains(query.error_contains)
    if query.min_execution_time_ms is not None:
        criteria.append(HistoryRecord.execution_time_ms >= query.min_execution_time_ms)
    return criteria


def _error_contains(text: str) -> list[ColumnElement[bool]]:
    error = HistoryRecord.error_type + ": " + func.coalesce(HistoryRecord.error_message, "")
    return [
        HistoryRecord.error_type.is_not(None),
        contains(error, literal(ascii_lower(text), String)),
    ]


def _one_of(column: InstrumentedAttribute[Any], values: tuple[Any, ...]) -> ColumnElement[bool]:
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
