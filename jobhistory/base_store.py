"""What can be recorded and asked, whatever holds the history and whoever commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import chain
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import id_text
from jobhistory.execution.job import PartialResults
from jobhistory.execution.outcome import Outcome, Which, which_execution
from jobhistory.execution.rows import RowBuilder, has_id
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery, coerce, replace
from jobhistory.query.cursor import Cursor, Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats, parse_bucket
from jobhistory.schema import HistoryRecord, plain, values_of
from jobhistory.typing import Duration, Id, Milliseconds

Row = dict[str, Any]
Criteria: TypeAlias = HistoryQuery | Mapping[str, Any] | None


class _History(Protocol):
    """Where executions are written, and found again."""

    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_many_ended(self, rows: list[Row]) -> None: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]: ...

    def count(self, query: HistoryQuery, cap: int | None) -> Count: ...

    def stats(self, query: HistoryQuery, bucket: timedelta | None) -> list[TaskStats]: ...

    def failures(self, query: HistoryQuery) -> list[FailureGroup]: ...


class BaseStore:
    """The methods that every kind of store has."""

    def __init__(self, rows: RowBuilder, history: _History) -> None:
        self._rows = rows
        self._history = history

    def record_start(
        self,
        job: Any,
        worker_id: Id,
        correlation_id: Id,
        *,
        history_retention: Duration | None = None,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """Record that a worker starts to execute a job now.

        With an `execution_id`, the call can be repeated, and may even come after the outcome: it
        returns the record with that id, if there is one, and changes nothing. Without one, a
        repeated call records a second execution.

        Args:
            job: a `Job`, any object with its attributes, or a mapping with its keys: `id`,
                `task_identifier`, and optionally `payload`, `attempts`, `run_at`. The time from
                `run_at` to the start is the record's `queue_time_ms`.
            worker_id: the worker that executes it.
            correlation_id: an id that ties this execution to others: of a request, a trace, a
                workflow.
            history_retention: how long this row lives; `None` for the store's own retention.
            execution_id: the id of the record, made by `new_execution_id`; `None` for a new one.

        Returns:
            The record, with status `started`. The ring buffer gets it when it has ended.

        Raises:
            InvalidInput: if an argument cannot be used, a mapping has an unknown key, or the
                `execution_id` is that of another job or task. A payload is never a reason.
        """
        row = self._rows.started(job, worker_id, correlation_id, history_retention, execution_id)
        return self._history.insert(row, may_exist=execution_id is not None)

    def record_completion(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """Record that an execution did its work.

        The three ids name the newest started execution that `record_start` recorded with them. A
        record, given in place of the three, or an `execution_id` names exactly one execution.

        An execution that `reap_lost` presumed lost takes this outcome in place of that, once.

        Args:
            job_id, worker_id, correlation_id: the ids that `record_start` was given; or, as the
                first of them, the record that it returned.
            execution_time_ms: how long it took, in milliseconds, rounded to whole ones, or a
                `timedelta`; `None` for the time since the start.
            execution_id: the id of the record, instead of the three.

        Returns:
            The ended record. Its `completed_at` is now, or the start, if that is later. If the
            execution had already ended with the same outcome, as after a repeated call, its record
            is returned as it is, and the ring buffer stays unchanged.

        Raises:
            ExecutionNotFound: if there is no such execution.
            ExecutionAlreadyFinished: if it ended with another outcome. When callers race, exactly
                one wins; the others get this error.
            InvalidInput: if an argument cannot be used.
        """
        which = _which_execution(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(self._rows.completed(which, execution_time_ms))

    def record_failure(
        self,
        job_id: Id | HistoryRecord | None = None,
        worker_id: Id | None = None,
        correlation_id: Id | None = None,
        execution_time_ms: Milliseconds | None = None,
        error: BaseException | str | None = None,
        *,
        execution_id: UUID | None = None,
    ) -> HistoryRecord:
        """Record that an execution failed, and why.

        Args:
            error: the exception, of which type, text and traceback with its causes are kept, or a
                text, whose type is then `"Error"`.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        which = _which_execution(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(self._rows.failed(which, execution_time_ms, error))

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
        """Record that some steps of an execution succeeded.

        Args:
            partial_results: a `PartialResults` or a mapping with its keys: `completed_steps`,
                `failed_steps`, `retry_from_step`, `results`; each may be left out.

        The other arguments, what is returned and what is raised are those of `record_completion`.
        """
        which = _which_execution(job_id, worker_id, correlation_id, execution_id)
        return self._history.end(
            self._rows.partly_succeeded(which, execution_time_ms, partial_results)
        )

    def record_execution(
        self,
        execution: HistoryRecord | Mapping[str, Any] | None = None,
        *,
        execution_id: UUID | None = None,
        **fields: Any,
    ) -> HistoryRecord:
        """Record an execution that has ended, in one statement.

        With an `execution_id` (or an `id` among the fields) it gives the execution with that id its
        outcome, if that has started, and inserts it whole otherwise. So the start and the outcome
        may arrive in any order, and each of them more than once: the result is one row.

        Args:
            execution: a record, or a mapping with its fields as keys: `job_id`, `worker_id`,
                `correlation_id`, `task_identifier` and `status` at least. In place of the status
                and the fields of a failure it may have an `error`, an exception or a text.
            execution_id: the id of the record, made by `new_execution_id(started_at)`.
            fields: the same by name; they replace those of the mapping.

        Returns:
            The record. Any two of `started_at`, `completed_at` and `execution_time_ms` determine
            the third; without both moments, the execution ended now. `expires_at` follows the
            store's retention. If the execution had already ended with the same outcome, its record
            is returned as it is, and the ring buffer stays unchanged.

        Raises:
            ExecutionAlreadyFinished: if the execution with that id ended with another outcome.
            InvalidInput: if a field is missing, unknown or unusable, the status is not an outcome,
                the end is before the start, or the `execution_id` is that of another job or task.
        """
        if execution_id is not None:
            fields["id"] = execution_id
        given = plain(execution)
        row = self._rows.ended(given, fields)
        return self._history.insert_ended(row, may_exist=has_id(given, fields))

    def record_many(self, executions: Iterable[HistoryRecord | Mapping[str, Any]]) -> int:
        """Record many executions that have ended, all or none, and say how many they are.

        They are written in one transaction, by the fastest way that the database has: COPY on
        PostgreSQL with psycopg, one INSERT executed many times elsewhere. All are held in memory;
        thousands at a time are a good measure.

        Args:
            executions: each as `record_execution` takes it. An `id` must be new: use
                `record_execution` for executions that may be in history already.

        Raises:
            InvalidInput: if one cannot be used, saying which; nothing is written then.
            sqlalchemy.exc.IntegrityError: if there is a row with one of the ids.
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
        """All executions of a job, newest first."""
        return self._history.find(HistoryQuery(job_id=id_text(job_id, "job_id"), limit=None))

    def get_by_correlation_id(self, correlation_id: Id) -> list[HistoryRecord]:
        """All executions that a correlation id ties together, newest first."""
        id_ = id_text(correlation_id, "correlation_id")
        return self._history.find(HistoryQuery(correlation_id=id_, limit=None))

    def query(self, criteria: Criteria = None, **named: Any) -> list[HistoryRecord]:
        """The executions that meet all criteria, newest first, 100 at the most without a `limit`.

        Criteria are given by name, as a mapping, or as a `HistoryQuery`, which lists them; named
        ones take the place of those of the same name. A mapping may say `"from"` for `from_`.

        Raises:
            InvalidInput: if a criterion is unknown or cannot be read.
        """
        return self._history.find(coerce(criteria, named))

    def page(self, criteria: Criteria = None, *, after: str | None = None, **named: Any) -> Page:
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
        self, criteria: Criteria = None, *, batch_size: int = 500, **named: Any
    ) -> Iterator[HistoryRecord]:
        """All executions that meet all criteria, one after the other, in bounded memory.

        They are read in batches, each in a short transaction of its own, unless the store is
        joined to yours: between them, no connection is held, and nobody waits. So it is as with
        pages what is recorded or deleted meanwhile may or may not come.

        Args:
            criteria, named: as with `query`, but for `limit`: who has enough stops.
            batch_size: how many are read, and held in memory, at once.

        Raises:
            InvalidInput: at once, if a criterion or the batch size cannot be used.
        """
        return chain.from_iterable(self._batches(criteria, batch_size, named))

    def count(self, criteria: Criteria = None, *, cap: int | None = None, **named: Any) -> Count:
        """Return the number of executions that meet all criteria.

        Without a cap, the database reads all of them. With a cap, it stops at one more: the count
        is then shown as `"10000+"`, and its `is_capped` is true.

        Args:
            criteria, named: as for `query`, except `limit` and `order`.
            cap: the greatest number of interest.

        Raises:
            InvalidInput: if a criterion or the cap cannot be used.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        if cap is not None:
            check_count(cap, "cap", least=0, example=10_000, most=2**63 - 2)
        return self._history.count(query, cap)

    def stats(
        self, criteria: Criteria = None, *, bucket: Duration | None = None, **named: Any
    ) -> list[TaskStats]:
        """How the executions of each task went: how many, how many failed, how long they took.

        The database computes it, and reads all executions that meet the criteria, so give `from_`
        in a large history.

        Args:
            criteria, named: as with `query`, but for `limit` and `order`.
            bucket: how long the periods are of which each gets statistics of its own, such as
                `"1h"` or `"1d"`: a series over time. They are counted from a Monday's midnight in
                UTC, so hours, days and weeks begin where people expect. Those in which nothing
                started are left out.

        Returns:
            One for each task, or each task and period, by name and then by time.

        Raises:
            InvalidInput: if a criterion or the bucket cannot be used.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        return self._history.stats(query, parse_bucket(bucket))

    def failures(self, criteria: Criteria = None, **named: Any) -> list[FailureGroup]:
        """The kinds of failures: of which task and type, with what message, and how often.

        Messages are of one kind if they differ only in numbers, ids, addresses and quoted values.
        The database groups them, and reads all failures that meet the criteria, so give `from_` in
        a large history. On SQLite, which has no regular expressions, its connection gets a function
        for that, `jobhistory_fingerprint`.

        Args:
            criteria, named: as with `query`, but for `status` and `order`; `limit` is how many
                kinds are returned at the most, 100 without it.

        Returns:
            The most frequent kind first; of two alike, the one that was seen last.

        Raises:
            InvalidInput: if a criterion is unknown or cannot be read.
        """
        query = coerce(criteria, named, without=("status", "order"))
        return self._history.failures(replace(query, status=(Status.FAILED,)))

    def running(self, criteria: Criteria = None, **named: Any) -> list[HistoryRecord]:
        """What has started and not ended, that which runs longest first, 100 without a `limit`.

        It may be that its worker died: `reap_lost` of a store ends such.

        No index tells started executions from others, as that would slow down each completion, so
        all executions that meet the criteria are looked through. In a large history, say with
        `from_` how long ago what still runs may have started.

        Args:
            criteria, named: as with `query`, but for `status` and `order`.

        Raises:
            InvalidInput: if a criterion is unknown or cannot be read.
        """
        query = coerce(criteria, named, without=("status", "order"))
        return self._history.find(replace(query, status=(Status.STARTED,), order="oldest"))

    def _batches(
        self, criteria: Criteria, batch_size: int, named: Mapping[str, Any]
    ) -> Iterator[list[HistoryRecord]]:
        check_count(batch_size, "batch_size", example=500)
        query = coerce(criteria, named, without=("limit",))
        return self._find_all(replace(query, limit=batch_size))

    def _find_all(self, query: HistoryQuery) -> Iterator[list[HistoryRecord]]:
        cursor = None
        while records := self._history.find(query, cursor):
            cursor = Cursor.after(records[-1])  # now, as the caller may change the record
            yield records
            if len(records) < (query.limit or 0):
                return


def _which_execution(
    job_id: Id | HistoryRecord | None,
    worker_id: Id | None,
    correlation_id: Id | None,
    execution_id: UUID | None,
) -> Which:
    if isinstance(job_id, HistoryRecord):
        row = values_of(job_id)
        return which_execution(None, worker_id, correlation_id, execution_id, row)
    return which_execution(job_id, worker_id, correlation_id, execution_id)
