"""The measures of the executions of a task in one bucket of time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jobhistory.execution.status import Status
from jobhistory.statistics.ended import Ended
from jobhistory.statistics.histogram import Histogram

COUNTS = (
    "completed",
    "failed",
    "partial_success",
    "cancelled",
    "retried",
    "lost",
    "lost_retried",
    "unstored",
)
"""The names of the counts.

The first four are the numbers of executions by status. `retried` and `lost` are the failures after
which the job is tried again, and those presumed because the worker was lost; `lost_retried` is the
number of those that are both. `unstored` executions of any status have no row in the history.
"""

ENDED_COUNTS = COUNTS[:4]
"""The counts that add up to the number of executions."""

LAST_TIMES = ("last_started_at", "last_completed_at", "last_failed_at", "last_lost_at")
"""The names of the most recent times: of a start, and of an end by status."""

_LAST_ENDS: dict[str, str] = {
    Status.COMPLETED.value: "last_completed_at",
    Status.FAILED.value: "last_failed_at",
}

_GREATEST = 2**63 - 1  # the largest number that the databases store


class Times:
    """The sum, the maximum and the histogram of times in milliseconds.

    The times themselves are kept until the histogram is used, or times are added of which only the
    histogram is known.
    """

    __slots__ = ("_histogram", "_times", "max", "sum")

    def __init__(self) -> None:
        self.sum = 0
        self.max: int | None = None
        self._histogram = Histogram()
        self._times: list[int] = []

    @property
    def histogram(self) -> Histogram:
        """The histogram of all times."""
        if self._times:
            self._histogram.add(Histogram.of(self._times))
            self._times = []
        return self._histogram

    def add(self, other: Times) -> None:
        """Add the times of another."""
        self._add(other.sum, other.max)
        self._histogram.add(other._histogram)
        self._times += other._times

    def add_times(self, times: Iterable[int]) -> None:
        """Add times in milliseconds."""
        known = list(times)
        if known:
            self._add(sum(known), max(known))
            self._times += known

    def percentiles(self, percents: Iterable[int]) -> list[int | None]:
        """Return percentiles in milliseconds by nearest rank; `None` if there are no times.

        They are exact if all times are known. Otherwise each is within 2 percent of the exact one,
        and not above the maximum.
        """
        if self._times and not self._histogram:
            times = sorted(self._times)
            return [times[-(-len(times) * each // 100) - 1] for each in percents]
        found = self.histogram.percentiles(percents)
        most = self.max
        return [each if most is None or each is None else min(each, most) for each in found]

    def add_stored(self, sum_: int, max_: int | None, histogram: bytes | None) -> None:
        """Add times as a row of rollups keeps them."""
        self._add(sum_, max_)
        if histogram is not None:
            self._histogram.add_bytes(histogram)

    def _add(self, sum_: int, max_: int | None) -> None:
        self.sum = min(self.sum + sum_, _GREATEST)
        if max_ is not None:
            self.max = max_ if self.max is None else max(self.max, max_)


class Measures:
    """Counts, most recent times, and execution and queue times.

    Attributes:
        counts: the numbers by the names in `COUNTS`.
        last: the most recent times by the names in `LAST_TIMES`; `None` if there is none.
        execution_time, queue_time: the times that are known.
        started: the number of executions that still run. Rollups have none.
        is_exact: whether every time is known, and no count was taken back.
    """

    __slots__ = ("counts", "execution_time", "is_exact", "last", "queue_time", "started")

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.last: dict[str, datetime | None] = dict.fromkeys(LAST_TIMES)
        self.execution_time = Times()
        self.queue_time = Times()
        self.started = 0
        self.is_exact = True

    @property
    def executions(self) -> int:
        """The number of executions, including those that still run."""
        return self.started + sum(self.counts[name] for name in ENDED_COUNTS)

    def number_of(self, status: Status) -> int:
        """Return the number of executions with a status."""
        return self.counts[status.value] if status.is_outcome else self.started

    def add(self, other: Measures) -> None:
        """Add the measures of other executions."""
        for name, count in other.counts.items():
            self.counts[name] += count
        for name, at in other.last.items():
            self.see(name, at)
        self.execution_time.add(other.execution_time)
        self.queue_time.add(other.queue_time)
        self.started += other.started
        self.is_exact &= other.is_exact

    def count(self, execution: Ended) -> None:
        """Add one execution, or take back its count."""
        status, weight = execution.status, execution.weight
        if status == Status.STARTED:
            self.started += weight
        else:
            self._count_outcome(execution)
        if weight > 0:
            self.see("last_started_at", execution.started_at)
        else:
            self.is_exact = False
        for times, time in (
            (self.execution_time, execution.execution_time_ms),
            (self.queue_time, execution.queue_time_ms),
        ):
            if time is not None:
                times.add_times([time])

    def _count_outcome(self, execution: Ended) -> None:
        status, weight = execution.status, execution.weight
        is_failed = status == Status.FAILED
        is_retried = is_failed and execution.will_retry
        is_lost = is_failed and execution.is_lost
        names = [status]
        if is_retried:
            names.append("retried")
        if is_lost:
            names.append("lost")
        if is_retried and is_lost:
            names.append("lost_retried")
        for name in names if execution.is_stored else [*names, "unstored"]:
            self.counts[name] += weight
        if weight > 0 and status in _LAST_ENDS:
            self.see(_LAST_ENDS[status], execution.completed_at)
        if weight > 0 and is_lost:
            self.see("last_lost_at", execution.completed_at)

    def see(self, name: str, at: datetime | None) -> None:
        """Take note of a time, which is kept if it is the most recent one."""
        last = self.last[name]
        if at is not None and (last is None or at > last):
            self.last[name] = at
