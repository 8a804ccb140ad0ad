"""Recording what runs in a block, a function or a coroutine: when it starts and how it ends."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast, get_args
from uuid import uuid4

from jobhistory.errors import InvalidInput, reason
from jobhistory.executions import Batch, ExecutionKey, Outcome, PartialResults, RowBuilder, Written
from jobhistory.models import HistoryRecord
from jobhistory.retention import Duration
from jobhistory.tasks import to_its_end
from jobhistory.texts import Id

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

OnHistoryError: TypeAlias = Literal["log", "raise"]

_current: ContextVar[TrackedExecution | None] = ContextVar("jobhistory_execution", default=None)


def current_execution() -> TrackedExecution | None:
    """The tracked execution that the calling thread or task is part of; the innermost one."""
    return _current.get()


class _History(Protocol):
    def insert(self, row: dict[str, Any]) -> HistoryRecord: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def write(self, batch: Batch, *, again: bool) -> Written: ...


@dataclass(frozen=True)
class Tracked:
    """What is tracked, in the words of `HistoryStore.track`."""

    job: Any
    worker_id: Id
    correlation_id: Id | None
    history_retention: Duration | None
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None

    def made_job(self) -> Any:
        """The job; the one made from the arguments, if it is a function's and they make it."""
        if self.arguments is None or not callable(self.job) or hasattr(self.job, "task_identifier"):
            return self.job
        args, kwargs = self.arguments
        return self.job(*args, **kwargs)


class TrackedExecution:
    """An execution under way.

    Attributes:
        correlation_id: what ties it to others, to be handed on to them.
    """

    def __init__(self, rows: RowBuilder, history: _History, on_history_error: str) -> None:
        self.correlation_id: Id = ""
        self._rows = rows
        self._history = history
        self._on_history_error = on_history_error
        self._row: dict[str, Any] | None = None
        self._is_recorded = False
        self._partial: Outcome | None = None
        self._begun = monotonic()

    def partial_success(self, partial_results: PartialResults | Mapping[str, Any]) -> None:
        """Let the outcome be a partial success, unless an exception comes.

        Args:
            partial_results: as `record_partial_success` takes it; of several the last one counts.
        """
        if self._row is not None:
            self._partial = self._rows.partly_succeeded(self._key, 0, {})
            with self._forgiving("partial results"):
                self._partial = self._rows.partly_succeeded(self._key, 0, partial_results)

    def start(self, tracked: Tracked) -> None:
        """Record the start."""
        with self._forgiving("start"):
            self._row = self._rows.started(
                tracked.made_job(),
                tracked.worker_id,
                self.correlation_id,
                tracked.history_retention,
            )
            self.correlation_id = self._row["correlation_id"]
            self._history.insert(self._row)
            self._is_recorded = True
        self._begun = monotonic()

    def end(self, error: BaseException | None) -> None:
        """Record the outcome; with it the start, if that could not be recorded."""
        if self._row is None:
            return
        milliseconds = (monotonic() - self._begun) * 1000
        with self._forgiving("outcome", error):
            outcome = replace(self._outcome(error, milliseconds), row=self._row)
            if self._is_recorded:
                self._history.end(outcome)
            else:
                written = self._history.write(Batch([outcome.ended_row()], []), again=True)
                for _, refusal in written.refused:
                    raise refusal

    @property
    def _key(self) -> ExecutionKey:
        assert self._row is not None
        ids = ("job_id", "worker_id", "correlation_id")
        return ExecutionKey(*(self._row[name] for name in ids))

    def _outcome(self, error: BaseException | None, milliseconds: float) -> Outcome:
        if error is not None:
            return self._rows.failed(self._key, milliseconds, error)
        completed = self._rows.completed(self._key, milliseconds)
        if self._partial is None:
            return completed
        status = {"status": self._partial.values["status"]}
        return replace(completed, values=self._partial.values | completed.values | status)

    @contextmanager
    def _forgiving(self, what: str, error: BaseException | None = None) -> Iterator[None]:
        """Log what goes wrong, if that is asked for or if the job has an error of its own."""
        try:
            yield
        except Exception as history_error:
            if self._on_history_error == "raise" and error is None:
                raise
            task = "" if self._row is None else f" of {self._row['task_identifier']}"
            logger.error("not recorded: the %s%s: %s", what, task, reason(history_error))


class AsyncTracker:
    """What `AsyncHistoryStore.track` returns: for `async with`, or to decorate coroutines.

    One tracker is for one block at a time; decorated functions may run any number of times at once.
    """

    def __init__(
        self,
        rows: RowBuilder,
        history: _History,
        run: Callable[..., Coroutine[Any, Any, None]],
        tracked: Tracked,
        on_history_error: OnHistoryError,
    ) -> None:
        if on_history_error not in get_args(OnHistoryError):
            raise InvalidInput("on_history_error", on_history_error, "is neither 'log' nor 'raise'")
        self._rows = rows
        self._history = history
        self._run = run
        self._tracked = tracked
        self._on_history_error = on_history_error
        self._execution: TrackedExecution | None = None
        self._enclosing: TrackedExecution | None = None

    async def __aenter__(self) -> TrackedExecution:
        execution = self._enter()
        try:
            await self._to_its_end(execution.start, self._tracked)
        except BaseException as error:
            self._leave()
            if not isinstance(error, Exception):
                await self._to_its_end(execution.end, error)
            raise
        return execution

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._to_its_end(self._leave().end, error)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call of it is an execution."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInput(
                "function", function, "is a generator, which runs after its call; track its caller"
            )
        if not inspect.iscoroutinefunction(function):
            return self._decorated(function)

        @functools.wraps(function)
        async def tracked(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with self._of_call(args, kwargs):
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", tracked)

    def _decorated(self, function: Callable[P, R]) -> Callable[P, R]:
        raise InvalidInput(
            "function", function, "is no coroutine; decorate it with a HistoryStore's track()"
        )

    def _of_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """A tracker for one call, whose job may be made from its arguments."""
        tracked = replace(self._tracked, arguments=(args, kwargs))
        return type(self)(self._rows, self._history, self._run, tracked, self._on_history_error)

    def _enter(self) -> TrackedExecution:
        if self._execution is not None:
            raise RuntimeError("this tracker is in use; call track() for each execution")
        self._enclosing = _current.get()
        self._execution = TrackedExecution(self._rows, self._history, self._on_history_error)
        self._execution.correlation_id = self._correlation_id()
        _current.set(self._execution)
        return self._execution

    def _correlation_id(self) -> Id:
        if self._tracked.correlation_id is not None:
            return self._tracked.correlation_id
        return str(uuid4()) if self._enclosing is None else self._enclosing.correlation_id

    def _leave(self) -> TrackedExecution:
        execution = self._execution
        assert execution is not None
        # Not reset by a token, which fixtures and the like may have left in another context.
        _current.set(self._enclosing)
        self._execution = None
        return execution

    async def _to_its_end(self, step: Callable[[T], None], argument: T) -> None:
        await to_its_end(self._run(step, argument), cancellable=False)


class Tracker(AsyncTracker):
    """What `HistoryStore.track` returns: for `with`, or to decorate functions and coroutines.

    A coroutine's event loop is not blocked: threads write what it records. One tracker is for one
    block at a time; decorated functions may run any number of times at once.
    """

    def __enter__(self) -> TrackedExecution:
        execution = self._enter()
        try:
            execution.start(self._tracked)
        except BaseException as error:
            self._leave()
            if not isinstance(error, Exception):  # it may have started, but will not run
                execution.end(error)
            raise
        return execution

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave().end(error)

    def _decorated(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def tracked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._of_call(args, kwargs):
                return function(*args, **kwargs)

        return tracked
