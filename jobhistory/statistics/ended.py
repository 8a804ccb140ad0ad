"""Executions that have ended, as statistics count them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jobhistory.execution.outcome import WORKER_LOST


class Ended(NamedTuple):
    """An execution that counts, or counts no longer. `weight` is 1, or -1 to take back a count."""

    task_identifier: str
    status: str
    will_retry: bool | None
    is_lost: bool
    is_stored: bool
    weight: int
    started_at: datetime
    completed_at: datetime | None
    queue_time_ms: int | None
    execution_time_ms: int | None


def ended(row: Mapping[str, Any]) -> Ended:
    """Return an execution that has ended, or still runs, and counts for the first time."""
    return Ended(
        row["task_identifier"],
        row["status"].value,
        row.get("will_retry"),
        row.get("error_type") == WORKER_LOST,
        is_stored=True,
        weight=1,
        started_at=row["started_at"],
        completed_at=row.get("completed_at"),
        queue_time_ms=row.get("queue_time_ms"),
        execution_time_ms=row.get("execution_time_ms"),
    )


def counted(row: Mapping[str, Any], replaced: Mapping[str, Any] | None = None) -> Iterator[Ended]:
    """Yield what counts when an execution ends.

    Nothing can be taken out of a histogram. So if its outcome replaces one that counted before,
    only times that the replaced one lacked count.
    """
    added = ended(row)
    if replaced is not None:
        old = ended(replaced)
        yield old._replace(weight=-1, completed_at=None, queue_time_ms=None, execution_time_ms=None)
        if old.queue_time_ms is not None:
            added = added._replace(queue_time_ms=None)
        if old.execution_time_ms is not None:
            added = added._replace(execution_time_ms=None)
    yield added
