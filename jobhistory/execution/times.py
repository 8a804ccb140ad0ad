"""The times of an execution: its end, its duration, and its expiry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.execution.outcome import elapsed_ms


def complete_times(row: dict[str, Any], now: Callable[[], datetime]) -> None:
    """Derive the missing ones of `started_at`, `completed_at` and `execution_time_ms`.

    Raises:
        InvalidInput: if the end is before the start.
    """
    started_at, completed_at = row["started_at"], row["completed_at"]
    took = row["execution_time_ms"]
    if started_at is None:
        completed_at = completed_at or now()
        started_at = _moved(completed_at, -(took or 0))
    elif completed_at is None:
        completed_at = max(started_at, now())
        if took is not None:
            completed_at = _moved(started_at, took)
        else:
            took = elapsed_ms(started_at, completed_at)
    elif completed_at < started_at:
        raise InvalidInput(
            "completed_at",
            completed_at.isoformat(),
            f"is before started_at {started_at.isoformat()!r}; swap the two",
        )
    elif took is None:
        took = elapsed_ms(started_at, completed_at)
    row["started_at"], row["completed_at"] = started_at, completed_at
    row["execution_time_ms"] = took


def expiry(started_at: datetime, retention: timedelta | None) -> datetime | None:
    """Return the time at which an execution expires; `None` for never.

    Raises:
        InvalidInput: if it is after the year 9999.
    """
    if retention is None:
        return None
    try:
        return started_at + retention
    except OverflowError:
        raise InvalidInput(
            "history_retention",
            str(retention),
            "ends after the year 9999; write it like '30 days'",
        ) from None


def _moved(moment: datetime, milliseconds: int) -> datetime:
    try:
        return moment + timedelta(milliseconds=milliseconds)
    except OverflowError:  # outside the range of datetime; no execution takes that long
        return moment
