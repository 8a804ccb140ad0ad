"""What the adapters share, and all that an adapter for another framework needs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from datetime import datetime
from threading import Thread
from typing import Any

from jobhistory._runtime.clock import utc_now
from jobhistory.contrib.jobs import HEADER, Attempt, Carried, Replay, Schedule
from jobhistory.contrib.leftovers import Leftovers
from jobhistory.contrib.options import Choices, Options
from jobhistory.contrib.store_of_process import (
    SECONDS_TO_CLOSE,
    AsyncStoreSource,
    StoreOfProcess,
    StoreSource,
    is_async,
)
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, reason
from jobhistory.execution.labels import REPLAY_OF
from jobhistory.execution.outcome import elapsed_ms
from jobhistory.execution.trace import current_trace, read_traceparent
from jobhistory.failure import Cancelled, WorkerLost, timed_out
from jobhistory.sanitize.tracebacks import safe_text
from jobhistory.sanitize.truncate import NAME_LENGTH
from jobhistory.tracking import AsyncTracker, TrackedExecution, Tracker
from jobhistory.typing import ErrorLike, Id

__all__ = [
    "HEADER",
    "Adapter",
    "AsyncStoreSource",
    "Attempt",
    "Carried",
    "Options",
    "Recording",
    "Replay",
    "Schedule",
    "StoreSource",
    "not_installed",
]

logger = logging.getLogger("jobhistory.contrib")


class Recording:
    """An attempt that has begun. Its methods never raise, except for time limits of the job.

    Attributes:
        execution: the tracked execution, which is also `current_execution()` in the task.
    """

    def __init__(
        self,
        adapter: Adapter,
        task: str,
        tracker: Tracker | AsyncTracker,
        execution: TrackedExecution,
    ) -> None:
        self.execution = execution
        self._adapter = adapter
        self._task = task
        self._tracker = tracker

    def end(
        self,
        error: ErrorLike | None = None,
        *,
        result: Any = None,
        will_retry: bool | None = None,
    ) -> None:
        """Record the outcome, in the thread in which the attempt began. Only the first call counts.

        Args:
            error: why the attempt failed, as for `Execution.end`. The framework's exceptions for
                time limits and cancellations are recorded as such.
            result: what the job returned. It is stored if the options say so.
            will_retry: whether the job will be tried again.
        """
        try:
            assert isinstance(self._tracker, Tracker)
            self._describe(result, will_retry)
            self._tracker.end(self._adapter.outcome(error))
        except Exception as problem:
            self._adapter.contain("outcome", self._task, problem)

    async def end_async(
        self,
        error: ErrorLike | None = None,
        *,
        result: Any = None,
        will_retry: bool | None = None,
    ) -> None:
        """Do what `end` does, without blocking the event loop."""
        try:
            self._describe(result, will_retry)
            await self._tracker.end_async(self._adapter.outcome(error))
        except Exception as problem:
            self._adapter.contain("outcome", self._task, problem)

    def leave(self) -> None:
        """Let it no longer be `current_execution()`: the job has ended, the outcome follows.

        A retry that the framework enqueues afterwards, or executes in this thread or task, is then
        not a child of this attempt.
        """
        self._tracker.leave_context()

    def _describe(self, result: Any, will_retry: bool | None) -> None:
        if will_retry is not None:
            # A value of another type must not prevent the outcome.
            self.execution.set_will_retry(bool(will_retry))
        if self._adapter.stores_results:
            self.execution.set_result(result)


class Adapter:
    """Records the attempts of one framework. No error of history leaves its methods.

    They are logged to `jobhistory.contrib` or `jobhistory.lifecycle`, and the job goes on. If the
    database hangs, the time limits and the circuit breaker of the store apply. Any thread may call
    the methods, and so may a forked child.

    Args:
        store: a store, a recorder, or a function that makes one.
        options: the user's options.
        time_limits: the framework's exceptions for a job that took too long. They are recorded as
            `TimedOut`. The methods raise them, and nothing else, if they interrupt the recording,
            as swallowing them would undo the limit.
        cancellations: the framework's exceptions for a job that was stopped on purpose.
        is_async: whether the framework runs an event loop, so that a store for asyncio will do.

    Attributes:
        leftovers: the thread or the task of `end_leftovers`; `None` before it is called.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """

    def __init__(
        self,
        store: AsyncStoreSource,
        options: Options,
        *,
        time_limits: tuple[type[BaseException], ...] = (),
        cancellations: tuple[type[BaseException], ...] = (),
        is_async: bool = False,
    ) -> None:
        self._choices = Choices(options, time_limits)
        self._time_limits = time_limits
        self._cancellations = cancellations
        self._store = StoreOfProcess(store, is_async=is_async)
        self.leftovers: Thread | asyncio.Task[None] | None = None

    @property
    def store(self) -> Any:
        """The store or recorder. A function that makes one is called when it is first needed.

        A forked child uses the one that its parent has made, if any, because stores allow that.
        """
        return self._store.get()

    @property
    def stores_results(self) -> bool:
        """Whether the results of jobs are stored."""
        return self._choices.stores_results

    def wants(self, task: str) -> bool:
        """Return whether the user wants executions of a task to be recorded."""
        return self._choices.wants(task)

    def begin(self, attempt: Attempt) -> Recording | None:
        """Record the start of an attempt; return `None` if it is not to be recorded.

        It becomes the `current_execution()` of this thread.
        """
        task = attempt.task_identifier
        try:
            if not self.wants(task):
                return None
            tracker = self._tracker(attempt)
            assert isinstance(tracker, Tracker)
            return Recording(self, task, tracker, tracker.__enter__())
        except Exception as error:
            self.contain("start", task, error)
            return None

    async def begin_async(self, attempt: Attempt) -> Recording | None:
        """Do what `begin` does, without blocking the event loop."""
        task = attempt.task_identifier
        try:
            if not self.wants(task):
                return None
            tracker = self._tracker(attempt)
            return Recording(self, task, tracker, await tracker.__aenter__())
        except Exception as error:
            self.contain("start", task, error)
            return None

    def record(
        self,
        attempt: Attempt,
        error: ErrorLike,
        *,
        started_at: datetime | None = None,
        will_retry: bool | None = None,
    ) -> None:
        """Record an attempt that has ended elsewhere, such as in a process that was killed.

        If the attempt has an `execution_id`, and history has the start of that execution, it gets
        this outcome; otherwise the whole row is inserted. If it has ended already, nothing changes.

        Args:
            started_at: the start, for a row that is inserted; `None` if it is unknown.
            error, will_retry: as for `Recording.end`.
        """
        task = attempt.task_identifier
        try:
            if self.wants(task):
                self.store.record_execution(
                    self._ended(attempt, error, started_at, will_retry),
                    execution_id=attempt.execution_id,
                )
        except ExecutionAlreadyFinished:
            pass  # the process was faster than the news of its end
        except Exception as problem:
            self.contain("outcome", task, problem)

    async def record_async(
        self,
        attempt: Attempt,
        error: ErrorLike,
        *,
        started_at: datetime | None = None,
        will_retry: bool | None = None,
    ) -> None:
        """Do what `record` does, without blocking the event loop."""
        if not is_async(self.store):
            await asyncio.to_thread(
                self.record, attempt, error, started_at=started_at, will_retry=will_retry
            )
            return
        task = attempt.task_identifier
        try:
            if self.wants(task):
                await self.store.record_execution(
                    self._ended(attempt, error, started_at, will_retry),
                    execution_id=attempt.execution_id,
                )
        except ExecutionAlreadyFinished:
            pass
        except Exception as problem:
            self.contain("outcome", task, problem)

    def record_lost(self, attempt: Attempt, why: str, *, will_retry: bool | None = None) -> None:
        """Mark the newest execution without an outcome as lost, found by the ids of an attempt.

        It is for frameworks in which another worker finds a lost job. If history has no such
        execution, nothing happens.
        """
        task = attempt.task_identifier
        try:
            if self.wants(task):
                self.store.record_failure(
                    attempt.job_id,
                    self._choices.worker_id(attempt),
                    self._choices.correlation_id(attempt),
                    error=WorkerLost(why),
                    will_retry=will_retry,
                )
        except ExecutionNotFound:
            pass  # it has an outcome, or its start was not recorded
        except Exception as problem:
            self.contain("outcome", task, problem)

    def skip(self, attempt: Attempt, why: str) -> None:
        """Record a job that never began as cancelled, if the user wants that."""
        if self._choices.records_skipped:
            self.record(attempt, Cancelled(why))

    async def skip_async(self, attempt: Attempt, why: str) -> None:
        """Do what `skip` does, without blocking the event loop."""
        if self._choices.records_skipped:
            await self.record_async(attempt, Cancelled(why))

    def outcome(self, error: ErrorLike | None) -> ErrorLike | None:
        """Return the error to record in place of one of the framework."""
        if isinstance(error, self._time_limits):
            return timed_out(error)
        if isinstance(error, self._cancellations):
            return Cancelled(safe_text(error).strip() or type(error).__name__)
        return error

    def end_leftovers(self, worker_id: Id | None = None) -> None:
        """Mark what the previous process of this worker left without an outcome as lost.

        It returns at once: a thread or a task does it, because a worker must start even if the
        database hangs. Call it before the worker starts its first job; with a store for asyncio, in
        the event loop.

        Args:
            worker_id: the framework's name of the worker, which the previous process had as well.
                `None` if it has none: then the workers are processes of this host that no longer
                exist.
        """
        if not self._choices.ends_leftovers:
            return
        try:
            leftovers = Leftovers(self._choices.fixed_worker_id or worker_id, utc_now())
            self.leftovers = leftovers.end(self.store)
        except Exception as error:
            self.contain("outcome", "what the previous process left", error)

    def close(self) -> None:
        """Write what a recorder has accepted, and close a store that a function of the user made.

        Call it at the end of a process that runs no `atexit` functions, such as a child of Celery.
        If the process goes on, the function makes another one when it is needed.
        """
        self._store.close()

    async def close_async(self) -> None:
        """Do what `close` does, without blocking the event loop."""
        if isinstance(self.leftovers, asyncio.Task):  # it uses the store
            await asyncio.wait([self.leftovers], timeout=SECONDS_TO_CLOSE)
        await self._store.close_async()

    def contain(self, what: str, task: str, error: Exception) -> None:
        """Log an error of history. Raise the error if it is a time limit of the job itself."""
        if isinstance(error, self._time_limits):
            raise error
        is_repeated = getattr(error, "is_repeated", False)
        logger.log(
            logging.DEBUG if is_repeated else logging.ERROR,
            "not recorded: the %s of %s: %s",
            what,
            task,
            reason(error),
        )

    def _tracker(self, attempt: Attempt) -> Tracker | AsyncTracker:
        tracker: Tracker | AsyncTracker = self.store.track(
            {
                "id": attempt.job_id,
                "task_identifier": attempt.task_identifier,
                "payload": self._choices.payload(attempt),
                "attempts": attempt.number,
                "run_at": _run_at(attempt),
                "labels": _labels(attempt),
            },
            self._choices.worker_id(attempt),
            self._choices.correlation_id(attempt),
            execution_id=attempt.execution_id,
            **self._choices.for_track(attempt.task_identifier),
            parent_id=attempt.carried.parent_id,
            # The span of the worker, if there is one, knows that of the sender.
            traceparent=None if current_trace() else attempt.carried.traceparent,
        )
        tracker.time_limits = self._time_limits
        return tracker

    def _ended(
        self,
        attempt: Attempt,
        error: ErrorLike,
        started_at: datetime | None,
        will_retry: bool | None,
    ) -> dict[str, Any]:
        """Return the fields of an attempt for `record_execution`."""
        run_at = _run_at(attempt)
        waited = None if run_at is None or started_at is None else elapsed_ms(run_at, started_at)
        trace = None
        if attempt.carried.traceparent is not None:
            trace = read_traceparent(attempt.carried.traceparent, "traceparent")
        return {
            "job_id": attempt.job_id,
            "task_identifier": attempt.task_identifier,
            "worker_id": self._choices.worker_id(attempt),
            "correlation_id": self._choices.correlation_id(attempt),
            "attempt_number": attempt.number,
            "payload": self._choices.payload(attempt),
            "labels": _labels(attempt),
            "parent_id": attempt.carried.parent_id,
            "trace_id": trace and trace.trace_id,
            "span_id": trace and trace.span_id,
            "started_at": started_at,
            "queue_time_ms": waited,
            "error": self.outcome(error),
            "will_retry": will_retry,
            **self._choices.expiry(started_at),
        }


def not_installed(extra: str, error: ImportError) -> ImportError:
    """Return the error of an adapter that is imported without its framework."""
    return ImportError(
        f"jobhistory.contrib.{extra} needs a package that is not installed ({error}); "
        f"install it with: pip install 'jobhistory[{extra}]'",
        name=error.name,
    )


def _run_at(attempt: Attempt) -> datetime | None:
    return attempt.run_at or attempt.carried.enqueued_at


def _labels(attempt: Attempt) -> dict[str, str]:
    labels = {
        "host": socket.gethostname() or "unknown",
        "pid": str(os.getpid()),
        **attempt.labels,
    }
    if attempt.queue:
        labels["queue"] = attempt.queue[:NAME_LENGTH]
    if attempt.carried.replay_of is not None:
        labels[REPLAY_OF] = str(attempt.carried.replay_of)
    return labels
