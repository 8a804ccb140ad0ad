"""Record the jobs of RQ: `JOBHISTORY_URL=... rq worker -w jobhistory.contrib.rq.Worker`."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID
from weakref import WeakKeyDictionary

from jobhistory.contrib.adapter import (
    HEADER,
    Adapter,
    Attempt,
    Carried,
    Options,
    Recording,
    Replay,
    Schedule,
    StoreSource,
    not_installed,
)
from jobhistory.errors import InvalidInput
from jobhistory.failure import Cancelled, Failure, TimedOut, WorkerLost
from jobhistory.store import HistoryStore, create_store
from jobhistory.typing import ErrorLike

try:
    import rq.timeouts
    import rq.version
    import rq.worker
    from rq.exceptions import DeserializationError
    from rq.job import JobStatus
except ImportError as error:
    raise not_installed("rq", error) from error

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job, Retry

    _WorkerBase = rq.worker.BaseWorker
    _QueueBase = rq.Queue
else:
    _WorkerBase = _QueueBase = object

__all__ = [
    "CarriesHistory",
    "Queue",
    "RecordsJobs",
    "SimpleWorker",
    "SpawnWorker",
    "Worker",
    "enqueue",
    "schedules",
]

_ATTEMPTS = "attempts"
_PATIENCE = 60
"""So many seconds after a job's time limit, a worker of RQ kills its horse."""

_adapters: WeakKeyDictionary[type, Adapter] = WeakKeyDictionary()
_WILL_RUN_AGAIN = {JobStatus.QUEUED, JobStatus.SCHEDULED}


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
class _Running:
    """What a process knows about the job that it, or its horse, executes."""

    execution: Execution | None
    number: int
    is_here: bool = False
    error: ErrorLike | None = None


class RecordsJobs(_WorkerBase):
    """Mixed into a class of workers, it records each attempt at a job.

    `class Worker(RecordsJobs, rq.Worker): history = store` records in a store of the app's.

    Attributes:
        history: a store, a recorder, or a function that makes one. By default, the store at the URL
            in the variable `JOBHISTORY_URL`.
        history_options: the options that all adapters have.
    """

    history: ClassVar[StoreSource] = store_from_environment
    history_options: ClassVar[Options] = {}

    _running: _Running | None = None

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Start the worker, and end what a previous worker of this name has left."""
        adapter = _adapter_of(type(self))
        _ = adapter.store  # horses inherit what the worker has made, and mistakes show at once
        super().bootstrap(*args, **kwargs)
        adapter.end_leftovers(self.name)

    def execute_job(self, job: Job, queue: rq.Queue) -> None:
        """Execute a job, and note the loss of a horse that a cold shutdown has killed."""
        try:
            super().execute_job(job, queue)
        except SystemExit:
            self._record_death(job, WorkerLost("the worker was shut down"), _may_retry(job))
            raise
        finally:
            self._running = None

    def prepare_execution(self, job: Job) -> Execution:
        """Prepare for the execution of a job, in the worker rather than its horse."""
        execution = super().prepare_execution(job)
        self._running = _Running(execution, _attempts(job) + 1)
        return execution

    def perform_job(self, job: Job, queue: rq.Queue, *args: Any, **kwargs: Any) -> bool:
        """Perform a job in this process, and record the attempt."""
        adapter = _adapter_of(type(self))
        # A horse that was spawned, rather than forked, knows nothing yet.
        execution = args[0] if args else None
        running = self._running or _Running(execution or self.execution, _attempts(job) + 1)
        self._running, running.is_here = running, True
        recording = adapter.begin(_attempt(job, queue.name, self.name, running))
        try:
            return super().perform_job(job, queue, *args, **kwargs)
        except BaseException as error:  # such as one of the user's exception handlers
            running.error = running.error or error
            raise
        finally:
            self._running = None
            if recording is not None:
                _end(recording, job, running.error)
            if self.is_horse:  # it ends by os._exit
                adapter.close()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Note why a job has failed, and call the exception handlers."""
        if self._running is not None:
            self._running.error = exc_info[1]
        super().handle_exception(job, *exc_info)

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """Let RQ handle the success of a job; if the job is to be repeated, count from 1 again."""
        if _attempts(job):
            _count(job, 0)
        super().handle_job_success(job, *args, **kwargs)

    def handle_job_retry(
        self, job: Job, queue: rq.Queue, retry: Retry, *args: Any, **kwargs: Any
    ) -> None:
        """Count the attempt of a job that has returned a `Retry`, and let RQ handle it."""
        if self._running is not None:
            self._running.error = Failure("rq.job.Retry", f"returned, with max={retry.max}")
            _count(job, self._running.number)
        super().handle_job_retry(job, queue, retry, *args, **kwargs)

    def handle_job_failure(self, job: Job, queue: rq.Queue, *args: Any, **kwargs: Any) -> None:
        """Let RQ handle the failure of a job, count the attempt, and note the loss of a horse."""
        running, is_stopped = self._running, self._stopped_job_id == job.id
        will_retry = _may_retry(job) and not is_stopped
        if running is not None and will_retry:
            if not running.is_here:
                _refresh_meta(job)  # the horse may have changed it, and the retry saves it
            _count(job, running.number)
        try:
            super().handle_job_failure(job, queue, *args, **kwargs)
        finally:
            why = str(kwargs.get("exc_string") or "unknown").rstrip("; ")
            if running is None:  # a worker died between taking the job and executing it
                _adapter_of(type(self)).skip(_attempt(job, queue.name, self.name, None), why)
            elif not running.is_here:
                error = Cancelled(why) if is_stopped else _death(job, running, why)
                self._record_death(job, error, None if is_stopped else will_retry)

    def clean_registries(self) -> None:
        """Clean the registries of RQ, and record what lost workers have abandoned."""
        # First, because a handler of the user's may end the chain. Only here, because spawning
        # pickles the handlers.
        self._exc_handlers.insert(0, self._record_abandoned)
        try:
            super().clean_registries()  # type: ignore[no-untyped-call]
        finally:
            self._exc_handlers.remove(self._record_abandoned)

    def _record_abandoned(self, job: Job, *_: Any) -> bool:
        """Record the attempt of another worker that RQ has found to be lost."""
        adapter, number = _adapter_of(type(self)), _attempts(job) + 1
        attempt = _attempt(job, job.origin, job.worker_name or "", None)
        adapter.record_lost(attempt, "RQ found the job abandoned", will_retry=_may_retry(job))
        _count(job, number)  # RQ saves it with the retry
        return True

    def _record_death(self, job: Job, error: ErrorLike, will_retry: bool | None) -> None:
        """Record, in the worker, the end of an attempt whose horse was killed."""
        running = self._running
        if running is not None and running.execution is not None and not running.is_here:
            attempt = _attempt(job, job.origin, self.name, running)
            started_at = running.execution.created_at
            adapter = _adapter_of(type(self))
            adapter.record(attempt, error, started_at=started_at, will_retry=will_retry)


class Worker(RecordsJobs, rq.Worker):
    """A worker that forks, for `rq worker -w jobhistory.contrib.rq.Worker`."""


class SimpleWorker(RecordsJobs, rq.SimpleWorker):
    """A worker without child processes."""


if (
    int(rq.version.VERSION.partition(".")[0]) >= 3
):  # before, horses had no hooks of the worker's class

    class SpawnWorker(RecordsJobs, rq.SpawnWorker):
        """A worker that spawns processes rather than forking."""


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
        if _has_readable_meta(job):
            job.meta.setdefault(HEADER, Carried.now().as_header())
        return job

    def run_job(self, job: Job) -> Job:
        """Run a job in this process, and record it if there is a store."""
        if inspect.getattr_static(type(self), "history") is None:
            return super().run_job(job)
        attempt = _attempt(job, self.name, None, None)
        recording = _adapter_of(type(self)).begin(attempt)
        error: BaseException | None = None
        try:
            return super().run_job(job)
        except BaseException as problem:
            error = problem
            raise
        finally:
            if recording is not None:
                _end(recording, job, error)


class Queue(CarriesHistory, rq.Queue):
    """A queue whose jobs carry who has enqueued them, and when."""


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


def _adapter_of(owner: type[RecordsJobs | CarriesHistory]) -> Adapter:
    """Return the adapter of a class, which is made when it is first needed."""
    adapter = _adapters.get(owner)
    if adapter is None:
        # Not by owner.history, because a function would become a method.
        history = inspect.getattr_static(owner, "history")
        if isinstance(history, staticmethod):
            history = history.__func__
        limits = (rq.timeouts.JobTimeoutException,)
        adapter = Adapter(history, owner.history_options, time_limits=limits)
        _adapters[owner] = adapter
    return adapter


def _attempt(job: Job, queue: str, worker: str | None, running: _Running | None) -> Attempt:
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
        number=_attempts(job) + 1 if running is None else running.number,
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


def _end(recording: Recording, job: Job, error: ErrorLike | None) -> None:
    """Record the outcome of an attempt that RQ has handled."""
    will_retry = None if error is None else job.get_status(refresh=False) in _WILL_RUN_AGAIN
    recording.end(error, result=job._result, will_retry=will_retry)


def _death(job: Job, running: _Running, why: str) -> Exception:
    """Return why a horse ended without an outcome."""
    limit, execution = job.timeout, running.execution
    if isinstance(limit, int) and limit > 0 and execution is not None:
        patience = timedelta(seconds=limit + _PATIENCE)
        if datetime.now(UTC) - execution.created_at > patience:
            return TimedOut(f"the horse was killed {_PATIENCE} s after the limit of {limit} s")
    return WorkerLost(why)


def _may_retry(job: Job) -> bool:
    return bool(job.retries_left and job.retries_left > 0)


def _aware(moment: datetime | None) -> datetime | None:
    """Return a time of RQ with its zone, which RQ 2 omits."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _has_readable_meta(job: Job) -> bool:
    """Return whether RQ could read the job's meta; otherwise it keeps the bytes as they are."""
    return isinstance(job.meta, dict) and "unserialized" not in job.meta


def _header(job: Job) -> dict[str, Any]:
    header = job.meta.get(HEADER) if _has_readable_meta(job) else None
    return header if isinstance(header, dict) else {}


def _attempts(job: Job) -> int:
    """Return how many attempts the job counts, which RQ does not."""
    count = _header(job).get(_ATTEMPTS)
    return count if isinstance(count, int) and 0 <= count < 2**31 - 1 else 0


def _count(job: Job, attempts: int) -> None:
    """Let a job count its attempts. RQ saves it if it enqueues the job again."""
    if _has_readable_meta(job):
        job.meta[HEADER] = {**_header(job), _ATTEMPTS: attempts}


def _refresh_meta(job: Job) -> None:
    """Read a job's meta again. If Redis is away, RQ logs that when it saves the job."""
    try:
        job.get_meta(refresh=True)
    except Exception:
        return
