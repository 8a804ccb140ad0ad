"""The periodic jobs that RQ knows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobhistory.contrib.adapter import Schedule


def schedules(app: Any) -> list[Schedule]:
    """Return the periodic jobs that RQ knows. Their cron fields are in the scheduler's local time.

    Args:
        app: a `CronScheduler`, or a queue for the schedulers that run at its Redis.
    """
    try:
        from rq.cron import CronScheduler
    except ImportError:  # before RQ 2.4
        return []
    schedulers = [app] if isinstance(app, CronScheduler) else CronScheduler.all(app.connection)
    found = [_schedule(job) for scheduler in schedulers for job in scheduler.get_jobs()]
    return list(dict.fromkeys(found))


def _schedule(job: Any) -> Schedule:
    cron = job.cron if job.cron and len(job.cron.split()) == 5 else None
    return Schedule(
        name=getattr(job, "name", job.func_name),
        task_identifier=job.func_name,
        description=job.cron or f"every {job.interval} seconds",
        cron=cron,
        every=timedelta(seconds=job.interval) if job.interval else None,
    )
