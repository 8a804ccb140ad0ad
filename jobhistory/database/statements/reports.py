"""The SQL of reports."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    case,
    func,
    literal_column,
    null,
    select,
    true,
)

from jobhistory.database.functions import fingerprint, id_of_last, later, start_of_bucket
from jobhistory.database.statements.read import criteria_of, deemed_frequent
from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import PERCENTILES, before_window
from jobhistory.schema import HistoryRecord

_FINGERPRINT = fingerprint(func.coalesce(HistoryRecord.error_message, ""))
_TIMES = (HistoryRecord.execution_time_ms, HistoryRecord.queue_time_ms)


def stats_of(
    query: HistoryQuery, bucket: timedelta | None, dialect: str
) -> Select[*tuple[Any, ...]]:
    """Return the statement for the fields of `TaskStats`, by task and, if given, by bucket."""
    keys: list[ColumnElement[Any]] = [HistoryRecord.task_identifier.label("task_identifier")]
    if bucket is not None:
        seconds = literal_column(str(bucket // timedelta(seconds=1)), BigInteger)
        keys.append(start_of_bucket(HistoryRecord.started_at, seconds).label("bucket"))
    columns = [
        *(*keys, HistoryRecord.status, HistoryRecord.will_retry, HistoryRecord.error_type),
        *(HistoryRecord.started_at, HistoryRecord.completed_at),
    ]
    percentile = _percentile
    if dialect != "postgresql":
        columns += _ranks(keys)
        percentile = _percentile_by_rank
    rows = select(*columns, *_TIMES).where(*criteria_of(query)).subquery().c
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
        func.count().filter(rows.status == Status.FAILED, rows.will_retry.is_not(true())),
        func.count().filter(rows.error_type == WORKER_LOST),
        *times,
        func.max(rows.started_at),
        _last_end(rows, Status.COMPLETED),
        _last_end(rows, Status.FAILED),
    ).group_by(*groups)


def failures_of(
    query: HistoryQuery, known_for: timedelta | None = None
) -> Select[*tuple[Any, ...]]:
    """Return the statement for the fields of `FailureGroup`, most frequent group first.

    Args:
        known_for: how long before the window to search for the same failures.
    """
    failures = (
        select(
            HistoryRecord.task_identifier,
            HistoryRecord.error_type,
            _FINGERPRINT.label("message"),
            HistoryRecord.completed_at,
            HistoryRecord.id,
        )
        .where(*criteria_of(query))
        .subquery()
        .c
    )
    keys = (failures.task_identifier, failures.error_type, failures.message)
    count, first_seen, last_seen, example_id = (
        func.count().label("count"),
        func.min(failures.completed_at).label("first_seen"),
        func.max(failures.completed_at).label("last_seen"),
        id_of_last(failures.completed_at, failures.id).label("example_id"),
    )
    groups = select(*keys, count, first_seen, last_seen, example_id).group_by(*keys)
    most_frequent = groups.order_by(count.desc(), last_seen.desc(), example_id.desc())
    group = most_frequent.limit(query.limit).subquery().c
    return (
        select(*list(group)[:-1], HistoryRecord, _is_new(group, query, known_for))
        .join(HistoryRecord, HistoryRecord.id == group.example_id)
        .order_by(group["count"].desc(), group.last_seen.desc(), group.example_id.desc())
    )


def earlier_failures(query: HistoryQuery) -> Select[*tuple[Any, ...]]:
    """Return the statement for the task, the error type and the fingerprint of each failure before.

    Args:
        query: the time before the window, which ends at the beginning of the window.
    """
    row = HistoryRecord
    return (
        select(row.task_identifier, row.error_type, _FINGERPRINT)
        .where(*criteria_of(query), row.started_at < query.to)
        .distinct()
    )


def _is_new(group: Any, query: HistoryQuery, known_for: timedelta | None) -> ColumnElement[Any]:
    """Return whether no failure of a group started in the time before the window."""
    earlier = before_window(query, known_for)
    if earlier is None:
        return null()
    # From the newest on, because most are found soon. If the planner knew how few are of the group,
    # it would read and sort all failures of the task.
    is_same = (HistoryRecord.error_type == group.error_type, group.message == _FINGERPRINT)
    same = (
        select(HistoryRecord.id)
        .where(
            *criteria_of(earlier),
            HistoryRecord.started_at < query.from_,
            HistoryRecord.task_identifier == group.task_identifier,
            deemed_frequent(*is_same),
        )
        .order_by(HistoryRecord.started_at.desc())
        .limit(1)
    )
    return same.correlate(group.message.table).scalar_subquery().is_(None)


def workers_of(query: HistoryQuery, dialect: str) -> Select[*tuple[Any, ...]]:
    """Return the statement for the fields of `WorkerActivity`, last seen first."""
    row = HistoryRecord
    started_at = row.started_at
    is_lost = row.error_type == WORKER_LOST
    # Whoever presumes that a worker is lost records the end. It is no sign of life.
    ended_at = case((is_lost, started_at), else_=func.coalesce(row.completed_at, started_at))
    signs = later(started_at, func.coalesce(row.heartbeat_at, started_at), ended_at)
    last_seen = func.max(signs).label("last_seen")
    # In the order of code points, as everywhere else.
    by_name = row.worker_id.collate("C") if dialect == "postgresql" else row.worker_id
    return (
        select(
            row.worker_id,
            func.count(),
            func.count().filter(row.status == Status.STARTED),
            func.count().filter(row.status == Status.FAILED),
            func.count().filter(is_lost),
            func.min(started_at),
            last_seen,
        )
        .where(*criteria_of(query))
        .group_by(row.worker_id)
        .order_by(last_seen.desc(), by_name)
        .limit(query.limit)
    )


def _ranks(keys: list[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Return, for each time, its rank in its group in ascending order, and the number of times."""
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
    # Floating-point arithmetic gives the same rank for each of these percentages.
    return func.percentile_disc(percent / 100).within_group(rows[time])


def _last_end(rows: Any, status: Status) -> ColumnElement[Any]:
    return func.max(rows.completed_at).filter(rows.status == status)
