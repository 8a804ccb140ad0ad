"""Archiving partitions that expiry has detached, before it drops them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from jobhistory.database.archive_reading import MOST_BYTES, TooLarge, read_table
from jobhistory.database.archived_rows import RawRows, columns_of
from jobhistory.database.archiving import Archiving, RowsHaveChanged
from jobhistory.database.blocking import run_blocking
from jobhistory.database.manifest import Entry
from jobhistory.database.partitions.detached import (
    DetachedTable,
    drop_detached,
    lock_detached,
)
from jobhistory.database.partitions.sql import identifier
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction

_BATCH = 100_000
_SHRINK = 4

_FIRST = ("-infinity", UUID(int=0))


class ArchivedPartitions:
    """What becomes of partitions whose rows have all expired, see `Disposal`.

    Hardly anybody writes to a table that is not a partition any more. It is dropped only if its
    rows are still those that were read.
    """

    def __init__(self, archiving: Archiving) -> None:
        self._archiving = archiving
        self.archive: str | None = archiving.location

    def dispose(self, history: RunsTransactions, table: DetachedTable) -> int:
        """Archive the rows of a table and drop it; return their number.

        Return 0 if another session has dropped it or changes it.
        """
        if table.is_copy:
            return history.run(Purpose.MAINTAIN_AS_ONE, partial(drop_detached, table=table))
        versions = history.run(Purpose.MAINTAIN, partial(_versions_of, table=table))
        with _PreparingAhead(self._archiving) as preparing:
            for rows in self._read(history, table):
                preparing.add(rows)
        entries = preparing.entries
        count = sum(entry.row_count for entry in entries)
        try:
            self._archiving.commit(entries, partial(_drop, table=table, versions=versions))
        except RowsHaveChanged:
            return 0
        return count

    def _read(self, history: RunsTransactions, table: DetachedTable) -> Iterator[RawRows]:
        """Yield the rows in batches, in the order of their start."""
        size = _BATCH
        low: Any = _FIRST
        while low is not None:
            end = history.run(Purpose.MAINTAIN, partial(_end_of, table=table, low=low, size=size))
            read = partial(self._read_range, table=table, low=low, end=end, limited=size > 1)
            try:
                rows = history.run(Purpose.MAINTAIN_AS_ONE, read)
            except TooLarge:
                size = max(1, size // _SHRINK)
                continue
            yield rows
            low = end

    def _read_range(
        self, transaction: Transaction, table: DetachedTable, low: Any, end: Any, *, limited: bool
    ) -> RawRows:
        condition = f"(started_at, id) > {_place(*low)}"
        if end is not None:
            condition += f" AND (started_at, id) <= {_place(*end)}"
        source = identifier(table.schema, table.name)
        columns = columns_of(transaction, table.name, table.schema)
        return read_table(transaction, columns, source, condition, MOST_BYTES if limited else None)


class _PreparingAhead:
    """Writes each batch to files in a thread, while the next batch is read.

    Attributes:
        entries: the files; all of them once the block has ended. If it fails, they are discarded.
    """

    def __init__(self, archiving: Archiving) -> None:
        self._archiving = archiving
        self._thread = ThreadPoolExecutor(1, "jobhistory-archive")
        self._current: Future[list[Entry]] | None = None
        self.entries: list[Entry] = []

    def __enter__(self) -> Self:
        return self

    def add(self, rows: RawRows) -> None:
        """Wait for the batch before, so that at most two are in memory, then start this one."""
        self._finish()
        self._current = self._thread.submit(self._archiving.prepare, rows)

    def __exit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        try:
            if error_type is None:
                self._finish()
        except BaseException:
            self._discard()
            raise
        if error_type is not None:
            self._discard()
        self._thread.shutdown()

    def _finish(self) -> None:
        if self._current is not None:
            self.entries += run_blocking(self._current.result)
            self._current = None

    def _discard(self) -> None:
        run_blocking(self._thread.shutdown)  # the batch that is being written is discarded, too
        if self._current is not None and self._current.exception() is None:
            self.entries += self._current.result()
        self._archiving.discard(self.entries)


def _end_of(transaction: Transaction, table: DetachedTable, low: Any, size: int) -> Any:
    """Return the place of the last row of a batch; `None` if it is the last batch."""
    name = identifier(table.schema, table.name)
    row = _execute(
        transaction,
        f"SELECT started_at, id FROM {name} WHERE (started_at, id) > {_place(*low)} "  # noqa: S608
        f"ORDER BY started_at, id OFFSET {size - 1:d} LIMIT 1",
    ).one_or_none()
    return None if row is None else tuple(row)


def _versions_of(transaction: Transaction, table: DetachedTable) -> Any:
    """Return what differs if a row is added, changed or deleted: a sum over their versions."""
    name = identifier(table.schema, table.name)
    return _execute(
        transaction,
        f"SELECT count(*), sum(hashtextextended(concat(ctid, xmin), 0)) FROM {name}",  # noqa: S608
    ).one()


def _drop(transaction: Transaction, table: DetachedTable, versions: Any) -> datetime | None:
    """Drop a table whose rows are those that were read."""
    if not lock_detached(transaction, table):
        raise RowsHaveChanged
    if _versions_of(transaction, table) != versions:
        raise RowsHaveChanged
    _execute(transaction, f"DROP TABLE {table.sql}")
    return None  # the newest start was noted when the table was detached


def _execute(transaction: Transaction, statement: str) -> Any:
    options = {"no_parameters": True}  # so that a name may have any sign
    return transaction.connection.exec_driver_sql(statement, execution_options=options)


def _place(moment: Any, id_: Any) -> str:
    return f"(CAST('{moment}' AS timestamptz), CAST('{id_}' AS uuid))"
