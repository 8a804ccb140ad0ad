"""What all stores can do, in any storage and in any transaction: record, read and track."""

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
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.rows import RowBuilder
from jobhistory.execution.status import Status
from jobhistory.lifecycle import Run
from jobhistory.query.criteria import LARGEST_LIMIT, HistoryQuery, coerce, replace
from jobhistory.query.cursor import Cursor, Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats, parse_bucket
from jobhistory.recording_methods import RecordingMethods
from jobhistory.schema import HistoryRecord, plain
from jobhistory.tracking_methods import TrackingMethods
from jobhistory.typing import (
    CountCriteria,
    Criteria,
    Duration,
    GroupCriteria,
    Id,
    IterateCriteria,
)

Row = dict[str, Any]
AnyCriteria: TypeAlias = HistoryQuery | Mapping[str, Any] | None


class _History(Protocol):
    def insert(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_ended(self, row: Row, *, may_exist: bool = False) -> HistoryRecord: ...

    def insert_many_ended(self, rows: list[Row]) -> None: ...

    def heartbeat(self, id_: UUID, values: Row) -> bool: ...

    def exchange_label(self, id_: UUID, name: str, old: str | None, new: str | None) -> bool: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def get(self, id_: UUID) -> HistoryRecord | None: ...

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


class BaseStore(RecordingMethods[HistoryRecord], TrackingMethods):
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
        RecordingMethods.__init__(self, internals.rows, internals.history)
        TrackingMethods.__init__(self, internals.rows, internals.history, run_in_thread)
        self.internals = internals
        self._history = internals.history

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

    def get(self, execution_id: UUID) -> HistoryRecord | None:
        """Return the execution with an id; `None` if there is none, as `Session.get` does.

        Raises:
            InvalidInput: if the id is not a `uuid.UUID`.
        """
        if not isinstance(execution_id, UUID):
            raise InvalidInput(
                "execution_id", execution_id, "is not a uuid.UUID; pass the id of a record"
            )
        return self._history.get(execution_id)

    def get_by_job_id(self, job_id: Id, *, limit: int | None = None) -> list[HistoryRecord]:
        """Return all executions of a job, newest first.

        Args:
            limit: the maximum number of records, of the newest; `None` for no limit.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        return self._history.find(HistoryQuery(job_id=id_text(job_id, "job_id"), limit=limit))

    def get_by_correlation_id(
        self, correlation_id: Id, *, limit: int | None = None
    ) -> list[HistoryRecord]:
        """Return all executions with a correlation id, newest first.

        Args:
            limit: as for `get_by_job_id`.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        id_ = id_text(correlation_id, "correlation_id")
        return self._history.find(HistoryQuery(correlation_id=id_, limit=limit))

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
        query = _in_order(coerce(criteria, named))
        cursor = None if after is None else Cursor.from_text(after, query, "after")
        limit = query.limit
        if limit is None:
            return Page(self._history.find(query, cursor), None)
        # One more, to know whether there is another page.
        most = min(limit + 1, LARGEST_LIMIT)
        records = self._history.find(replace(query, limit=most), cursor)
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
        query = _in_order(coerce(criteria, named, without=("limit",)))
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
            check_count(cap, "cap", least=0, example=10_000)
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


def _in_order(query: HistoryQuery) -> HistoryQuery:
    """Return the query with an order, because there is no next record without one."""
    return replace(query, order="newest") if query.order is None else query
