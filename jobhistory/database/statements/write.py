"""The SQL of every verb, built without touching a database.

Statements that do not depend on criteria are built once, at import, and bound with parameters. What
index predicates name is written as it stands in them, never as a parameter: a prepared statement's
generic plan could not use the index otherwise.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    String,
    UpdateBase,
    Uuid,
    bindparam,
    case,
    false,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import GenericFunction

from jobhistory.columns import UTCDateTime
from jobhistory.execution.rows import OUTCOME_COLUMNS, WORKER_LOST, lost_message
from jobhistory.execution.status import Status
from jobhistory.query.criteria import Cursor, HistoryQuery
from jobhistory.query.reports import PERCENTILES
from jobhistory.sanitize.fingerprint import MASKS, MESSAGE_LENGTH
from jobhistory.sanitize.truncate import ascii_lower
from jobhistory.schema import HistoryRecord

_table: Any = HistoryRecord.__table__
_columns = _table.c
COLUMNS = tuple(_columns)

_NEWEST_FIRST = (HistoryRecord.started_at.desc(), HistoryRecord.id.desc())
_OLDEST_FIRST = (HistoryRecord.started_at.asc(), HistoryRecord.id.asc())
# The same, in words that only the indexes of one task, one job and so on have.
_NEWEST_OF_ONE = (HistoryRecord.started_at.desc().nulls_last(), HistoryRecord.id.desc())
_OLDEST_OF_ONE = (HistoryRecord.started_at.asc().nulls_first(), HistoryRecord.id.asc())
_MOST_PARTS = 20
_TIMES = (HistoryRecord.execution_time_ms, HistoryRecord.queue_time_ms)
_STARTED: ColumnElement[Any] = literal_column("'started'")

# What still runs started of late. In the order of the index, most of history would be read row by
# row before it, so this is an order that no index has.
_RUNNING_LONGEST_FIRST = (
    case((HistoryRecord.status == _STARTED, HistoryRecord.started_at)).asc(),
    HistoryRecord.id.asc(),
)

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


class _later(GenericFunction[datetime]):  # noqa: N801
    """The later of two moments."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(_later, "postgresql")
def _later_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(function.clauses, **options)})"


@compiles(_later)
def _later_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(function.clauses, **options)})"


class _elapsed_ms(GenericFunction[int]):  # noqa: N801
    """The whole milliseconds from one moment to another; 0 if the second is the earlier one."""

    type = BigInteger()
    inherit_cache = True


@compiles(_elapsed_ms, "postgresql")
def _elapsed_ms_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(each, **options) for each in function.clauses)
    return f"greatest(0, round(1000 * extract(epoch FROM {end} - {start})))"


@compiles(_elapsed_ms)
def _elapsed_ms_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(each, **options) for each in function.clauses)
    # SQLite counts days in floating point, but reads moments to the millisecond.
    return f"max(0, CAST(round((julianday({end}) - julianday({start})) * 86400000) AS INTEGER))"


INSERT = insert(_table)

_ENDED_AT = bindparam("ended_at", type_=UTCDateTime())
_TIMES_OF_OUTCOME = {
    # What a caller's clock says may be earlier than the start; and not every caller took the time.
    "completed_at": _later(_ENDED_AT, _columns.started_at),
    "execution_time_ms": func.coalesce(
        bindparam("took_ms", type_=BigInteger()), _elapsed_ms(_columns.started_at, _ENDED_AT)
    ),
}

# FOR UPDATE makes the second of two callers wait for the first and then look again, so it takes the
# next started row, or none. Without it both would choose the same row, and the second miss.
END = (
    update(_table)
    .where(
        _columns.id
        == select(_columns.id)
        .where(*_of_key(_columns), _columns.status == _STARTED)
        .order_by(_columns.started_at.desc().nulls_last(), _columns.id.desc())
        .limit(1)
        .with_for_update()
        .correlate(None)
        .scalar_subquery()
    )
    .values(_TIMES_OF_OUTCOME)
    .returning(*_columns)
)
"""Ends the newest started execution of a key.

Its parameters `ended_at` and `took_ms` are the outcome's times; those named as columns are the
values of other columns that it sets.
"""

_BY_ID = _columns.id == bindparam("key_id")

END_BY_ID = (
    update(_table)
    .where(_BY_ID, _columns.status == _STARTED)
    .values(_TIMES_OF_OUTCOME)
    .returning(*_columns)
)
"""Ends the execution with an id if it is started; the rest is as with `END`."""

_LOST = (_columns.status == literal_column("'failed'")) & (
    _columns.error_type == literal_column(f"'{WORKER_LOST}'")
)

REPLACE_LOST = update(_table).where(_BY_ID, _LOST).values(_TIMES_OF_OUTCOME).returning(*_columns)
"""Gives the execution with an id another outcome, if it ended as lost; the rest as with `END`."""

END_MANY = (
    update(_table)
    .where(_BY_ID, _columns.status == _STARTED)
    .values({name: bindparam(name) for name in OUTCOME_COLUMNS})
)
"""`END_BY_ID` for many sets of parameters at once, which name every column of an outcome."""

ENDED = (
    select(HistoryRecord)
    .where(*_of_key(HistoryRecord), HistoryRecord.status != _STARTED)
    .order_by(*_NEWEST_OF_ONE)
    .limit(1)
)
"""The newest ended execution of a key."""

ENDED_AT = ENDED.where(HistoryRecord.completed_at == bindparam("key_completed_at"))
"""The execution of a key that ended at a moment."""

WITH_IDS = select(HistoryRecord).where(HistoryRecord.id.in_(bindparam("key_ids", expanding=True)))
"""The executions with these ids."""

ENDED_BY_ID = select(HistoryRecord).where(
    HistoryRecord.id == bindparam("key_id"), HistoryRecord.status != _STARTED
)
"""The execution with an id, if it has ended."""


_DIALECT_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def _insert_or_end(dialect_insert: Any) -> Any:
    statement = dialect_insert(_table)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[_columns.id],
        set_={name: new[name] for name in OUTCOME_COLUMNS}
        | {"completed_at": _later(new.completed_at, _columns.started_at)},
        where=((_columns.status == _STARTED) | _LOST)
        & (new.status != _STARTED)
        & (_columns.job_id == new.job_id)
        & (_columns.task_identifier == new.task_identifier),
    )


INSERT_OR_END = {name: _insert_or_end(insert_) for name, insert_ in _DIALECT_INSERTS.items()}
"""By dialect: inserts a row, or gives the row with its id its outcome, if that has none but lost.

To do so again changes nothing, whether the first time got through or not. Nothing happens, either,
if the row with its id is of another job or task.
"""

INSERT_NEW = {
    name: insert_(_table).on_conflict_do_nothing(index_elements=[_columns.id])
    for name, insert_ in _DIALECT_INSERTS.items()
}
"""By dialect: inserts a row, unless there is one with its id."""


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


class _bucket(GenericFunction[datetime]):  # noqa: N801
    """When the period of so many seconds began that a moment is in, counted from the year 1 on."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(_bucket, "postgresql")
def _bucket_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    return f"date_bin(make_interval(secs => {seconds}), {moment}, '0001-01-01 00:00:00+00')"


@compiles(_bucket)
def _bucket_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    # To the second, as SQLite would round; shifted from its own epoch, 1970, as it cuts towards 0.
    since = f"(strftime('%s', substr({moment}, 1, 19)) + 62135596800)"
    return f"datetime({since} / {seconds} * {seconds} - 62135596800, 'unixepoch')"


class _contains(GenericFunction[bool]):  # noqa: N801
    """Whether a text has another one in it, with A to Z in either case; that one in lower case."""

    type = Boolean()
    inherit_cache = True


@compiles(_contains, "postgresql")
def _contains_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    text, part = (compiler.process(each, **options) for each in function.clauses)
    return f"""(strpos(lower({text} COLLATE "C"), {part}) > 0)"""


@compiles(_contains)
def _contains_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    text, part = (compiler.process(each, **options) for each in function.clauses)
    return f"(instr(lower({text}), {part}) > 0)"


class _greatest_id(GenericFunction[Any]):  # noqa: N801
    """The greatest UUID; PostgreSQL has no maximum of them before version 18."""

    type = Uuid()
    inherit_cache = True


@compiles(_greatest_id, "postgresql")
def _greatest_id_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    id_ = compiler.process(function.clauses, **options)
    return f"""CAST(max(CAST({id_} AS TEXT) COLLATE "C") AS UUID)"""


@compiles(_greatest_id)
def _greatest_id_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(function.clauses, **options)})"


MASKED = "jobhistory_masked"
"""`masks.masked` as a function of SQL, which a connection needs that has no regular expressions."""


class _masked(GenericFunction[str]):  # noqa: N801
    """A message with masks for its particulars."""

    type = String()
    inherit_cache = True


@compiles(_masked, "postgresql")
def _masked_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    message = function.clauses.clauses[0]
    for pattern, mask in MASKS:
        message = func.regexp_replace(message, pattern, mask, "g")
    masked: str = compiler.process(message, **options)
    return masked


@compiles(_masked)
def _masked_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"{MASKED}({compiler.process(function.clauses, **options)})"


def reap(query: HistoryQuery, dialect: str) -> tuple[Select[Any], UpdateBase | None]:
    """Return what finds a batch of started executions, and what ends them as lost.

    On PostgreSQL the first does both: it returns the place of each execution that it found, and all
    columns of its row, which are null if the row could not be ended. Executions that somebody else
    is about to end are skipped. Elsewhere the second returns the rows that it ended.

    The parameters are the moment, `now`, and the place behind which the batch begins,
    `after_started_at` and `after_id`.
    """
    place = (_columns.started_at, _columns.id)
    after = (bindparam("after_started_at", type_=UTCDateTime), bindparam("after_id", type_=Uuid))
    found = (
        select(_columns.id.label("lost_id"), _columns.started_at.label("lost_since"))
        .where(*_criteria(query), _columns.status == _STARTED, tuple_(*place) > tuple_(*after))
        .order_by(*place)
        .limit(query.limit)
        .with_for_update(skip_locked=True)
    )
    # As with expiry, a CTE where rows are locked, and none for SQLite's driver.
    lost = found.cte("lost") if dialect == "postgresql" else found.subquery("lost")
    before, behind = lost_message("\n").split("\n")
    ended = (
        update(_table)
        # Looked at again, as an outcome may have come between the two on a database without locks.
        .where(_columns.id.in_(select(lost.c.lost_id)), _columns.status == _STARTED)
        .values(
            status=Status.FAILED,
            error_type=WORKER_LOST,
            error_message=literal(before) + _utc_text(_columns.started_at) + literal(behind),
            completed_at=bindparam("now"),
        )
        .returning(*_columns)
    )
    if dialect != "postgresql":
        return found, ended
    row = ended.cte("ended").c
    both = lost.outerjoin(row.id.table, row.id == lost.c.lost_id)
    order = (lost.c.lost_since, lost.c.lost_id)
    return select(*order, *row).select_from(both).order_by(*order), None


def records_of(query: HistoryQuery, after: Cursor | None = None) -> Select[HistoryRecord]:
    """The records that meet the criteria, in their order, from a cursor on if there is one.

    Only criteria that are given are in it.
    """
    parts = _each_of_one_index(query)
    if len(parts) == 1:
        return _page(select(HistoryRecord).where(*_criteria(query)), query, after)
    # Only places until the page is known: whole records are wide.
    place: Any = select(HistoryRecord.started_at, HistoryRecord.id)
    each = [_page(place.where(*_criteria(part)), part, after).subquery().c for part in parts]
    found = union_all(*(select(of.started_at, of.id) for of in each)).subquery()
    order = [each.asc() if query.order == "oldest" else each.desc() for each in found.c]
    ids = select(found.c.id).order_by(*order).limit(query.limit)
    return _page(select(HistoryRecord).where(HistoryRecord.id.in_(ids)), query, None)


def _page(statement: Select[Any], query: HistoryQuery, after: Cursor | None) -> Select[Any]:
    oldest_first = query.order == "oldest"
    if after is not None:
        # The row value: OR between its parts would read and throw away what is on earlier pages.
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
        order = _OLDEST_OF_ONE if oldest_first else _NEWEST_OF_ONE
    else:
        order = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
    return statement.order_by(*order).limit(query.limit)


def _is_of_one(query: HistoryQuery) -> bool:
    """Whether the executions have a value in common by which an index has them in order."""
    ids = (query.job_id, query.correlation_id, query.worker_id, query.error_type)
    return len(query.task_identifier or ()) == 1 or any(id_ is not None for id_ in ids)


def _each_of_one_index(query: HistoryQuery) -> list[HistoryQuery]:
    """The query as those of one task and status each, the records of which an index has in order.

    A database would look through all of history for the newest of two tasks that ran long ago.
    """
    tasks: list[tuple[str, ...] | None] = [(task,) for task in query.task_identifier or ()]
    statuses: list[tuple[Status, ...] | None] = [(status,) for status in query.status or ()]
    if not _INDEXED_BY.keys() >= set(query.status or ()):
        statuses = []
    parts = [
        query.but(task_identifier=task, status=status)
        for task in tasks or [query.task_identifier]
        for status in statuses or [query.status]
    ]
    return parts if query.limit is not None and len(parts) <= _MOST_PARTS else [query]


def count_of(query: HistoryQuery, cap: int | None) -> Select[int]:
    """How many meet the criteria; with a cap, it looks for one more than that at the most."""
    if cap is None:
        return select(func.count()).select_from(HistoryRecord).where(*_criteria(query))
    found: Select[Any] = (
        select(literal_column("1")).select_from(HistoryRecord).where(*_criteria(query))
    )
    return select(func.count()).select_from(found.limit(cap + 1).subquery())


def stats_of(query: HistoryQuery, bucket: timedelta | None, dialect: str) -> Select[Any]:
    """The values of `TaskStats` in their order, by task and by bucket, if there is one."""
    keys: list[ColumnElement[Any]] = [HistoryRecord.task_identifier.label("task_identifier")]
    if bucket is not None:
        seconds = literal_column(str(bucket // timedelta(seconds=1)), BigInteger)
        keys.append(_bucket(HistoryRecord.started_at, seconds).label("bucket"))
    columns = [*keys, HistoryRecord.status, HistoryRecord.started_at, HistoryRecord.completed_at]
    percentile = _percentile
    if dialect != "postgresql":
        columns += _ranks(keys)
        percentile = _percentile_by_rank
    rows = select(*columns, *_TIMES).where(*_criteria(query)).subquery().c
    counts = [func.count().filter(rows.status == status) for status in Status]
    times = [
        each
        for time in _TIMES
        for each in (
            *(percentile(rows, time.key, p) for p in PERCENTILES),
            func.max(rows[time.key]),
        )
    ]
    groups = [rows[key.name] for key in keys]
    return select(
        groups[0],
        null() if bucket is None else groups[1],
        func.count(),
        *counts,
        *times,
        func.max(rows.started_at),
        _last_end(rows, Status.COMPLETED),
        _last_end(rows, Status.FAILED),
    ).group_by(*groups)


def failures_of(query: HistoryQuery) -> Select[Any]:
    """The values of `FailureGroup` in their order, the most frequent group first."""
    message = func.substr(func.coalesce(HistoryRecord.error_message, ""), 1, MESSAGE_LENGTH)
    failures = (
        select(
            HistoryRecord.task_identifier,
            HistoryRecord.error_type,
            _masked(message).label("message"),
            HistoryRecord.completed_at,
            HistoryRecord.id,
        )
        .where(*_criteria(query))
        .subquery()
        .c
    )
    kind = (failures.task_identifier, failures.error_type, failures.message)
    count, first_seen, last_seen, example_id = (
        func.count().label("count"),
        func.min(failures.completed_at).label("first_seen"),
        func.max(failures.completed_at).label("last_seen"),
        _greatest_id(failures.id).label("example_id"),
    )
    groups = select(*kind, count, first_seen, last_seen, example_id).group_by(*kind)
    most_frequent = groups.order_by(count.desc(), last_seen.desc(), example_id.desc())
    group = most_frequent.limit(query.limit).subquery().c
    return (
        select(*list(group)[:-1], HistoryRecord)
        .join(HistoryRecord, HistoryRecord.id == group.example_id)
        .order_by(group["count"].desc(), group.last_seen.desc(), group.example_id.desc())
    )


def _ranks(keys: list[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """For each time of a row, which one it is in its group, in ascending order, and of how many."""
    ranks: list[ColumnElement[Any]] = []
    for time in _TIMES:
        order = time.asc().nulls_last()
        rank = func.row_number().over(partition_by=keys, order_by=order)
        known = func.count(time).over(partition_by=keys)
        ranks += [rank.label(f"{time.key}_rank"), known.label(f"{time.key}_count")]
    return ranks


def _percentile_by_rank(rows: Any, time: str, percent: int) -> ColumnElement[Any]:
    nearest = (rows[f"{time}_count"] * percent + 99) // 100
    return func.max(case((rows[f"{time}_rank"] == nearest, rows[time])))


def _percentile(rows: Any, time: str, percent: int) -> ColumnElement[Any]:
    # The same rank: no other comes of a percentage by the arithmetic of floating point numbers.
    return func.percentile_disc(percent / 100).within_group(rows[time])


def _last_end(rows: Any, status: Status) -> ColumnElement[Any]:
    return func.max(rows.completed_at).filter(rows.status == status)


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
    if query.job_id is not None:
        criteria.append(HistoryRecord.job_id == query.job_id)
    if query.correlation_id is not None:
        criteria.append(HistoryRecord.correlation_id == query.correlation_id)
    if query.worker_id is not None:
        criteria.append(_one_of(HistoryRecord.worker_id, (query.worker_id,)))
    if query.error_type is not None:
        criteria.append(_one_of(HistoryRecord.error_type, (query.error_type,)))
    if query.error_contains is not None:
        message = func.coalesce(HistoryRecord.error_message, "")
        criteria += [
            HistoryRecord.error_type.is_not(None),
            _contains(
                HistoryRecord.error_type + ": " + message,
                literal(ascii_lower(query.error_contains), String),
            ),
        ]
    if query.min_execution_time_ms is not None:
        criteria.append(HistoryRecord.execution_time_ms >= query.min_execution_time_ms)
    return criteria


def _one_of(column: InstrumentedAttribute[Any], values: tuple[Any, ...]) -> ColumnElement[bool]:
    if not values:
        return false()
    # Written into the SQL, quoted by SQLAlchemy. Were it a parameter, a prepared statement's
    # generic plan would suit values of average frequency, and read the whole table for a rare one.
    # But what a backslash in a quoted text means is up to a setting of the connection.
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
