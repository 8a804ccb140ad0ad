"""Expiry by whole partitions: what `expire()` does before it deletes rows in batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Protocol, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, NoResultFound, SQLAlchemyError

from jobhistory.database import exclusive, pausing
from jobhistory.database.driver_errors import is_missing_object, is_time_out, sqlstate
from jobhistory.database.marks import DeletedRows
from jobhistory.database.partitions import extension, survivors, swaps
from jobhistory.database.partitions.catalog import Layout, Leaf, read_layout
from jobhistory.database.partitions.detached import DetachedTable, detached_tables, drop_detached
from jobhistory.database.partitions.due import (
    MOST_SURVIVORS,
    Fate,
    Outlook,
    content_of,
    count_all,
    count_due,
    is_over,
    outlook_of,
)
from jobhistory.database.partitions.settings import read_settings
from jobhistory.database.partitions.sql import LOCK_TIMEOUT, trying
from jobhistory.database.transaction import (
    CommitsTransactions,
    Purpose,
    RunsTransactions,
    Transaction,
)
from jobhistory.errors import LayoutNotChanged, reason
from jobhistory.query.reports import WaitingForPartition

logger = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES = (0.2, 1.0, 3.0)
"""The pauses between attempts to lock the table, in seconds. Meanwhile, others go on."""

_UNDEFINED_OBJECT = "42704"
_CANCELED = "57014"
_NOT_BY_ROWS = (Fate.WAIT, Fate.DROP, Fate.REWRITE)
_MOST_AT_ONCE = 4
_FEWEST_TO_MERGE = 3


class Disposal(Protocol):
    """What becomes of a partition whose rows have all expired, once it is detached."""

    @property
    def archive(self) -> str | None:
        """Where its rows are archived, for the mark on the table; `None` means nowhere."""
        ...

    def dispose(self, history: RunsTransactions, table: DetachedTable) -> int:
        """Drop a table, and return the number of its rows; 0 if another session has dropped it."""
        ...


class Drop:
    """Dropping a partition without more ado."""

    archive: str | None = None

    def dispose(self, history: RunsTransactions, table: DetachedTable) -> int:
        """Drop a table, see `drop_detached`."""
        return history.run(Purpose.MAINTAIN_AS_ONE, partial(drop_detached, table=table))


@dataclass
class PartitionExpiry:
    """The part of one call of `expire()` that is about whole partitions.

    Args:
        cutoff_of: returns the earlier of the store's clock and the database's.
        by_partition: whether rows may wait until all of a partition can be dropped. Without, only
            empty partitions are dropped.
        disposal: what becomes of what is detached.

    Attributes:
        waiting: the partitions whose expired rows wait.
    """

    history: CommitsTransactions
    cutoff_of: Callable[[Transaction], datetime]
    by_partition: bool
    disposal: Disposal = field(default_factory=Drop)
    waiting: set[int] = field(default_factory=set)
    _deleted: DeletedRows = field(default_factory=DeletedRows)
    _checked: set[tuple[Leaf, Leaf]] = field(default_factory=set)
    _is_in_use: bool = False
    _cutoff: datetime = field(init=False)

    def steps(self) -> Iterator[int]:
        """Do it step by step; yield the number of rows that each step deletes.

        Other calls may drop or replace the same partitions. No error because of that keeps rows
        from being deleted in batches.
        """
        try:
            yield from self._steps()
        except (DBAPIError, NoResultFound) as error:
            logger.warning("expire() leaves its partitions to the next call: %s", reason(error))

    def _steps(self) -> Iterator[int]:
        if not self.history.commits:  # the locks would last until the caller commits
            return
        yield from self._drop_detached()
        layout = self._read(_layout)
        if layout is None:
            return
        self._cutoff = self._read(self.cutoff_of)
        if layout.is_owner:
            self._read(partial(_ahead, layout=layout, now=self._cutoff))()
        if obstacle := self._obstacle(layout):
            if self.by_partition:
                logger.warning("expire() deletes rows in batches, because %s", obstacle)
            return
        outlooks = self._read(self._outlooks)
        # Those that cannot be dropped now, because of a reader, can be at the next call.
        self.waiting = {each.leaf.oid for each in outlooks if each.fate in _NOT_BY_ROWS}
        for each in outlooks:
            if each.fate is Fate.REWRITE:
                if not self._rewrite([each.leaf]):
                    self.waiting.discard(each.leaf.oid)
                yield from self._drop_detached()
        for run in _runs(outlooks):
            self._swap(partial(self._detach, run=run))
            yield from self._drop_detached()
        for run in self._read(self._mergeable):
            self._rewrite(run)
            yield from self._drop_detached()

    def _outlooks(self, transaction: Transaction) -> list[Outlook]:
        return _outlooks(transaction, self._cutoff, by_partition=self.by_partition)

    def _mergeable(self, transaction: Transaction) -> list[list[Leaf]]:
        return _mergeable(transaction, self._cutoff) if self.by_partition else []

    def _drop_detached(self) -> Iterator[int]:
        """Drop what this call or another one has detached."""
        for table in self._read(_detached):
            if table.archive not in (None, self.disposal.archive):
                logger.warning(
                    "expire() leaves %s, whose rows have expired: expire it with the archive %s",
                    table.name,
                    table.archive,
                )
                continue
            try:
                yield self.disposal.dispose(self.history, table)
            except DBAPIError as error:
                if not is_missing_object(error):  # another session has dropped it
                    logger.warning(
                        "expire() leaves %s, whose rows have expired: %s", table.name, reason(error)
                    )

    def _obstacle(self, layout: Layout) -> str | None:
        """Return why partitions of this table cannot be dropped."""
        if not layout.is_owner:
            return "this role does not own the partitions"
        if layout.has_incoming_keys:
            return "foreign keys refer to job_history"
        return self._read(partial(_other_obstacle, layout=layout))

    def _detach(self, layout: Layout, run: Sequence[Leaf]) -> None:
        """Detach neighbouring partitions whose rows have all expired."""
        before = layout.before(run[0])
        if before is not None and not self._read(partial(content_of, leaf=before)).is_empty:
            self._check_bounds(before, run[-1])
        detach = partial(
            swaps.detach_due,
            layout=layout,
            leaves=run,
            cutoff=self._cutoff,
            archive=self.disposal.archive,
        )
        self._run_noting(detach)

    def _check_bounds(self, leaf: Leaf, last: Leaf) -> None:
        """Add a check, which spares PostgreSQL reading the rows while the table is locked."""
        if (leaf, last) in self._checked:
            return
        name = swaps.name_of(leaf)
        add = partial(swaps.add_check, table=name, first=leaf, last=last)
        self.history.run(Purpose.MAINTAIN_AS_ONE, add)
        self.history.run(Purpose.MAINTAIN_AS_ONE, partial(swaps.validate_check, table=name))
        self._checked.add((leaf, last))

    def _rewrite(self, run: Sequence[Leaf]) -> bool:
        """Copy the few rows that stay, and let the copy take the place of the partitions.

        Return whether rows may still wait for that, as opposed to a row that changes meanwhile.
        """
        layout = self._read(_layout)
        if layout is None or not {*run} <= {*layout.leaves}:
            return True
        copy = partial(survivors.copy_survivors, layout=layout, leaves=run, cutoff=self._cutoff)
        copied = self.history.run(Purpose.MAINTAIN_AS_ONE, copy)
        return self._swap(partial(self._replace, run=run, copied=copied))

    def _replace(self, layout: Layout, run: Sequence[Leaf], copied: survivors.Copied) -> None:
        replace = partial(
            survivors.replace_by_copy,
            layout=layout,
            leaves=run,
            copied=copied,
            cutoff=self._cutoff,
            archive=self.disposal.archive,
        )
        self._run_noting(replace)

    def _run_noting(self, operation: Callable[[Transaction], datetime | None]) -> None:
        """Run an operation, and note the latest start that it returns for statistics."""

        def run(transaction: Transaction) -> None:
            self._deleted.note(transaction, operation(transaction))

        self.history.run(Purpose.MAINTAIN_AS_ONE, run)
        self._deleted.keep()

    def _swap(self, swap: Callable[[Layout], None]) -> bool:
        """Make a swap; try again after a pause if a session keeps the table locked.

        Return whether it is made, or can be later, as opposed to a partition that has changed.
        """
        for pause in (*PAUSES, None):
            layout = self._read(_layout)
            if layout is None or self._is_in_use:  # by somebody who reads for long, as pg_dump does
                return True
            try:
                swap(layout)
                return True
            except swaps.HasChanged:
                return False
            except DBAPIError as error:
                if is_missing_object(error) or sqlstate(error) == _UNDEFINED_OBJECT:
                    return False
                if not is_time_out(error):
                    raise
                if sqlstate(error) == _CANCELED:  # autovacuum will tidy the indexes up
                    logger.info("to look at a partition takes too long while others wait")
                    return True
            if pause is not None:
                pausing.sleep(pause)
        self._is_in_use = True
        logger.warning(
            "expire() drops partitions at its next call, because for %s, now and %d times before, "
            "it could not lock the table, which a session uses for long",
            LOCK_TIMEOUT,
            len(PAUSES),
        )
        for leaf, _ in self._checked:
            with suppress(DBAPIError):  # then the next call needs it, or drops it
                drop = partial(swaps.drop_check, table=swaps.name_of(leaf))
                self.history.run(Purpose.MAINTAIN_AS_ONE, drop)
        self._checked.clear()
        return True

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        return self.history.run(Purpose.MAINTAIN, operation)


def waiting_of(transaction: Transaction, cutoff: datetime) -> WaitingForPartition:
    """Return how many expired rows `expire(by_partition=True)` leaves for now, and until when."""
    layout = _layout(transaction)
    if layout is None or not layout.is_owner or layout.has_incoming_keys:
        return WaitingForPartition(0, None)
    if _other_obstacle(transaction, layout) is not None:
        return WaitingForPartition(0, None)
    found = [
        each for each in _outlooks(transaction, cutoff, by_partition=True) if each.fate is Fate.WAIT
    ]
    count = sum(count_due(transaction, each.leaf, cutoff) for each in found)
    return WaitingForPartition(
        count, max((each.until for each in found if each.until), default=None)
    )


def _layout(transaction: Transaction) -> Layout | None:
    return read_layout(transaction.connection, transaction.schema)


def _ahead(transaction: Transaction, layout: Layout, now: datetime) -> Callable[[], None]:
    """Return what finishes interrupted changes and creates partitions ahead of time, if need be."""
    settings = read_settings(transaction.connection, layout.schema)
    if transaction.layout.is_distributed:  # there, no partitions are created
        return lambda: None
    if not extension.is_incomplete(layout, settings, now):
        return lambda: None
    engine, schema = transaction.connection.engine, transaction.schema

    def complete() -> None:
        try:
            # The next call tries again, so a reader delays neither this one nor writers for long.
            with exclusive.changing_layout(engine), trying(len(PAUSES) + 1):
                extension.finalize(engine, layout)
                if settings is not None:
                    extension.extend(engine, schema, settings, now)
        except (LayoutNotChanged, SQLAlchemyError) as error:
            logger.warning("expire() could not create the next partitions: %s", reason(error))

    return complete


def _detached(transaction: Transaction) -> list[DetachedTable]:
    return detached_tables(transaction.connection, transaction.schema)


def _outlooks(transaction: Transaction, cutoff: datetime, *, by_partition: bool) -> list[Outlook]:
    layout = _layout(transaction)
    if layout is None:
        return []
    return [
        outlook_of(transaction, layout, leaf, cutoff, by_partition=by_partition)
        for leaf in layout.leaves
    ]


_OTHER_OBSTACLE = text("""
SELECT
    row_security_active(CAST(:oid AS oid)) AS has_policies,
    NOT has_schema_privilege(
        (SELECT relnamespace FROM pg_class WHERE pg_class.oid = CAST(:oid AS oid)), 'CREATE'
    ) AS is_closed,
    EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = ANY(CAST(:oids AS oid[]))
            AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 8 <> 0
    ) AS has_triggers,
    EXISTS (
        SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = ANY(CAST(:oids AS oid[]))
    ) AS has_keys,
    EXISTS (
        SELECT FROM pg_publication_tables
            JOIN pg_namespace ON nspname = schemaname
            JOIN pg_class ON relnamespace = pg_namespace.oid AND relname = tablename
        WHERE pg_class.oid = ANY(CAST(:oids AS oid[]))
    ) AS is_published
""")


def _other_obstacle(transaction: Transaction, layout: Layout) -> str | None:
    if transaction.layout.is_distributed:
        return "Citus distributes job_history"
    oids = [layout.oid, *(leaf.oid for leaf in layout.leaves)]
    found = transaction.execute(_OTHER_OBSTACLE, {"oid": layout.oid, "oids": oids}).one()
    if found.has_policies:
        return "row-level security limits this role"
    if found.is_closed:
        return "this role may not create tables in the schema"
    if found.has_triggers:
        return "the app's trigger is to see each row that is deleted"
    if found.is_published:  # a subscriber would not learn of a swap, and keep the rows
        return "a publication sends its changes to subscribers"
    return "foreign keys refer to a partition" if found.has_keys else None


def _runs(outlooks: Sequence[Outlook]) -> Iterator[list[Leaf]]:
    """Yield neighbouring partitions to drop, oldest first, as many as one swap takes."""
    for is_to_drop, group in groupby(outlooks, key=lambda each: each.fate is Fate.DROP):
        leaves = [each.leaf for each in group]
        if is_to_drop:
            for start in range(0, len(leaves), _MOST_AT_ONCE):
                yield leaves[start : start + _MOST_AT_ONCE]


def _mergeable(transaction: Transaction, cutoff: datetime) -> list[list[Leaf]]:
    """Return the neighbours of which one partition can take the place."""
    layout = _layout(transaction)
    runs: list[list[Leaf]] = [[]]
    total = 0
    for leaf in layout.leaves if layout else ():
        count = MOST_SURVIVORS + 1
        if is_over(leaf, cutoff) and survivors.are_survivors(transaction, leaf):
            count = count_all(transaction, leaf, MOST_SURVIVORS + 1)
        if total + count > MOST_SURVIVORS:
            runs.append([])
            total = 0
        if count <= MOST_SURVIVORS:
            runs[-1].append(leaf)
            total += count
    return [run for run in runs if len(run) >= _FEWEST_TO_MERGE]
