"""Record, read and track executions, wherever history is stored and whoever commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, Unpack
from uuid import UUID

from sqlalchemy.orm import Session

from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import id_text
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import Outcome, Which, which_execution
from jobhistory.execution.rows import RowBuilder, has_id
from jobhistory.execution.status import Status
from jobhistory.lifecycle import Run
from jobhistory.query.criteria import HistoryQuery, coerce, replace
from jobhistory.query.cursor import Cursor, Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats, parse_bucket
from jobhistory.schema import HistoryRecord, plain, values_of
from jobhistory.tracking_methods import TrackingMethods
from jobhistory.typing import (
    CountCriteria,
    Criteria,
    Duration,
    ErrorLike,
    GroupCriteria,
    Id,
    IterateCriteria,
    JobLike,
    Milliseconds,
    RecordFields,
)

Row = dict[str, Any]
AnyCriteria: TypeAlias = HistoryQuery | Mapping[str, Any] | None


class _History(Protocol):
    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_many_ended(self, rows: list[Row]) -> None: ...

    def heartbeat(self, id_: UUID, values: Row) -> None: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]: ...

    def count(self, query: HistoryQuery, cap: int | None) -> Count: ...

    def stats(self, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]: ...

    def failure_groups(self, query: HistoryQuery) -> list[FailureGroup]: ...


H_co = TypeVar("H_co", bound=_History, covariant=True)


@dataclass(frozen=True)
class Internals(Generic[H_co]):
    """The parts of a store, for other modules of this package. They may change in any release."""

    rows: RowBuilder
    history: H_co
    session_factory: Callable[[], Session] | None = None


class BaseStore(TrackingMethods):
    """Records, reads and tracks executions in the caller's transaction.

    `HistoryStore.in_session` returns one. Like its session, it is for one thread at a time. It
    never commits. Its records are detached and fully loaded.

    `HistoryStore` extends this class: there, each call has its own transaction. Annotate a function
    that accepts either kind of store with this class.
    """

    _may_send_heartbeats = False

    def __init__(
        self,
        internals: Internals[_History],
        run_in_thread: Run | None = None,
    ) -> None:
        super().__init__(internals.rows, internals.history, run_in_thread)
        self.internals = internals
        self._history = internals.history

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
    ) -> HistoryRecord:
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
            The record, with status `started`. The ring buffer does not change until it ends.

        Raises:
            InvalidInput: if an argument cannot be used, a mapping has an unknown key, or the
                `execution_id` belongs to another job or task. No payload raises an error.
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
        return self._history.insert(row, may_exist=execution_id is not None)

    def record_completion(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        result: Any = None,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
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
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(self._rows.completed(which, execution_time_ms, result))

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
    ) -> HistoryRecord:
        """Record that an execution failed, and why.

        Args:
            error: an exception, whose type, message and traceback with all causes are stored; or a
                `Failure`; or a text, which is stored with the type `"Error"` and no traceback.
            will_retry: whether the job will be tried again after this attempt. `False` or `None`
                mean that the failure is final.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(self._rows.failed(which, execution_time_ms, error, will_retry))

    def record_partial_success(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        partial_results: PartialResults | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """Record that only some steps of an execution succeeded.

        Args:
            partial_results: a `PartialResults`, or a mapping with its keys: `completed_steps`,
                `failed_steps`, `retry_from_step`, `results`. All are optional.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(
            self._rows.partly_succeeded(which, execution_time_ms, partial_results)
        )

    def record_cancellation(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        reason: str | None = None,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """Record that an execution began and was stopped, for example because it was revoked.

        A cancellation is not a failure: it has no `error_type`, and reports count it separately. If
        a time limit ended the execution, record a failure with `TimedOut` instead.

        Args:
            reason: why it was stopped. It is stored as the `error_message`.

        The other arguments, the return value and the errors are those of `record_completion`.
        """
        which = which_of(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(self._rows.cancelled(which, execution_time_ms, reason))

    def record_execution(
        self,
        /,
        execution: HistoryRecord | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
        **fields: Unpack[RecordFields],
    ) -> HistoryRecord:
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
            fields: the same fields by name. They override those of the mapping.

        Returns:
            The record. Missing values are filled in: any two of `started_at`, `completed_at` and
            `execution_time_ms` determine the third; if neither time is given, `completed_at` is
            now; `expires_at` follows the store's retention. If the execution already ended with the
            same outcome, the call returns the existing record and leaves the ring buffer unchanged.

        Raises:
            ExecutionAlreadyFinished: if the execution with that id ended with another outcome.
            InvalidInput: if a field is missing, unknown or invalid, the status is not an outcome,
                the end is before the start, or the `execution_id` belongs to another job or task.
        """
        if execution_id is not None:
            fields["id"] = execution_id
        given = plain(execution)
        row = self._rows.ended(given, fields)
        return self._history.insert_ended(row, may_exist=has_id(given, fields))

    def record_many(self, executions: Iterable[HistoryRecord | Mapping[str, Any]]) -> int:
        """Record many executions that have already ended, all or none, and return their number.

        One transaction writes them in the fastest way that the driver offers: COPY on PostgreSQL
        with psycopg, otherwise one INSERT for many rows. All executions are held in memory, so pass
        a few thousand at a time.

        Args:
            executions: each as for `record_execution`. An `id` must be new. Use `record_execution`
                for executions that may be in history already.

        Raises:
            InvalidInput: if an execution cannot be used. The message names its index, as in
                `executions[3].status`. Nothing is written.
            sqlalchemy.exc.IntegrityError: if a row with one of the ids exists. Nothing is written.
        """
        rows = []
        for index, execution in enumerate(executions):
            which = f"executions[{index}]"
            try:
                rows.append(self._rows.ended(plain(execution), argument=which))
            except InvalidInput as error:
                argument = (
                    error.argument if error.argument == which else f"{which}.{error.argument}"
                )
                raise InvalidInput(argument, error.value, error.remedy) from None
        self._history.insert_many_ended(rows)
        return len(rows)

    def get_by_job_id(self, job_id: Id) -> list[HistoryRecord]:
        """Return all executions of a job, newest first.

        Raises:
            InvalidInput: if the id cannot be used.
        """
        return self._history.find(HistoryQuery(job_id=id_text(job_id, "job_id"), limit=None))

    def get_by_correlation_id(self, correlation_id: Id) -> list[HistoryRecord]:
        """Return all executions with a correlation id, newest first.

        Raises:
            InvalidInput: if the id cannot be used.
        """
        id_ = id_text(correlation_id, "correlation_id")
        return self._history.find(HistoryQuery(correlation_id=id_, limit=None))

    def query(
        self, /, criteria: AnyCriteria = None, **named: Unpack[Criteria]
    ) -> list[HistoryRecord]:
        """Return the executions that meet all criteria, newest first; at most 100 by default.

        Criteria are arguments, a mapping, or a `HistoryQuery`, whose documentation lists them.
        Arguments override criteria of the same name. A mapping may use `"from"` for `from_`.

        Raises:
            InvalidInput: if a criterion is unknown or invalid.
        """
        return self._history.find(coerce(criteria, named))

    def page(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        after: str | None = None,
        **named: Unpack[Criteria],
    ) -> Page:
        """Return one page of the executions that meet all criteria, and a cursor to the next one.

        Each page costs the same, however far it is from the first. All pages together contain what
        `query` returns without a limit. Whatever is recorded meanwhile, no record comes twice, and
        none is missing that existed and met the criteria the whole time.

        Args:
            criteria, named: as for `query`. `limit` is the size of a page, by default 100; it may
                differ from page to page.
            after: the `next_cursor` of the previous page; `None` for the first page.

        Raises:
            InvalidInput: as for `query`, and if `after` is not a cursor, or belongs to other
                criteria. A relative time, such as an hour ago, changes with each call: compute it
                once for all pages.
        """
        query = coerce(criteria, named)
        cursor = None if after is None else Cursor.from_text(after, query, "after")
        limit = query.limit
        if limit is None:
            return Page(self._history.find(query, cursor), None)
        records = self._history.find(replace(query, limit=limit + 1), cursor)
        if len(records) <= limit:
            return Page(records, None)
        del records[limit:]
        return Page(records, Cursor.after(records[-1]).to_text(query))

    def iterate(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        batch_size: int = 500,
        **named: Unpack[IterateCriteria],
    ) -> Iterator[HistoryRecord]:
        """Return an iterator over all executions that meet all criteria, in bounded memory.

        It reads in batches. Each batch has its own short transaction, unless the store is in
        yours; no connection is held between batches. As with pages, executions that are recorded or
        deleted in the meantime may or may not appear.

        Args:
            criteria, named: as for `query`, except `limit`: stop iterating when you have enough.
            batch_size: the number of records to read, and to hold in memory, at a time.

        Raises:
            InvalidInput: if a criterion or the batch size is invalid. The call itself raises it.
        """
        check_count(batch_size, "batch_size", example=500)
        query = coerce(criteria, named, without=("limit",))
        return chain.from_iterable(self._find_all(replace(query, limit=batch_size)))

    def count(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        cap: int | None = None,
        **named: Unpack[CountCriteria],
    ) -> Count:
        """Return the number of executions that meet all criteria.

        Without a cap, the database reads all of them. With a cap, it stops at one more: the count
        is then shown as `"10000+"`, and its `is_capped` is true.

        Args:
            criteria, named: as for `query`, except `limit` and `order`.
            cap: the largest number to count to; `None` for no limit.

        Raises:
            InvalidInput: if a criterion or the cap is invalid.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        if cap is not None:
            check_count(cap, "cap", least=0, example=10_000, most=2**63 - 2)
        return self._history.count(query, cap)

    def stats(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        bucket: Duration | None = None,
        **named: Unpack[CountCriteria],
    ) -> list[TaskStats]:
        """Return statistics for each task: counts by status, failure rate and durations.

        The database computes them. It reads every execution that meets the criteria, so pass
        `from_` in a large history.

        Args:
            criteria, named: as for `query`, except `limit` and `order`.
            bucket: the length of a time bucket, such as `"1h"` or `"1d"`, for a series over time.
                Buckets are aligned to a Monday at midnight UTC, so hours, days and weeks begin
                where people expect. Buckets in which nothing started are left out.

        Returns:
            One item for each task, or for each task and bucket, ordered by name, then by time.

        Raises:
            InvalidInput: if a criterion or the bucket is invalid.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        return self._history.stats(query, parse_bucket(bucket))

    def failure_groups(
        self, /, criteria: AnyCriteria = None, **named: Unpack[GroupCriteria]
    ) -> list[FailureGroup]:
        """Return failures in groups: task, error type, fingerprint of the message, and count.

        Messages have the same fingerprint if they differ only in numbers, ids, addresses and quoted
        values. The database groups them. It reads every failure that meets the criteria, so pass
        `from_` in a large history. SQLite has no regular expressions, so its connection gets a
        function named `jobhistory_fingerprint`.

        Args:
            criteria, named: as for `query`, except `status` and `order`. `limit` is the maximum
                number of groups, 100 by default.

        Returns:
            The most frequent group first. Of equally frequent groups, the latest comes first.

        Raises:
            InvalidInput: if a criterion is unknown or invalid.
        """
        query = coerce(criteria, named, without=("status", "order"))
        return self._history.failure_groups(replace(query, status=(Status.FAILED,)))

    def running(
        self, /, criteria: AnyCriteria = None, **named: Unpack[GroupCriteria]
    ) -> list[HistoryRecord]:
        """Return executions that have not ended, longest running first; at most 100 by default.

        The worker of such an execution may have died. `reap_lost` marks those as failed.

        On PostgreSQL 16 and later, an index finds them; see `migrate.maintain`. Elsewhere, this
        scans every execution that meets the criteria, because an ordinary index on the status would
        slow down every completion. There, pass `from_` in a large history: the earliest start of
        anything that may still be running.

        Args:
            criteria, named: as for `query`, except `status` and `order`.

        Raises:
            InvalidInput: if a criterion is unknown or invalid.
        """
        query = coerce(criteria, named, without=("status", "order"))
        return self._history.find(replace(query, status=(Status.STARTED,), order="oldest"))

    def _find_all(self, query: HistoryQuery) -> Iterator[list[HistoryRecord]]:
        cursor = None
        while records := self._history.find(query, cursor):
            cursor = Cursor.after(records[-1])  # now, as the caller may change the record
            yield records
            if len(records) < (query.limit or 0):
                return


def which_of(
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
