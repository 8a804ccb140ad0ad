"""What RQ knows about an attempt at a job, and what the job itself must count and carry."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

from rq.exceptions import DeserializationError
from rq.job import JobStatus
from rq.timeouts import JobTimeoutException

from jobhistory.contrib.adapter import HEADER, Adapter, Attempt, Carried, Recording
from jobhistory.errors import InvalidInput
from jobhistory.store import HistoryStore, create_store
from jobhistory.typing import ErrorLike

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job

_ATTEMPTS = "attempts"
_WILL_RUN_AGAIN = {JobStatus.QUEUED, JobStatus.SCHEDULED}

_adapters: WeakKeyDictionary[type, Adapter] = WeakKeyDictionary()


def store_from_environment() -> HistoryStore:
    """Return a store at the URL in the variable `JOBHISTORY_URL`.

    Raises:
        InvalidInput: if there is no such variable.
    """
    url = os.environ.get("JOBHISTORY_URL")
    if not url:
        raise InvalidInput(
            "JOBHISTORY_URL", url, "is not set; set it, or write a class with 'history = store'"
        )
    return create_store(url)


@dataclass
class Running:
    """What a process knows about the job that it, or its horse, executes."""

    execution: Execution | None
    number: int
    is_here: bool = False
    error: ErrorLike | None = None


def adapter_of(owner: Any) -> Adapter:
    """Return the adapter of a class, which is made when it is first needed."""
    adapter = _adapters.get(owner)
    if adapter is None:
        # Not by owner.history, because a function would become a method.
        history = inspect.getattr_static(owner, "history")
        if isinstance(history, staticmethod):
            history = history.__func__
        limits = (JobTimeoutException,)
        adapter = Adapter(history, owner.history_options, time_limits=limits)
        _adapters[owner] = adapter
    return adapter


def attempt_at(job: Job, queue: str, worker: str | None, running: Running | None) -> Attempt:
    """Return what RQ knows about the attempt at a job. It never raises."""
    try:
        task, args, kwargs = _task(job), job.args, job.kwargs
    except DeserializationError:
        task, args, kwargs = "unreadable", (), {}
    return Attempt(
        source=job,
        job_id=job.id,
        task_identifier=task,
        args=args,
        kwargs=kwargs,
        number=attempts_of(job) + 1 if running is None else running.number,
        queue=queue,
        worker_id=worker,
        run_at=_aware(job.enqueued_at),
        carried=Carried.read(_header(job)),
        execution_id=None if running is None else _execution_id(running.execution),
    )


def _task(job: Job) -> str:
    """Return the name of the function, such as `shop.mail.send` or `shop.mail.Mailer().send`."""
    name = str(job.func_name)
    if job.instance is None:
        return name
    kind = job.instance if isinstance(job.instance, type) else type(job.instance)
    brackets = "" if kind is job.instance else "()"
    return f"{kind.__module__}.{kind.__qualname__}{brackets}.{name}"


def _execution_id(execution: Execution | None) -> UUID | None:
    """Return the id of a record that both the worker and its horse can tell: a UUIDv7.

    Its random bits are those of RQ's own id, a UUIDv4, whose variant is in the same place.
    """
    try:
        assert execution is not None
        milliseconds = int(execution.created_at.timestamp() * 1000)
        random = UUID(execution.id).int & ((1 << 76) - 1)
    except (AssertionError, ValueError):  # another version of RQ
        return None
    return UUID(int=milliseconds << 80 | 7 << 76 | random)


def end_recording(recording: Recording, job: Job, error: ErrorLike | None) -> None:
    """Record the outcome of an attempt that RQ has handled."""
    will_retry = None if error is None else job.get_status(refresh=False) in _WILL_RUN_AGAIN
    recording.end(error, result=job._result, will_retry=will_retry)


def _aware(moment: datetime | None) -> datetime | None:
    """Return a time of RQ with its zone, which RQ 2 omits."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def has_readable_meta(job: Job) -> bool:
    """Return whether RQ could read the job's meta; otherwise it keeps the bytes as they are."""
    return isinstance(job.meta, dict) and "unserialized" not in job.meta


def _header(job: Job) -> dict[str, Any]:
    header = job.meta.get(HEADER) if has_readable_meta(job) else None
    return header if isinstance(header, dict) else {}


def attempts_of(job: Job) -> int:
    """Return how many attempts the job counts, which RQ does not."""
    count = _header(job).get(_ATTEMPTS)
    return count if isinstance(count, int) and 0 <= count < 2**31 - 1 else 0


def count_attempts(job: Job, attempts: int) -> None:
    """Let a job count its attempts. RQ saves it if it enqueues the job again."""
    if has_readable_meta(job):
        job.meta[HEADER] = {**_header(job), _ATTEMPTS: attempts}
