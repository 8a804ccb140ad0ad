"""The types of arguments, for annotations in apps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict
from uuid import UUID

from jobhistory.failure import Failure

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapped

Id: TypeAlias = str | UUID | int
"""The id of a job, a worker or a correlation. Stored and returned as text."""

Duration: TypeAlias = timedelta | str
"""A length of time: a `timedelta`, or text such as `"30 days"`, `"12h"`, `"1 week 2 days"`."""

Milliseconds: TypeAlias = float | timedelta
"""A duration in milliseconds, or a `timedelta`. Stored as whole milliseconds."""

ErrorLike: TypeAlias = BaseException | str | Failure
"""The reason for the end of an execution: an exception, a text, or a `Failure`."""

Clock: TypeAlias = Callable[[], datetime]
"""A function that returns the current time as an aware `datetime`."""

Redact: TypeAlias = Callable[[str, Any], Any]
"""A function that takes a name and its value, and returns the value to store."""

Random: TypeAlias = Callable[[], float]
"""A function that returns a random number from 0 up to, and without, 1, as `random.random` does."""

Recorded: TypeAlias = Literal["all", "failures"] | float
"""The executions to store: all, those that do not complete, or a share of the others as well."""

OnHistoryError: TypeAlias = Literal["log", "raise"]
"""The reaction of `track` to a database error: log it, or raise it."""

Order: TypeAlias = Literal["newest", "oldest"]
"""The order of executions by start: the newest first, or the oldest first."""


class JobLike(Protocol):
    """A job as `record_start`, `begin` and `track` take it: any object with these attributes.

    Attributes that may be read suffice, so instances of ORM models and of frozen dataclasses match.
    The optional attributes are those of `Job`.
    """

    # Pyright compares the type of an ORM attribute on the class, mypy that on an instance.
    @property
    def id(self) -> Id | Mapped[str] | Mapped[UUID] | Mapped[int]:
        """The id of the job."""
        ...

    @property
    def task_identifier(self) -> str | Mapped[str]:
        """The kind of work."""
        ...


class _Filters(TypedDict, total=False):
    from_: datetime | None
    to: datetime | None
    task_identifier: str | Collection[str] | None
    job_id: Id | None
    correlation_id: Id | None
    worker_id: Id | Collection[Id] | None
    worker_id_starts_with: str | None
    min_attempt: int | None
    labels: Mapping[str, str] | None
    parent_id: UUID | None
    trace_id: str | None
    error_type: str | None
    error_contains: str | None
    min_execution_time_ms: int | None


class GroupCriteria(_Filters, total=False):
    """The criteria of `running`, `failure_groups` and `workers`, which take no status."""

    limit: int | None


class CountCriteria(_Filters, total=False):
    """The criteria of `count` and `stats`."""

    status: str | Collection[str] | None


class IterateCriteria(CountCriteria, total=False):
    """The criteria of `iterate`."""

    order: Order | None


class Criteria(IterateCriteria, total=False):
    """The criteria of `query` and `page`, by name. `HistoryQuery` describes them."""

    limit: int | None


class RecordFields(TypedDict, total=False):
    """The fields of `record_execution`, by name: the columns of a record, and `error`."""

    id: UUID | None
    job_id: Id
    correlation_id: Id
    parent_id: UUID | None
    trace_id: str | None
    span_id: str | None
    task_identifier: str
    worker_id: Id
    status: str
    attempt_number: int | None
    labels: Mapping[str, str] | None
    payload: Any
    payload_is_exact: bool | None
    started_at: datetime | None
    completed_at: datetime | None
    queue_time_ms: Milliseconds | None
    execution_time_ms: Milliseconds | None
    heartbeat_at: datetime | None
    progress: float | None
    expires_at: datetime | None
    will_retry: bool | None
    error: ErrorLike | None
    error_type: str | None
    error_message: str | None
    error_stack: str | None
    completed_steps: Iterable[str] | None
    failed_steps: Iterable[str] | None
    retry_from_step: str | None
    partial_results: Any
    result: Any
    log_tail: str | None


class ExpectationFields(TypedDict, total=False):
    """The arguments of an `Expectation` after the task, by name."""

    labels: Mapping[str, str] | None
    every: Duration | None
    cron: str | None
    timezone: str
    grace: Duration
    min_runtime: Duration | None
    max_runtime: Duration | None
    max_success_age: Duration | None
    failures_in_a_row: int | None
    max_failure_rate: float | None
    max_running: int | None
    paused_until: datetime | None
    owner: str | None
    runbook: str | None
