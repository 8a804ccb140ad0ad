"""Record the runs of a scheduler's jobs, in whichever executor they are."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Unpack

from apscheduler.events import (
    EVENT_EXECUTOR_ADDED,
    EVENT_SCHEDULER_SHUTDOWN,
    EVENT_SCHEDULER_STARTED,
)
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.base import MaxInstancesReachedError
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.util import iscoroutinefunction_partial

from jobhistory.contrib.adapter import Adapter, AsyncStoreSource, Options
from jobhistory.contrib.apscheduler.jobs import task_of
from jobhistory.contrib.apscheduler.runs import Blueprint, Running, Runs, StandIn
from jobhistory.errors import InvalidInput, reason
from jobhistory.tracking_methods import AsyncTrackingMethods

logger = logging.getLogger("jobhistory.contrib")

_ATTRIBUTE = "jobhistory"
"""The attribute of a scheduler that refers to its history, so that both end together."""


def record_jobs(
    scheduler: BaseScheduler, store: AsyncStoreSource, **options: Unpack[Options]
) -> SchedulerHistory:
    """Record each run of each job of a scheduler, from now on; also in executors added later.

    It may be called before or after the scheduler starts. If called again, the last call counts.

    Args:
        store: a store, a recorder, or a function that makes one. Those for asyncio are for an
            `AsyncIOScheduler`. If the scheduler has a process pool, it must be a function that
            can be pickled, such as one that a module defines, since each process makes its own
            store.
        options: see `jobhistory.contrib.adapter.Options`. The functions among them get
            APScheduler's job.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """
    history = SchedulerHistory(scheduler, store, options)
    previous = vars(scheduler).get(_ATTRIBUTE)
    if previous is not None:
        previous.close()
    history.open()
    setattr(scheduler, _ATTRIBUTE, history)
    return history


class SchedulerHistory:
    """What `record_jobs` returns. `close` ends the recording."""

    def __init__(self, scheduler: BaseScheduler, store: AsyncStoreSource, options: Options) -> None:
        is_async = isinstance(scheduler, AsyncIOScheduler)
        self._scheduler = scheduler
        self._adapter = Adapter(store, options, is_async=is_async)
        self._blueprint = Blueprint(store, options)  # type: ignore[arg-type]
        self._wrapped: dict[Any, Callable[..., None]] = {}
        self._running = Running(self._flush)
        self._tasks: set[asyncio.Task[None]] = set()
        for executor in self._known_executors():
            self._check(executor)

    def open(self) -> None:
        """Begin to record."""
        self._scheduler.add_listener(
            self._on_event,
            EVENT_EXECUTOR_ADDED | EVENT_SCHEDULER_STARTED | EVENT_SCHEDULER_SHUTDOWN,
        )
        for executor in self._known_executors():
            self._wrap(executor)
        if self._scheduler.state != STATE_STOPPED:
            self._adapter.end_leftovers()

    def close(self) -> None:
        """Record no more runs, and write what a recorder has accepted once those that go on end.

        The event loop of an `AsyncIOScheduler` does the writing, if one is running.
        """
        self._scheduler.remove_listener(self._on_event)
        for executor, wrapped in self._wrapped.items():
            if executor.__dict__.get("submit_job") is wrapped:  # nobody has wrapped it again
                del executor.submit_job
        self._wrapped.clear()
        if vars(self._scheduler).get(_ATTRIBUTE) is self:
            delattr(self._scheduler, _ATTRIBUTE)
        self._running.leave()

    def _known_executors(self) -> list[Any]:
        return list(self._scheduler._executors.values())

    def _on_event(self, event: Any) -> None:
        if event.code == EVENT_SCHEDULER_STARTED:
            self._running.stay()
            self._adapter.end_leftovers()
        elif event.code == EVENT_SCHEDULER_SHUTDOWN:
            self._running.leave()
        else:
            for executor in self._known_executors():
                try:
                    self._check(executor)
                except InvalidInput as error:
                    logger.error("jobs of the executor %s are not recorded: %s", event.alias, error)
                else:
                    self._wrap(executor)

    def _check(self, executor: Any) -> None:
        """Raise InvalidInput if the jobs of an executor cannot be recorded."""
        store = self._blueprint.store
        if isinstance(executor, ProcessPoolExecutor):
            try:
                pickle.dumps(self._blueprint)
            except Exception as error:
                raise InvalidInput(
                    "store",
                    store,
                    "or an option cannot be sent to the processes of a pool "
                    f"({reason(error)}); pass a function of a module that makes the store",
                ) from None
        elif isinstance(store, AsyncTrackingMethods) and not isinstance(executor, AsyncIOExecutor):
            raise InvalidInput(
                "store",
                store,
                f"is for asyncio, and {type(executor).__name__} is not; pass create_store(url)",
            )

    def _wrap(self, executor: Any) -> None:
        if executor not in self._wrapped:
            wrapped = partial(self._submit, executor, executor.submit_job)
            self._wrapped[executor] = executor.submit_job = wrapped

    def _submit(
        self,
        executor: Any,
        submit: Callable[[Any, Sequence[datetime]], None],
        job: Any,
        run_times: Sequence[datetime],
    ) -> None:
        """Submit a job with a recording around its function, in place of `executor.submit_job`."""
        if executor not in self._wrapped or not self._adapter.wants(task_of(job)):
            submit(job, run_times)
            return
        if isinstance(executor, ProcessPoolExecutor):
            runs = Runs(job, run_times, self._blueprint)
        else:
            runs = Runs(job, run_times, self._adapter, self._running)
        try:
            submit(StandIn(job, self._call(runs, executor, job)), runs)
        except MaxInstancesReachedError:
            Runs(job, run_times, self._adapter).skip("too many instances of the job were running")
            raise

    def _call(self, runs: Runs, executor: Any, job: Any) -> Callable[..., Any]:
        if iscoroutinefunction_partial(job.func):
            return runs.call_async
        if isinstance(executor, AsyncIOExecutor):
            try:
                store = self._adapter.store
            except Exception:  # `begin` reports it
                return runs.call
            if isinstance(store, AsyncTrackingMethods):
                return runs.call_async
        return runs.call

    def _flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._adapter.close()
            return
        task = loop.create_task(self._adapter.close_async())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
