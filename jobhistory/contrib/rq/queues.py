"""Queues of RQ whose jobs carry who has enqueued them, and jobs that are enqueued again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

import rq

from jobhistory.contrib.adapter import HEADER, Carried, Options, Replay, StoreSource
from jobhistory.contrib.rq.attempts import (
    adapter_of,
    attempt_at,
    end_recording,
    has_readable_meta,
)
from jobhistory.errors import InvalidInput

if TYPE_CHECKING:
    from rq.job import Job

    _QueueBase = rq.Queue
else:
    _QueueBase = object


class CarriesHistory(_QueueBase):
    """Mixed into a class of queues, it makes jobs carry who has enqueued them, and when.

    Attributes:
        history: a store to record the jobs of `Queue(is_async=False)` in; `None` by default.
        history_options: the options of all adapters for that.
        replayable: the names of the tasks that `enqueue` may enqueue again; `None` for all.
    """

    history: ClassVar[StoreSource | None] = None
    history_options: ClassVar[Options] = {}
    replayable: ClassVar[Collection[str] | None] = None

    def create_job(self, *args: Any, **kwargs: Any) -> Job:
        """Create a job that carries these values."""
        job = super().create_job(*args, **kwargs)
        if has_readable_meta(job):
            job.meta.setdefault(HEADER, Carried.now().as_header())
        return job

    def run_job(self, job: Job) -> Job:
        """Run a job in this process, and record it if there is a store."""
        if inspect.getattr_static(type(self), "history") is None:
            return super().run_job(job)
        attempt = attempt_at(job, self.name, None, None)
        recording = adapter_of(type(self)).begin(attempt)
        error: BaseException | None = None
        try:
            return super().run_job(job)
        except BaseException as problem:
            error = problem
            raise
        finally:
            if recording is not None:
                end_recording(recording, job, error)


class Queue(CarriesHistory, rq.Queue):
    """A queue whose jobs carry who has enqueued them, and when."""


def enqueue(app: rq.Queue, replay: Replay) -> str:
    """Enqueue a job again; return the id of the new one.

    This process imports nothing: like `Queue.enqueue` with a text, it enqueues the name of the
    function, which the worker imports.

    Args:
        app: a queue. The new job goes to the queue of the old one, at the same Redis.
        replay: the job.

    Raises:
        InvalidInput: if the task is none that `replayable` of the queue names, or no function.
    """
    name = replay.task_identifier
    allowed = getattr(app, "replayable", None)
    if allowed is not None and name not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise InvalidInput("task_identifier", name, f"is not replayable in this queue: {known}")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise InvalidInput("task_identifier", name, "is not the name of a function to import")
    if not app.is_async:
        raise InvalidInput("app", app.name, "runs jobs at once; pass a queue with a worker")
    queue = app
    if replay.queue not in (None, app.name):
        queue = type(app)(replay.queue, connection=app.connection, serializer=app.serializer)
    meta = {HEADER: replay.carried.as_header()}
    job = queue.enqueue_call(name, tuple(replay.args), dict(replay.kwargs), meta=meta)
    return str(job.id)
