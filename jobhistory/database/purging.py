"""Deletion on request in a database: batches of rows that meet criteria, oldest first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, select

from jobhistory.database.marks import DeletedRows
from jobhistory.database.statements.pages import records_of
from jobhistory.database.statements.read import POSITION, criteria_of, place_of
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.schema import COLUMNS, TABLE

logger = logging.getLogger(__name__)


class Purged(NamedTuple):
    """The result of a batch.

    Attributes:
        found: the number of rows found.
        last: the last of them.
        ids: the ids of the deleted rows.
        newest: the most recent start of these.
    """

    found: int
    last: Cursor | None
    ids: frozenset[UUID]
    newest: datetime | None = None


class Purging:
    """One call of `purge()`.

    Each batch begins after the last row that the one before it has found. So rows that cannot be
    deleted are not found again.

    Args:
        query: the criteria, and as the limit the size of a batch.
        forget: called after each batch with the ids of the deleted rows.
    """

    def __init__(
        self,
        history: RunsTransactions,
        query: HistoryQuery,
        forget: Callable[[frozenset[UUID]], object],
    ) -> None:
        self._history = history
        self._query = query
        self._forget = forget
        self._after: Cursor | None = None
        self._deleted_rows = DeletedRows()
        self._kept = 0

    def delete_batch(self) -> tuple[int, bool]:
        """Delete one batch; return the number of deleted rows, and whether it was the last."""
        purged = self._history.run(Purpose.MAINTAIN_AS_ONE, self._delete)
        self._deleted_rows.keep()
        self._forget(purged.ids)
        self._after = purged.last
        self._kept += max(0, purged.found - len(purged.ids))
        return len(purged.ids), purged.found < (self._query.limit or 0)

    def report(self) -> None:
        """Log the number of executions that are left, and the likely reasons."""
        if self._kept:
            logger.warning(
                "purge() did not delete %d of the executions: a trigger or row-level security "
                "keeps them, or others have just changed or deleted them",
                self._kept,
            )

    def _delete(self, transaction: Transaction) -> Purged:
        purged = delete_batch(transaction, self._query, self._after)
        self._deleted_rows.note(transaction, purged.newest)
        return purged


def delete_batch(transaction: Transaction, query: HistoryQuery, after: Cursor | None) -> Purged:
    """Delete the first rows that meet the criteria after a place, in the order of the query."""
    statement, parameters = records_of(query, after, transaction.layout)
    page = statement.subquery()  # so that payloads and other large values are not read
    places = transaction.execute(select(page.c.started_at, page.c.id), parameters).all()
    if not places:
        return Purged(0, None, frozenset())
    last = Cursor(*max(places))
    # The criteria once more, because an outcome may have arrived in between.
    conditions = [*criteria_of(query), place_of(last) >= POSITION]
    if after is not None:
        conditions.append(place_of(after) < POSITION)
    remove = delete(TABLE).where(*conditions).returning(COLUMNS.id, COLUMNS.started_at)
    deleted = transaction.execute(remove).all()
    newest = max((started_at for _, started_at in deleted), default=None)
    return Purged(len(places), last, frozenset(id_ for id_, _ in deleted), newest)
