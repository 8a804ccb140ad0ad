"""What is usual for a task: the range of its times in the week before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import Percentiles, TaskStats

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

FEWEST_RUNS = 20
"""Of fewer runs, percentiles say little."""

_WEEK = timedelta(days=7)
_HOUR = timedelta(hours=1)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST, _LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def week_before(tasks: Sequence[str], until: datetime, now: datetime) -> HistoryQuery:
    """Return the query for the executions of tasks in the week before a time.

    It begins and ends with whole hours, which statistics answer without rows.
    """
    until = min(max(until, _FIRST), _LAST)
    end = until.replace(minute=0, second=0, microsecond=0) + _HOUR
    return HistoryQuery(
        task_identifier=tasks,
        from_=end - _WEEK,
        to=None if end > now else end - timedelta(microseconds=1),
    )


@dataclass(frozen=True)
class Usual:
    """The usual times of a task in milliseconds, if it ran often enough.

    Attributes:
        low, high: nine of ten runs take a time between these.
        median: half of the runs take less.
    """

    low: int
    median: int
    high: int

    @classmethod
    def of(
        cls, stats: TaskStats | None, times_of: Callable[[TaskStats], Percentiles]
    ) -> Usual | None:
        """Return the usual times by statistics; `None` if there are too few runs."""
        if stats is None or stats.executions - stats.started < FEWEST_RUNS:
            return None
        times = times_of(stats)
        if times.p5 is None or times.p50 is None or times.p95 is None:
            return None
        return cls(times.p5, times.p50, times.p95)

    def verdict(self, milliseconds: int, *, has_ended: bool = True) -> str:
        """Return how a time compares to the range; empty if that will only be known at its end."""
        if milliseconds > self.high:
            return "longer than usual" if has_ended else "longer than usual already"
        if not has_ended:
            return ""
        return "shorter than usual" if milliseconds < self.low else "as usual"


def elapsed_ms(record: HistoryRecord, now: datetime) -> int:
    """Return for how many milliseconds an execution has been running."""
    return max(0, (now - record.started_at) // _MILLISECOND)
