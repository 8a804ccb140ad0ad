"""The methods of stores and recorders that record starts and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, Unpack, overload
from uuid import UUID

from jobhistory.errors import InvalidInput
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import Which, which_execution
from jobhistory.execution.rows import RowBuilder, has_id
from jobhistory.execution.status import Status
from jobhistory.execution.values import read_recorded
from jobhistory.lifecycle import Destination
from jobhistory.schema import HistoryRecord, plain, values_of
from jobhistory.typing import (
    Duration,
    ErrorLike,
    Id,
    JobLike,
    Milliseconds,
    Recorded,
    RecordFields,
)

R_co = TypeVar("R_co", covariant=True)


class RecordingMethods(Generic[R_co]):
    """Records starts and outcomes, each in one call.

    Args:
        destination: where they are recorded. Its methods determine what the calls return.
    """

    def __init__(self, rows: RowBuilder, destination: Destination[R_co]) -> None:
        self._rows = rows
        self._destination = destination

    def record_start(
        self,
        job: JobLike | Mapping[str, Any],
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
        parent_id: UUID | None = None,
        traceparent: str | None = None,
    ) -> R_co:
        """Record that a worker starts to execute a job now.

        With an `execution_id`, the call can be repeated safely, even after the outcome: if there is
        a record with that id, the call returns it and changes nothing. Without an `execution_id`, a
        repeated call records a second execution.

        Args:
            job: a `Job`, any object with the attributes of one, or a mapping with its keys: `id`
                and `task_identifier`, and optionally `payload`, `attempts`, `run_at` and `labels`.
                The time from `run_at` to the start becomes `queue_time_ms`.
            worker_id: the id of the worker that executes the job.
            correlation_id: an id that ties this execution to others, such as the id of a request, a
                trace or a workflow.
            history_retention: how long the row is kept; `None` for the store's retention.
            execution_id: the id of the record, made by `new_execution_id`; `None` for a new one.
            parent_id: the id of the record of the execution that started this one, if any.
            traceparent: the W3C `traceparent` that came with the job, such as
                `"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`. By default, the trace
                and span ids are those of OpenTelemetry's current span, if the app has imported
                OpenTelemetry.

        Returns:
            The record, with status `started`. The ring buffer does not change until it ends. The
            recording methods of a `Recorder` return `None`.

        Raises:
            InvalidInput: if an argument cannot be used, a mapping has an unknown key, or the
                `execution_id` belongs to another job or task. No payload raises an error.
            RecorderFull: if a `Recorder` has no room and does not wait for it.
            RecorderClosed: if a `Recorder` is closed. What history refuses later, it logs.
        """
        row = self._rows.started(
            job,
            worker_id,
            correlation_id,
            history_retention,
            execution_id,
            parent_id=parent_id,
            traceparent=traceparent,
        )
        return self._destination.insert(row, may_exist=execution_id is not None)

    @overload
    def record_completion(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None = None,
        *,
        result: Any = None,
    ) -> R_co: ...

    @overload
    def record_completion(
        self,
        record: HistoryRecord,
        /,
        *,
        execution_time_ms: Milliseconds | None = None,
        result: Any = None,
    ) -> R_co: ...

    @overload
    def record_completion(
        self,
        *,
        execution_id: UUID,
        execution_time_ms: Milliseconds | None = None,
        result: Any = None,
    ) -> R_co: ...

    def record_completion(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        result: Any = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Record that an execution completed.

        The three ids select the newest started execution that `record_start` recorded with them. A
        record in place of the three ids, or an `execution_id`, selects exactly one execution.

        If `reap_lost` marked the execution as failed because its worker was presumed lost, this
        outcome replaces that failure, once.

        Args:
            job_id, worker_id, correlation_id: the ids passed to `record_start`. Alternatively, the
                first argument is the record that it returned, and the other two are left out.
            execution_time_ms: the duration in milliseconds, rounded to a whole number, or a
                `timedelta`; `None` for the time since the start.
            result: what the job returned. Any value is allowed; the store sanitizes it for JSON, as
                it does the payload. `None` stores nothing.
            execution_id: the id of the record, in place of the three ids.

        Returns:
            The ended record. Its `completed_at` is now, but not before the start. If the execution
            already ended with the same outcome, as after a repeated call, the call returns the
            existing record and leaves the ring buffer unchanged.

        Raises:
            ExecutionNotFound: if there is no such execution.
            ExecutionAlreadyFinished: if it ended with another outcome. When callers race, exactly
                one wins, and the others get this error.
            InvalidInput: if an argument cannot be used.
        """
        which = _which_of(job_id, worker_id, correlation_id, execution_id)
        return self._destination.end(self._rows.completed(which, execution_time_ms, result))

    @overload
    def record_failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None,
        error: ErrorLike,
        *,
        will_retry: bool | None = None,
    ) -> R_co: ...

    @overload
    def record_failure(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None = None,
        *,
        error: ErrorLike,
        will_retry: bool | None = None,
    ) -> R_co: ...

    @overload
    def record_failure(
        self,
        record: HistoryRecord,
        /,
        *,
        error: ErrorLike,
        execution_time_ms: Milliseconds | None = None,
        will_retry: bool | None = None,
    ) -> R_co: ...

    @overload
    def record_failure(
        self,
        *,
        execution_id: UUID,
        error: ErrorLike,
        execution_time_ms: Milliseconds | None = None,
        will_retry: bool | None = None,
    ) -> R_co: ...

    def record_failure(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        error: ErrorLike | None = None,
        *,
        will_retry: bool | None = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Record that an execution failed, and why.

        Args:
            error: an exception, whose type, message and traceback with all causes are stored; or a
                `Failure`; or a text, which is stored with the type `"Error"` and no traceback.
            will_retry: whether the job will be tried again after this attempt. `False` or `None`
                mean that the failure is final.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = _which_of(job_id, worker_id, correlation_id, execution_id)
        return self._destination.end(self._rows.failed(which, execution_time_ms, error, will_retry))

    @overload
    def record_partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> R_co: ...

    @overload
    def record_partial_success(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None = None,
        *,
        partial_results: PartialResults | Mapping[str, Any],
    ) -> R_co: ...

    @overload
    def record_partial_success(
        self,
        record: HistoryRecord,
        /,
        *,
        partial_results: PartialResults | Mapping[str, Any],
        execution_time_ms: Milliseconds | None = None,
    ) -> R_co: ...

    @overload
    def record_partial_success(
        self,
        *,
        execution_id: UUID,
        partial_results: PartialResults | Mapping[str, Any],
        execution_time_ms: Milliseconds | None = None,
    ) -> R_co: ...

    def record_partial_success(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Record that only some steps of an execution succeeded.

        Args:
            partial_results: a `PartialResults`, or a mapping with its keys: `completed_steps`,
                `failed_steps`, `retry_from_step`, `results`. All are optional.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = _which_of(job_id, worker_id, correlation_id, execution_id)
        return self._destination.end(
            self._rows.partly_succeeded(which, execution_time_ms, partial_results)
        )

    @overload
    def record_cancellation(
        self,
        job_id: Id,
        worker_id: Id,
        correlation_id: Id,
        execution_time_ms: Milliseconds | None = None,
        *,
        reason: str | None = None,
    ) -> R_co: ...

    @overload
    def record_cancellation(
        self,
        record: HistoryRecord,
        /,
        *,
        execution_time_ms: Milliseconds | None = None,
        reason: str | None = None,
    ) -> R_co: ...

    @overload
    def record_cancellation(
        self,
        *,
        execution_id: UUID,
        execution_time_ms: Milliseconds | None = None,
        reason: str | None = None,
    ) -> R_co: ...

    def record_cancellation(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        reason: str | None = None,
        execution_id: UUID | None = None,
    ) -> R_co:
        """Record that an execution began and was stopped, for example because it was revoked.

        A cancellation is not a failure: it has no `error_type`, and reports count it separately. If
        a time limit ended the execution, record a failure with `TimedOut` instead.

        Args:
            reason: why it was stopped. It is stored as the `error_message`.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = _which_of(job_id, worker_id, correlation_id, execution_id)
        return self._destination.end(self._rows.cancelled(which, execution_time_ms, reason))

    def record_execution(
        self,
        /,
        execution: HistoryRecord | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
        record: Recorded = "all",
        **fields: Unpack[RecordFields],
    ) -> R_co:
        """Record an execution that has already ended, in one statement.

        Use it if you learn of an execution only when it ends. If there is an `execution_id` (or an
        `id` among the fields), and the execution with that id has started, it gets this outcome;
        otherwise the whole row is inserted. So the start and the outcome may arrive in any order,
        and more than once each: the result is one row.

        Args:
            execution: a record, or a mapping with its fields as keys: at least `job_id`,
                `worker_id`, `correlation_id`, `task_identifier` and `status`. An `error`, as for
                `record_failure`, can replace the status and the error fields. With a `Cancelled` or
                a `CancelledError`, the status is `cancelled`.
            execution_id: the id of the record, made by `new_execution_id(started_at)`.
            record: `"failures"` or a share, as for `track`, to store an execution only if it did
                not complete or is chosen at random. Otherwise, each call counts it in statistics,
                so it cannot have an `execution_id`.
            fields: the same fields by name. They override those of the mapping.

        Returns:
            The record, even if it is not stored. Missing values are filled in: any two of
            `started_at`, `completed_at` and `execution_time_ms` determine the third; if neither
            time is given, `completed_at` is now; `expires_at` follows the store's retention. If the
            execution already ended with the same outcome, the call returns the existing record and
            leaves the ring buffer unchanged.

        Raises:
            ExecutionAlreadyFinished: if the execution with that id ended with another outcome.
            InvalidInput: if a field is missing, unknown or invalid, the status is not an outcome,
                the end is before the start, or the `execution_id` belongs to another job or task.
        """
        if execution_id is not None:
            fields["id"] = execution_id
        share = read_recorded(record, "record")
        given = plain(execution)
        may_exist = has_id(given, fields)
        if share is not None and may_exist:
            raise InvalidInput(
                "record",
                record,
                "cannot be combined with an execution_id, because an execution that is only "
                "counted cannot be found again; leave one of them out",
            )
        row = self._rows.ended(given, fields)
        if row["status"] is Status.COMPLETED and self._rows.is_chosen(share) is False:
            return self._destination.count_only(row)
        return self._destination.insert_ended(row, may_exist=may_exist)


def _which_of(
    job_id: Id | HistoryRecord | None,
    worker_id: Id | None,
    correlation_id: Id | None,
    execution_id: UUID | None,
) -> Which:
    """Return the execution that a caller identifies by three ids, an execution id or a record.

    Raises:
        InvalidInput: if an id is invalid, or if the caller combines several of these ways.
    """
    if isinstance(job_id, HistoryRecord):
        row = values_of(job_id)
        return which_execution(None, worker_id, correlation_id, execution_id, row)
    return which_execution(job_id, worker_id, correlation_id, execution_id)
