"""Record the jobs of APScheduler 3: `record_jobs(scheduler, store)`, before or after it starts."""

from __future__ import annotations

from jobhistory.contrib.adapter import not_installed

try:
    import apscheduler.schedulers.base  # noqa: F401
except ImportError as error:
    raise not_installed("apscheduler", error) from error

from jobhistory.contrib.apscheduler.enqueuing import enqueue
from jobhistory.contrib.apscheduler.recording import SchedulerHistory, record_jobs
from jobhistory.contrib.apscheduler.triggers import schedules

__all__ = ["SchedulerHistory", "enqueue", "record_jobs", "schedules"]
