"""Record the jobs of arq: `@record_jobs(store)` above the class of worker settings."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import isroutine
from time import monotonic
from typing import Any, TypeAlias, TypeVar, Unpack, cast
from weakref import WeakSet
from zoneinfo import ZoneInfo

from jobhistory.contrib.adapter import (
    Adapter,
    AsyncStoreSource,
    Attempt,
    Carried,
    Options,
    Recording,
    Replay,
    Schedule,
    not_installed,
)
from jobhistory.contrib.jobs import EVERY, KEYWORD, cron_text
from jobhistory.errors import InvalidInput
from jobhistory.failure import TimedOut

try:
    from arq.connections import ArqRedis, create_pool
    from arq.constants import default_queue_name
    from arq.cron import CronJob
    from arq.jobs import Job
    from arq.typing import WEEKDAYS
    from arq.worker import Function, Retry, RetryJob, Worker, func
except ImportError as error:
    raise not_installed("arq", error) from error

Settings: TypeAlias = type[Any] | dict[str, Any] | Worker
"""A class of worker settings, a dictionary with the same keys, or a worker that is made already."""

S = TypeVar("S", bound=Settings)
F = TypeVar("F", bound=Function | CronJob)


_recorded: WeakSet[Any] = WeakSet()
"""The coroutine functions that record, which settings may share with others."""


def record_jobs(store: AsyncStoreSource, **options: Unpack[Options]) -> JobHistory:
    """Return a decorator of worker settings, which records each attempt at their jobs.

    ::

        @record_jobs(create_store(url))
        class WorkerSettings:
            functions = [resize]

    It wraps the functions and the cron jobs, and keeps their names and settings. Your own hooks
    work as before. Nothing in it blocks the event loop, or raises.

    Args:
        store: a store or a recorder, for asyncio or not, or a function that makes one.
        options: see `Options`. The functions among them get the context of the job, a `dict`.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """
    return JobHistory(store, options)


@dataclass(frozen=True)
class _Limits:
    """What a worker does with a job, by its settings or by arq's defaults."""

    max_tries: int
    timeout: float | None
    retries: bool
    queue: str

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Limits:
        timeout = given.get("job_timeout_s", given.get("job_timeout", 300))
        pool: Any = given.get("redis_pool")  # which names the queue if it is None
        return cls(
            max_tries=given.get("max_tries", 5),
            timeout=timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
            retries=given.get("retry_jobs", True),
            queue=given.get("queue_name", default_queue_name) or pool.default_queue_name,
        )

    def of_function(self, function: Function | CronJob) -> _Limits:
        """Return those of a function, which may have its own."""
        return replace(
            self,
            max_tries=self.max_tries if function.max_tries is None else function.max_tries,
            timeout=self.timeout if function.timeout_s is None else function.timeout_s,
        )

    def timed_out(self, error: BaseException, seconds: float) -> bool:
        """Return whether arq cancelled a job because of its time limit.

        arq's clock starts a little before the job does, at most by a hiccup of the event loop.
        """
        if self.timeout is None or not isinstance(error, CancelledError):
            return False
        return seconds + min(1.0, self.timeout / 10) >= self.timeout

    def will_retry(self, error: BaseException, number: int) -> bool:
        """Return whether arq runs a job again after an error other than a time limit."""
        if isinstance(error, (Retry, RetryJob, CancelledError)):
            return self.retries and number < self.max_tries
        # What is no Exception ends the worker, and the job stays in the queue.
        return not isinstance(error, Exception) and number < self.max_tries


class _Functions(list[Any]):
    """The functions of worker settings, recorded in each worker that is made of them.

    arq imports texts among them when it makes a worker, and so does this. More may be added later.
    """

    def __init__(self, functions: Any, record: Callable[[Function], Function]) -> None:
        super().__init__(functions)
        self._record = record

    def __iter__(self) -> Iterator[Any]:
        return (self._record(func(each)) for each in super().__iter__())


@dataclass(frozen=True)
class RecordedStartup:
    """What a recorded worker does when it starts, before the user's own hook."""

    adapter: Adapter
    own: Any

    async def __call__(self, ctx: dict[Any, Any]) -> None:
        """End what the previous process left."""
        self.adapter.end_leftovers()
        if self.own is not None:
            await self.own(ctx)


@dataclass(frozen=True)
class RecordedShutdown:
    """What a recorded worker does when it ends, after the user's own hook."""

    adapter: Adapter
    own: Any

    async def __call__(self, ctx: dict[Any, Any]) -> None:
        """Write what a recorder has accepted."""
        try:
            if self.own is not None:
                await self.own(ctx)
        finally:
            await self.adapter.close_async()


class JobHistory:
    """What `record_jobs` returns. Call it with a class, a dictionary or a `Worker`."""

    def __init__(self, store: AsyncStoreSource, options: Options) -> None:
        self._adapter = Adapter(store, options, is_async=True)
        self._is_closed = False

    def __call__(self, settings: S) -> S:
        """Record the jobs of worker settings, unless they are recorded already.

        A class or a worker is changed and returned; of a dictionary, a changed copy is returned.
        """
        given = _values(settings)
        if _is_recorded(settings):
            return settings
        limits = _Limits.of(given)
        changes: dict[str, Any] = {
            "on_startup": RecordedStartup(self._adapter, given.get("on_startup")),
            "on_shutdown": RecordedShutdown(self._adapter, given.get("on_shutdown")),
        }
        if isinstance(settings, Worker):
            functions = settings.functions.items()
            changes["functions"] = {name: self._record(each, limits) for name, each in functions}
        else:
            if given.get("functions") is not None:
                changes["functions"] = _Functions(
                    given["functions"], lambda function: self._record(function, limits)
                )
            if given.get("cron_jobs") is not None:
                changes["cron_jobs"] = [self._record(each, limits) for each in given["cron_jobs"]]
        if isinstance(settings, dict):
            return cast("S", {**settings, **changes})
        for name, value in changes.items():
            setattr(settings, name, value)
        return settings

    def close(self) -> None:
        """Record no more jobs, also in workers that run."""
        self._is_closed = True

    def _record(self, function: F, defaults: _Limits) -> F:
        """Return a copy of a function that records its jobs."""
        coroutine, limits = function.coroutine, defaults.of_function(function)
        if coroutine in _recorded:
            return function

        @wraps(coroutine)
        async def recorded(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:
            began, number = monotonic(), ctx.get("job_try", 1)  # the job may change its context
            carried = kwargs.pop(KEYWORD, None)
            recording = await self._begin(function.name, limits, ctx, args, kwargs, carried)
            if recording is None:
                return await coroutine(ctx, *args, **kwargs)
            try:
                result = await coroutine(ctx, *args, **kwargs)
            except BaseException as error:
                if limits.timed_out(error, monotonic() - began):
                    timed_out = TimedOut(f"{limits.timeout} s")
                    timed_out.__cause__ = error  # so that its traceback is stored, too
                    await recording.end_async(timed_out, will_retry=False)
                else:
                    retry = limits.will_retry(error, number)
                    await recording.end_async(_original(error), will_retry=retry)
                raise
            await recording.end_async(result=result)
            return result

        _recorded.add(recorded)
        return replace(function, coroutine=recorded)

    async def _begin(
        self,
        name: str,
        limits: _Limits,
        ctx: dict[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        carried: object,
    ) -> Recording | None:
        if self._is_closed:
            return None
        try:
            attempt = Attempt(
                source=ctx,
                job_id=ctx["job_id"],
                task_identifier=name,
                args=args,
                kwargs=kwargs,
                number=ctx["job_try"],
                queue=limits.queue,
                run_at=_due(ctx),
                carried=replace(Carried.read(carried), enqueued_at=None),
            )
        except Exception as error:
            self._adapter.contain("start", name, error)
            return None
        return await self._adapter.begin_async(attempt)


async def enqueue_job(pool: ArqRedis, function: str, *args: Any, **kwargs: Any) -> Job | None:
    """Do what `pool.enqueue_job` does, for a job with the current execution as its parent.

    It adds a keyword argument, which recorded workers remove. So all workers of the queue must be
    recorded.
    """
    kwargs[KEYWORD] = Carried.now().as_header()
    return await pool.enqueue_job(function, *args, **kwargs)


async def enqueue(app: ArqRedis | Settings, replay: Replay) -> str:
    """Enqueue a job again, and return the id of the new one.

    Args:
        app: worker settings, or a pool. A pool does not know which functions there are; a worker
            refuses those that it does not know.
        replay: the job. It gets a keyword argument that recorded workers remove.

    Raises:
        InvalidInput: if the settings are not recorded, or have no function of that name.
    """
    if not isinstance(app, ArqRedis):
        _check(app, replay)
    async with _pool_of(app) as pool:
        job = await pool.enqueue_job(
            replay.task_identifier,
            *replay.args,
            _queue_name=replay.queue,
            **{**replay.kwargs, KEYWORD: replay.carried.as_header()},
        )
    assert job is not None, "arq made an id that it had"
    return job.job_id


def schedules(app: Settings) -> list[Schedule]:
    """Return the cron jobs of worker settings."""
    given = _values(app)
    zone = given.get("timezone")
    name = zone.key if isinstance(zone, ZoneInfo) else "UTC" if zone is UTC else None
    return [
        Schedule(
            name=job.name,
            task_identifier=job.name,
            description=_described(job),
            cron=_cron(job),
            timezone=name,
        )
        for job in given.get("cron_jobs") or ()
    ]


def _check(app: Settings, replay: Replay) -> None:
    if not _is_recorded(app):
        raise InvalidInput("app", app, "is not recorded; decorate it with record_jobs(store)")
    given = _values(app)
    functions = given.get("functions") or ()
    known = {*functions} if isinstance(app, Worker) else {func(each).name for each in functions}
    known |= {job.name for job in given.get("cron_jobs") or ()}
    if replay.task_identifier not in known:
        raise InvalidInput(
            "task_identifier",
            replay.task_identifier,
            f"is no function of the worker, which has {', '.join(sorted(known))}",
        )


@asynccontextmanager
async def _pool_of(app: ArqRedis | Settings) -> AsyncIterator[ArqRedis]:
    """Return the pool of an app, or one that is closed afterwards."""
    if isinstance(app, ArqRedis):
        yield app
        return
    given = _values(app)
    open_pool: ArqRedis | None = app.pool if isinstance(app, Worker) else given.get("redis_pool")
    if open_pool is not None:
        yield open_pool
        return
    pool = await create_pool(
        given.get("redis_settings"),
        job_serializer=given.get("job_serializer"),
        job_deserializer=given.get("job_deserializer"),
        default_queue_name=_Limits.of(given).queue,
    )
    try:
        yield pool
    finally:
        close = getattr(pool, "aclose", pool.close)  # redis-py 5 renamed it
        await close(close_connection_pool=True)


def _values(settings: Settings) -> Mapping[str, Any]:
    """Return what arq reads, which does not include inherited attributes of a class."""
    if isroutine(settings) or not (isinstance(settings, dict) or hasattr(settings, "__dict__")):
        raise InvalidInput("settings", settings, "is no class, dictionary or Worker; decorate one")
    return settings if isinstance(settings, dict) else vars(settings)


def _is_recorded(settings: Settings) -> bool:
    return isinstance(_values(settings).get("on_startup"), RecordedStartup)


def _due(ctx: Mapping[str, Any]) -> datetime | None:
    """Return when a job was due.

    A retry without `defer` keeps the time of the first attempt, so it is not known when that was.
    """
    due = datetime.fromtimestamp(ctx["score"] / 1000, UTC)
    is_of_first = due <= ctx["enqueue_time"] + timedelta(milliseconds=1)
    return None if ctx["job_try"] > 1 and is_of_first else due


def _original(error: BaseException) -> BaseException:
    """Return the error because of which a job asked for a retry."""
    if isinstance(error, (Retry, RetryJob)):
        return error.__cause__ or (not error.__suppress_context__ and error.__context__) or error
    return error


def _described(job: CronJob) -> str:
    fields = ("month", "day", "weekday", "hour", "minute", "second")
    return " ".join(
        f"{name}={value}" for name in fields if (value := getattr(job, name)) is not None
    )


def _cron(job: CronJob) -> str | None:
    """Return the schedule as five fields of cron, if those can express it."""
    if len(_numbers(job.second)) != 1:
        return None
    weekday = WEEKDAYS.index(job.weekday.lower()) if isinstance(job.weekday, str) else job.weekday
    weekdays = [(number + 1) % 7 for number in _numbers(weekday)]  # cron's week begins on Sunday
    fields = (*map(_numbers, (job.minute, job.hour, job.day, job.month)), weekdays)
    return cron_text(*(field or EVERY[place] for place, field in enumerate(fields)))


def _numbers(value: Any) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
