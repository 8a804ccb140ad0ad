"""The start and the outcome of one execution: for `begin`, and inside of `track`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar, get_args
from uuid import UUID

from jobhistory._runtime.cancellation import run_to_completion
from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound, InvalidInput, reason
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.rows import RowBuilder
from jobhistory.execution.status import Status
from jobhistory.execution.values import read_share
from jobhistory.failure import timed_out
from jobhistory.schema import HistoryRecord, record_from, values_of
from jobhistory.typing import ErrorLike, Milliseconds, OnHistoryError
from jobhistory.watch import UNWATCHED, watch

logger = logging.getLogger(__name__)

Row = dict[str, Any]
Run = Callable[..., Coroutine[Any, Any, Any]]


R_co = TypeVar("R_co", covariant=True)


class Destination(Protocol[R_co]):
    """What records rows and outcomes: a history, or the queue of a `Recorder`."""

    def insert(self, row: Row, *, may_exist: bool = False) -> R_co:
        """Write a new row."""
        ...

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> R_co:
        """Write the row of an ended execution."""
        ...

    def count_only(self, row: Row) -> R_co:
        """Count an ended execution in statistics, without writing its row."""
        ...

    def end(self, outcome: Outcome) -> R_co:
        """Write an outcome."""
        ...


class History(Destination[HistoryRecord | None], Protocol):
    """What records executions that begin and end in this process."""

    def heartbeat(self, id_: UUID, job_id: str, values: Row, /) -> bool:
        """Write signs of life of a started execution, by column; return whether it is there."""
        ...


_SIGNS_OF_LIFE = ("heartbeat_at", "progress")

_HEARTBEAT_SECONDS = 1.0
"""The least time between two heartbeats of an execution that are written."""

_lock = ForkSafeLock()  # of all executions, never held while history is used


class Lifecycle:
    """Records the start and the outcome of one execution, whose row it holds. Thread-safe.

    Args:
        row: the started row.
        on_history_error: what `start` and `end` do with errors of history.
        time_limits: exceptions by which a framework stops a job that takes too long. They are not
            errors of history. If one interrupts the recording, it reaches the job.
        is_chosen: `None` to record the start as well. Otherwise, only the outcome is recorded, in
            one row; if the execution completes and is not chosen, it is only counted.
    """

    __slots__ = (
        "_begun",
        "_history",
        "_is_chosen",
        "_is_ended",
        "_is_started",
        "_next_heartbeat",
        "_on_history_error",
        "_outcome",
        "_time_limits",
        "_written_progress",
        "row",
        "rows",
        "watch",
    )

    def __init__(
        self,
        rows: RowBuilder,
        history: History,
        row: Row,
        on_history_error: OnHistoryError,
        time_limits: tuple[type[BaseException], ...] = (),
        *,
        is_chosen: bool | None = None,
    ) -> None:
        self.rows = rows
        self.row = row
        self._history = history
        self._is_chosen = is_chosen
        self._on_history_error: OnHistoryError = checked_reaction(on_history_error)
        self._time_limits = time_limits
        self._outcome: Outcome | None = None
        self._written_progress: float | None = None
        self._is_started = self._is_ended = False
        self._begun = self._next_heartbeat = monotonic()
        self.watch = UNWATCHED

    @property
    def record(self) -> HistoryRecord:
        """The execution as it is now."""
        outcome = self._outcome
        return record_from(self.row if outcome is None else outcome.ended_row(self.rows.retention))

    @property
    def elapsed_ms(self) -> float:
        """The milliseconds since the start, by a monotonic clock."""
        return (monotonic() - self._begun) * 1000

    def start(self, *, may_exist: bool = False) -> None:
        """Record the start, unless it is recorded with the outcome only.

        With `may_exist`, continue the execution that history has under the id of the row, if any.

        Raises:
            InvalidInput: if that execution belongs to another job or task.
        """
        self.watch = watch(self.row)
        try:
            self._start(may_exist)
        except BaseException:  # the job does not run
            self.watch.end(None)
            raise

    def _start(self, may_exist: bool) -> None:
        if self._is_chosen is not None:
            return
        try:
            record = self._history.insert(self.row, may_exist=may_exist)
            self._is_started = True
            if may_exist and record is not None:
                self.row = values_of(record)
                self._written_progress = record.progress
        except InvalidInput:
            raise
        except Exception as error:
            if isinstance(error, self._time_limits):
                self.end_interrupted(timed_out(error))
            self.log_or_raise("start", error)
        except BaseException as interrupt:
            self.end_interrupted(interrupt)
            raise
        self._begun = monotonic()

    async def start_async(self, run: Run, *, may_exist: bool = False) -> None:
        """Do what `start` does, called by `run`. If cancelled meanwhile, finish it first."""
        try:
            start = run(partial(self.start, may_exist=may_exist))
            await run_to_completion(start, cancellable=False)
        except Exception:
            raise
        except BaseException as interrupt:
            await run_to_completion(run(self.end_interrupted, interrupt), cancellable=False)
            raise

    def end_interrupted(self, interrupt: BaseException) -> None:
        """Record that the start was interrupted, because it may be in history."""
        self.end(self.rows.ended_by(interrupt, self.row, self.elapsed_ms), may_raise=False)

    def heartbeat(self, progress: float | None = None, *, may_raise: bool = True) -> None:
        """Record a sign of life, and the progress, unless the last one is less than a second ago.

        The outcome records progress that was not written.

        Args:
            may_raise: `False` to log errors of history in any case.
        """
        news: Row = {} if progress is None else {"progress": progress}
        now = monotonic()
        with _lock:
            if self._outcome is not None:
                return
            self.row = self.row | news
            if not self._is_started or now < self._next_heartbeat:
                return
            self._next_heartbeat = now + _HEARTBEAT_SECONDS
            beat: Row = {"heartbeat_at": self.rows.now()}
            self.row = self.row | beat
            values = {name: self.row[name] for name in _SIGNS_OF_LIFE if name in self.row}
        try:
            if self._history.heartbeat(self.row["id"], self.row["job_id"], values):
                self._written_progress = values.get("progress")
        except Exception as error:
            self.log_or_raise("heartbeat", error, may_raise=may_raise)

    def end(self, outcome: Outcome, *, may_raise: bool = True) -> None:
        """Record the outcome. If the start is not in history, record both in one row.

        If called again with the same outcome, record the first one if that has failed before. If
        interrupted, record it all the same.

        Args:
            may_raise: `False` to log errors of history in any case.

        Raises:
            ExecutionAlreadyFinished: if it was called before with another outcome.
        """
        with _lock:
            progress = self.row.get("progress")
            if progress != self._written_progress:
                outcome = outcome._replace(values=outcome.values | {"progress": progress})
            is_first = self._outcome is None
            first = self._outcome = self._outcome or outcome
        if first.values["status"] != outcome.values["status"]:
            raise ExecutionAlreadyFinished(self.record)
        if self._is_ended:
            return
        try:
            if is_first:
                self.watch.end(first.values)
            self._write(first)
            self._is_ended = True
        except Exception as error:
            if isinstance(error, self._time_limits):
                self._write_again(first)
            self.log_or_raise("outcome", error, may_raise=may_raise)
        except BaseException:  # such as KeyboardInterrupt
            self._write_again(first)
            raise

    def _write_again(self, outcome: Outcome) -> None:
        """Try once more after an interruption, because the outcome is known."""
        with suppress(Exception):
            self._write(outcome)
            self._is_ended = True

    def _write(self, outcome: Outcome) -> None:
        if self._is_started:
            try:
                self._history.end(outcome)
                return
            except ExecutionNotFound:
                pass  # the start was rolled back or has expired
        row = outcome.ended_row(self.rows.retention)
        if self._is_chosen is False and row["status"] is Status.COMPLETED:
            self._history.count_only(row)
        else:
            self._history.insert_ended(row, may_exist=True)

    def log_or_raise(self, what: str, error: Exception, *, may_raise: bool = True) -> None:
        """Log an error of history, or raise it if the caller wants that, or it is a time limit."""
        if isinstance(error, self._time_limits):
            raise error
        if may_raise and self._on_history_error == "raise":
            raise error
        # An outage is one line in the log, no matter how many jobs run during it.
        is_repeated = getattr(error, "is_repeated", False)
        logger.log(
            logging.DEBUG if is_repeated else logging.ERROR,
            "not recorded: the %s of %s: %s",
            what,
            self.row["task_identifier"],
            reason(error),
        )


class _Begun:
    """An execution that has begun. It holds its own row, so ids that occur twice do no harm."""

    __slots__ = ("_lifecycle",)

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    @property
    def id(self) -> UUID:
        """The id of the record."""
        id_: UUID = self._lifecycle.row["id"]
        return id_

    @property
    def correlation_id(self) -> str:
        """The id that ties this execution to others. Pass it on to them."""
        correlation_id: str = self._lifecycle.row["correlation_id"]
        return correlation_id

    @property
    def record(self) -> HistoryRecord:
        """The record, as it was begun or, once it has ended, with its outcome. Each read copies it.

        It does not query history. So it is available during an outage, and does not show changes
        that others made.
        """
        return self._lifecycle.record

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._lifecycle.record!r}>"

    def _outcome(
        self,
        error: ErrorLike | None,
        *,
        result: Any,
        will_retry: bool | None,
        partial_results: PartialResults | Mapping[str, Any] | None,
        execution_time_ms: Milliseconds | None,
    ) -> Outcome:
        rows, row = self._lifecycle.rows, self._lifecycle.row
        took = self._lifecycle.elapsed_ms if execution_time_ms is None else execution_time_ms
        if error is not None:
            _refuse_with("an error", partial_results=partial_results, result=result)
            return rows.ended_by(error, row, took, will_retry)
        if will_retry:
            raise InvalidInput("will_retry", will_retry, "needs an error; pass the error as well")
        if partial_results is not None:
            _refuse_with("partial results", result=result)
            return rows.partly_succeeded(row, took, partial_results)
        return rows.completed(row, took, result)


class Execution(_Begun):
    """An execution that a worker has begun: what `begin` returns, for one call of `end`.

    It holds its own row. So `end` ends exactly this execution, even if others have the same three
    ids. Any thread may end it, in any context; only in a session, the thread of that session. A
    forked child may end what its parent has begun.
    """

    __slots__ = ()

    def heartbeat(self) -> None:
        """Record that the execution is alive, for `reap_lost(heartbeat_older_than=...)`.

        Call it as often as you like: at most one call a second writes. It is one short transaction,
        and a heap-only update on PostgreSQL. It has no effect once the execution has ended.

        Raises:
            Exception: an error of history, with `on_history_error="raise"`. Otherwise, it is
                logged.
        """
        self._lifecycle.heartbeat()

    def progress(self, share: float) -> None:
        """Record the share of the work that is done, from 0 to 1. It counts as a heartbeat.

        If the last write is less than a second ago, a later heartbeat or the outcome writes it.

        Raises:
            InvalidInput: if `share` is not a number from 0 to 1.
            Exception: as for `heartbeat`.
        """
        self._lifecycle.heartbeat(read_share(share, "share"))

    def end(
        self,
        error: ErrorLike | None = None,
        *,
        result: Any = None,
        will_retry: bool | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        execution_time_ms: Milliseconds | None = None,
    ) -> None:
        """Record the outcome: completed, unless an argument says otherwise.

        If the start is not in history, because history was unavailable or the start was rolled
        back, the whole execution is recorded now. If that fails, another call with the same outcome
        tries again. Otherwise, it has no effect.

        Args:
            error: why the execution failed, as for `record_failure`. After a `CancelledError` or a
                `Cancelled`, the execution is cancelled, and the message is the reason.
            result: what the job returned, as for `record_completion`.
            will_retry: whether the job will be tried again after this failure, as for
                `record_failure`.
            partial_results: the steps that succeeded and failed, as for `record_partial_success`.
            execution_time_ms: the duration in milliseconds, or a `timedelta`; `None` for the time
                since `begin`, by a monotonic clock.

        Raises:
            ExecutionAlreadyFinished: if this object was ended before with another outcome.
            InvalidInput: if an argument cannot be used.
            Exception: an error of history, if `begin` was called with `on_history_error="raise"`.
                Otherwise, it is logged.
        """
        outcome = self._outcome(
            error,
            result=result,
            will_retry=will_retry,
            partial_results=partial_results,
            execution_time_ms=execution_time_ms,
        )
        self._lifecycle.end(outcome)


class AsyncExecution(_Begun):
    """An `Execution` for asyncio, whose `end` is awaited.

    It holds its own row. So `end` ends exactly this execution, even if others have the same three
    ids. Any task of the event loop may end it.
    """

    __slots__ = ("_run",)

    def __init__(self, lifecycle: Lifecycle, run: Run) -> None:
        super().__init__(lifecycle)
        self._run = run

    async def heartbeat(self) -> None:
        """Record that the execution is alive; as for `Execution.heartbeat`."""
        await run_to_completion(self._run(self._lifecycle.heartbeat), cancellable=False)

    async def progress(self, share: float) -> None:
        """Record the share of the work that is done, from 0 to 1; as for `Execution.progress`."""
        step = self._run(self._lifecycle.heartbeat, read_share(share, "share"))
        await run_to_completion(step, cancellable=False)

    async def end(
        self,
        error: ErrorLike | None = None,
        *,
        result: Any = None,
        will_retry: bool | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        execution_time_ms: Milliseconds | None = None,
    ) -> None:
        """Record the outcome: completed, unless an argument says otherwise.

        If the task is cancelled meanwhile, the outcome is recorded first. The rest is as for
        `Execution.end`.
        """
        outcome = self._outcome(
            error,
            result=result,
            will_retry=will_retry,
            partial_results=partial_results,
            execution_time_ms=execution_time_ms,
        )
        await run_to_completion(self._run(self._lifecycle.end, outcome), cancellable=False)


def _refuse_with(other: str, **values: Any) -> None:
    for name, value in values.items():
        if value is not None:
            raise InvalidInput(name, type(value), f"cannot be combined with {other}; omit one")


def checked_reaction(on_history_error: OnHistoryError) -> OnHistoryError:
    """Return the argument, if it is one of the valid values.

    Raises:
        InvalidInput: if it is anything else.
    """
    if on_history_error not in get_args(OnHistoryError):
        raise InvalidInput("on_history_error", on_history_error, "is neither 'log' nor 'raise'")
    return on_history_error
