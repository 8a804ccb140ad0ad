"""Queues of RQ whose jobs carry who has enqueued them, and jobs that are enqueued again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
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
        replayable: the tasks that `enqueue` may enqueue again: functions, their names, or patterns
            such as `"shop.tasks.*"`, whose `*` matches no dot. `["*"]` allows all. By default, none
            may be, because the worker imports and calls whatever a row names.
    """

    history: ClassVar[StoreSource | None] = None
    history_options: ClassVar[Options] = {}
    replayable: ClassVar[Collection[str | Callable[..., Any]] | None] = None

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
        InvalidInput: if the queue has no `replayable`, or the task is not among it or no function.
    """
    name = replay.task_identifier
    _check_replayable(app, name)
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


def _check_replayable(app: rq.Queue, name: str) -> None:
    """Check that the queue allows a task by name: rows are data, and may be forged."""
    allowed = getattr(app, "replayable", None)
    if not isinstance(allowed, Collection) or isinstance(allowed, str):
        raise InvalidInput(
            "app",
            app.name,
            "is a queue that does not list the tasks that may be replayed, and a row may name any "
            "function, such as os.system; add a list to its class, such as 'class ShopQueue"
            '(jobhistory.contrib.rq.Queue): replayable = ["shop.tasks.*"]\'',
        )
    patterns = [each if isinstance(each, str) else _name_of(each) for each in allowed]
    if not any(_matches(name, pattern) for pattern in patterns):
        known = ", ".join(sorted(patterns)) or "none"
        raise InvalidInput("task_identifier", name, f"is not replayable in this queue: {known}")


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern allows a name.

    `shop.tasks.*` does not allow `shop.tasks.os.system`, which RQ finds if the module imports `os`.
    """
    is_as_deep = name.count(".") == pattern.count(".")
    return pattern == "*" or (is_as_deep and fnmatchcase(name, pattern))
