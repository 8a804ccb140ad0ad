"""The SQL of every verb, built without touching a database.

Statements that do not depend on criteria are built once, at import, and bound with parameters. What
index predicates name is written as it stands in them, never as a parameter: a prepared statement's
generic plan could not use the index otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    UpdateBase,
    bindparam,
    delete,
    false,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import GenericFunction

from jobhistory.criteria import HistoryQuery
from jobhistory.executions import OUTCOME_COLUMNS, WORKER_LOST, lost_message
from jobhistory.models import HistoryRecord
from jobhistory.status import Status

_table: Any = HistoryRecord.__table__
_columns = _table.c

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""A low-water mark below which nothing can have expired."""

_NEWEST_FIRST = (HistoryRecord.started_at.desc(), HistoryRecord.id.desc())
_STARTED: ColumnElement[Any] = literal_column("'started'")

# Which rows can have a status, in the words of the partial indexes that hold just those rows.
_INDEXED_BY = {
    Status.FAILED: HistoryRecord.error_type.is_not(None),
    Status.PARTIAL_SUCCESS: HistoryRecord.failed_steps.is_not(None),
}


def _of_key(columns: Any) -> list[ColumnElement[bool]]:
    """That a row is of an `ExecutionKey`, given as the parameters `key_job_id` and so on."""
    # It is the job that has few rows. As long as there are no statistics, PostgreSQL would look
    # through all of the worker's as well; an index on an expression is one that it has not got.
    no_index: ColumnElement[str] = literal_column("''")
    return [
        columns.job_id == bindparam("key_job_id"),
        columns.worker_id + no_index == bindparam("key_worker_id"),
        columns.correlation_id + no_index == bindparam("key_correlation_id"),
    ]


INSERT = insert(_table)

# FOR UPDATE makes the second of two callers wait for the first and then look again, so it takes the
# next started row, or none. Without it both would choose the same row, and the second miss.
END = (
    update(_table)
    .where(
        _columns.id
        == select(_columns.id)
        .where(*_of_key(_columns), _columns.status == _STARTED)
        .order_by(_columns.started_at.desc(), _columns.id.desc())
        .limit(1)
        .with_for_update()
        .correlate(None)
        .scalar_subquery()
    )
    .returning(*_columns)
)
"""Ends the newest started execution of a key; the parameters named as columns are what it sets."""

_BY_ID = _columns.id == bindparam("key_id")

END_BY_ID = update(_table).where(_BY_ID, _columns.status == _STARTED).returning(*_columns)
"""Ends the execution with an id if it is started; the rest is as with `END`."""

END_MANY = (
    update(_table)
    .where(_BY_ID, _columns.status == _STARTED)
    .values({name: bindparam(name) for name in OUTCOME_COLUMNS})
)
"""`END_BY_ID` for many sets of parameters at once, which name every column of an outcome."""

ENDED = (
    select(HistoryRecord)
    .where(*_of_key(HistoryRecord), HistoryRecord.status != _STARTED)
    .order_by(*_NEWEST_FIRST)
    .limit(1)
)
"""The newest ended execution of a key."""

ENDED_AT = ENDED.where(HistoryRecord.completed_at == bindparam("key_completed_at"))
"""The execution of a key that ended at a moment."""

ENDED_OF = select(HistoryRecord).where(
    HistoryRecord.id.in_(bindparam("key_ids", expanding=True)), HistoryRecord.status != _STARTED
)
"""Those executions with one of many ids that have ended."""

ENDED_BY_ID = select(HistoryRecord).where(
    HistoryRecord.id == bindparam("key_id"), HistoryRecord.status != _STARTED
)
"""The execution with an id, if it has ended."""


def _insert_or_end(dialect_insert: Any) -> Any:
    statement = dialect_insert(_table)
    return statement.on_conflict_do_update(
        index_elements=[_columns.id],
        set_={name: statement.excluded[name] for name in OUTCOME_COLUMNS},
        where=_columns.status == _STARTED,
    )


INSERT_OR_END = {
    "postgresql": _insert_or_end(postgresql.insert),
    "sqlite": _insert_or_end(sqlite.insert),
}
"""By dialect: inserts a row, or gives a started one with its id the row's outcome.

To do so again changes nothing, whether the first time got through or not.
"""

_EXPIRED = _columns.expires_at <= bindparam("cutoff")

COUNT_EXPIRED = select(func.count()).select_from(_table).where(_EXPIRED)
"""How many rows have expired at a cutoff."""

# The CTE, unlike a plain subquery, runs once whatever the plan; else more than a batch could go.
# SQLite has no SKIP LOCKED, and SQLAlchemy leaves it out there: its writers queue anyway.
_doomed = (
    select(_columns.id)
    .where(_EXPIRED, _columns.expires_at >= bindparam("low_water"))
    .order_by(_columns.expires_at)
    .limit(bindparam("batch_size"))
    .with_for_update(skip_locked=True)
    .cte("doomed")
)
DELETE_EXPIRED = (
    delete(_table).where(_columns.id.in_(select(_doomed.c.id))).returning(_columns.expires_at)
)
"""Deletes one batch of expired rows, oldest first; `low_water` steps over rows already deleted."""


class _utc_text(GenericFunction[str]):  # noqa: N801 - it is named as in SQL
    """A moment as ISO 8601 text, in UTC, to the second."""

    type = String()
    inherit_cache = True


@compiles(_utc_text, "postgresql")
def _utc_text_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment = compiler.process(function.clauses, **options)
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""


@compiles(_utc_text)
def _utc_text_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment = compiler.process(function.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {moment})"


def reap(query: HistoryQuery) -> UpdateBase:
    """Ends the oldest started executions that meet the criteria as lost, and returns their rows.

    Its parameter is the moment, `now`. Who is about to end one of them meanwhile is not waited for.
    """
    lost = (
        select(_columns.id)
        .where(*_criteria(query), _columns.status == _STARTED)
        .order_by(_columns.started_at)
        .limit(query.limit)
        .with_for_update(skip_locked=True)
        .cte("lost")
    )
    before, after = lost_message("\n").split("\n")
    return (
        update(_table)
        # Looked at again, as an outcome may have come between the two on a database without locks.
        .where(_columns.id.in_(select(lost.c.id)), _columns.status == _STARTED)
        .values(
            status=Status.FAILED,
            error_type=WORKER_LOST,
            error_message=literal(before) + _utc_text(_columns.started_at) + literal(after),
            completed_at=bindparam("now"),
        )
        .returning(*_columns)
    )


def records_with(column: str, value: str) -> Select[HistoryRecord]:
    """All records with a value in a column, newest first."""
    return (
        select(HistoryRecord)
        .where(getattr(HistoryRecord, column) == value)
        .order_by(*_NEWEST_FIRST)
    )


def records_of(query: HistoryQuery) -> Select[HistoryRecord]:
    """The records that meet the criteria, newest first; only criteria that are given are in it."""
    statement = select(HistoryRecord).where(*_criteria(query)).order_by(*_NEWEST_FIRST)
    return statement if query.limit is None else statement.limit(query.limit)


def _criteria(query: HistoryQuery) -> list[ColumnElement[bool]]:
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
    if query.worker_id is not None:
        criteria.append(_one_of(HistoryRecord.worker_id, (query.worker_id,)))
    if query.error_type is not None:
        criteria.append(_one_of(HistoryRecord.error_type, (query.error_type,)))
    return criteria


def _one_of(column: InstrumentedAttribute[Any], values: tuple[Any, ...]) -> ColumnElement[bool]:
    if not values:
        return false()
    # Written into the SQL, quoted by SQLAlchemy. Were it a parameter, a prepared statement's
    # generic plan would suit values of average frequency, and read the whole table for a rare one.
    one = len(values) == 1
    value = bindparam(
        None,
        values[0] if one else values,
        type_=column.type,
        expanding=not one,
        literal_execute=True,
        unique=True,
    )
    return column == value if one else column.in_(value)
