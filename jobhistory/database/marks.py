"""The marks that maintenance leaves: from when on hours, days and rows are all there."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from jobhistory.database.driver_errors import is_denied
from jobhistory.database.transaction import Transaction
from jobhistory.rollup_schema import STATE
from jobhistory.statistics.cover import Marks
from jobhistory.statistics.spans import Span

logger = logging.getLogger(__name__)

ROWS_FROM = "rows_from"

_READ = select(STATE.c.name, STATE.c.value).where(STATE.c.name.in_(Marks._fields))
# All values have the same length and are in UTC, so their texts compare as the times do.
_MOVE = (
    update(STATE)
    .where(STATE.c.name == bindparam("mark"), STATE.c.value < bindparam("at"))
    .values(value=bindparam("at"))
)
_SET: dict[str, Any] = {
    name: insert(STATE)
    .values(name=bindparam("mark"), value=bindparam("at"))
    .on_conflict_do_nothing(index_elements=[STATE.c.name])
    for name, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}


def read_marks(transaction: Transaction) -> Marks:
    """Return the marks.

    Who reads rollups reads them first: until they have moved, nothing before them is deleted.
    """
    found = transaction.execute(_READ)
    return Marks(**{name: datetime.fromisoformat(json.loads(value)) for name, value in found})


def move_mark(transaction: Transaction, name: str, at: datetime) -> None:
    """Move a mark forward, to the start of an hour. It never moves back."""
    values = {"mark": name, "at": json.dumps(at.isoformat())}
    if transaction.execute(_MOVE, values).rowcount:
        return
    # If another session has just set it, to an earlier time, it must still move.
    if not transaction.execute(_SET[transaction.dialect], values).rowcount:
        transaction.execute(_MOVE, values)


class DeletedRows:
    """Moves the mark `rows_from` past the rows that one call deletes, in their transaction.

    Sessions wait for each other only in the moment in which one moves it to another hour.
    """

    def __init__(self) -> None:
        self._until: datetime | None = None
        self._noted: datetime | None = None
        self._is_denied = False

    def note(self, transaction: Transaction, newest: datetime | None) -> None:
        """Note the most recent start of the rows that a transaction has deleted."""
        self._noted = self._until  # the transaction before this one may have been rolled back
        if newest is None or self._is_denied:
            return
        until = _end_of_hour(newest)
        if self._until is not None and until <= self._until:
            return
        try:
            with _savepoint(transaction):
                marks = read_marks(transaction)
                if marks.rows_from is None or marks.rows_from < until:
                    move_mark(transaction, ROWS_FROM, until)
        except DBAPIError as error:
            if not is_denied(error):
                raise
            self._is_denied = True
            logger.info(  # not a warning: where roles are limited, statistics read rows
                "statistics cannot know which rows are deleted: "
                "grant SELECT, INSERT and UPDATE on %s to this role",
                STATE.name,
            )
        self._noted = until

    def keep(self) -> None:
        """Note that the transaction is committed."""
        self._until = self._noted


def _end_of_hour(moment: datetime) -> datetime:
    start = Span.HOUR.start(moment)
    try:
        return Span.HOUR.next(start)
    except OverflowError:  # in the last hour of the year 9999
        return start


def _savepoint(transaction: Transaction) -> AbstractContextManager[Any]:
    """Return a savepoint on PostgreSQL, where the role may lack the grant."""
    is_postgresql = transaction.dialect == "postgresql"
    return transaction.connection.begin_nested() if is_postgresql else nullcontext()
