"""The types of reports on many executions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from jobhistory._runtime.durations import parse_duration
from jobhistory._runtime.plain_json import plain_json
from jobhistory.errors import InvalidInput
from jobhistory.query.criteria import HistoryQuery, replace
from jobhistory.typing import Duration

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

FIRST_BUCKET = datetime.min.replace(tzinfo=UTC)
"""The start of the first bucket: a Monday at midnight in UTC, before anything started."""

PERCENTILES = (5, 50, 95, 99)

Row = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Count:
    """A number of executions, shown as `"10000+"` if there are more than that.

    It is not an `int`: compare and compute with `value`, as a count never equals a number. It is
    false if there are no executions.

    Attributes:
        value: the number of executions, or the cap if there are more.
        is_capped: whether there are more than `value`.
    """

    value: int
    is_capped: bool = False

    @classmethod
    def up_to(cls, found: int, cap: int | None) -> Self:
        """Return the count for a search that stopped at one more than the cap."""
        return cls(found) if cap is None or found <= cap else cls(cap, is_capped=True)

    def to_dict(self) -> dict[str, Any]:
        """Return both fields, for JSON."""
        return asdict(self)

    def __int__(self) -> int:
        return self.value

    def __bool__(self) -> bool:
        return self.value > 0 or self.is_capped

    def __str__(self) -> str:
        return f"{self.value}+" if self.is_capped else str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"<Count {self}>"


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of times in milliseconds, by nearest rank; `None` if there are no times.

    Of `n` times in ascending order, `p95` is number `ceil(0.95 * n)`. Nine of ten times are between
    `p5` and `p95`, so these tell whether a time is usual.
    """

    p5: int | None
    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None

    def to_dict(self) -> dict[str, int | None]:
        """Return all fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TaskStats:
    """Statistics of the executions of a task, in the whole window or in one bucket.

    Attributes:
        task_identifier: the task.
        bucket: the start of the bucket; `None` without buckets.
        executions: the number of executions.
        started, completed, failed, partial_success, cancelled: the number of executions with each
            status.
        final_failures: the number of failures after which the job was not to be tried again.
        lost: the number of failures that are presumed, because the worker was lost.
        execution_time_ms: percentiles of the execution times, where they are known.
        queue_time_ms: percentiles of the queue times, where they are known.
        last_start: the time of the last start.
        last_success, last_failure: the time of the last end as `completed` and as `failed`.
        is_exact: whether percentiles are exact, and nothing before or after the window counts.
            Otherwise they are within 2 % of the exact ones; see `HistoryStore.stats`.
    """

    task_identifier: str
    bucket: datetime | None
    executions: int
    started: int
    completed: int
    failed: int
    partial_success: int
    cancelled: int
    final_failures: int
    lost: int
    execution_time_ms: Percentiles
    queue_time_ms: Percentiles
    last_start: datetime
    last_success: datetime | None
    last_failure: datetime | None
    is_exact: bool

    @property
    def failure_rate(self) -> float | None:
        """The share of final failures, from 0 to 1; `None` if no execution counts.

        Completed executions, partial successes and final failures count. Cancelled executions do
        not, and neither do failures after which the job is tried again.
        """
        return self._share_of(self.final_failures)

    @property
    def attempt_failure_rate(self) -> float | None:
        """The share of failed attempts, from 0 to 1; `None` if no execution counts.

        Unlike `failure_rate`, it counts every failure.
        """
        return self._share_of(self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and both rates, for JSON. Times are texts in ISO 8601."""
        values = {name: plain_json(value) for name, value in asdict(self).items()}
        rates = {"failure_rate": self.failure_rate}
        return values | rates | {"attempt_failure_rate": self.attempt_failure_rate}

    def _share_of(self, failures: int) -> float | None:
        counted = self.completed + self.partial_success + failures
        return failures / counted if counted else None


@dataclass(frozen=True)
class FailureGroup:
    """Failures with the same task, error type and fingerprint.

    Attributes:
        task_identifier: the task.
        error_type: the error type.
        message: the fingerprint: the beginning of their messages, with `<number>`, `<id>`,
            `<address>` and `<value>` for numbers, ids, addresses and quoted values. These are
            replaced in the first 2,000 characters, of which then 500 are left.
        count: the number of failures.
        first_seen, last_seen: the times of the first and of the last failure.
        example: the failure that ended last, at `last_seen`; of several, the one with the greatest
            id.
        is_new: whether there was none of them in the time before the window; `None` if that was not
            asked for, or the window has no beginning.
    """

    task_identifier: str
    error_type: str
    message: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: HistoryRecord
    is_new: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON; the example as a dict, and times as texts in ISO 8601."""
        values = {name: plain_json(value) for name, value in vars(self).items()}
        return values | {"example": self.example.to_dict()}


@dataclass(frozen=True)
class WorkerActivity:
    """What a worker did in a window.

    Attributes:
        worker_id: the worker.
        executions: the number of executions that started in the window.
        running: the number of these that have not ended.
        failed: the number of failures, including those that are presumed.
        lost: the number of failures that are presumed, because the worker was lost.
        first_seen: the time of the first start.
        last_seen: the last sign of life: a start, a heartbeat, or an end that was not presumed.
    """

    worker_id: str
    executions: int
    running: int
    failed: int
    lost: int
    first_seen: datetime
    last_seen: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON. Times are texts in ISO 8601."""
        return {name: plain_json(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class WaitingForPartition:
    """Expired executions that wait until all of their partition can be dropped.

    Attributes:
        count: their number.
        until: when the last of them are deleted, if `expire` runs then; `None` if none waits.
    """

    count: int
    until: datetime | None


def before_window(query: HistoryQuery, length: timedelta | None) -> HistoryQuery | None:
    """Return the query for the time before its window; `None` if there is none.

    That time ends at the beginning of the window, which it includes.
    """
    if query.from_ is None or length is None:
        return None
    from_ = query.from_ - min(length, query.from_ - FIRST_BUCKET)
    return replace(query, from_=from_, to=query.from_)


def parse_bucket(bucket: Duration | None) -> timedelta | None:
    """Return the length of a bucket.

    Raises:
        InvalidInput: if it is not a duration of whole seconds, or exceeds the range of dates.
    """
    if bucket is None:
        return None
    length = parse_duration(bucket, "bucket")
    if length % timedelta(seconds=1):
        raise InvalidInput(
            "bucket", bucket, "is not a number of whole seconds; write it like '1h' or '1d'"
        )
    if length > datetime.max - datetime.min:
        raise InvalidInput("bucket", bucket, "exceeds the range of dates; write it like '1h'")
    return length
