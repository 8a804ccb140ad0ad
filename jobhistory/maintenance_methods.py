"""The methods of stores that maintain history: expiry, deletion on request, and lost workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Protocol, Unpack

from jobhistory._runtime.batches import Batches
from jobhistory.archive.archive import Archive
from jobhistory.base_store import AnyCriteria
from jobhistory.errors import InvalidInput
from jobhistory.execution.rows import RowBuilder
from jobhistory.query.criteria import HistoryQuery, coerce
from jobhistory.query.lost import LostQuery
from jobhistory.query.reports import Count, WaitingForPartition
from jobhistory.query.retention import RetentionCoverage
from jobhistory.statistics.spans import Span
from jobhistory.typing import CountCriteria, Duration, Id

_BATCH_SIZE = 2000
_ARCHIVED_BATCH_SIZE = 100_000


class _History(Protocol):
    def count(self, query: HistoryQuery, cap: int | None) -> Count: ...

    def count_expired(self, now: datetime, *, by_partition: bool) -> int: ...

    def waiting_for_partition(self, now: datetime) -> WaitingForPartition: ...

    def expire(
        self,
        now: datetime,
        batches: Batches,
        *,
        by_partition: bool,
        archive: Archive | None,
    ) -> int: ...

    def count_waiting(self) -> int: ...

    def fold(self, now: datetime, batches: Batches) -> int: ...

    def recount(self, from_: datetime, to: datetime) -> int: ...

    def purge(self, query: HistoryQuery, batches: Batches) -> int: ...

    def reap_lost(self, lost: LostQuery, now: datetime, batches: Batches) -> int: ...

    def retention(self, now: datetime) -> list[RetentionCoverage]: ...


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
        batch_size: int | None = None,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        archive: Archive | str | os.PathLike[str] | None = None,
        progress: Callable[[int], None] | None = None,
        by_partition: bool = False,
    ) -> int:
        """Delete expired rows, oldest first, and return the number deleted.

        Rows have expired if their `expires_at` is not later than the time at which the call began,
        by the clock of the store or of the database server, whichever is earlier. With SQLite, the
        server's clock is that of this machine.

        Each batch is a short transaction that blocks no one for long, and its deletions stay if a
        later batch fails. On PostgreSQL, locked rows are skipped, so several simultaneous calls
        share the work. If the table has partitions or inheritance children, these expire one after
        the other, in the order of their names.

        If the table is partitioned by ranges of ids and the role owns it, empty partitions of the
        past are dropped. With `by_partition`, so are those in which every row has expired, which
        takes a fraction of the time. Meanwhile, recording waits for some 20 ms. Rows then **live up
        to one partition longer than they say**, a week for example: they wait until all of their
        partition can be dropped, or all but a tenth of it, which is copied to another partition.
        If another session uses the table for long, they wait for the next call. Rows that would
        wait for longer are deleted in batches.

        A trigger, row-level security, or a foreign key without `ON DELETE` can keep rows. They
        stay, all others are deleted, and one warning in the log gives the number of kept rows. Each
        row that a foreign key keeps costs a few more statements.

        First, it folds as `fold` does, for up to 5 minutes, unless the role may not. If that fails,
        it logs a warning and goes on.

        A store in memory forgets expired executions, including those in the ring buffer.

        Args:
            batch_size: the maximum number of rows that one transaction deletes; by default 2,000,
                or 100,000 with an archive, because each batch becomes a file for each day.
            time_limit: stop after the first batch that ends later than this, and log a warning. At
                least one batch runs.
            dry_run: delete nothing, and return the number of expired rows, including rows that
                would be kept. Rows that wait for their partition do not count, unless rules have
                changed that the call would apply first.
            progress: called after each batch with the number of rows deleted so far.
            by_partition: drop whole partitions where possible. It has no effect on a table that is
                not partitioned by ranges of ids, such as one in SQLite or in memory, and if all
                sessions share a transaction, as in many test suites. It logs a warning if the role
                does not own the partitions, if row-level security limits it, if foreign keys refer
                to history, or if a trigger of the app is to see each row that is deleted: then all
                rows are deleted in batches.

        Raises:
            InvalidInput: if an argument cannot be used.
            UnsafeExpiry: if a batch would delete more rows than it selected, as happens if a view
                of partitions replaces the table. That batch is rolled back.
        """
        if archive is not None and not isinstance(archive, Archive):
            archive = Archive(archive)
        if batch_size is None:
            batch_size = _BATCH_SIZE if archive is None else _ARCHIVED_BATCH_SIZE
        batches = Batches("expire", batch_size, time_limit, progress)
        now = self._rows.now()
        if dry_run:
            return self._maintained.count_expired(now, by_partition=by_partition)
        return self._maintained.expire(now, batches, by_partition=by_partition, archive=archive)

    def waiting_for_partition(self) -> WaitingForPartition:
        """Return how many expired executions `expire(by_partition=True)` leaves for now.

        They wait until all of their partition can be dropped. It reads the ends of an index for
        each partition, and counts the rows that wait.
        """
        return self._maintained.waiting_for_partition(self._rows.now())

    def fold(
        self,
        *,
        batch_size: int = 50_000,
        time_limit: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Add executions that have ended to the statistics, and return their number.

        An execution enters a queue in the statement that writes its outcome. This moves it from
        there to the statistics of its task by hour, day and month, which outlive its row. Questions
        add the queue to the statistics, so their answers are the same before and after. But they
        read all of the queue: fold every few minutes. `expire` folds, too, and so does a `Recorder`
        while it has nothing to write. If more than 50,000 rows wait, about one in 2,000 recording
        calls folds 4,000 of them after its commit.

        Each batch is a short transaction, which moves its executions or none. It blocks neither
        those who record nor those who read. Several simultaneous calls share the work.

        Then it deletes old statistics: by hour after 35 days, and by day after 400 days, unless
        `hourly_statistics` and `daily_statistics` of the store say otherwise. Those by month stay
        forever. The first call that finds statistics too old only notes it, and the next one
        deletes them, so that no question that has just begun misses any.

        A store in memory has no queue, so there it returns 0.

        Args:
            batch_size: the maximum number of rows of the queue that one transaction moves. Small
                batches take longer in total.
            time_limit, progress: as for `expire`, with the number of executions.
            dry_run: move nothing, and return the number of rows in the queue. An outcome that
                replaces that of a lost worker has two.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        batches = Batches("fold", batch_size, time_limit, progress)
        if dry_run:
            return self._maintained.count_waiting()
        return self._maintained.fold(self._rows.now(), batches)

    def retention(self) -> list[RetentionCoverage]:
        """Return the retention rules in force, in order, and what `expire` would do by each.

        The rules are those of this store. If it declares none, they are those that `expire` has
        applied last, by a store that does. The last two items are the executions that no rule
        covers, which `history_retention` keeps, and those with a retention of their own. The
        numbers to delete add up to what `expire(dry_run=True)` returns.

        It reads all of history once.
        """
        return self._maintained.retention(self._rows.now())

    def recount(self, from_: datetime, to: datetime) -> int:
        """Replace the statistics of a window by what its rows say; return the number counted.

        It is for rows that changed without the triggers, for example while they were disabled, or
        that SQL of yours deleted. It changes the hours in the window, and the days and months
        around them.

        It reads all executions that started in the window, in one transaction. Meanwhile nobody
        folds, and recording and reading go on. An execution that ends meanwhile is added by the
        next `fold`.

        A store in memory has nothing to recount, so there it returns 0.

        Args:
            from_, to: the window, from the start of an hour until the start of another, aware.

        Raises:
            InvalidInput: if `expire` or `purge` has deleted rows of the window, if its hours are no
                longer kept, or if it holds executions that were counted but not stored. The
                statistics know these, and the rows do not.
        """
        for name, moment in (("from_", from_), ("to", to)):
            if moment.utcoffset() is None or moment != Span.HOUR.start(moment):
                raise InvalidInput(
                    name,
                    str(moment),
                    "is not the start of an hour; write it like '2026-11-28T12:00+00:00'",
                )
        if from_ >= to:
            raise InvalidInput("to", str(to), f"is not after {from_}; pass the end of the window")
        return self._maintained.recount(from_, to)

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
        Statistics still count what was deleted, by task; they hold no ids, labels, payloads or
        messages.

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
