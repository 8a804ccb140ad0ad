"""How the jobs of a scheduler and their runs are named in history."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from jobhistory.contrib.adapter import Carried

_MARK = "; jobhistory="
"""What follows it in the name of a job is what the job carries.

APScheduler keeps no headers. It stores a name as it is, of any length, and only logs it. An
argument would reach the function in a process that does not record.
"""


def task_of(job: Any) -> str:
    """Return the name of a job's function; the job's own name if the function has none."""
    task: str = job.func_ref or _name(job)
    return task


def run_id(job_id: str, run_time: datetime) -> str:
    """Return the id of one run. In APScheduler, a job is a schedule with many runs."""
    return f"{job_id}@{run_time.astimezone(UTC).isoformat()}"


def name_with(job: Any, carried: Carried) -> str:
    """Return the name of a job with what another run of it carries."""
    return f"{_name(job)}{_MARK}{json.dumps(carried.as_header())}"


def carried_by(job: Any) -> Carried:
    """Return what a job carries in its name. A name that says nothing carries nothing."""
    header = None
    with suppress(ValueError):
        header = json.loads(job.name.partition(_MARK)[2])
    return Carried.read(header)


def _name(job: Any) -> str:
    name: str = job.name.partition(_MARK)[0]
    return name
