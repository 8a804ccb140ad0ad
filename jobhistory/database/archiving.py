"""Archiving what `expire` deletes: prepare files, commit them with the deletion, publish them.

The database alone decides where an execution is. A file that is prepared counts for nothing until
the transaction that deletes its rows enters it in the manifest. From then on it is published, by
this call or, if that is killed, by the next one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobhistory.database import manifest
from jobhistory.database.archive_reading import ReadBatch, Rows, read_batch, sqlite_columns
from jobhistory.database.archived_rows import RawRows, columns_of
from jobhistory.database.blocking import run_blocking
from jobhistory.database.history_id import history_id
from jobhistory.database.manifest import Entry
from jobhistory.database.publishing import Publisher, publish, refuse_old
from jobhistory.database.statements import archive as statements
from jobhistory.database.statements.expire import Deleted, Place, newest_of
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.schema import TABLE

logger = logging.getLogger(__name__)

Note = Callable[[Transaction, datetime | None], None]


class Sink(Publisher, Protocol):
    """An archive, to which rows are written before they are deleted."""

    def prepare(self, rows: RawRows, owner: str) -> list[Entry]:
        """Write rows of a history to files that are not published, check them, and return them."""
        ...

    def discard(self, entries: Sequence[Entry]) -> None:
        """Delete prepared files that are not needed; errors do not matter."""
        ...

    def clean(self, owner: str, named: Collection[str]) -> None:
        """Delete prepared files of a history that are older than a day, except those in `named`."""
        ...


class RowsHaveChanged(Exception):
    """Rows have been changed, locked or kept since they were read, so they are not deleted."""


class Archiving:
    """One call of `expire` with an archive.

    Args:
        history: runs the transactions, and commits each of them.
        sink: the archive.
    """

    def __init__(self, history: RunsTransactions, sink: Sink) -> None:
        self._history = history
        self._sink = sink

    @property
    def location(self) -> str:
        """The location of the archive."""
        return self._sink.location

    @cached_property
    def owner(self) -> str:
        """The id of the history."""
        return self._history.run(Purpose.MAINTAIN_AS_ONE, history_id)

    def begin(self) -> None:
        """Publish what earlier calls have committed, and delete what they have abandoned."""
        find = partial(manifest.unpublished, location=self.location)
        self.publish(self._history.run(Purpose.MAINTAIN, find))
        # Also those of other locations: the archive may have been moved.
        names = self._history.run(Purpose.MAINTAIN, manifest.pending_names)
        run_blocking(self._sink.clean, self.owner, names)

    def delete(self, rows: Rows, low: Place, batch_size: int, note: Note) -> Deleted:
        """Archive and delete one batch, starting at a place, oldest first.

        Args:
            note: called in the transaction with the most recent start of the rows.

        Raises:
            RowsHaveChanged: if not all of them could be deleted as they were read. Nothing is.
            TooLarge: if they do not fit into memory.
            ArchiveError: if the archive fails. Nothing is lost.
        """

        def read(transaction: Transaction) -> ReadBatch:
            # Each time, because the app may add columns meanwhile.
            return read_batch(transaction, rows, columns_of(transaction), low, batch_size)

        batch = self._history.run(Purpose.MAINTAIN_AS_ONE, read)
        if not batch.found:
            return Deleted(0, 0, None)
        entries = self.prepare(batch.rows)

        def remove(transaction: Transaction) -> datetime | None:
            newest = _delete_unchanged(transaction, rows, batch)
            if columns_of(transaction) != batch.rows.columns:  # the deletion keeps them as they are
                raise RowsHaveChanged
            note(transaction, newest)
            return newest

        newest = self.commit(entries, remove)
        return Deleted(batch.found, batch.found, batch.last, newest)

    def prepare(self, rows: RawRows) -> list[Entry]:
        """Write rows to files that are not published, and return them."""
        return run_blocking(self._sink.prepare, rows, self.owner)

    def commit(
        self, entries: Sequence[Entry], remove: Callable[[Transaction], datetime | None]
    ) -> datetime | None:
        """Delete rows and enter their files in the manifest, in one transaction; publish these.

        Args:
            remove: deletes the rows, and returns the most recent start.

        Raises:
            ArchiveError: if the files are older than 12 hours, or cannot be published.
        """
        now = self._sink.now()

        def commit(transaction: Transaction) -> datetime | None:
            if transaction.dialect == "postgresql":
                transaction.execute(statements.DURABLE)
            newest = remove(transaction)
            refuse_old(self._sink, min((each.archived_at for each in entries), default=now))
            manifest.enter(transaction, entries)
            return newest

        try:
            newest = self._history.run(Purpose.MAINTAIN_AS_ONE, commit)
        except (RowsHaveChanged, DBAPIError) as error:
            # After a lost connection, nobody knows whether the transaction was committed.
            if not isinstance(error, DBAPIError) or not error.connection_invalidated:
                run_blocking(self._sink.discard, entries)
            raise
        self.publish(entries)
        return newest

    def publish(self, entries: Sequence[Entry]) -> None:
        """Publish committed files, or delete those without executions; note it in the manifest."""
        publish(self._history, self._sink, entries)

    def discard(self, entries: Sequence[Entry]) -> None:
        """Delete prepared files that are not needed."""
        run_blocking(self._sink.discard, entries)


def _delete_unchanged(transaction: Transaction, rows: Rows, batch: ReadBatch) -> datetime | None:
    """Delete the rows of a batch; return their most recent start.

    Raises:
        RowsHaveChanged: if one of them has changed, or cannot be deleted now.
    """
    if transaction.dialect != "postgresql":
        return _delete_from_sqlite(transaction, batch)
    statement = statements.delete_unchanged(rows.branch)
    parameters = {"addresses": batch.addresses, "versions": batch.versions}
    options: dict[str, Any] = {} if rows.branch is None else {"schema_translate_map": {}}
    deleted, newest, unchanged = transaction.execute(statement, parameters, **options).one()
    if not deleted == unchanged == batch.found:
        raise RowsHaveChanged
    found: datetime | None = newest
    return found


_DELETE_ALL = "id IN (SELECT value FROM json_each(:ids))"


def _delete_from_sqlite(transaction: Transaction, batch: ReadBatch) -> datetime | None:
    columns = batch.rows.columns
    names = [each.name for each in columns]
    id_, started_at = names.index("id"), names.index("started_at")
    ids = json.dumps([row[id_] for row in batch.rows.values])
    statement = TABLE.delete().where(text(_DELETE_ALL)).returning(*sqlite_columns(columns))
    deleted = [tuple(row) for row in transaction.execute(statement, {"ids": ids})]

    def by_id(row: Any) -> Any:
        return row[id_]

    if sorted(deleted, key=by_id) != sorted(batch.rows.values, key=by_id):
        raise RowsHaveChanged
    return newest_of([row[started_at] for row in deleted])
