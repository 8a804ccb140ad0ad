"""Workers of RQ that record what they execute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

import rq.version
import rq.worker

from jobhistory.contrib.adapter import Options, StoreSource
from jobhistory.contrib.rq.attempts import (
    Running,
    adapter_of,
    attempt_at,
    attempts_of,
    count_attempts,
    end_recording,
    store_from_environment,
)
from jobhistory.failure import Cancelled, Failure, TimedOut, WorkerLost
from jobhistory.typing import ErrorLike

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job, Retry

    _WorkerBase = rq.worker.BaseWorker
else:
    _WorkerBase = object

_PATIENCE = 60
"""So many seconds after a job's time limit, a worker of RQ kills its horse."""

_SECONDS_FOR_LEFTOVERS = 3.0


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

    _history_running: Running | None = None

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Start the worker, and end what a previous worker of this name has left."""
        adapter = adapter_of(type(self))
        _ = adapter.store  # horses inherit what the worker has made, and mistakes show at once
        super().bootstrap(*args, **kwargs)
        adapter.end_leftovers(self.name)
        if isinstance(self, rq.Worker) and isinstance(adapter.leftovers, Thread):
            # A fork while it imports or connects would leave locks in the horse that nobody opens.
            adapter.leftovers.join(_SECONDS_FOR_LEFTOVERS)

    def execute_job(self, job: Job, queue: rq.Queue) -> None:
        """Execute a job, and note the loss of a horse that a cold shutdown has killed."""
        try:
            super().execute_job(job, queue)
        except SystemExit:
            self._record_death(job, WorkerLost("the worker was shut down"), _may_retry(job))
            raise
        finally:
            self._history_running = None

    def prepare_execution(self, job: Job) -> Execution:
        """Prepare for the execution of a job, in the worker rather than its horse."""
        execution = super().prepare_execution(job)
        self._history_running = Running(execution, attempts_of(job) + 1)
        return execution

    def perform_job(self, job: Job, queue: rq.Queue, *args: Any, **kwargs: Any) -> bool:
        """Perform a job in this process, and record the attempt."""
        adapter = adapter_of(type(self))
        # A horse that was spawned, rather than forked, knows nothing yet.
        execution = args[0] if args else None
        running = self._history_running or Running(
            execution or self.execution, attempts_of(job) + 1
        )
        self._history_running, running.is_here = running, True
        recording = adapter.begin(attempt_at(job, queue.name, self.name, running))
        try:
            return super().perform_job(job, queue, *args, **kwargs)
        except BaseException as error:  # such as one of the user's exception handlers
            running.error = running.error or error
            raise
        finally:
            self._history_running = None
            if recording is not None:
                end_recording(recording, job, running.error)
            if self.is_horse:  # it ends by os._exit
                adapter.close()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Note why a job has failed, and call the exception handlers."""
        if self._history_running is not None:
            self._history_running.error = exc_info[1]
        super().handle_exception(job, *exc_info)

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """Let RQ handle the success of a job; if the job is to be repeated, count from 1 again."""
        if attempts_of(job):
            count_attempts(job, 0)
        super().handle_job_success(job, *args, **kwargs)

    def handle_job_retry(
        self, job: Job, queue: rq.Queue, retry: Retry, *args: Any, **kwargs: Any
    ) -> None:
        """Count the attempt of a job that has returned a `Retry`, and let RQ handle it."""
        if self._history_running is not None:
            self._history_running.error = Failure("rq.job.Retry", f"returned, with max={retry.max}")
            count_attempts(job, self._history_running.number)
        super().handle_job_retry(job, queue, retry, *args, **kwargs)

    def handle_job_failure(self, job: Job, queue: rq.Queue, *args: Any, **kwargs: Any) -> None:
        """Let RQ handle the failure of a job, count the attempt, and note the loss of a horse."""
        running, is_stopped = self._history_running, self._stopped_job_id == job.id
        will_retry = _may_retry(job) and not is_stopped
        if running is not None and will_retry:
            if not running.is_here:
                _refresh_meta(job)  # the horse may have changed it, and the retry saves it
            count_attempts(job, running.number)
        try:
            super().handle_job_failure(job, queue, *args, **kwargs)
        finally:
            why = str(kwargs.get("exc_string") or "unknown").rstrip("; ")
            if running is None:  # a worker died between taking the job and executing it
                adapter_of(type(self)).skip(attempt_at(job, queue.name, self.name, None), why)
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
        adapter, number = adapter_of(type(self)), attempts_of(job) + 1
        attempt = attempt_at(job, job.origin, job.worker_name or "", None)
        adapter.record_lost(attempt, "RQ found the job abandoned", will_retry=_may_retry(job))
        count_attempts(job, number)  # RQ saves it with the retry
        return True

    def _record_death(self, job: Job, error: ErrorLike, will_retry: bool | None) -> None:
        """Record, in the worker, the end of an attempt whose horse was killed."""
        running = self._history_running
        if running is not None and running.execution is not None and not running.is_here:
            attempt = attempt_at(job, job.origin, self.name, running)
            started_at = running.execution.created_at
            adapter = adapter_of(type(self))
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


def _death(job: Job, running: Running, why: str) -> Exception:
    """Return why a horse ended without an outcome."""
    limit, execution = job.timeout, running.execution
    if isinstance(limit, int) and limit > 0 and execution is not None:
        patience = timedelta(seconds=limit + _PATIENCE)
        if datetime.now(UTC) - execution.created_at > patience:
            return TimedOut(f"the horse was killed {_PATIENCE} s after the limit of {limit} s")
    return WorkerLost(why)


def _may_retry(job: Job) -> bool:
    return bool(job.retries_left and job.retries_left > 0)


def _refresh_meta(job: Job) -> None:
    """Read a job's meta again. If Redis is away, RQ logs that when it saves the job."""
    try:
        job.get_meta(refresh=True)
    except Exception:
        return
