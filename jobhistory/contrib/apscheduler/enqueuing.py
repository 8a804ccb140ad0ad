"""Run jobs of a scheduler again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.util import obj_to_ref

from jobhistory.contrib.adapter import Replay
from jobhistory.contrib.apscheduler.jobs import name_with, run_id, task_of
from jobhistory.errors import InvalidInput


def enqueue(scheduler: BaseScheduler, replay: Replay) -> str:
    """Add a job that runs once, now, with the function of a job that the scheduler has.

    The new job is in the job store `default`. It has a new id, and the executor of the other job.

    Returns:
        The id of its only run, which is its `job_id` in history.

    Raises:
        InvalidInput: if the scheduler has no job with that function, or has not been started.
    """
    if scheduler.state == STATE_STOPPED:
        raise InvalidInput(
            "app", scheduler, "has not been started, so the job would not run; start it first"
        )
    job = _job_of(scheduler, replay)
    now = datetime.now(scheduler.timezone)
    added = scheduler.add_job(
        _function_of(job),
        "date",
        replay.args,
        replay.kwargs,
        name=name_with(job, replay.carried),
        misfire_grace_time=None,
        executor=job.executor,
        run_date=now,
    )
    return run_id(added.id, now)


def _function_of(job: Any) -> Any:
    """Return the function of a job, or the name that the app gave it and that is not its own."""
    try:
        own = obj_to_ref(job.func)
    except ValueError:  # such as a partial
        own = None
    return job.func if own == job.func_ref else job.func_ref


def _job_of(scheduler: BaseScheduler, replay: Replay) -> Any:
    """Return a job of the same task; if possible, one of the same executor."""
    jobs = scheduler.get_jobs()
    found = [job for job in jobs if task_of(job) == replay.task_identifier]
    if not found:
        known = ", ".join(sorted({task_of(job) for job in jobs})) or "none"
        raise InvalidInput(
            "task_identifier",
            replay.task_identifier,
            f"is the function of no job of the scheduler; it has: {known}",
        )
    return next((job for job in found if job.executor == replay.queue), found[0])
