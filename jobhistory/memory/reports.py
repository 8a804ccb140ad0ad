"""The reports of a store in memory, computed in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from jobhistory.execution.status import Status
from jobhistory.query.reports import (
    FIRST_BUCKET,
    PERCENTILES,
    FailureGroup,
    Percentiles,
    Row,
    TaskStats,
)
from jobhistory.sanitize.fingerprint import fingerprint
from jobhistory.schema import record_from


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


def failures_of(rows: Iterable[Row], limit: int | None) -> list[FailureGroup]:
    """Return the groups of failures, most frequent first."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (
            row["task_identifier"],
            row["error_type"],
            fingerprint(row.get("error_message") or ""),
        )
        groups.setdefault(key, []).append(row)
    found = []
    for key, members in groups.items():
        seen = [row["completed_at"] for row in members]
        example = record_from(max(members, key=lambda row: (row["completed_at"], row["id"])))
        found.append(FailureGroup(*key, len(members), min(seen), max(seen), example))
    found.sort(key=lambda group: (group.count, group.last_seen, group.example.id), reverse=True)
    return found[:limit]


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
        execution_time_ms=_percentiles([row.get("execution_time_ms") for row in rows]),
        queue_time_ms=_percentiles([row.get("queue_time_ms") for row in rows]),
        last_start=max(row["started_at"] for row in rows),
        last_success=_last_end(row for row in rows if row["status"] is Status.COMPLETED),
        last_failure=_last_end(failures),
    )


def _percentiles(times: list[int | None]) -> Percentiles:
    known = sorted(time for time in times if time is not None)
    if not known:
        return Percentiles(None, None, None, None)
    p50, p95, p99 = (known[-(-len(known) * percent // 100) - 1] for percent in PERCENTILES)
    return Percentiles(p50, p95, p99, known[-1])


def _last_end(rows: Iterable[Row]) -> datetime | None:
    return max((row["completed_at"] for row in rows), default=None)
