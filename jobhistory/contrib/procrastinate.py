"""Record the jobs of Procrastinate: `worker_middleware=[record_jobs(store)]`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Unpack

from jobhistory.contrib.adapter import (
    Adapter,
    AsyncStoreSource,
    Attempt,
    Carried,
    Options,
    Replay,
    Schedule,
    not_installed,
)
from jobhistory.contrib.jobs import KEYWORD, cron_of_croniter
from jobhistory.errors import InvalidInput
from jobhistory.tracking_methods import AsyncTrackingMethods

try:
    from procrastinate import App, JobContext
    from procrastinate.connector import BaseAsyncConnector, BaseConnector
    from procrastinate.exceptions import AppNotOpen, JobAborted
    from procrastinate.jobs import JobDeferrer
    from procrastinate.middleware import AsyncCallNext
    from procrastinate.worker import Worker
except ImportError as error:
    raise not_installed("procrastinate", error) from error

__all__ = ["JobHistory", "enqueue", "link", "record_jobs", "schedules"]


_MOST_NAMES = 20
_SECONDS_FOR_JOBS = 10.0

_recorded: ContextVar[JobContext | None] = ContextVar("jobhistory_procrastinate", default=None)


def record_jobs(store: AsyncStoreSource, **options: Unpack[Options]) -> JobHistory:
    """Return a worker middleware that records each attempt, of coroutines and of functions.

    Pass it as `App(worker_defaults={"worker_middleware": [record_jobs(store)]})`, or to
    `run_worker`. Put it first, so that it sees the errors and results that the worker sees. In two
    places, it records each attempt once.

    Args:
        store: as for `Adapter`. Nothing blocks the event loop: a store that is not for asyncio
            writes in threads.
        options: the options. Functions among them get the `JobContext`.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """
    return JobHistory(store, options)


class JobHistory:
    """A worker middleware that records each attempt until it is closed."""

    def __init__(self, store: AsyncStoreSource, options: Options) -> None:
        self._adapter = Adapter(store, options, cancellations=(JobAborted,), is_async=True)
        self._process: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def __call__(self, call_next: AsyncCallNext, context: JobContext, worker: Worker) -> Any:
        """Record an attempt at a job, and return its result."""
        kwargs = context.job.task_kwargs
        carried = kwargs.pop(KEYWORD, None)  # before the task gets them
        try:
            if self._is_closed or _recorded.get() is context:
                return await call_next()
            _recorded.set(context)  # in the asyncio task of this job only
            self._prepare()
            return await self._record(call_next, context, Carried.read(carried))
        finally:
            if carried is not None:  # a retry in memory has the same dictionary
                kwargs[KEYWORD] = carried

    def close(self) -> None:
        """Stop recording, and close a store that was made for this middleware.

        Use `close_async` in an event loop, or if the store is for asyncio.
        """
        self._is_closed = True
        self._adapter.close()

    async def close_async(self) -> None:
        """Do what `close` does, without blocking the event loop."""
        self._is_closed = True
        await self._adapter.close_async()

    async def _record(self, call_next: AsyncCallNext, context: JobContext, carried: Carried) -> Any:
        recording = await self._adapter.begin_async(_attempt(context, carried))
        if recording is None:
            return await call_next()
        try:
            result = await call_next()
        except BaseException as error:
            will_retry = self._will_retry(context, error)
            await _to_the_end(recording.end_async(error, will_retry=will_retry))
            raise
        await _to_the_end(recording.end_async(result=result))
        return result

    def _prepare(self) -> None:
        """Do what must be done once in a process and once in an event loop.

        A middleware learns neither that its worker starts, nor that it ends.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._adapter.end_leftovers()
            if self._loop is not loop:
                self._loop, self._running = loop, set()
                if isinstance(self._adapter.store, AsyncTrackingMethods):
                    self._closing = loop.create_task(self._close_with_loop(self._running))
        except Exception as error:
            self._adapter.contain("start", "the worker", error)
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _close_with_loop(self, running: set[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:  # asyncio.run() cancels all tasks, those of jobs as well
            if running:
                await asyncio.wait(running, timeout=_SECONDS_FOR_JOBS)
            await self._adapter.close_async()

    def _will_retry(self, context: JobContext, error: BaseException) -> bool | None:
        """Return what the worker decides about a failure; `None` if the strategy raises."""
        if isinstance(error, (JobAborted, asyncio.CancelledError)):
            return None  # it is no failure
        try:
            return context.task.get_retry_exception(error, context.job) is not None
        except Exception as problem:
            self._adapter.contain("retry", context.job.task_name, problem)
            return None


async def _to_the_end(recorded: Coroutine[Any, Any, None]) -> None:
    """Record the outcome of a job. A cancellation comes too late, and must not change it."""
    try:
        await recorded
    except asyncio.CancelledError:  # when the outcome had been written
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()


def link() -> dict[str, Any]:
    """Return a keyword argument that ties a new job to the execution that defers it.

    Use it like `send_mail.defer_async(address=address, **link())`: the new execution gets the
    correlation id of the current one, which becomes its parent, and the time that it waits. The
    middleware removes the argument before the task runs, so the worker must have it.
    """
    return {KEYWORD: Carried.now().as_header()}


def schedules(app: App) -> list[Schedule]:
    """Return the periodic tasks of an app. Procrastinate means them in UTC."""
    app.perform_import_paths()  # type: ignore[no-untyped-call]
    return [
        Schedule(
            name=entry.periodic_id or entry.task.name,
            task_identifier=entry.task.name,
            description=f"cron {entry.cron}",
            cron=cron_of_croniter(entry.cron),
            timezone="UTC",
        )
        for entry in app.periodic_registry.periodic_tasks.values()
    ]


def enqueue(app: App, replay: Replay) -> str | Coroutine[Any, Any, str]:
    """Defer a job again, and return its id.

    If the app is open for asyncio, return a coroutine that does it. An app that is not open is
    opened for this job. The lock, the queueing lock and the priority are those of the task.

    Args:
        app: the app.
        replay: the job.

    Raises:
        InvalidInput: if the app has no such task, or the job has arguments without a name.
    """
    app.perform_import_paths()  # type: ignore[no-untyped-call]
    task = app.tasks.get(replay.task_identifier)
    if task is None:
        names = ", ".join(sorted(app.tasks)[:_MOST_NAMES])
        raise InvalidInput(
            "task_identifier", replay.task_identifier, f"is no task of the app, whose are: {names}"
        )
    if replay.args:
        raise InvalidInput("args", replay.args, "have no names, as tasks of Procrastinate need")
    options: Any = {} if replay.queue is None else {"queue": replay.queue}
    kwargs = {**replay.kwargs, KEYWORD: replay.carried.as_header()}
    deferrer = task.configure(**options)
    if _needs_event_loop(app.connector.get_sync_connector()):
        return _defer_async(deferrer, kwargs)
    try:
        return str(deferrer.defer(**kwargs))
    except AppNotOpen:
        with app.open():
            return str(deferrer.defer(**kwargs))


def _needs_event_loop(connector: BaseConnector) -> bool:
    """Return whether a connector is open for asyncio. That of Django has methods of both kinds."""
    inherited = BaseAsyncConnector.execute_query_all
    return getattr(type(connector), "execute_query_all", None) is inherited


async def _defer_async(deferrer: JobDeferrer, kwargs: dict[str, Any]) -> str:
    return str(await deferrer.defer_async(**kwargs))


def _attempt(context: JobContext, carried: Carried) -> Attempt:
    job = context.job
    return Attempt(
        source=context,
        job_id=str(job.id),
        task_identifier=job.task_name,
        kwargs=job.task_kwargs,
        number=job.attempts + 1,
        queue=job.queue,
        run_at=job.scheduled_at,
        carried=carried,
    )
