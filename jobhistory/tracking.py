"""Track blocks, functions and coroutines: record when they start and how they end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast
from uuid import UUID, uuid4

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.log_tail import LogTail
from jobhistory.errors import InvalidInput
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.rows import RowBuilder
from jobhistory.execution.values import read_boolean, read_share
from jobhistory.heartbeats import Heartbeats, TaskHeartbeats, ThreadHeartbeats
from jobhistory.lifecycle import History, Lifecycle, Run, checked_reaction
from jobhistory.typing import Duration, ErrorLike, Id, OnHistoryError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_current: ContextVar[TrackedExecution | None] = ContextVar("jobhistory_execution", default=None)


def current_execution() -> TrackedExecution | None:
    """Return the innermost tracked execution that is still running; `None` if there is none.

    Each thread and each task has its own. A task inherits it from the code that creates the task.
    A thread does not, unless it runs in a copy of the context, as with `asyncio.to_thread`. In a
    coroutine that an `AsyncHistoryStore` tracks, it is an `AsyncTrackedExecution`.
    """
    execution = _not_ended(_current.get())
    while execution is not None and execution._lifecycle is None:  # it is making its job
        execution = _not_ended(execution._enclosing)
    return execution


def row_of(execution: TrackedExecution) -> dict[str, Any]:
    """Return the row of an execution that has begun, as it is known in this process."""
    assert execution._lifecycle is not None
    return execution._lifecycle.row


def inherited(correlation_id: Id | None) -> Id:
    """Return a correlation id for an execution that begins now.

    By default, it is that of the innermost tracked execution, or a new one if there is none. Even
    if that has ended: a task that it left behind still belongs to the same whole.
    """
    if correlation_id is not None:
        return correlation_id
    enclosing = _current.get()
    return str(uuid4()) if enclosing is None else enclosing.correlation_id


def inherited_parent(parent_id: UUID | None) -> UUID | None:
    """Return the id of the parent of an execution that begins now.

    By default, it is the innermost tracked execution, even if that has ended, if there is one.
    """
    if parent_id is not None:
        return parent_id
    enclosing = _current.get()
    while enclosing is not None and enclosing._lifecycle is None:  # it has not begun
        enclosing = enclosing._enclosing
    return None if enclosing is None else enclosing.id


def _not_ended(execution: TrackedExecution | None) -> TrackedExecution | None:
    while execution is not None and execution._has_ended:
        execution = execution._enclosing
    return execution


@dataclass(frozen=True)
class TrackOptions:
    """The arguments of `HistoryStore.track`.

    `share` is the share of completed executions to store, or `None` for all from their start on.
    `arguments` are those of a decorated function.
    """

    job: Any
    worker_id: Id
    correlation_id: Id | None
    history_retention: Duration | None
    heartbeat: timedelta | None = None
    log_tail: int | None = None
    parent_id: UUID | None = None
    traceparent: str | None = None
    execution_id: UUID | None = None
    share: float | None = None
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None

    def make_job(self) -> Any:
        """Return the job; if it is a callable, call it with the decorated function's arguments."""
        if self.arguments is None or not self._makes_jobs:
            return self.job
        args, kwargs = self.arguments
        return self.job(*args, **kwargs)

    def check(self, rows: RowBuilder) -> None:
        """Check the arguments as far as possible before the first call.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        job = {"id": "1", "task_identifier": "t"} if self._makes_jobs else self.job
        correlation_id = "1" if self.correlation_id is None else self.correlation_id
        rows.started(
            job,
            self.worker_id,
            correlation_id,
            self.history_retention,
            parent_id=self.parent_id,
            traceparent=self.traceparent,
        )

    @property
    def _makes_jobs(self) -> bool:
        return callable(self.job) and not hasattr(self.job, "task_identifier")


class TrackedExecution:
    """A tracked execution that is running.

    Use it in the thread or task that runs the execution.

    Attributes:
        correlation_id: the id that ties this execution to others. Pass it on to them.
    """

    __slots__ = (
        "_enclosing",
        "_has_ended",
        "_heartbeats",
        "_lifecycle",
        "_log_tail",
        "_parent_id",
        "_partial",
        "_process",
        "_result",
        "_will_retry",
        "correlation_id",
    )

    def __init__(self, correlation_id: Id, enclosing: TrackedExecution | None) -> None:
        self.correlation_id = correlation_id
        self._parent_id: UUID | None = None
        self._enclosing = enclosing
        self._lifecycle: Lifecycle | None = None
        self._has_ended = False
        self._partial: Outcome | None = None
        self._result: Any = None
        self._will_retry: bool | None = None
        self._heartbeats: Heartbeats | None = None
        self._log_tail: LogTail | None = None
        self._process = os.getpid()

    @property
    def id(self) -> UUID:
        """The id of the record.

        It is the `parent_id` of the executions that are tracked inside this one. Pass it on to
        those that this one starts elsewhere.
        """
        assert self._lifecycle is not None
        id_: UUID = self._lifecycle.row["id"]
        return id_

    def partial_success(self, partial_results: PartialResults | Mapping[str, Any]) -> None:
        """Make the outcome a partial success, unless an exception ends the execution.

        Nothing is written until the execution ends. If called more than once, the last call counts.

        Args:
            partial_results: as for `record_partial_success`.

        Raises:
            InvalidInput: if `partial_results` cannot be used, or has an unknown key.
        """
        assert self._lifecycle is not None
        lifecycle = self._lifecycle
        self._partial = lifecycle.rows.partly_succeeded(lifecycle.row, 0, partial_results)

    def set_result(self, result: Any) -> None:
        """Set the result to record if the execution completes.

        Nothing is written until the execution ends. If called more than once, the last call counts.
        A partial success, a failure or a cancellation has no result.

        Args:
            result: as for `record_completion`.
        """
        self._result = result

    def set_will_retry(self, will_retry: bool) -> None:
        """Set whether the job will be tried again if this execution fails.

        Args:
            will_retry: as for `record_failure`.

        Raises:
            InvalidInput: if it is neither `True` nor `False`.
        """
        self._will_retry = read_boolean(will_retry, "will_retry")

    def heartbeat(self) -> None:
        """Record that the execution is alive; as for `Execution.heartbeat`."""
        assert self._lifecycle is not None
        self._lifecycle.heartbeat()

    def progress(self, share: float) -> None:
        """Record the share of the work that is done, from 0 to 1; as for `Execution.progress`."""
        assert self._lifecycle is not None
        self._lifecycle.heartbeat(read_share(share, "share"))

    def _enter(self) -> None:
        """Become the current execution of this context."""
        _current.set(self)
        if self._log_tail is not None:
            self._log_tail.enter()
        if self._lifecycle is not None:
            self._lifecycle.watch.enter()

    def _leave(self) -> None:
        """Leave the block, but do not record the outcome yet."""
        self._has_ended = True
        self._leave_context()
        if self._heartbeats is not None:
            self._heartbeats.stop()

    def _leave_context(self) -> None:
        # No token resets it, because a fixture may have entered the block in another context. If
        # blocks end out of order, those that have not ended stay current.
        _current.set(_not_ended(self._enclosing if _current.get() is self else _current.get()))
        if self._log_tail is not None:
            self._log_tail.leave()
        if self._lifecycle is not None:
            self._lifecycle.watch.leave()

    def _end(self, error: ErrorLike | None) -> None:
        """Record the outcome, unless this is a forked child that leaves its parent's block."""
        if self._lifecycle is None or os.getpid() != self._process:
            return
        may_raise = error is None  # otherwise, the error of the job is the one to raise
        try:
            outcome = self._outcome(self._lifecycle, error)
            if self._log_tail is not None:
                outcome = self._lifecycle.rows.with_log_tail(outcome, self._log_tail)
            self._lifecycle.end(outcome, may_raise=may_raise)
        except Exception as problem:
            self._lifecycle.log_or_raise("outcome", problem, may_raise=may_raise)

    def _outcome(self, lifecycle: Lifecycle, error: ErrorLike | None) -> Outcome:
        row, milliseconds = lifecycle.row, lifecycle.elapsed_ms
        if error is not None:
            return lifecycle.rows.ended_by(error, row, milliseconds, self._will_retry)
        if self._partial is None:
            return lifecycle.rows.completed(row, milliseconds, self._result)
        completed = lifecycle.rows.completed(row, milliseconds)
        status = {"status": self._partial.values["status"]}
        return completed._replace(values=self._partial.values | completed.values | status)


class AsyncTrackedExecution(TrackedExecution):
    """A tracked execution of an `AsyncHistoryStore`, whose signs of life are awaited."""

    __slots__ = ("_run",)

    _run: Run

    async def heartbeat(self) -> None:  # type: ignore[override]  # pyright: ignore
        """Record that the execution is alive; as for `AsyncExecution.heartbeat`."""
        assert self._lifecycle is not None
        await run_to_completion(self._run(self._lifecycle.heartbeat), cancellable=False)

    async def progress(self, share: float) -> None:  # type: ignore[override]  # pyright: ignore
        """Record the share of the work that is done; as for `AsyncExecution.progress`."""
        assert self._lifecycle is not None
        beat = self._run(self._lifecycle.heartbeat, read_share(share, "share"))
        await run_to_completion(beat, cancellable=False)


class _BaseTracker:
    """Tracks one `async with` block at a time, and decorates coroutine functions.

    `run` calls a function without blocking the event loop; with `None`, coroutines are refused.

    Attributes:
        time_limits: as for `Lifecycle`. Adapters set them before they enter the block.
    """

    time_limits: tuple[type[BaseException], ...] = ()

    def __init__(
        self,
        rows: RowBuilder,
        history: History,
        run: Run | None,
        options: TrackOptions,
        on_history_error: OnHistoryError,
    ) -> None:
        self._rows = rows
        self._history = history
        self._run = run
        self._options = options
        self._on_history_error: OnHistoryError = checked_reaction(on_history_error)
        self._execution: TrackedExecution | None = None

    async def __aenter__(self) -> TrackedExecution:
        execution = self._enter()
        try:
            await self._run_to_completion(self._start, execution)
        except BaseException as error:
            self._leave()
            if not isinstance(error, Exception):  # the start may be in history
                await self._run_to_completion(execution._end, error)
            raise
        self._begin(execution)
        return execution

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.end_async(error)

    async def end_async(self, error: ErrorLike | None = None) -> None:
        """Leave the block and record its outcome, even if the task is cancelled meanwhile.

        Code that gets two callbacks instead of a block calls it after `await tracker.__aenter__()`.
        It has no effect if no block was entered, or if that has been left.

        Args:
            error: as for `Execution.end`.
        """
        if self._execution is not None:
            await run_to_completion(self._finish(self._leave(), error), cancellable=False)

    def leave_context(self) -> None:
        """Let the execution no longer be the current one, before its outcome is known.

        What the framework does afterwards, such as to enqueue a retry, is not part of it.
        """
        if self._execution is not None:
            self._execution._leave_context()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call of it is an execution."""
        if isinstance(function, (staticmethod, classmethod)):
            raise InvalidInput(
                "function", function, "is not a function yet; decorate it below @staticmethod"
            )
        if _is(function, inspect.isgeneratorfunction) or _is(function, inspect.isasyncgenfunction):
            raise InvalidInput(
                "function", function, "is a generator, which runs after its call; track its caller"
            )
        if self._options.execution_id is not None:
            raise InvalidInput(
                "execution_id",
                self._options.execution_id,
                "is for one execution, and each call of a function is one; track a block with it",
            )
        self._options.check(self._rows)
        if _is(function, inspect.iscoroutinefunction):
            return self._decorate_coroutine(function)
        return self._decorate_function(function)

    def _decorate_coroutine(self, function: Callable[P, R]) -> Callable[P, R]:
        if self._run is None:
            raise InvalidInput(
                "function", function, "is a coroutine; track it with the store of an AsyncSession"
            )

        @functools.wraps(function)
        async def tracked(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with self._for_call(args, kwargs):
                return await cast("Any", function)(*args, **kwargs)

        return cast("Callable[P, R]", tracked)

    def _decorate_function(self, function: Callable[P, R]) -> Callable[P, R]:
        raise NotImplementedError

    def _for_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """Return a tracker for one call, whose arguments may make the job."""
        options = replace(self._options, arguments=(args, kwargs))
        return type(self)(self._rows, self._history, self._run, options, self._on_history_error)

    def _enter(self) -> TrackedExecution:
        if self._execution is not None:
            raise RuntimeError("this tracker is in use; call track() for each execution")
        execution = self._new_execution(
            inherited(self._options.correlation_id), _not_ended(_current.get())
        )
        execution._parent_id = inherited_parent(self._options.parent_id)
        self._execution = execution
        if self._options.log_tail is not None:
            execution._log_tail = LogTail(self._options.log_tail)
        execution._enter()
        return execution

    def _start(self, execution: TrackedExecution) -> None:
        """Record the start of an execution that was entered."""
        options = self._options
        row = self._rows.started(
            options.make_job(),
            options.worker_id,
            execution.correlation_id,
            options.history_retention,
            options.execution_id,
            parent_id=execution._parent_id,
            traceparent=options.traceparent,
        )
        if options.heartbeat is not None:  # so that one which dies before its first one is found
            row["heartbeat_at"] = row["started_at"]
        execution.correlation_id = row["correlation_id"]
        execution._lifecycle = Lifecycle(
            self._rows,
            self._history,
            row,
            self._on_history_error,
            self.time_limits,
            is_chosen=self._rows.is_chosen(options.share),
        )
        execution._lifecycle.start(may_exist=options.execution_id is not None)

    def _leave(self) -> TrackedExecution:
        execution, self._execution = self._execution, None
        assert execution is not None
        execution._leave()
        return execution

    def _new_execution(
        self, correlation_id: Id, enclosing: TrackedExecution | None
    ) -> TrackedExecution:
        return TrackedExecution(correlation_id, enclosing)

    def _begin(self, execution: TrackedExecution) -> None:
        """Do what comes after the start, in the context of the execution."""
        assert execution._lifecycle is not None
        execution._lifecycle.watch.enter()
        interval = self._options.heartbeat
        if interval is not None:
            seconds = interval.total_seconds()
            execution._heartbeats = self._heartbeats(execution._lifecycle, seconds)

    def _heartbeats(self, lifecycle: Lifecycle, seconds: float) -> Heartbeats:
        return ThreadHeartbeats(lifecycle, seconds)

    async def _finish(self, execution: TrackedExecution, error: ErrorLike | None) -> None:
        assert self._run is not None
        if execution._heartbeats is not None:
            await execution._heartbeats.stopped()
        await self._run(execution._end, error)

    async def _run_to_completion(self, step: Callable[[T], None], argument: T) -> None:
        assert self._run is not None
        await run_to_completion(self._run(step, argument), cancellable=False)


class AsyncTracker(_BaseTracker):
    """What `AsyncHistoryStore.track` returns: for `async with`, or to decorate coroutines.

    A tracker is for one block at a time. Decorated functions may run any number of times at once.
    """

    def _decorate_function(self, function: Callable[P, R]) -> Callable[P, R]:
        raise InvalidInput("function", function, "is not a coroutine; track it with a HistoryStore")

    async def __aenter__(self) -> AsyncTrackedExecution:
        return cast("AsyncTrackedExecution", await super().__aenter__())

    def _new_execution(
        self, correlation_id: Id, enclosing: TrackedExecution | None
    ) -> TrackedExecution:
        assert self._run is not None
        execution = AsyncTrackedExecution(correlation_id, enclosing)
        execution._run = self._run
        return execution

    def _heartbeats(self, lifecycle: Lifecycle, seconds: float) -> Heartbeats:
        assert self._run is not None
        return TaskHeartbeats(lifecycle, seconds, self._run)


class Tracker(_BaseTracker):
    """What `HistoryStore.track` returns: for `with`, or to decorate functions and coroutines.

    Tracking a coroutine does not block the event loop: threads write its start and outcome. A
    tracker is for one block at a time. Decorated functions may run any number of times at once.
    """

    def __enter__(self) -> TrackedExecution:
        execution = self._enter()
        try:
            self._start(execution)
        except BaseException:
            self._leave()
            raise
        self._begin(execution)
        return execution

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(error)

    def end(self, error: ErrorLike | None = None) -> None:
        """Leave the block and record its outcome.

        Code that gets two callbacks instead of a block calls it after `tracker.__enter__()`, in the
        same thread. It has no effect if no block was entered, or if that has been left.

        Args:
            error: as for `Execution.end`.
        """
        if self._execution is not None:
            self._leave()._end(error)

    def _decorate_function(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def tracked(*args: P.args, **kwargs: P.kwargs) -> R:
            tracker = self._for_call(args, kwargs)
            with tracker:
                result = function(*args, **kwargs)
                if not inspect.isawaitable(result):
                    return result
                # The execution ends when the result has been awaited.
                execution = tracker._detach()
            return cast("R", tracker._track_awaitable(execution, result))

        return tracked

    def _detach(self) -> TrackedExecution:
        """Let the execution outlive the block."""
        execution, self._execution = self._execution, None
        assert execution is not None
        execution._leave_context()
        return execution

    def _track_awaitable(self, execution: TrackedExecution, work: Awaitable[T]) -> Awaitable[T]:
        """Return an awaitable that ends the execution after the work; a future for a future."""

        async def tracked() -> T:
            self._execution = execution
            execution._enter()
            try:
                result = await work
            except BaseException as error:
                await self.end_async(error)
                raise
            await self.end_async()
            return result

        return asyncio.ensure_future(tracked()) if asyncio.isfuture(work) else tracked()


def _is(function: Any, kind: Callable[[Any], bool]) -> bool:
    """Return whether a function, or the `__call__` of an object, is of a kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004
