"""The SQL that measures executions: a row of counts and times for each task and bucket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    cast,
    func,
    literal_column,
    null,
    select,
    true,
)

from jobhistory.database.functions import start_of_bucket
from jobhistory.execution.status import Status
from jobhistory.statistics.measures import COUNTS, LAST_TIMES, Measures

_ENDS = {
    "last_completed_at": Status.COMPLETED,
    "last_failed_at": Status.FAILED,
}


def measured(executions: Any, bucket_seconds: int | None) -> Select[*tuple[Any, ...]]:
    """Return the statement that measures executions, by task and, if given, by bucket.

    Its columns are the task, the start of the bucket or NULL, then those that `measures_of` reads.

    Args:
        executions: the columns of the queue of ended executions, or of a subquery that has them.
        bucket_seconds: the length of a bucket.
    """
    task = executions.task_identifier
    keys: list[ColumnElement[Any]] = [task]
    if bucket_seconds is not None:
        seconds = literal_column(str(bucket_seconds), BigInteger)
        keys.append(start_of_bucket(executions.started_at, seconds))
    bucket = null() if bucket_seconds is None else keys[1]
    return select(task, bucket.label("bucket"), *_measures(executions)).group_by(*keys)


def _measures(executions: Any) -> list[ColumnElement[Any]]:
    status, weight = executions.status, executions.weight
    is_failed = status == Status.FAILED.value
    is_retried, is_lost = executions.will_retry.is_(true()), executions.is_lost.is_(true())
    conditions: dict[str, list[ColumnElement[bool]]] = {
        "retried": [is_failed, is_retried],
        "lost": [is_failed, is_lost],
        "lost_retried": [is_failed, is_retried, is_lost],
        "unstored": [executions.is_stored.is_not(true())],
    }
    counts = [
        _sum(weight, conditions.get(name) or [status == Status(name).value]).label(name)
        for name in COUNTS
    ]
    counted = weight > 0
    lasts = {
        "last_started_at": func.max(executions.started_at).filter(counted),
        "last_lost_at": func.max(executions.completed_at).filter(counted, *conditions["lost"]),
    } | {
        name: func.max(executions.completed_at).filter(counted, status == ended.value)
        for name, ended in _ENDS.items()
    }
    return [
        *counts,
        *(lasts[name].label(name) for name in LAST_TIMES),
        _joined(executions.execution_time_ms).label("execution_times"),
        _joined(executions.queue_time_ms).label("queue_times"),
    ]


def measures_of(values: Iterable[Any]) -> Measures:
    """Return the measures in a row of `measured`, without its task and bucket."""
    row = list(values)
    measures = Measures()
    measures.counts = dict(zip(COUNTS, row, strict=False))
    for name, at in zip(LAST_TIMES, row[len(COUNTS) :], strict=False):
        measures.see(name, at)
    execution_times, queue_times = row[len(COUNTS) + len(LAST_TIMES) :]
    measures.execution_time.add_times(_split(execution_times))
    measures.queue_time.add_times(_split(queue_times))
    return measures


def _sum(weight: Any, conditions: list[ColumnElement[bool]]) -> ColumnElement[int]:
    # PostgreSQL's sum() of integers is a numeric.
    return cast(func.coalesce(func.sum(weight).filter(*conditions), 0), BigInteger)


def _joined(time: ColumnElement[Any]) -> ColumnElement[str]:
    """Return all times as one text. Their buckets are computed in Python, and only there."""
    joined: ColumnElement[str] = func.aggregate_strings(cast(time, String), ",")
    return joined


def _split(times: str | None) -> Iterable[int]:
    return map(int, times.split(",")) if times else ()
