"""Record the tasks of a Celery app: `record_tasks(app, store)`."""

from __future__ import annotations

from jobhistory.contrib.adapter import not_installed

try:
    import celery as celery
except ImportError as error:
    raise not_installed("celery", error) from error

from jobhistory.contrib.celery.beat import schedules
from jobhistory.contrib.celery.recording import RecordedTasks, enqueue, record_tasks

__all__ = ["RecordedTasks", "enqueue", "record_tasks", "schedules"]
