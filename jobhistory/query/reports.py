"""What questions about many executions are answered with, and how that follows from their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import InvalidInput
from jobhistory.typing import Duration

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

FIRST_BUCKET = datetime.min.replace(tzinfo=UTC)
"""Where buckets are counted from: midnight in UTC on a Monday, before anything started."""

PERCENTILES = (50, 95, 99)

Row = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Count:
    """A number of executions, shown as `"10000+"` if there are more than that.

    It is not an `int`: `value` and `int()` return the number, which comparisons and arithmetic
    need. It is false if there are no executions.

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
    """Of times in milliseconds, those that so many percent do not exceed; `None` of none at all.

    Each is one of the times, that of the nearest rank: of `n` times in ascending order, `p95` is
    number `ceil(0.95 * n)`.
    """

    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None


@dataclass(frozen=True)
class TaskStats:
    """How the executions of a task went, in all or in one period of time.

    Attributes:
        task_identifier: the task.
        bucket: when the period began in which they started; `None` if it was not asked for.
        executions: how many there are.
        started, completed, failed, partial_success: how many of them are in each status.
        execution_time_ms: how long they took, as far as that is known.
        queue_time_ms: how long they waited for their start, as far as that is known.
        last_start: when the last one started.
        last_success, last_failure: when the last one ended as `completed`, and as `failed`.
    """

    task_identifier: str
    bucket: datetime | None
    executions: int
    started: int
    completed: int
    failed: int
    partial_success: int
    execution_time_ms: Percentiles
    queue_time_ms: Percentiles
    last_start: datetime
    last_success: datetime | None
    last_failure: datetime | None

    @property
    def failure_rate(self) -> float | None:
        """The share of failures in what has ended, from 0 to 1; `None` if nothing has."""
        ended = self.executions - self.started
        return self.failed / ended if ended else None


@dataclass(frozen=True)
class FailureGroup:
    """Failures of a task that are of one kind.

    Attributes:
        task_identifier: the task.
        error_type: their type.
        message: what their messages have in common, with `<number>`, `<id>`, `<address>` and
            `<value>` for numbers, ids, addresses and quoted values; 500 characters tell it.
        count: how many there are.
        first_seen, last_seen: when the first and the last of them failed.
        example: one of them, that with the greatest id, which is the one recorded last.
    """

    task_identifier: str
    error_type: str
    message: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: HistoryRecord


def parse_bucket(bucket: Duration | None) -> timedelta | None:
    """Read how long the periods of a series are.

    Raises:
        InvalidInput: if it is no duration, not a whole number of seconds, or longer than all time.
    """
    if bucket is None:
        return None
    length = parse_duration(bucket, "bucket")
    if length % timedelta(seconds=1):
        raise InvalidInput("bucket", bucket, "is not of whole seconds; write it like '1h' or '1d'")
    if length > datetime.max - datetime.min:
        raise InvalidInput("bucket", bucket, "is longer than dates reach; write it like '1h'")
    return length
