"""Record the jobs of RQ: `JOBHISTORY_URL=... rq worker -w jobhistory.contrib.rq.Worker`."""

from __future__ import annotations

from contextlib import suppress

from jobhistory.contrib.adapter import not_installed

try:
    import rq as rq
except ImportError as error:
    raise not_installed("rq", error) from error

from jobhistory.contrib.rq.attempts import store_from_environment
from jobhistory.contrib.rq.cron import schedules
from jobhistory.contrib.rq.queues import CarriesHistory, Queue, enqueue
from jobhistory.contrib.rq.workers import RecordsJobs, SimpleWorker, Worker

with suppress(ImportError):  # RQ 2 spawns workers without the hooks of their class
    from jobhistory.contrib.rq.workers import SpawnWorker

__all__ = [
    "CarriesHistory",
    "Queue",
    "RecordsJobs",
    "SimpleWorker",
    "SpawnWorker",
    "Worker",
    "enqueue",
    "schedules",
    "store_from_environment",
]
