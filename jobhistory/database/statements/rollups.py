"""The SQL that reads statistics: rollups, the queue, and rows at the edges of the window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SmallInteger,
    String,
    and_,
    cast,
    false,
    func,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)

from jobhistory.database.statements.measures import measured, measures_of
from jobhistory.database.statements.read import STARTED, one_of
from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.schema import TABLE, HistoryRecord
from jobhistory.statistics.cover import EVERYTHING, Cover, Window
from jobhistory.statistics.measures import COUNTS, LAST_TIMES, Measures
from jobhistory.statistics.spans import Span

_TIMES = ("execution_time", "queue_time")
_STORED = tuple(each for name in _TIMES for each in (f"{name}_sum", f"{name}_max", f"{name}s"))
_MEASURED = len(COUNTS) + len(LAST_TIMES) + len(_TIMES)

_QUEUED_VALUES: tuple[ColumnElement[Any], ...] = (
    TABLE.c.task_identifier,
    type_coerce(TABLE.c.status, String),
    TABLE.c.will_retry,
    func.coalesce(TABLE.c.error_type == WORKER_LOST, false()),
    true(),
    literal(1, SmallInteger),
    TABLE.c.started_at,
    TABLE.c.completed_at,
    TABLE.c.queue_time_ms,
    TABLE.c.execution_time_ms,
)

AS_QUEUED = select(
    *(value.label(each.name) for value, each in zip(_QUEUED_VALUES, ENDED.c, strict=True))
)
"""The columns of the queue, from the history."""


def statistics_of(query: HistoryQuery, cover: Cover, bucket_seconds: int | None) -> Any:
    """Return the statement for all measures, in rows that `add_row` reads.

    It is one statement, because each statement may see another snapshot of the database.

    Args:
        query: tasks; the window is that of `cover`.
        cover: how buckets and rows cover the window.
        bucket_seconds: the length of a bucket in which rows are measured.
    """
    rollups = select(
        ROLLUP.c.task_identifier,
        ROLLUP.c.bucket,
        *(ROLLUP.c[name] for name in (*COUNTS, *LAST_TIMES)),
        *(cast(null(), String) for _ in _TIMES),
        literal(0, BigInteger),
        literal(0, BigInteger),
        *(ROLLUP.c[name] for name in _STORED),
    ).where(*_in_buckets(query, cover))
    executions = union_all(*_executions(query, cover)).subquery().c
    measures = measured(executions, bucket_seconds).add_columns(
        func.count().filter(executions.status == STARTED),
        func.count().filter(executions.weight < 0),
        *(cast(null(), ROLLUP.c[name].type) for name in _STORED),
    )
    return union_all(rollups, measures)


def add_row(measures: Measures, row: Sequence[Any]) -> None:
    """Add a row of `statistics_of`, without its task and bucket, to the measures."""
    started, corrections, total = row[_MEASURED : _MEASURED + 3]
    if total is None:  # not a rollup
        measured_here = measures_of(row[:_MEASURED])
        measured_here.started = started
        measured_here.is_exact = not corrections
        measures.add(measured_here)
        return
    measures.is_exact = False
    counts, last = measures.counts, measures.last
    for name, count in zip(COUNTS, row, strict=False):
        counts[name] += count
    for name, at in zip(LAST_TIMES, row[len(COUNTS) :], strict=False):
        if at is not None and (last[name] is None or at > last[name]):
            last[name] = at
    measures.execution_time.add_stored(*row[-6:-3])
    measures.queue_time.add_stored(*row[-3:])


def executions_of(query: HistoryQuery, cover: Cover) -> Any:
    """Return the statement that counts executions."""
    statuses = tuple(Status) if query.status is None else query.status
    names = [status.value for status in statuses if status.is_outcome]
    rollups = select(_sum(ROLLUP.c[name] for name in names).label("total")).where(
        *_in_buckets(query, cover)
    )
    executions = union_all(*_executions(query, cover)).subquery().c
    # Not in WHERE: the planner would search the edges for the status, by an index of all history.
    counted = executions.status.in_([status.value for status in statuses])
    rest = select(func.coalesce(func.sum(executions.weight).filter(counted), 0))
    total = union_all(rollups, rest).subquery().c.total
    return select(cast(func.sum(total), BigInteger))


def any_unstored(query: HistoryQuery, cover: Cover) -> Any:
    """Return the statement for whether executions in the hours at the edges have no row."""
    hours = cover.hours_of_edges
    in_rollups = select(ROLLUP.c.span).where(
        ROLLUP.c.span == Span.HOUR.value,
        ROLLUP.c.unstored > 0,
        or_(*(and_(*_in_window(ROLLUP.c.bucket, window)) for window in hours)),
        *_of_tasks(ROLLUP.c.task_identifier, query),
    )
    in_queue = select(ENDED.c.status).where(
        ENDED.c.is_stored.is_not(true()),
        or_(*(and_(*_in_window(ENDED.c.started_at, window)) for window in hours)),
        *_of_tasks(ENDED.c.task_identifier, query),
    )
    return select(or_(in_rollups.exists(), in_queue.exists()))


def _sum(columns: Iterable[ColumnElement[int]]) -> ColumnElement[int]:
    total: ColumnElement[int] = literal(0, BigInteger)
    for column in columns:
        total = total + func.coalesce(func.sum(column), 0)
    return total


def _executions(query: HistoryQuery, cover: Cover) -> Iterator[Select[*tuple[Any, ...]]]:
    """Yield the statements for all executions that no rollup counts, as the queue has them."""
    yield select(ENDED).where(
        *_in_window(ENDED.c.started_at, cover.whole), *_of_tasks(ENDED.c.task_identifier, query)
    )
    if query.status is None or Status.STARTED in query.status:
        yield _rows_in(cover.whole, query).where(HistoryRecord.status == STARTED)
    for edge in cover.edges:
        yield _rows_in(edge, query)


def _rows_in(window: Window, query: HistoryQuery) -> Select[*tuple[Any, ...]]:
    return AS_QUEUED.where(
        *_in_window(HistoryRecord.started_at, window),
        *_of_tasks(HistoryRecord.task_identifier, query),
    )


def _in_buckets(query: HistoryQuery, cover: Cover) -> list[ColumnElement[bool]]:
    spans = [
        and_(ROLLUP.c.span == span.value, *_in_window(ROLLUP.c.bucket, window))
        for span, window in cover.buckets
    ]
    return [or_(*spans), *_of_tasks(ROLLUP.c.task_identifier, query)]


def _in_window(moment: Any, window: Window) -> list[ColumnElement[bool]]:
    conditions = []
    if window.from_ is not None:
        conditions.append(moment >= window.from_)
    if window.before is not None:
        conditions.append(moment < window.before)
    return conditions


def _of_tasks(task: Any, query: HistoryQuery) -> list[ColumnElement[bool]]:
    return [] if query.task_identifier is None else [one_of(task, query.task_identifier)]


ENDED_EVER = statistics_of(
    HistoryQuery(status=tuple(status for status in Status if status.is_outcome)),
    EVERYTHING,
    24 * 60 * 60,  # months have no fixed length
)
"""The statement for all measures of all executions that have ended, by task and time."""

RUNNING = (
    select(
        HistoryRecord.task_identifier,
        func.count(),
        func.min(HistoryRecord.started_at),
        func.max(HistoryRecord.started_at),
    )
    .where(HistoryRecord.status == STARTED)
    .group_by(HistoryRecord.task_identifier)
)
"""The statement for the numbers of running executions, their first and last start, by task."""
