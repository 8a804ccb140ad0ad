"""The methods of stores that maintain history: expiry, deletion on request, and lost workers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol, Unpack

from jobhistory._runtime.batches import Batches
from jobhistory.base_store import AnyCriteria
from jobhistory.errors import InvalidInput
from jobhistory.execution.rows import RowBuilder
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.query.lost import LostQuery
from jobhistory.query.reports import Count
from jobhistory.typing import CountCriteria, Duration, Id


class _History(Protocol):
    def count(self, query: HistoryQuery, cap: int | None) -> Count: ...

    def count_expired(self, now: datetime) -> int: ...

    def expire(self, now: datetime, batches: Batches) -> int: ...

    def purge(self, query: HistoryQuery, batches: Batches) -> int: ...

    def reap_lost(self, lost: LostQuery, now: datetime, batches: Batches) -> int: ...


class MaintenanceMethods:
    """Deletes rows, and ends executions whose worker is lost. Each batch is a transaction.

    Args:
        maintained: the history.
    """

    def __init__(self, rows: RowBuilder, maintained: _History) -> None:
        self._rows = rows
        self._maintained = maintained

    def expire(
        self,
        *,
        batch_size: int = 2000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete expired rows, oldest first, and return the number deleted.

        Rows have expired if their `expires_at` is not later than the time at which the call began,
        by the clock of the store or of the database server, whichever is earlier. With SQLite, the
        server's clock is that of this machine.

        Each batch is a short transaction that blocks no one for long, and its deletions stay if a
        later batch fails. On PostgreSQL, locked rows are skipped, so several simultaneous calls
        share the work. If the table has partitions or inheritance children, these expire one after
        the other, in the order of their names.

        A trigger, row-level security, or a foreign key without `ON DELETE` can keep rows. They
        stay, all others are deleted, and one warning in the log gives the number of kept rows. Each
        row that a foreign key keeps costs a few more statements.

        A store in memory forgets expired executions, including those in the ring buffer.

        Args:
            batch_size: the maximum number of rows that one transaction deletes.
            time_limit: stop after the first batch that ends later than this, and log a warning. At
                least one batch runs.
            dry_run: delete nothing, and return the number of expired rows, including rows that
                would be kept.
            progress: called after each batch with the number of rows deleted so far.

        Raises:
            InvalidInput: if an argument cannot be used.
            UnsafeExpiry: if a batch would delete more rows than it selected, as happens if a view
                of partitions replaces the table. That batch is rolled back.
        """
        batches = Batches("expire", batch_size, time_limit, progress)
        now = self._rows.now()
        if dry_run:
            return self._maintained.count_expired(now)
        return self._maintained.expire(now, batches)

    def purge(
        self,
        /,
        criteria: AnyCriteria = None,
        *,
        batch_size: int = 2000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        **named: Unpack[CountCriteria],
    ) -> int:
        """Delete the executions that meet all criteria, oldest first, and return their number.

        It deletes rows whether or not they have expired, for example when a customer leaves, or
        asks for it. The ring buffer of this store forgets the deleted executions. Those of other
        stores keep theirs until newer executions take their place. Backups keep theirs, too.

        **Executions that are still running come back.** It deletes them, too, unless `status`
        leaves them out. But `track`, `begin` and a `Recorder` write the whole row at the end if it
        is gone, payload included, and so does a failure whose transaction is rolled back. Purge
        again when the jobs have ended. Only the recording methods of a store raise
        `ExecutionNotFound`.

        Each batch is a short transaction, and its deletions stay if a later batch fails. If an
        execution stops meeting the criteria meanwhile, it stays. A trigger or row-level security
        can keep rows. All others are deleted, and one warning in the log gives the number of rows
        that were found and not deleted. Several simultaneous calls share the work. Unlike `expire`,
        a batch waits for rows that another session has locked.

        Criteria without an index, such as `labels`, read all executions of the window twice. A
        batch that finds few of them takes as long as reading them.

        Args:
            criteria, named: as for `query`, except `limit` and `order`. At least one is needed. The
                default limit of a `HistoryQuery` does not apply.
            batch_size: the number of rows that one transaction finds. It also deletes what others
                record among them meanwhile.
            time_limit, progress: as for `expire`.
            dry_run: delete nothing, and return the number of executions that meet the criteria.

        Raises:
            InvalidInput: if an argument cannot be used, or there is no criterion.
            sqlalchemy.exc.IntegrityError: if a foreign key without `ON DELETE` refers to a row. Its
                batch is rolled back, and so is that of each later call, until the reference is
                gone or the criteria leave the row out.
        """
        query = coerce(criteria, named, without=("limit", "order"))
        if query == HistoryQuery():
            raise InvalidInput(
                "criteria", {}, "would delete all of history; pass one, such as status='completed'"
            )
        batches = Batches("purge", batch_size, time_limit, progress)
        if dry_run:
            return self._maintained.count(query, None).value
        return self._maintained.purge(query, batches)

    def reap_lost(
        self,
        older_than: Duration | None = None,
        *,
        heartbeat_older_than: Duration | None = None,
        started_before: datetime | None = None,
        task_identifier: str | Collection[str] | None = None,
        worker_id: Id | Collection[Id] | None = None,
        batch_size: int = 1000,
        time_limit: Duration | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Mark executions of lost workers as failed, oldest first, and return their number.

        An execution is presumed lost if it has no outcome and meets all criteria that you pass. At
        least one of the three times is needed. The time is that of the store or of the database
        server, whichever is earlier. The execution becomes a failure with the error type
        `jobhistory.WorkerLost`, a message that gives its start or its last heartbeat, and an
        unknown duration. The ring buffer gets it.

        If a worker reports an outcome at the same time, that outcome wins. An outcome that is
        reported later replaces the failure, once. Several simultaneous calls share the work. Rows
        that a trigger protects stay `started`, and one warning in the log gives their number.

        With PostgreSQL 16 and later, an index finds the running executions; see
        `migrate.maintain`. Elsewhere, this reads all of history in the window once, or only the
        rows that match the filters.

        Args:
            older_than: the execution started this long ago or longer: a `timedelta`, or a text such
                as `"2h"`. It must be longer than the longest job takes.
            heartbeat_older_than: the last heartbeat is this long ago or longer. It must be several
                times as long as the interval of the heartbeats, and longer than the clocks of the
                workers differ. Executions without heartbeats never match.
            started_before: the execution started before this aware `datetime`. A worker that starts
                passes its own `worker_id` and the current time to end what its previous process
                left behind.
            task_identifier: only executions of this task, or of one of these tasks.
            worker_id: only executions of this worker, or of one of these workers.
            batch_size, time_limit, progress: as for `expire`.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        batches = Batches("reap_lost", batch_size, time_limit, progress)
        lost = LostQuery.of(
            older_than,
            heartbeat_older_than,
            started_before,
            task_identifier=task_identifier,
            worker_id=worker_id,
            limit=batch_size,
        )
        return self._maintained.reap_lost(lost, self._rows.now(), batches)
