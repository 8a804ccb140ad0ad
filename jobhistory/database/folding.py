"""Folding: moves executions that have ended from the queue to the rollups, in batches."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobhistory._runtime.batches import Batches
from jobhistory._runtime.randomness import random_number
from jobhistory.database.driver_errors import is_denied
from jobhistory.database.pruning import Pruning
from jobhistory.database.statements import fold as statements
from jobhistory.database.statements.fold import Group, Key, group_of, key_of, keys_of
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.errors import JobHistoryError, reason
from jobhistory.statistics.measures import Measures
from jobhistory.typing import Random

logger = logging.getLogger(__name__)

OVERDUE = 50_000
"""The number of rows in the queue above which those who record fold."""

_BATCH = 50_000
_LONGEST = "5 minutes"
_OVERDUE_BATCH = 4_000
_ROWS_PER_CHECK = 2_000


class Folded(NamedTuple):
    """The result of a batch.

    Attributes:
        executions: the number of executions. Corrections do not count.
        rows: the number of their rows in the queue.
        place: where the batch ended in the queue of PostgreSQL: the number of a page.
    """

    executions: int
    rows: int
    place: int


def fold(history: RunsTransactions, batches: Batches, pruning: Pruning) -> int:
    """Fold what waits, then prune, in batches, and return the number of executions."""
    folding = Folding(history, batches.size)
    is_folded = False

    def do_batch() -> tuple[int, bool]:
        nonlocal is_folded
        if is_folded:
            return 0, pruning.prune_batch()
        executions, is_folded = folding.fold_batch()
        return executions, False

    return batches.run(do_batch)


def fold_first(history: RunsTransactions, pruning: Pruning) -> None:
    """Fold before something else is done, which must not fail because of it."""
    try:
        fold(history, Batches("fold", _BATCH, _LONGEST, None), pruning)
    except DBAPIError as error:
        if not is_denied(error):  # others fold what a role may not
            logger.warning("statistics wait to be folded: %s", reason(error))


class Folding:
    """One call of `fold()`.

    On PostgreSQL, each batch begins where the one before it has ended. The last batch begins at the
    start, because new rows take the place of old ones anywhere in the queue.
    """

    def __init__(self, history: RunsTransactions, batch_size: int) -> None:
        self._history = history
        self._batch_size = batch_size
        self._page = 0

    def fold_batch(self) -> tuple[int, bool]:
        """Fold one batch; return the number of executions, and whether it was the last batch."""
        page = self._page
        folded = self._history.run(Purpose.MAINTAIN_AS_ONE, self._fold)
        is_end = folded.rows < self._batch_size
        self._page = 0 if is_end else folded.place
        return folded.executions, is_end and page == 0

    def _fold(self, transaction: Transaction) -> Folded:
        return fold_batch(transaction, self._batch_size, self._page)


class OverdueFolding:
    """The folding that a recording call does after its commit if nobody else folds.

    Hence the queue stays short without cron. On average, one of 2,000 executions makes its call
    look, and fold twice as many rows.

    Args:
        is_on: whether calls fold.

    Attributes:
        random: returns the random number that decides whether a call looks.
    """

    def __init__(self, *, is_on: bool = True) -> None:
        self.random: Random = random_number
        self._is_on = is_on
        self._has_failed = False

    def is_to_be_tried(self, rows: int) -> bool:
        """Return whether a call that has queued so many rows should look."""
        return rows > 0 and self._is_on and self.random() * _ROWS_PER_CHECK < rows

    def attempt(self, do_fold: Callable[[], None]) -> None:
        """Fold; log the first error, because the call has succeeded."""
        try:
            do_fold()
        except (SQLAlchemyError, JobHistoryError) as error:
            if isinstance(error, DBAPIError) and is_denied(error):
                self._is_on = False  # a role that only records
                return
            if not self._has_failed:
                logger.warning("statistics wait to be folded: %s", reason(error))
            self._has_failed = True


def fold_overdue(transaction: Transaction) -> None:
    """Fold a batch if too much waits."""
    is_postgresql = transaction.dialect == "postgresql"  # on SQLite, one connection writes
    if is_postgresql and not transaction.execute(statements.TRY_LOCK_TOGETHER).scalar_one():
        return
    waiting = transaction.execute(statements.WAITING_UP_TO, {"cap": OVERDUE + 1}).scalar_one()
    if waiting > OVERDUE:
        fold_batch(transaction, _OVERDUE_BATCH)


def count_waiting(transaction: Transaction) -> int:
    """Return the number of rows in the queue."""
    count: int = transaction.execute(statements.WAITING).scalar_one()
    return count


def fold_batch(transaction: Transaction, batch_size: int, page: int = 0) -> Folded:
    """Fold one batch. If the transaction is rolled back, the batch is in the queue as before.

    Simultaneous calls share the work: on PostgreSQL, each takes other rows, and waits only for
    those that write the same rollups. On SQLite, only one connection writes at a time.
    """
    is_postgresql = transaction.dialect == "postgresql"
    if is_postgresql:
        transaction.execute(statements.LOCK_TOGETHER)
    groups = (
        _take(transaction, batch_size, page) if is_postgresql else _cut(transaction, batch_size)
    )
    if not groups:
        return Folded(0, 0, 0)
    add = _add_on_postgresql if is_postgresql else _add_on_sqlite
    add(transaction, _measures_of(groups))
    return Folded(
        sum(group.executions for group in groups),
        sum(group.rows for group in groups),
        groups[0].place,
    )


def _take(transaction: Transaction, batch_size: int, page: int) -> list[Group]:
    parameters = {"batch_size": batch_size, "low": f"({page},0)"}
    return [group_of(row) for row in transaction.execute(statements.TAKE, parameters)]


def _cut(transaction: Transaction, batch_size: int) -> list[Group]:
    transaction.execute(statements.LOCK)
    last = transaction.execute(statements.LAST, {"batch_size": batch_size}).scalar_one()
    if last is None:
        return []
    until = {"last": last}
    groups = [group_of(row) for row in transaction.execute(statements.MEASURE, until)]
    transaction.execute(statements.REMOVE, until)
    return groups


def _measures_of(groups: Iterable[Group]) -> dict[Key, Measures]:
    """Return the measures of all spans, in the order of their keys."""
    found: defaultdict[Key, Measures] = defaultdict(Measures)
    for group in groups:
        for key in keys_of(group):
            found[key].add(group.measures)
    return dict(sorted(found.items()))


def _add_on_postgresql(transaction: Transaction, added: dict[Key, Measures]) -> None:
    missing = dict(added)
    rows = []
    # More than once only if pruning has just deleted one of the rollups.
    while missing:
        keys = {"rows": statements.json_of_rows(map(statements.names_of, missing))}
        transaction.execute(statements.INSERT_MISSING, keys)
        for row in transaction.execute(statements.LOCKED, keys).mappings():
            measures = missing.pop(key_of(row))
            statements.add_stored(measures, row)
            rows.append(statements.row_of(key_of(row), measures))
    transaction.execute(statements.UPDATE, {"rows": statements.json_of_rows(rows)})


def _add_on_sqlite(transaction: Transaction, added: dict[Key, Measures]) -> None:
    keys = {"keys": statements.json_of(added)}
    for row in transaction.execute(statements.FIND, keys).mappings():
        statements.add_stored(added[key_of(row)], row)
    rows = [statements.row_of(key, measures) for key, measures in added.items()]
    transaction.execute(statements.REPLACE, rows)
