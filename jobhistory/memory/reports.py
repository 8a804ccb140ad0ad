"""The reports of a store in memory, computed in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeAlias

from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.execution.status import Status
from jobhistory.query.reports import (
    FIRST_BUCKET,
    PERCENTILES,
    FailureGroup,
    Percentiles,
    Row,
    TaskStats,
    WorkerActivity,
)
from jobhistory.sanitize.fingerprint import fingerprint
from jobhistory.schema import record_from

_Group: TypeAlias = tuple[str, str, str]
"""A task, an error type and a fingerprint."""


def stats_of(rows: Iterable[Row], bucket: timedelta | None) -> list[TaskStats]:
    """Return the statistics of executions, by task and, if given, by bucket."""
    groups: dict[tuple[str, datetime | None], list[Row]] = {}
    for row in rows:
        begun = None
        if bucket is not None:
            begun = row["started_at"] - (row["started_at"] - FIRST_BUCKET) % bucket
        groups.setdefault((row["task_identifier"], begun), []).append(row)
    found = [_stats(*key, members) for key, members in groups.items()]
    return sorted(found, key=lambda stats: (stats.task_identifier, stats.bucket or FIRST_BUCKET))


def failures_of(
    rows: Iterable[Row], limit: int | None, earlier: Iterable[Row] | None = None
) -> list[FailureGroup]:
    """Return the groups of failures, most frequent first.

    Args:
        earlier: the failures before the window, in which new groups have none.
    """
    groups: dict[_Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group_of(row), []).append(row)
    known = None if earlier is None else set(map(_group_of, earlier))
    found = []
    for key, members in groups.items():
        seen = [row["completed_at"] for row in members]
        example = record_from(max(members, key=lambda row: (row["completed_at"], row["id"])))
        is_new = None if known is None else key not in known
        found.append(FailureGroup(*key, len(members), min(seen), max(seen), example, is_new))
    found.sort(key=lambda group: (group.count, group.last_seen, group.example.id), reverse=True)
    return found[:limit]


def _group_of(row: Row) -> _Group:
    message = fingerprint(row.get("error_message") or "")
    return row["task_identifier"], row["error_type"], message


def workers_of(rows: Iterable[Row], limit: int | None) -> list[WorkerActivity]:
    """Return what each worker did, last seen first."""
    by_worker: dict[str, list[Row]] = {}
    for row in rows:
        by_worker.setdefault(row["worker_id"], []).append(row)
    found = [_activity(worker_id, members) for worker_id, members in by_worker.items()]
    found.sort(key=lambda worker: worker.worker_id)
    found.sort(key=lambda worker: worker.last_seen, reverse=True)
    return found[:limit]


def _activity(worker_id: str, rows: list[Row]) -> WorkerActivity:
    count = Counter(row["status"] for row in rows)
    return WorkerActivity(
        worker_id=worker_id,
        executions=len(rows),
        running=count[Status.STARTED],
        failed=count[Status.FAILED],
        lost=sum(row.get("error_type") == WORKER_LOST for row in rows),
        first_seen=min(row["started_at"] for row in rows),
        last_seen=max(map(_last_sign, rows)),
    )


def _last_sign(row: Row) -> datetime:
    """Return the last sign of life of a worker. A presumed end is none."""
    signs: list[datetime | None] = [row["started_at"], row.get("heartbeat_at")]
    if row.get("error_type") != WORKER_LOST:
        signs.append(row.get("completed_at"))
    return max(sign for sign in signs if sign is not None)


def _stats(task: str, bucket: datetime | None, rows: list[Row]) -> TaskStats:
    count = Counter(row["status"] for row in rows)
    failures = [row for row in rows if row["status"] is Status.FAILED]
    return TaskStats(
        task_identifier=task,
        bucket=bucket,
        executions=len(rows),
        started=count[Status.STARTED],
        completed=count[Status.COMPLETED],
        failed=count[Status.FAILED],
        partial_success=count[Status.PARTIAL_SUCCESS],
        cancelled=count[Status.CANCELLED],
        final_failures=sum(not row.get("will_retry") for row in failures),
        lost=sum(row.get("error_type") == WORKER_LOST for row in failures),
        execution_time_ms=_percentiles([row.get("execution_time_ms") for row in rows]),
        queue_time_ms=_percentiles([row.get("queue_time_ms") for row in rows]),
        last_start=max(row["started_at"] for row in rows),
        last_success=_last_end(row for row in rows if row["status"] is Status.COMPLETED),
        last_failure=_last_end(failures),
        is_exact=True,
    )


def _percentiles(times: list[int | None]) -> Percentiles:
    known = sorted(time for time in times if time is not None)
    if not known:
        return Percentiles(*[None] * 5)
    p5, p50, p95, p99 = (known[-(-len(known) * percent // 100) - 1] for percent in PERCENTILES)
    return Percentiles(p5, p50, p95, p99, known[-1])


def _last_end(rows: Iterable[Row]) -> datetime | None:
    return max((row["completed_at"] for row in rows), default=None)
