"""The schedules of an app, whatever its framework is, as expectations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

from jobhistory.contrib.enqueuing import adapter_of
from jobhistory.contrib.jobs import Schedule
from jobhistory.errors import InvalidInput
from jobhistory.expectations.importing.found import Found, found

_SCHEDULERS = {("rq", "CronScheduler"): "rq", ("taskiq", "TaskiqScheduler"): "taskiq"}
"""Further classes of objects that know schedules, but enqueue no other jobs."""

_WITH_SCHEDULES = (
    "a Celery or Procrastinate app, a scheduler of APScheduler, a Huey, a queue or a CronScheduler "
    "of RQ, a broker or a scheduler of Taskiq, or recorded settings of arq's workers"
)


def schedules_of(app: Any) -> tuple[str, list[Schedule]]:
    """Return the name of the adapter for an app, and the schedules that the app knows.

    Raises:
        InvalidInput: if no adapter is for this class, or the framework knows no schedules.
        ImportError: if the adapter's framework is not installed.
    """
    adapter = adapter_of(app, _SCHEDULERS)
    if adapter is None:
        remedy = f"is no app that has schedules; pass {_WITH_SCHEDULES}"
        raise InvalidInput("app", app, remedy)
    module = import_module(f"jobhistory.contrib.{adapter}")
    if not hasattr(module, "schedules"):
        remedy = f"is of {adapter.capitalize()}, which has no schedules; pass {_WITH_SCHEDULES}"
        raise InvalidInput("app", app, remedy)
    return adapter, module.schedules(app)


def found_schedules(
    schedules: Iterable[Schedule], *, timezone: str, grace: timedelta
) -> Iterator[Found]:
    """Yield schedules as expectations, those that cannot be expected with a note.

    Args:
        timezone: the time zone of those that have none of their own.
        grace: the grace period, to which the delays that a schedule allows are added.
    """
    for each in schedules:
        where, written, task = each.name, each.description, each.task_identifier
        if each.every is not None:
            yield found(where, written, task, every=each.every, grace=grace + each.delay)
        elif each.cron is None:
            note = "is neither an interval nor five fields of cron"
            yield Found(where, written, task, note=note)
        else:
            note = None
            if each.timezone is None:
                note = f"names no time zone; {timezone} is assumed"
            zone = each.timezone or timezone
            delayed = grace + each.delay
            yield found(
                where, written, task, note=note, cron=each.cron, timezone=zone, grace=delayed
            )
