"""Record the tasks of Taskiq: `broker.with_middlewares(JobHistory(store))`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Unpack
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from jobhistory._runtime.clock import utc_now
from jobhistory.contrib.adapter import (
    HEADER,
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
from jobhistory.errors import InvalidInput
from jobhistory.failure import Cancelled, Failure, TimedOut, WorkerLost
from jobhistory.typing import ErrorLike

try:
    from taskiq import (
        AsyncBroker,
        InMemoryBroker,
        SimpleRetryMiddleware,
        TaskiqMessage,
        TaskiqMiddleware,
        TaskiqResult,
        TaskiqScheduler,
    )
    from taskiq.exceptions import NoResultError
except ImportError as error:
    raise not_installed("taskiq", error) from error

_REQUEUED = "X-Taskiq-requeue"
_SECONDS_FOR_THE_LAST = 0.1


@dataclass(eq=False)
class _Running:
    """An attempt that has begun and has no outcome yet."""

    attempt: Attempt
    labels: dict[str, Any]
    recording: Recording
    began: float
    error: BaseException | None = None
    was_sent_again: bool = False

    def outcome(self, message: TaskiqMessage) -> ErrorLike | None:
        """Return the error to record."""
        error = self.error
        if isinstance(error, NoResultError):
            is_requeued = _count(message.labels, _REQUEUED) > _count(self.labels, _REQUEUED)
            return Failure("taskiq.Requeued", "the task requeued itself") if is_requeued else None
        if isinstance(error, BrokenProcessPool):
            lost: BaseException = WorkerLost("a process of the pool was killed")
        elif _exceeded(message, error, monotonic() - self.began):
            lost = TimedOut(f"{message.labels['timeout']} s")
        else:
            return error
        lost.__cause__ = error  # so that its traceback is stored, too
        return lost

    def will_retry(
        self, message: TaskiqMessage, result: TaskiqResult[Any], broker: AsyncBroker
    ) -> bool:
        """Return whether the task was enqueued again, or will be."""
        if self.was_sent_again or isinstance(result.error, NoResultError):
            return True
        # A schedule source of SmartRetryMiddleware sends it later. That middleware counts up only
        # if there will be a retry, while SimpleRetryMiddleware always does.
        counts = _count(message.labels, "_retries"), _count(self.labels, "_retries")
        return counts[0] > counts[1] and not any(
            isinstance(each, SimpleRetryMiddleware) for each in broker.middlewares
        )


class JobHistory(TaskiqMiddleware):
    """Records each attempt at a task of a broker. Add it after the other middlewares.

    ::

        broker = ListQueueBroker(url).with_middlewares(JobHistory(create_store(url)))

    It also stamps the tasks that the broker sends. Nothing in it raises or blocks the event loop.
    If a broker has several, the first one records.

    Args:
        store: a store or a recorder, for asyncio or not, or a function that makes one.
        options: see `Options`. The functions among them get the `TaskiqMessage`.

    Raises:
        InvalidInput: if the store or an option cannot be used.
    """

    def __init__(self, store: AsyncStoreSource, **options: Unpack[Options]) -> None:
        super().__init__()
        self._adapter = Adapter(store, options, is_async=True)
        # Other middlewares may replace the message, but all hooks of an attempt run in one task.
        # In that task, a broker that executes tasks at once may run others meanwhile.
        self._running: WeakKeyDictionary[asyncio.Task[Any], list[_Running]] = WeakKeyDictionary()
        self._last: set[asyncio.Task[None]] = set()
        self.is_started = False
        self._is_closed = False

    def set_broker(self, broker: AsyncBroker) -> None:
        """Record the tasks of a broker. Taskiq calls it when the middleware is added."""
        super().set_broker(broker)
        self._is_closed = False

    async def startup(self) -> None:
        """End what a previous process of the worker left."""
        self.is_started = True
        if self.broker.is_worker_process or isinstance(self.broker, InMemoryBroker):
            self._adapter.end_leftovers()

    async def shutdown(self) -> None:
        """Record what the worker no longer waits for as cancelled, and close the store."""
        self.is_started = False
        if self.broker.is_worker_process:
            await self._abandon()
        await self._adapter.close_async()

    def close(self) -> None:
        """Record no more tasks, and leave the broker as soon as those that run have ended."""
        self._is_closed = True
        if not self._running:
            with suppress(ValueError):
                self.broker.middlewares.remove(self)

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Stamp a task that is enqueued."""
        try:
            if self._is_first:
                self._stamp(message)
        except Exception as error:
            self._adapter.contain("sender", message.task_name, error)
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Record the start of an attempt."""
        try:
            if self._is_first:
                await self._begin(message)
        except Exception as error:
            self._adapter.contain("start", message.task_name, error)
        return message

    def on_error(
        self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException
    ) -> None:
        """Keep the exception: a middleware that retries the task removes it from the result."""
        running = self._find(message)
        if running is not None:
            running.error = exception

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Record the outcome, which is final, as all middlewares have seen the error."""
        running = self._find(message)
        if running is None:
            return
        try:
            self._stack().remove(running)
            error = running.outcome(message)
            retry = None if error is None else running.will_retry(message, result, self.broker)
            await running.recording.end_async(error, result=result.return_value, will_retry=retry)
        except Exception as problem:
            self._adapter.contain("outcome", message.task_name, problem)

    @property
    def _is_first(self) -> bool:
        ours = (each for each in self.broker.middlewares if isinstance(each, JobHistory))
        return next((each for each in ours if not each._is_closed), None) is self

    def _stack(self) -> list[_Running]:
        """Return the attempts that this asyncio task runs, the innermost one last."""
        task = asyncio.current_task()
        return [] if task is None else self._running.get(task, [])

    def _find(self, message: TaskiqMessage) -> _Running | None:
        stack = reversed(self._stack())
        return next((each for each in stack if each.attempt.job_id == message.task_id), None)

    def _stamp(self, message: TaskiqMessage) -> None:
        running = self._find(message)
        carried = _carried(message)
        if running is not None:  # a retry, which is not a child of this attempt
            running.was_sent_again = True
            running.recording.leave()
            carried = replace(
                running.attempt.carried,
                correlation_id=str(running.recording.execution.correlation_id),
            )
        known = carried != Carried()
        carried = replace(carried, enqueued_at=utc_now()) if known else Carried.now()
        message.labels[HEADER] = json.dumps(carried.as_header())

    async def _begin(self, message: TaskiqMessage) -> None:
        task, attempt = asyncio.current_task(), _attempt(message, self.broker)
        labels = dict(message.labels)  # a middleware that retries the task changes them
        begun = (each.attempt for each in self._stack())
        if task is None or any(
            (each.job_id, each.number) == (attempt.job_id, attempt.number) for each in begun
        ):
            return  # this middleware was added twice
        recording = await self._adapter.begin_async(attempt)
        if recording is None:
            return
        if task not in self._running:
            self._running[task] = []
            task.add_done_callback(self._end_of)
        self._running[task].append(_Running(attempt, labels, recording, monotonic()))

    def _end_of(self, task: asyncio.Task[Any]) -> None:
        """Record what has no outcome, as Taskiq or another middleware raised in between."""
        error: BaseException = asyncio.CancelledError()
        if not task.cancelled():
            error = task.exception() or RuntimeError("Taskiq did not tell the outcome")
        for running in reversed(self._running.pop(task, [])):
            end = running.recording.end_async(running.error or error)
            last = task.get_loop().create_task(end)
            self._last.add(last)
            last.add_done_callback(self._last.discard)
        if self._is_closed:
            self.close()

    async def _abandon(self) -> None:
        """End the attempts of tasks that go on while the worker ends."""
        tasks = {*self._running} - {asyncio.current_task()}
        if tasks:  # a thread may have ended its task just now
            await asyncio.wait(tasks, timeout=_SECONDS_FOR_THE_LAST)
        for task in tasks:
            for running in reversed(self._running.pop(task, [])):
                await running.recording.end_async(Cancelled("the worker did not wait for it"))
        if self._last:
            await asyncio.wait(self._last)


async def enqueue(app: AsyncBroker, replay: Replay) -> str:
    """Enqueue a task again, by the registry of the broker, and return the id of the new one.

    A broker that was not started, and has a `JobHistory`, is started for this call.

    Raises:
        InvalidInput: if the broker has no task of that name.
    """
    task = app.find_task(replay.task_identifier)
    if task is None:
        known = ", ".join(sorted(app.get_all_tasks())) or "no tasks"
        raise InvalidInput(
            "task_identifier",
            replay.task_identifier,
            f"is no task of the broker, which has {known}",
        )
    labels = {**task.labels, HEADER: json.dumps(replay.carried.as_header())}
    if replay.queue is not None and replay.queue != getattr(app, "queue_name", None):
        labels["queue_name"] = replay.queue
    kicker = task.kicker().with_broker(app)
    # Not `with_labels`, which in Taskiq 0.12 changes the labels of the task for good.
    kicker.labels = labels
    async with _started(app):
        return str((await kicker.kiq(*replay.args, **replay.kwargs)).task_id)


def schedules(app: TaskiqScheduler | AsyncBroker) -> list[Schedule]:
    """Return the periodic tasks in the labels of tasks, which `LabelScheduleSource` reads.

    Those of other sources, such as Redis, are not listed.
    """
    broker = app.broker if isinstance(app, TaskiqScheduler) else app
    return [
        _schedule(name, entry)
        for name, task in broker.get_all_tasks().items()
        if task.broker is broker
        for entry in task.labels.get("schedule", [])
        if entry.get("cron") or entry.get("interval")
    ]


@asynccontextmanager
async def _started(broker: AsyncBroker) -> AsyncIterator[None]:
    ours = [each for each in broker.middlewares if isinstance(each, JobHistory)]
    if isinstance(broker, InMemoryBroker) or not ours or ours[0].is_started:
        yield
        return
    await broker.startup()
    try:
        yield
    finally:
        await broker.shutdown()


def _attempt(message: TaskiqMessage, broker: AsyncBroker) -> Attempt:
    queue = message.labels.get("queue_name") or getattr(broker, "queue_name", None)
    carried = _carried(message)
    if _count(message.labels, _REQUEUED):  # the task sent the same message again
        carried = replace(carried, enqueued_at=None)
    return Attempt(
        source=message,
        job_id=message.task_id,
        task_identifier=message.task_name,
        args=message.args,
        kwargs=message.kwargs,
        number=_count(message.labels, "_retries") + _count(message.labels, _REQUEUED) + 1,
        queue=queue if isinstance(queue, str) else None,
        run_at=_due(message, carried.enqueued_at),
        carried=carried,
    )


def _carried(message: TaskiqMessage) -> Carried:
    with suppress(TypeError, ValueError):
        return (
            Carried.read(json.loads(message.labels[HEADER]))
            if HEADER in message.labels
            else Carried()
        )
    return Carried()


def _count(labels: dict[str, Any], name: str) -> int:
    with suppress(TypeError, ValueError):
        return max(0, int(labels.get(name, 0)))
    return 0


def _due(message: TaskiqMessage, enqueued_at: datetime | None) -> datetime | None:
    """Return when a task was due, which may have a label for a delay in seconds."""
    if enqueued_at is not None and "delay" in message.labels:
        with suppress(TypeError, ValueError, OverflowError):
            return enqueued_at + timedelta(seconds=float(message.labels["delay"]))
    return enqueued_at


def _exceeded(message: TaskiqMessage, error: BaseException | None, seconds: float) -> bool:
    """Return whether Taskiq stopped a task; its own errors of that type have a message."""
    if type(error) is TimeoutError and not error.args and "timeout" in message.labels:
        with suppress(TypeError, ValueError):
            return seconds >= float(message.labels["timeout"])
    return False


def _schedule(task: str, entry: dict[str, Any]) -> Schedule:
    cron, interval = entry.get("cron"), entry.get("interval")
    zone = _zone(entry.get("cron_offset"))
    described = f"every {interval}" if cron is None else f"cron {cron}"
    if cron is not None and entry.get("cron_offset") is not None:
        described += f", offset {entry['cron_offset']}"
    return Schedule(
        name=entry.get("schedule_id") or task,
        task_identifier=task,
        description=described,
        cron=cron if zone else None,
        every=timedelta(seconds=interval) if isinstance(interval, int) else interval,
        timezone=zone if cron else None,
    )


def _zone(offset: Any) -> str | None:
    """Return the time zone of an entry; `None` if it has an offset in hours instead."""
    if offset is None:
        return "UTC"
    with suppress(Exception):
        return ZoneInfo(offset).key
    return None
