"""What adapters know about jobs: attempts, replays, schedules, and what jobs carry with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from jobhistory._runtime.clock import in_utc, utc_now
from jobhistory.execution.ids import id_text
from jobhistory.execution.trace import current_trace, read_traceparent
from jobhistory.tracking import current_execution
from jobhistory.typing import Id

HEADER = "jobhistory"
"""The name of the header, label or option in which a job carries these values."""

KEYWORD = "_jobhistory"
"""The keyword argument for them where a framework has no headers. Adapters remove it."""

NOT_REPLAYABLE = "not_replayable"
"""The label of an execution that another job cannot repeat. Its value is the reason."""


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What a job carries with it. Each value is `None` if it is unknown.

    Args:
        enqueued_at: when the job was enqueued.
        parent_id: the id of the execution that enqueued it.
        correlation_id: the correlation id of that execution.
        traceparent: the W3C `traceparent` of the span in which it was enqueued.
        replay_of: the id of the execution that it repeats.
    """

    enqueued_at: datetime | None = None
    parent_id: UUID | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    replay_of: UUID | None = None

    @classmethod
    def now(cls) -> Self:
        """Return what a job carries that is enqueued now, in this thread or task."""
        execution, trace = current_execution(), current_trace()
        return cls(
            enqueued_at=utc_now(),
            parent_id=None if execution is None else execution.id,
            correlation_id=None if execution is None else str(execution.correlation_id),
            traceparent=None if trace is None else f"00-{trace.trace_id}-{trace.span_id}-00",
        )

    @classmethod
    def read(cls, header: object) -> Self:
        """Return the values in a header, as `as_header` made it. Whatever is invalid is ignored.

        Anybody who may enqueue jobs may write the header, so nothing in it may fail a job.
        """
        given = header if isinstance(header, Mapping) else {}
        values: dict[str, object] = {}
        for name, read in _READERS.items():
            with suppress(Exception):
                values[name] = read(given[name])
        return cls(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def as_header(self) -> dict[str, str]:
        """Return the values as a JSON object of texts, without those that are unknown."""
        values = {name: getattr(self, name) for name in _READERS}
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in values.items()
            if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What a framework knows about one attempt at a job when it begins.

    Args:
        source: the framework's own object, for the functions among the options.
        job_id: the framework's id of the job, the same for each attempt.
        task_identifier: the name of the task.
        args, kwargs: the arguments.
        number: 1 for the first attempt.
        queue: the name of the queue.
        worker_id: the framework's name of the worker.
        correlation_id: the framework's id of the job that started it all.
        run_at: when the job was due. By default, it is when it was enqueued, if it carries that.
        carried: what the job carries with it.
        execution_id: the id of the record, if the adapter must know it in another process.
        labels: labels besides or in place of those that each adapter sets, such as
            `NOT_REPLAYABLE`, or the `pid` of another process.
    """

    source: Any
    job_id: Id
    task_identifier: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    number: int = 1
    queue: str | None = None
    worker_id: Id | None = None
    correlation_id: Id | None = None
    run_at: datetime | None = None
    carried: Carried = field(default_factory=Carried)
    execution_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A job to enqueue again, for an adapter's `enqueue`.

    Args:
        task_identifier: the name of the task, as the adapter recorded it.
        args, kwargs: the arguments.
        correlation_id: that of the execution which is repeated.
        queue: the queue of that execution; `None` if it is unknown.
        carried: what the new job must carry, so that the new execution gets the same correlation
            id, and the label `replay_of`.
    """

    task_identifier: str
    args: list[Any]
    kwargs: dict[str, Any]
    correlation_id: str
    queue: str | None
    carried: Carried


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A periodic task that a framework knows. It has a `cron`, an `every`, or neither.

    Args:
        name: the framework's name of the entry, such as `"nightly-report"`.
        task_identifier: the name of the task, as the adapter records it.
        description: the schedule as the framework writes it.
        cron: the schedule as five fields of cron, if it can be written that way.
        every: the interval, if the schedule is one.
        timezone: the IANA name of the time zone in which the schedule is meant, such as
            `"Europe/Berlin"`.
        delay: how much later than due the schedule lets it start, such as by a random delay.
    """

    name: str
    task_identifier: str
    description: str
    cron: str | None = None
    every: timedelta | None = None
    timezone: str | None = None
    delay: timedelta = timedelta()


_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
EVERY = (range(60), range(24), range(1, 32), range(1, 13), range(7))
"""The numbers that each of the five fields of cron can have."""


def cron_text(
    minutes: Collection[int],
    hours: Collection[int],
    days: Collection[int],
    months: Collection[int],
    weekdays: Collection[int],
) -> str | None:
    """Return five fields of cron for the numbers at which a task runs, with 0 for Sunday.

    Return `None` if both the days and the weekdays are restricted. Frameworks require both then,
    and cron requires either.
    """
    chosen = (minutes, hours, days, months, weekdays)
    fields = [
        "*" if set(numbers) >= set(every) else ",".join(map(str, sorted(numbers)))
        for numbers, every in zip(chosen, EVERY, strict=True)
    ]
    return " ".join(fields) if "*" in (fields[2], fields[4]) else None


def cron_of_croniter(text: str) -> str | None:
    """Return five fields of cron for an expression that croniter reads.

    Return `None` if it has seconds, or if cron means something else: with a restricted day and
    weekday of which one begins with a star, such as `*/2`, cron requires both, and croniter either.
    """
    fields = _NICKNAMES.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        return None
    days = {fields[2], fields[4]}
    is_different = "*" not in days and any(each.startswith("*") for each in days)
    return None if is_different else " ".join(fields)


def _moment(text: str) -> datetime:
    return in_utc(datetime.fromisoformat(text), HEADER)


def _traceparent(text: str) -> str:
    read_traceparent(text, HEADER)
    return text


_READERS: dict[str, Callable[[Any], object]] = {
    "enqueued_at": _moment,
    "parent_id": UUID,
    "correlation_id": lambda text: id_text(text, HEADER),
    "traceparent": _traceparent,
    "replay_of": UUID,
}
