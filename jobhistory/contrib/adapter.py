"""What the adapters share, and all that an adapter for another framework needs."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection
from datetime import datetime
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_retention
from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.contrib.jobs import HEADER, Attempt, Carried, Replay, Schedule
from jobhistory.contrib.leftovers import Leftovers, process_name
from jobhistory.errors import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    InvalidInput,
    reason,
)
from jobhistory.execution.ids import id_text
from jobhistory.execution.job import check_keys
from jobhistory.execution.labels import REPLAY_OF
from jobhistory.execution.outcome import elapsed_ms
from jobhistory.execution.times import expiry
from jobhistory.execution.trace import current_trace, read_traceparent
from jobhistory.execution.values import read_boolean
from jobhistory.failure import Cancelled, WorkerLost, timed_out
from jobhistory.recorder import Recorder
from jobhistory.sanitize.tracebacks import safe_text
from jobhistory.sanitize.truncate import NAME_LENGTH
from jobhistory.store import HistoryStore
from jobhistory.tracking import AsyncTracker, TrackedExecution, Tracker
from jobhistory.tracking_methods import AsyncTrackingMethods
from jobhistory.typing import Duration, ErrorLike, Id

if TYPE_CHECKING:
    from jobhistory.aio import AsyncHistoryStore
    from jobhistory.recorder.async_recorder import AsyncRecorder

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

StoreSource: TypeAlias = "HistoryStore | Recorder | Callable[[], HistoryStore | Recorder]"
"""A store or a recorder, or a function without arguments that makes one when it is first needed."""

if TYPE_CHECKING:
    AsyncStoreSource: TypeAlias = (
        StoreSource
        | AsyncHistoryStore
        | AsyncRecorder
        | Callable[[], AsyncHistoryStore]
        | Callable[[], AsyncRecorder]
    )
else:
    AsyncStoreSource = Any
"""The same for frameworks with an event loop, where stores for asyncio can be used as well."""

Skipped: TypeAlias = Literal["ignore", "record"]
T = TypeVar("T")

_SECONDS_TO_CLOSE = 10.0

_DEFAULTS: dict[str, Any] = {
    "worker_id": None,
    "correlation_id": None,
    "payload": True,
    "result": False,
    "only": None,
    "skip": (),
    "skipped": "ignore",
    "history_retention": None,
    "heartbeat": None,
    "log_tail": None,
    "end_leftovers": True,
}


class Options(TypedDict, total=False):
    """The options of all adapters. The functions among them get the framework's own job object.

    Args:
        worker_id: the id of the worker, or a function that returns it. By default, it is the name
            that the framework gives the worker, or else the host and the process id.
        correlation_id: a function that returns the correlation id, or `None` for the default: that
            of the tracked execution in which the job was enqueued, otherwise the framework's id
            of the job that started it all, otherwise the id of the job.
        payload: whether to store the arguments of jobs, or a function that returns what to store.
            By default, the payload is `{"args": [...], "kwargs": {...}}`. Replay needs that.
        result: whether to store what jobs return; `False` by default.
        only: the names of the tasks to record; by default all.
        skip: the names of tasks not to record.
        skipped: what to do about jobs that never begin, because they were revoked, have expired or
            are locked: `"ignore"` them, which is the default, or `"record"` them as cancelled.
        history_retention: how long the rows are kept, as for `record_start`.
        heartbeat, log_tail: as for `track`.
        end_leftovers: whether a worker that starts marks executions as lost that its previous
            process left without an outcome; `True` by default. It knows them by the id of the
            worker, or by a host and a process that no longer exists. Pass `False` if several
            processes have the same `worker_id`, or containers the same host name. Otherwise, one
            that starts presumes what the others run to be lost, until it ends.
    """

    worker_id: Id | Callable[[Any], Id] | None
    correlation_id: Callable[[Any], Id | None] | None
    payload: bool | Callable[[Any], Any]
    result: bool
    only: Collection[str] | None
    skip: Collection[str]
    skipped: Skipped
    history_retention: Duration | None
    heartbeat: Duration | None
    log_tail: int | str | None
    end_leftovers: bool


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
        self._options = _checked_options(options)
        self._time_limits = time_limits
        self._cancellations = cancellations
        self._kinds = (HistoryStore, Recorder) + ((AsyncTrackingMethods,) if is_async else ())
        self._lock = ForkSafeLock()
        self._make_store: Callable[[], Any] | None = None
        self._store: Any = None
        self.leftovers: Thread | asyncio.Task[None] | None = None
        if callable(store):
            self._make_store = store
        else:
            self._store = self._checked(store)

    @property
    def store(self) -> Any:
        """The store or recorder. A function that makes one is called when it is first needed.

        A forked child uses the one that its parent has made, if any, because stores allow that.
        """
        with self._lock:
            if self._store is None:
                assert self._make_store is not None
                self._store = self._checked(self._make_store())
            return self._store

    @property
    def stores_results(self) -> bool:
        """Whether the results of jobs are stored."""
        return bool(self._options["result"])

    def wants(self, task: str) -> bool:
        """Return whether the user wants executions of a task to be recorded."""
        only = self._options["only"]
        return (only is None or task in only) and task not in self._options["skip"]

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
        if not _is_async(self.store):
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
                    self._worker_id(attempt),
                    self._correlation_id(attempt),
                    error=WorkerLost(why),
                    will_retry=will_retry,
                )
        except ExecutionNotFound:
            pass  # it has an outcome, or its start was not recorded
        except Exception as problem:
            self.contain("outcome", task, problem)

    def skip(self, attempt: Attempt, why: str) -> None:
        """Record a job that never began as cancelled, if the user wants that."""
        if self._records_skipped:
            self.record(attempt, Cancelled(why))

    async def skip_async(self, attempt: Attempt, why: str) -> None:
        """Do what `skip` does, without blocking the event loop."""
        if self._records_skipped:
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
        chosen = self._options["worker_id"]
        if callable(chosen) or not self._options["end_leftovers"]:
            return
        try:
            leftovers = Leftovers(worker_id if chosen is None else chosen, utc_now())
            self.leftovers = leftovers.end(self.store)
        except Exception as error:
            self.contain("outcome", "what the previous process left", error)

    def close(self) -> None:
        """Write what a recorder has accepted, and close a store that a function of the user made.

        Call it at the end of a process that runs no `atexit` functions, such as a child of Celery.
        If the process goes on, the function makes another one when it is needed.
        """
        store = self._released()
        if _is_async(store):
            return  # its event loop has ended, and nothing else can close it
        try:
            if isinstance(store, Recorder):
                store.flush(_SECONDS_TO_CLOSE)
            if self._make_store is not None and store is not None:
                store.close()
                if isinstance(store, Recorder):
                    store.store.close()
        except Exception as error:
            logger.error("the store cannot be closed: %s", reason(error))

    async def close_async(self) -> None:
        """Do what `close` does, without blocking the event loop."""
        if isinstance(self.leftovers, asyncio.Task):  # it uses the store
            await asyncio.wait([self.leftovers], timeout=_SECONDS_TO_CLOSE)
        if not _is_async(self._store):
            await asyncio.to_thread(self.close)
            return
        store = self._released()
        own = self._make_store is not None
        try:
            if hasattr(store, "flush"):  # an AsyncRecorder
                await store.flush(_SECONDS_TO_CLOSE)
            if own:
                await store.close()
            if own and hasattr(store, "flush"):
                await store.store.close()
        except Exception as error:
            logger.error("the store cannot be closed: %s", reason(error))

    def _released(self) -> Any:
        """Return the store, and forget it if it must be closed."""
        with self._lock:
            store = self._store
            if self._make_store is not None:
                self._store = None
            return store

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

    @property
    def _records_skipped(self) -> bool:
        return bool(self._options["skipped"] == "record")

    def _checked(self, store: Any) -> Any:
        if isinstance(store, self._kinds):
            return store
        if _is_async(store):
            raise InvalidInput(
                "store", store, "is for asyncio, and this framework is not; pass create_store(url)"
            )
        raise InvalidInput(
            "store", store, "is neither a store nor a recorder; pass create_store(url)"
        )

    def _tracker(self, attempt: Attempt) -> Tracker | AsyncTracker:
        tracker: Tracker | AsyncTracker = self.store.track(
            {
                "id": attempt.job_id,
                "task_identifier": attempt.task_identifier,
                "payload": self._payload(attempt),
                "attempts": attempt.number,
                "run_at": _run_at(attempt),
                "labels": _labels(attempt),
            },
            self._worker_id(attempt),
            self._correlation_id(attempt),
            execution_id=attempt.execution_id,
            history_retention=self._options["history_retention"],
            heartbeat=self._options["heartbeat"],
            log_tail=self._options["log_tail"],
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
            "worker_id": self._worker_id(attempt),
            "correlation_id": self._correlation_id(attempt),
            "attempt_number": attempt.number,
            "payload": self._payload(attempt),
            "labels": _labels(attempt),
            "parent_id": attempt.carried.parent_id,
            "trace_id": trace and trace.trace_id,
            "span_id": trace and trace.span_id,
            "started_at": started_at,
            "queue_time_ms": waited,
            "error": self.outcome(error),
            "will_retry": will_retry,
            **self._expiry(started_at),
        }

    def _expiry(self, started_at: datetime | None) -> dict[str, datetime | None]:
        wanted = self._options["history_retention"]
        if wanted is None:  # the store has its own
            return {}
        now = utc_now()
        return {"expires_at": expiry(started_at or now, parse_retention(wanted, now=now))}

    def _worker_id(self, attempt: Attempt) -> Id:
        chosen: Any = self._options["worker_id"]
        if callable(chosen):
            chosen = self._asked_id("worker_id", chosen, attempt)
        return chosen or attempt.worker_id or process_name()

    def _correlation_id(self, attempt: Attempt) -> Id:
        chosen: Callable[[Any], Id | None] | None = self._options["correlation_id"]
        asked = None if chosen is None else self._asked_id("correlation_id", chosen, attempt)
        carried = attempt.carried.correlation_id
        return asked or carried or attempt.correlation_id or attempt.job_id

    def _payload(self, attempt: Attempt) -> Any:
        wanted = self._options["payload"]
        if callable(wanted):
            return self._asked("payload", wanted, attempt)
        return {"args": list(attempt.args), "kwargs": dict(attempt.kwargs)} if wanted else None

    def _asked_id(
        self, option: str, function: Callable[[Any], Any], attempt: Attempt
    ) -> str | None:
        """Return an id that a function of the user returns, or `None` if it returns none."""
        value = self._asked(option, function, attempt)
        if value is None or value == "":
            return None
        try:
            return id_text(value, option)
        except InvalidInput:
            # The message quotes the value, which may be any part of the job.
            logger.error(
                "%s() returned what is no id, such as a text of up to 255 characters, for a job "
                "of %s",
                option,
                attempt.task_identifier,
            )
            return None

    def _asked(self, option: str, function: Callable[[Any], T], attempt: Attempt) -> T | None:
        """Return what a function of the user returns, or `None` if it raises."""
        try:
            return function(attempt.source)
        except Exception as error:
            if isinstance(error, self._time_limits):
                raise
            # Its message may quote the job, and so its payload.
            logger.error(
                "%s() raised %s for a job of %s",
                option,
                type(error).__name__,
                attempt.task_identifier,
            )
            return None


def not_installed(extra: str, error: ImportError) -> ImportError:
    """Return the error of an adapter that is imported without its framework."""
    return ImportError(
        f"jobhistory.contrib.{extra} needs a package that is not installed ({error}); "
        f"install it with: pip install 'jobhistory[{extra}]'",
        name=error.name,
    )


def _is_async(store: Any) -> bool:
    return isinstance(store, AsyncTrackingMethods)


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


def _checked_options(options: Options) -> dict[str, Any]:
    """Return the options with the defaults of those that are missing.

    Raises:
        InvalidInput: if one is unknown or cannot be used.
    """
    check_keys(options, dict.fromkeys(_DEFAULTS), "options")
    given = {**_DEFAULTS, **options}
    for name in ("only", "skip"):
        value = given[name]
        if value is not None and (
            isinstance(value, (str, bytes)) or not isinstance(value, Collection)
        ):
            raise InvalidInput(name, value, "is not a list of task names; write it like ['resize']")
    if given["skipped"] not in get_args(Skipped):
        raise InvalidInput("skipped", given["skipped"], "is neither 'ignore' nor 'record'")
    for name in ("result", "end_leftovers"):
        read_boolean(given[name], name)
    if not callable(given["payload"]):
        read_boolean(given["payload"], "payload")
    if given["correlation_id"] is not None and not callable(given["correlation_id"]):
        raise InvalidInput(
            "correlation_id",
            given["correlation_id"],
            "is not a function; one correlation id for all jobs would tie them together",
        )
    _check_for_track(given)
    return given


def _check_for_track(given: dict[str, Any]) -> None:
    """Check the options that each execution passes on to `track`."""
    worker_id = given["worker_id"]
    track = HistoryStore(None, buffer_size=1).track(
        {"id": "1", "task_identifier": "t"},
        process_name() if worker_id is None or callable(worker_id) else worker_id,
        **{name: given[name] for name in ("history_retention", "heartbeat", "log_tail")},
    )
    track(lambda: None)  # decorating a function checks what `track` itself does not
