"""The methods `begin` and `track` of stores and recorders, for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.util import greenlet_spawn

from jobhistory._runtime.durations import parse_duration
from jobhistory._runtime.sizes import parse_size
from jobhistory.errors import InvalidInput
from jobhistory.execution.rows import RowBuilder
from jobhistory.execution.values import read_recorded
from jobhistory.lifecycle import AsyncExecution, Execution, History, Lifecycle, Run
from jobhistory.tracking import AsyncTracker, Tracker, TrackOptions, inherited, inherited_parent
from jobhistory.typing import Duration, Id, JobLike, OnHistoryError, Recorded


class _Heartbeats:
    _may_send_heartbeats = True  # not in a session, which is for one thread or task

    def _heartbeat_interval(
        self, heartbeat: Duration | None, share: float | None
    ) -> timedelta | None:
        if heartbeat is None:
            return None
        if share is not None:
            raise InvalidInput(
                "heartbeat",
                heartbeat,
                "cannot be sent if record is not 'all', because there is no row before the end; "
                "leave one of them out",
            )
        if not self._may_send_heartbeats:
            raise InvalidInput(
                "heartbeat",
                heartbeat,
                "cannot be sent in your session, which is for one thread or task; leave it out, or "
                "track with the store itself",
            )
        interval = parse_duration(heartbeat, "heartbeat")
        if interval < timedelta(seconds=1):
            raise InvalidInput(
                "heartbeat", heartbeat, "is shorter than a second; write it like '10s'"
            )
        return interval


class TrackingMethods(_Heartbeats):
    """Records executions that begin and end in this process.

    Args:
        tracked_in: what records their starts and outcomes.
        run_in_thread: calls a function without blocking the event loop; `None` if that is
            impossible, because a session is for one thread.
    """

    def __init__(self, rows: RowBuilder, tracked_in: History, run_in_thread: Run | None) -> None:
        self._rows = rows
        self._tracked_in = tracked_in
        self._run_in_thread = run_in_thread

    def begin(
        self,
        job: JobLike | Mapping[str, Any],
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
        record: Recorded = "all",
    ) -> Execution:
        """Record the start of an execution, and return an object to end it with.

        ::

            execution = store.begin(job, "worker-1")
            ...
            execution.end()  # or execution.end(error)

        It is `track` for code that gets two callbacks, one when a job starts and one when it ends.
        Unlike `track`, it does not change `current_execution()`, and an execution that nobody ends
        stays `started`.

        Args:
            job, worker_id: as for `record_start`.
            correlation_id: an id that ties this execution to others. By default it is that of the
                tracked execution in which `begin` is called, or a new one if there is none.
            on_history_error: with `"log"`, an error of the database is logged here and in `end`.
                If the start could not be recorded, `end` records it with the outcome. With
                `"raise"`, the error is raised.
            history_retention, execution_id, traceparent: as for `record_start`.
            parent_id: the id of the record of the execution that started this one. By default it is
                that of the tracked execution in which `begin` is called, if any.
            record: as for `track`.

        Raises:
            InvalidInput: if an argument cannot be used, as for `record_start`.
        """
        share = read_recorded(record, "record")
        row = self._rows.started(
            job,
            worker_id,
            inherited(correlation_id),
            history_retention,
            execution_id,
            parent_id=inherited_parent(parent_id),
            traceparent=traceparent,
        )
        lifecycle = Lifecycle(
            self._rows,
            self._tracked_in,
            row,
            on_history_error,
            is_chosen=self._rows.is_chosen(share),
        )
        lifecycle.start(may_exist=execution_id is not None)
        return Execution(lifecycle)

    def track(
        self,
        job: JobLike | Mapping[str, Any] | Callable[..., JobLike | Mapping[str, Any]],
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
        heartbeat: Duration | None = None,
        log_tail: int | str | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
        record: Recorded = "all",
    ) -> Tracker:
        """Record the start and the outcome of a block, a function or a coroutine.

        ::

            with store.track(job, "worker-1") as execution:
                ...
                execution.partial_success({"failed_steps": ["upload"]})

            @store.track(lambda order_id: Job(order_id, "ship_order"), "worker-1")
            def ship_order(order_id): ...

        An exception is recorded as a failure and re-raised, including `KeyboardInterrupt` and
        `SystemExit`. If it is a `CancelledError` or `jobhistory.Cancelled`, the execution is
        recorded as cancelled, and the message is the reason. A monotonic clock measures the
        duration. The execution of a function that returns an awaitable ends when the awaitable
        does. A forked child that leaves the block of its parent records nothing.

        A `BaseStore` records in the caller's transaction, and records a failure or a cancellation
        even if that is rolled back. It tracks coroutines only with an `AsyncSession`.

        Args:
            job: as for `record_start`. For a function, it can also be a callable that makes the job
                from the arguments of the call.
            worker_id: the id of the worker that executes the job.
            correlation_id: an id that ties this execution to others. By default it is that of the
                enclosing tracked execution, or a new one if there is none.
            on_history_error: with `"log"`, an error of the database is logged, and the job runs; a
                start that could not be recorded is recorded with the outcome. With `"raise"`, the
                error is raised, unless the job itself raises: then it is logged, and the job's
                error propagates.
            history_retention, traceparent: as for `record_start`.
            heartbeat: the interval of heartbeats, at least a second, such as `"10s"`. One thread of
                the process sends them while the execution runs. They show that the process is
                alive, not that the job makes progress. In a session, there are none.
            log_tail: the size of the last log lines to store, such as `"16 KiB"`. Lines count if a
                logger emits them in the context of the execution, as for `current_execution`, even
                if a filter or a handler drops them. They are redacted, and stored with the outcome.
            execution_id: the id of the record of a block, made by `new_execution_id`. If history
                has an execution with that id, it continues.
            parent_id: the id of the record of the execution that started this one. By default it is
                that of the enclosing tracked execution, even if a task outlives it.
            record: the executions to store: `"all"`; or `"failures"`, which are all that do not
                complete, so also partial successes and cancellations; or these and a share of the
                completed ones from 0 to 1, such as 0.01, which are chosen at random when they
                start. Except with `"all"`, nothing is written before the end: `running` does not
                show the execution, it sends no heartbeats, and if the process dies, nothing is left
                of it. At the end, an execution to store is written whole. Any other is only counted
                in statistics, by one short INSERT into `job_history_ended`, and is not in the ring
                buffer. The start of an `execution_id` must not be in history already.

        Raises:
            InvalidInput: if an argument cannot be used: at decoration if possible, otherwise when
                the execution starts.
        """
        share = read_recorded(record, "record")
        return Tracker(
            self._rows,
            self._tracked_in,
            self._run_in_thread,
            TrackOptions(
                job,
                worker_id,
                correlation_id,
                history_retention,
                heartbeat=self._heartbeat_interval(heartbeat, share),
                log_tail=None if log_tail is None else parse_size(log_tail, "log_tail"),
                execution_id=execution_id,
                parent_id=parent_id,
                traceparent=traceparent,
                share=share,
            ),
            on_history_error,
        )


class AsyncTrackingMethods(_Heartbeats):
    """`TrackingMethods` for asyncio. What records runs in a greenlet and may await."""

    def __init__(self, rows: RowBuilder, tracked_in: History) -> None:
        self._rows = rows
        self._tracked_in = tracked_in

    async def begin(
        self,
        job: JobLike | Mapping[str, Any],
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
        record: Recorded = "all",
    ) -> AsyncExecution:
        """Record the start of an execution, and return an object to end it with.

        ::

            execution = await store.begin(job, "worker-1")
            ...
            await execution.end()  # or await execution.end(error)

        If the task is cancelled meanwhile, the execution is recorded as cancelled. The rest is as
        for `HistoryStore.begin`.
        """
        share = read_recorded(record, "record")
        row = self._rows.started(
            job,
            worker_id,
            inherited(correlation_id),
            history_retention,
            execution_id,
            parent_id=inherited_parent(parent_id),
            traceparent=traceparent,
        )
        lifecycle = Lifecycle(
            self._rows,
            self._tracked_in,
            row,
            on_history_error,
            is_chosen=self._rows.is_chosen(share),
        )
        await lifecycle.start_async(greenlet_spawn, may_exist=execution_id is not None)
        return AsyncExecution(lifecycle, greenlet_spawn)

    def track(
        self,
        job: JobLike | Mapping[str, Any] | Callable[..., JobLike | Mapping[str, Any]],
        worker_id: Id,
        correlation_id: Id | None = None,
        *,
        on_history_error: OnHistoryError = "log",
        history_retention: Duration | None = None,
        heartbeat: Duration | None = None,
        log_tail: int | str | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
        record: Recorded = "all",
    ) -> AsyncTracker:
        """Record the start and the outcome of an `async with` block or a coroutine.

        If the task is cancelled while a start or an outcome is being recorded, the recording
        finishes first. The rest is as for `HistoryStore.track`.
        """
        share = read_recorded(record, "record")
        return AsyncTracker(
            self._rows,
            self._tracked_in,
            greenlet_spawn,
            TrackOptions(
                job,
                worker_id,
                correlation_id,
                history_retention,
                heartbeat=self._heartbeat_interval(heartbeat, share),
                log_tail=None if log_tail is None else parse_size(log_tail, "log_tail"),
                execution_id=execution_id,
                parent_id=parent_id,
                traceparent=traceparent,
                share=share,
            ),
            on_history_error,
        )
