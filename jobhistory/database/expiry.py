"""Expiry in a database: batches of deletes, table by table, which skip rows that must stay."""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError

from jobhistory._runtime.batches import Batches
from jobhistory._runtime.clock import utc_now
from jobhistory.database.driver_errors import is_missing_object, sqlstate
from jobhistory.database.revision import quoted_table
from jobhistory.database.statements import expire as statements
from jobhistory.database.statements.expire import BEGINNING, Branch, Deleted, Expiry, Place
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.errors import UnsafeExpiry, reason

logger = logging.getLogger(__name__)

# The sqlstate classes of errors due to an app's trigger: "triggered data change violation", as when
# it has updated the row; "unhandled user-defined exception"; errors of PL/pgSQL.
_REFUSALS = ("27", "45", "P0")
_SHRINK = 4


def expire(history: RunsTransactions, now: datetime, batches: Batches) -> int:
    """Delete expired rows in batches, oldest first, and return their number.

    Raises:
        UnsafeExpiry: if a batch would delete more rows than it found. That batch deletes nothing.
    """
    plan = history.run(Purpose.MAINTAIN, partial(plan_expiry, now=now))
    expiring = Expiring(history, plan, batches.size)
    deleted = batches.run(expiring.delete_batch)
    expiring.report()
    return deleted


class Expiring:
    """One call of `expire()`, which deletes branch by branch and skips rows that cannot be deleted.

    If a batch deletes every row that it finds, the next batch starts at the expiry time of its last
    row. If rows remain, such a start could find the same rows again and again, because many rows
    can expire at the same time. From then on the start is exact: a time and an id. It is not exact
    from the beginning, because then each batch would have to sort all rows of one time.
    """

    def __init__(self, history: RunsTransactions, plan: Expiry, batch_size: int) -> None:
        self._history = history
        self._plan = plan
        self._cutoff = plan.cutoff
        self._batch_size = self._size = batch_size
        self._branches = list(plan.branches)
        self._low = BEGINNING
        self._kept = 0
        self._refused = 0
        self._refusal = ""

    def delete_batch(self) -> tuple[int, bool]:
        """Delete one batch; return the number of deleted rows, and whether it was the last batch.

        Errors because of a foreign key or a trigger make the batch smaller. Others propagate.
        """
        size = self._size
        try:
            batch = self._history.run(Purpose.MAINTAIN, self._delete)
        except DBAPIError as error:
            state = sqlstate(error) or ""
            if not isinstance(error, IntegrityError) and not state.startswith(_REFUSALS):
                raise
            return 0, self._step_back(error)
        self._size = min(self._batch_size, size * _SHRINK)
        if batch.deleted < batch.found and self._low.id is None:
            self._low = self._low.exact()  # this finds the remaining rows once more
            return batch.deleted, False
        self._kept += max(0, batch.found - batch.deleted)
        self._low = batch.last or self._low
        return batch.deleted, batch.found < size and self._next_branch()

    def report(self) -> None:
        """Log the number of expired rows that are left, and the likely reasons."""
        kept = self._kept
        if self._plan.has_policies and not self._branches:
            # Policies may hide rows from a batch, which locks them, but show them to a read.
            left = self._history.run(Purpose.READ, partial(count_expired, now=self._cutoff))
            kept = max(kept, left - self._refused)
        why = []
        if self._refused:
            why.append(
                f"{self._refused} are in use ({self._refusal}): declare foreign keys to "
                "job_history with ON DELETE CASCADE or ON DELETE SET NULL"
            )
        if kept:
            why.append(
                f"{kept} are kept by a trigger, or by row-level security without a policy for "
                "UPDATE and DELETE"
            )
        if why:
            logger.warning(
                "expire() left %d of the expired rows: %s", self._refused + kept, "; ".join(why)
            )

    def _delete(self, transaction: Transaction) -> Deleted:
        return delete_expired(transaction, self._branches[0], self._cutoff, self._low, self._size)

    def _next_branch(self) -> bool:
        """Continue with the next branch; return whether there is none."""
        del self._branches[0]
        self._low, self._size = BEGINNING, self._batch_size
        return not self._branches

    def _step_back(self, error: DBAPIError) -> bool:
        """Make the next batch smaller, or skip a row that cannot be deleted even alone.

        One such row makes its whole batch fail. Batches shrink until it is alone in one, and grow
        again after it. Return whether there is nothing left to delete.
        """
        self._low = self._low.exact()
        if self._size > 1:
            self._size = max(1, self._size // _SHRINK)
            return False
        first = self._history.run(Purpose.MAINTAIN, self._first)
        if first is None:  # another session has deleted or locked it
            return self._next_branch()
        self._low = first
        self._refused += 1
        self._refusal = self._refusal or reason(error)
        return False

    def _first(self, transaction: Transaction) -> Place | None:
        return first_expired(transaction, self._branches[0], self._cutoff, self._low)


def earlier(transaction: Transaction, now: datetime) -> datetime:
    """Return the earlier of `now` and the database's clock, so that a wrong clock does no harm.

    On SQLite, the database's clock is that of this machine.
    """
    if transaction.dialect != "postgresql":
        return min(now, utc_now())
    moment: datetime = transaction.execute(statements.EARLIER, {"now": now}).scalar_one()
    return moment


def plan_expiry(transaction: Transaction, now: datetime) -> Expiry:
    """Return the tables to delete from, and the cutoff."""
    if transaction.dialect != "postgresql":
        return Expiry(earlier(transaction, now))
    name = quoted_table(transaction.connection, transaction.schema)
    tree = transaction.execute(statements.TREE, {"now": now, "name": name})
    return statements.expiry_of(tree.all())


def count_expired(transaction: Transaction, now: datetime) -> int:
    """Return the number of expired rows."""
    parameters = {"cutoff": earlier(transaction, now)}
    count: int = transaction.execute(statements.COUNT_EXPIRED, parameters).scalar_one()
    return count


def delete_expired(
    transaction: Transaction, branch: Branch | None, cutoff: datetime, low: Place, batch_size: int
) -> Deleted:
    """Delete one batch of a branch, starting at a place, oldest first.

    The batch does not find rows that another session has locked. Rows that it finds but does not
    delete are kept by a trigger or by row-level security, or have just been updated.

    Raises:
        UnsafeExpiry: if it would delete more rows than it found. Then it deletes nothing.
    """
    is_exact = low.id is not None
    parameters = _parameters(low, cutoff, batch_size)
    if transaction.dialect != "postgresql":
        find = statements.find_expired(exact=is_exact)
        found, *last = transaction.execute(find, parameters).one()
        delete = statements.delete_found(exact=is_exact)
        deleted = transaction.execute(delete, parameters).rowcount if found else 0
    else:
        statement = statements.delete_expired(branch, exact=is_exact)
        try:
            found, deleted, *last = _execute(transaction, statement, parameters, branch).one()
        except DBAPIError as error:
            if sqlstate(error) == statements.GUARD_STATE:
                raise UnsafeExpiry from error
            if branch is None or branch.parent is None or not is_missing_object(error):
                raise
            return Deleted(0, 0, None)  # another session has just dropped the partition
    return Deleted(found, deleted, Place(*last) if found else None)


def first_expired(
    transaction: Transaction, branch: Branch | None, cutoff: datetime, low: Place
) -> Place | None:
    """Return the place of the first row that a batch would delete."""
    statement = statements.first_expired(branch)
    parameters = _parameters(low.exact(), cutoff, 1)
    row = _execute(transaction, statement, parameters, branch).one_or_none()
    return row and Place(*row)


def _parameters(low: Place, cutoff: datetime, batch_size: int) -> dict[str, Any]:
    exact = {} if low.id is None else {"low_id": low.id}
    return exact | {"low_moment": low.moment, "cutoff": cutoff, "batch_size": batch_size}


def _execute(
    transaction: Transaction, statement: Any, parameters: dict[str, Any], branch: Branch | None
) -> Any:
    # A branch has its actual name, which a map must not translate.
    options: dict[str, Any] = {} if branch is None else {"schema_translate_map": {}}
    return transaction.execute(statement, parameters, **options)
