"""The periodic jobs that RQ knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rq.version import VERSION

from jobhistory.contrib.adapter import Schedule
from jobhistory.contrib.jobs import cron_of_croniter
from jobhistory.errors import InvalidInput


def schedules(app: Any) -> list[Schedule]:
    """Return the periodic jobs that RQ knows. Their cron fields are in the scheduler's local time.

    Args:
        app: a `CronScheduler`, or a queue for the schedulers that run at its Redis.

    Raises:
        InvalidInput: for a queue, before RQ 2.7: schedulers do not tell Redis what they know.
    """
    try:
        from rq.cron import CronScheduler
    except ImportError:  # before RQ 2.4
        return []
    if isinstance(app, CronScheduler):
        schedulers = [app]
    elif tuple(int(part) for part in VERSION.split(".")[:2]) < (2, 7):
        raise InvalidInput("app", app, "does not know its schedules; pass a CronScheduler")
    else:
        schedulers = CronScheduler.all(app.connection)
    found = [_schedule(job) for scheduler in schedulers for job in scheduler.get_jobs()]
    return list(dict.fromkeys(found))


def _schedule(job: Any) -> Schedule:
    text = getattr(job, "cron", None)
    return Schedule(
        name=getattr(job, "name", job.func_name),
        task_identifier=job.func_name,
        description=text or f"every {job.interval} seconds",
        cron=cron_of_croniter(text) if text else None,
        every=timedelta(seconds=job.interval) if job.interval else None,
    )
