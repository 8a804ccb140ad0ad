"""Whether an execution in memory meets criteria."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobhistory.query.criteria import HistoryQuery
from jobhistory.sanitize.truncate import ascii_lower


def matches(row: Mapping[str, Any], query: HistoryQuery) -> bool:
    """Return whether the values of a row meet all criteria."""
    return (
        (query.from_ is None or row["started_at"] >= query.from_)
        and (query.to is None or row["started_at"] <= query.to)
        and (query.task_identifier is None or row["task_identifier"] in query.task_identifier)
        and (query.status is None or row["status"] in query.status)
        and (query.job_id is None or row["job_id"] == query.job_id)
        and (query.correlation_id is None or row["correlation_id"] == query.correlation_id)
        and (query.worker_id is None or row["worker_id"] in query.worker_id)
        and (query.worker_id_starts_with is None or _is_worker(row, query.worker_id_starts_with))
        and (query.min_attempt is None or row["attempt_number"] >= query.min_attempt)
        and (query.labels is None or _has_labels(row, query.labels))
        and (query.parent_id is None or row.get("parent_id") == query.parent_id)
        and (query.trace_id is None or row.get("trace_id") == query.trace_id)
        and (query.error_type is None or row.get("error_type") == query.error_type)
        and (query.error_contains is None or _has_error(row, query.error_contains))
        and (query.min_execution_time_ms is None or _took(row, query.min_execution_time_ms))
    )


def _is_worker(row: Mapping[str, Any], prefix: str) -> bool:
    return str(row["worker_id"]).startswith(prefix)


def _has_labels(row: Mapping[str, Any], labels: tuple[tuple[str, str], ...]) -> bool:
    given = row.get("labels") or {}
    return all(given.get(name) == value for name, value in labels)


def _took(row: Mapping[str, Any], at_least: int) -> bool:
    milliseconds = row.get("execution_time_ms")
    return milliseconds is not None and milliseconds >= at_least


def _has_error(row: Mapping[str, Any], text: str) -> bool:
    if row.get("error_type") is None:
        return False
    error = f"{row['error_type']}: {row.get('error_message') or ''}"
    return ascii_lower(text) in ascii_lower(error)
