"""The periodic jobs of a scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.cron.expressions import (
    AllExpression,
    MonthRangeExpression,
    RangeExpression,
    WeekdayRangeExpression,
)
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from jobhistory.contrib.adapter import Schedule
from jobhistory.contrib.apscheduler.jobs import task_of

_CRON_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
_MAXIMUM = {"minute": 59, "hour": 23, "day": 31, "month": 12, "day_of_week": 6}
_DEFAULT_MISFIRE_SECONDS = 1
_RANGES = (RangeExpression, MonthRangeExpression, WeekdayRangeExpression)


def schedules(scheduler: BaseScheduler) -> list[Schedule]:
    """Return the periodic jobs of a scheduler by id: all but paused jobs and those that run once.

    The name of a schedule is the id of the job. A trigger that no five fields of cron can express
    has a description only. A scheduler with a database knows its jobs only after it has started.
    """
    return [
        _schedule(job)
        for job in sorted(scheduler.get_jobs(), key=lambda job: job.id)
        if not isinstance(job.trigger, DateTrigger) and not _is_paused(job)
    ]


def _is_paused(job: Any) -> bool:
    # A job that waits for the start of the scheduler has no such attribute yet.
    return getattr(job, "next_run_time", "unknown") is None


def _schedule(job: Any) -> Schedule:
    trigger = job.trigger
    return Schedule(
        name=job.id,
        task_identifier=task_of(job),
        description=str(trigger),
        cron=_cron(trigger) if isinstance(trigger, CronTrigger) else None,
        every=trigger.interval if isinstance(trigger, IntervalTrigger) else None,
        timezone=_zone(getattr(trigger, "timezone", None)),
        delay=_delay(job),
    )


def _delay(job: Any) -> timedelta:
    """Return how late a job may start: by its jitter, and within its grace time for misfires."""
    late = getattr(job, "misfire_grace_time", None) or 0  # a job has it once the scheduler starts
    jitter = getattr(job.trigger, "jitter", None) or 0
    return timedelta(seconds=jitter + (late if late > _DEFAULT_MISFIRE_SECONDS else 0))


def _zone(timezone: Any) -> str | None:
    """Return the IANA name of a time zone, if it has one."""
    name = str(timezone)
    with suppress(Exception):
        return ZoneInfo(name).key
    return None


def _cron(trigger: CronTrigger) -> str | None:
    """Return a trigger as five fields of cron; `None` if they cannot say the same."""
    fields = {field.name: field for field in trigger.fields}
    if any(str(fields[name]) != "*" for name in ("year", "week")) or str(fields["second"]) != "0":
        return None
    begins_later = trigger.start_date is not None and trigger.start_date > datetime.now(UTC)
    if begins_later or trigger.end_date is not None:
        return None
    written = [_field(fields[name]) for name in _CRON_FIELDS]
    _, _, day, _, day_of_week = written
    # If both are limited, cron runs on days that meet one of them, and APScheduler on those that
    # meet both.
    if day != "*" and day_of_week != "*":
        return None
    return None if None in written else " ".join(str(each) for each in written)


def _field(field: Any) -> str | None:
    """Return a field as cron writes it; `None` if cron cannot."""
    if field.name == "day_of_week":
        return _day_of_week(field)
    written = [_expression(expression, _MAXIMUM[field.name]) for expression in field.expressions]
    return None if None in written else ",".join(str(each) for each in written)


def _expression(expression: Any, maximum: int) -> str | None:
    if type(expression) is AllExpression:
        return str(expression)
    if type(expression) not in _RANGES:
        return None  # such as the last day of the month
    first, last = expression.first, expression.last
    if first == last:
        return str(first)
    step = f"/{expression.step}" if expression.step else ""
    return f"{first}-{maximum if last is None else last}{step}"


def _day_of_week(field: Any) -> str | None:
    """Return the days of the week as cron counts them: 0 is Sunday, but Monday for APScheduler."""
    days: set[int] = set()
    for expression in field.expressions:
        if type(expression) is not AllExpression and type(expression) not in _RANGES:
            return None
        days.update((day + 1) % 7 for day in _days(expression))
    if len(days) == 7:
        return "*"
    if len(days) > 2 and max(days) - min(days) == len(days) - 1:
        return f"{min(days)}-{max(days)}"
    return ",".join(str(day) for day in sorted(days))


def _days(expression: Any) -> Iterator[int]:
    first = getattr(expression, "first", 0)
    last = getattr(expression, "last", None)
    yield from range(first, (6 if last is None else last) + 1, expression.step or 1)
