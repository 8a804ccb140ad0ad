"""The periodic tasks of a Celery app, which `jobhistory.contrib.celery` lists."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import Celery
from celery.schedules import crontab, maybe_schedule, schedule

from jobhistory.contrib.jobs import Schedule, cron_text


def schedules(app: Celery) -> list[Schedule]:
    """Return the entries of `beat_schedule`, with those that `add_periodic_task` adds.

    Entries that another scheduler keeps, such as django-celery-beat in its tables, are not among
    them. A `crontab` has no `cron` if that could not say the same: Celery requires both a day of
    the month and a day of the week, where cron accepts either.
    """
    app.finalize()
    zone = getattr(app.timezone, "key", None) or ("UTC" if app.conf.enable_utc else None)
    return [
        _schedule(name, entry["task"], maybe_schedule(entry["schedule"], app=app), zone)
        for name, entry in app.conf.beat_schedule.items()
    ]


def _schedule(name: str, task: str, when: Any, zone: str | None) -> Schedule:
    every = when.run_every if isinstance(when, schedule) else None
    is_cron = isinstance(when, crontab)
    return Schedule(
        name=name,
        task_identifier=task,
        description=repr(when),
        cron=_cron(when) if is_cron else None,
        every=every if isinstance(every, timedelta) and not is_cron else None,
        timezone=zone,
    )


def _cron(when: Any) -> str | None:
    return cron_text(
        when.minute, when.hour, when.day_of_month, when.month_of_year, when.day_of_week
    )
