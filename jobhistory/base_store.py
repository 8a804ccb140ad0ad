"""What all stores can do, in any storage and in any transaction: record, read and track."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, Unpack
from uuid import UUID

from sqlalchemy.orm import Session

from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import id_text
from jobhistory.execution.outcome import Outcome
from jobhistory.execution.rows import RowBuilder
from jobhistory.execution.status import Status
from jobhistory.lifecycle import Run
from jobhistory.query.criteria import LARGEST_LIMIT, HistoryQuery, coerce, replace
from jobhistory.query.cursor import Cursor, Page
from jobhistory.query.reports import Count, FailureGroup, TaskStats, WorkerActivity, parse_bucket
from jobhistory.query.rollups import is_of_known
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

    def count_only(self, row: Row) -> HistoryRecord: ...

    def insert_many_ended(self, rows: list[Row]) -> None: ...

    def heartbeat(self, id_: UUID, job_id: str, values: Row) -> bool: ...

    def exchange_label(
        self, id_: UUID, job_id: str, name: str, old: str | None, new: str | None
    ) -> bool: ...

    def end(self, outcome: Outcome) -> HistoryRecord: ...

    def get(self, id_: UUID) -> HistoryRecord | None: ...

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]: ...

    def count(self, query: HistoryQuery, cap: int | None, now: datetime | None = None) -> Count: ...

    def stats(
        self, query: HistoryQuery, bucket: timedelta | None, now: datetime | None = None
    ) -> list[TaskStats]: ...

    def failure_groups(
        self, query: HistoryQuery, known_for: timedelta | None = None
    ) -> list[FailureGroup]: ...

    def workers(self, query: HistoryQuery) -> list[WorkerActivity]: ...


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
        expired: bool = False,
        **named: Unpack[CountCriteria],
    ) -> Count:
        """Return the number of executions that meet all criteria, as `iterate` would return them.

        Without a cap, the database reads all of them. With a cap, it stops at one more: the count
        is then shown as `"10000+"`, and its `is_capped` is true.

        Args:
            criteria, named: as for `query`, except `limit` and `order`.
            cap: the largest number to count to; `None` for no limit.
            expired: whether to count all that ran, from the statistics: also executions that have
                expired, were deleted, or were never stored. The criteria can only be `from_`, `to`,
                `task_identifier` and `status`. It takes milliseconds in a history of any size. A
                window becomes wider at its ends, and rows answer alone, where `stats` says so.

        Raises:
            InvalidInput: if a criterion or the cap is invalid, or statistics do not know it.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        if cap is not None:
            check_count(cap, "cap", least=0, example=10_000)
        if not expired:
            return self._history.count(query, cap)
        if not is_of_known(query, "status"):
            raise InvalidInput(
                "expired",
                expired,
                "counts by from_, to, task_identifier and status only; leave out other criteria",
            )
        return self._history.count(query, cap, self._rows.now())

    def stats(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        bucket: Duration | None = None,
        exact: bool = False,
        **named: Unpack[CountCriteria],
    ) -> list[TaskStats]:
        """Return statistics for each task: counts by status, failure rate and durations.

        **They say what ran**, also after its rows have expired. The database keeps statistics of
        each task by hour, day and month, and reads rows only at the ragged ends of the window. So
        a window of any length takes tens of milliseconds, while rows of ten million executions take
        seconds. Counts are exact, and so are maxima. Percentiles are within 2 % of the exact ones,
        or exact if everything in the window has ended since statistics were last folded. An outcome
        that replaced a presumed one (`lost`) may leave the time of the latter in `last_failure` and
        in the percentiles. Before PostgreSQL 16, no index finds what still runs, so all rows in the
        window are read for that.

        A window that ends now or later includes all that starts after it. If the rows at an end of
        the window may be gone, it becomes wider, to whole hours. By default, hours are kept for 35
        days and days for 400, so an older window begins and ends with whole days or months.

        Only rows answer if there are other criteria than `from_`, `to` and `task_identifier`, if no
        whole hour fits into the window, or if buckets do not consist of whole hours; also where
        row-level security limits what the role may read, or the role may not read the tables of the
        statistics. Buckets of hours or days before those that are kept also come from rows.

        Args:
            criteria, named: as for `query`, except `limit` and `order`.
            bucket: the length of a time bucket, such as `"1h"` or `"1d"`, for a series over time.
                Buckets are aligned to a Monday at midnight UTC, so hours, days and weeks begin
                where people expect. Buckets in which nothing started are left out.
            exact: whether to read only rows, all that meet the criteria. The statistics are then
                those of the executions that `iterate` would return, without those that have expired
                or that `record="failures"` has not stored. Pass `from_` in a large history.

        Returns:
            One item for each task, or for each task and bucket, ordered by name, then by time.

        Raises:
            InvalidInput: if a criterion or the bucket is invalid.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        now = None if exact else self._rows.now()
        return self._history.stats(query, parse_bucket(bucket), now)

    def failure_groups(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        known_for: Duration | None = None,
        **named: Unpack[GroupCriteria],
    ) -> list[FailureGroup]:
        """Return failures in groups: task, error type, fingerprint of the message, and count.

        Messages have the same fingerprint if they differ only in numbers, ids, addresses and quoted
        values. The database groups them. It reads the row of every failure that meets the criteria,
        because statistics keep no messages. So pass `from_` in a large history. SQLite has no
        regular expressions, so its connection gets a function named `jobhistory_fingerprint`.

        Args:
            criteria, named: as for `query`, except `status` and `order`. `limit` is the maximum
                number of groups, 100 by default.
            known_for: how long before `from_` to search for failures of each group, such as `"7
                days"`. They must meet the other criteria. `is_new` then tells whether there is
                none. The search goes back from `from_` and ends at the first one. Only for a new
                group, it reads all failures of the task in that time.

        Returns:
            The most frequent group first. Of equally frequent groups, the latest comes first.

        Raises:
            InvalidInput: if a criterion is unknown or invalid, or `known_for` is not a duration.
        """
        query = coerce(criteria, named, without=("status", "order"))
        length = None if known_for is None else parse_duration(known_for, "known_for")
        return self._history.failure_groups(replace(query, status=(Status.FAILED,)), length)

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

    def workers(
        self, /, criteria: AnyCriteria = None, **named: Unpack[GroupCriteria]
    ) -> list[WorkerActivity]:
        """Return what each worker did, last seen first; at most 100 workers by default.

        It reads every row that meets the criteria, so pass `from_`. A worker of which nothing
        started in the window is not there, even if it still runs what started before: `running`
        finds that.

        Args:
            criteria, named: as for `query`, except `status` and `order`. `limit` is the maximum
                number of workers.

        Returns:
            One item for each worker id. Of several that were last seen at the same time, they are
            in the order of their ids.

        Raises:
            InvalidInput: if a criterion is unknown or invalid.
        """
        return self._history.workers(coerce(criteria, named, without=("status", "order")))

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
