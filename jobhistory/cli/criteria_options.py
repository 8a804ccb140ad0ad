"""The options for criteria, one for each, which several commands have in common."""

from __future__ import annotations

from typing import Any

from jobhistory.cli.option_groups import takes_options
from jobhistory.cli.options import (
    CorrelationId,
    ErrorContains,
    ErrorType,
    JobId,
    Labels,
    MinAttempt,
    MinTime,
    ParentId,
    Since,
    Statuses,
    Tasks,
    TraceId,
    Until,
    WorkerPrefix,
    Workers,
    read_window,
)
from jobhistory.query.terms import read_label_texts, read_milliseconds, read_uuid


def _criteria(
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    status: Statuses = None,
    job_id: JobId = None,
    correlation_id: CorrelationId = None,
    worker: Workers = None,
    worker_prefix: WorkerPrefix = None,
    min_attempt: MinAttempt = None,
    label: Labels = None,
    parent_id: ParentId = None,
    trace_id: TraceId = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    min_time: MinTime = None,
) -> dict[str, Any]:
    return read_window(since, until) | {
        "task_identifier": task or None,
        "status": status or None,
        "job_id": job_id,
        "correlation_id": correlation_id,
        "worker_id": worker or None,
        "worker_id_starts_with": worker_prefix,
        "min_attempt": min_attempt,
        "labels": read_label_texts(label, "--label"),
        "parent_id": read_uuid(parent_id, "--parent-id"),
        "trace_id": trace_id,
        "error_type": error_type,
        "error_contains": error_contains,
        "min_execution_time_ms": read_milliseconds(min_time, "--min-time"),
    }


takes_criteria = takes_options("criteria", _criteria)
"""Decorate a command: its parameter `criteria` becomes an option for each criterion.

The command gets a dict with all criteria but `limit` and `order`. Those that were not given are
`None`.
"""
