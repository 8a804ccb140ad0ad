"""Expiry in a database: batches of deletes, which skip rows that must stay."""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial

from sqlalchemy.exc import DBAPIError, IntegrityError

from jobhistory._runtime.batches import Batches
from jobhistory.database.archive_reading import TooLarge
from jobhistory.database.archived_partitions import ArchivedPartitions
from jobhistory.database.archiving import Archiving, RowsHaveChanged, Sink
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.expiry import Plan, count_expired, earlier, plan_expiry
from jobhistory.database.marks import DeletedRows
from jobhistory.database.partitions.expiring import Drop, PartitionExpiry
from jobhistory.database.retention import Applying
from jobhistory.database.statements.expire import BEGINNING, Deleted, Place
from jobhistory.database.transaction import (
    CommitsTransactions,
    Purpose,
    RunsTransactions,
    Transaction,
)
from jobhistory.errors import InvalidInput, reason
from jobhistory.execution.retention import Retention

logger = logging.getLogger(__name__)

# The sqlstate classes of errors due to an app's trigger: "triggered data change violation", as when
# it has updated the row; "unhandled user-defined exception"; errors of PL/pgSQL.
_REFUSALS = ("27", "45", "P0")
_SHRINK = 4
_NEEDS_COMMITS = (
    "needs transactions of its own, but the sessions share one that others commit; expire with a "
    "store on an engine"
)
_NOT_DISTRIBUTED = (
    "cannot be used: Citus distributes job_history, and rows are archived by their places in one "
    "table; expire without an archive"
)
_MOST_ATTEMPTS = 3
_MOST_APPLIED = 2000


def expire(
    history: CommitsTransactions,
    declared: Retention | None,
    now: datetime,
    batches: Batches,
    *,
    by_partition: bool = False,
    archive: Sink | None = None,
) -> int:
    """Apply changed retention rules, and delete expired rows, in batches; return their number.

    Args:
        declared: the retention of the store; `None` if it declares no rules.
        by_partition: whether rows may wait until all of their partition can be dropped.
        archive: gets the rows before they are deleted; `None` means nothing does.

    Raises:
        ArchiveError: if the archive fails. What it has not archived is not deleted.
        UnsafeExpiry: if a batch would delete more rows than it found. That batch deletes nothing.
    """
    archiving = None
    if archive is not None:
        if not history.commits:
            raise InvalidInput("archive", archive.location, _NEEDS_COMMITS)
        if history.run(Purpose.MAINTAIN, lambda transaction: transaction.layout.is_distributed):
            raise InvalidInput("archive", archive.location, _NOT_DISTRIBUTED)
        archiving = Archiving(history, archive)
        archiving.begin()
    # A batch of an archive is large, and so is its file. It would be too large for an UPDATE.
    size = batches.size if archive is None else min(batches.size, _MOST_APPLIED)
    applying = Applying(history, declared, size)
    partitions = PartitionExpiry(
        history,
        partial(earlier, now=now),
        by_partition=by_partition,
        disposal=Drop() if archiving is None else ArchivedPartitions(archiving),
    )
    dropping = partitions.steps()
    expiring: Expiring | None = None

    def do_batch() -> tuple[int, bool]:
        nonlocal expiring
        if expiring is None:
            # First, because the old rules may give rows less time than the new ones.
            if not applying.apply_batch():
                return 0, False
            if (dropped := next(dropping, None)) is not None:
                return dropped, False
            plan = history.run(
                Purpose.MAINTAIN, partial(plan_expiry, now=now, retention=applying.retention)
            ).without(partitions.waiting)
            expiring = Expiring(history, plan, batches.size, archiving)
        return expiring.delete_batch()

    deleted = batches.run(do_batch)
    if expiring is not None:
        expiring.report()
    return deleted


class Expiring:
    """One call of `expire()`, which deletes the rows of one target after the other.

    It skips rows that cannot be deleted.

    If a batch deletes every row that it finds, the next batch starts at the expiry time of its last
    row. If rows remain, such a start could find the same rows again and again, because many rows
    can expire at the same time. From then on the start is exact: a time and an id. It is not exact
    from the beginning, because then each batch would have to sort all rows of one time.
    """

    def __init__(
        self,
        history: RunsTransactions,
        plan: Plan,
        batch_size: int,
        archiving: Archiving | None = None,
    ) -> None:
        self._history = history
        self._archiving = archiving
        self._attempts = 0
        self._plan = plan
        self._batch_size = self._size = batch_size
        self._targets = list(plan.targets)
        self._low = self._targets[0].beginning if self._targets else BEGINNING
        self._deleted_rows = DeletedRows()
        self._kept = 0
        self._refused = 0
        self._refusal = ""

    def delete_batch(self) -> tuple[int, bool]:
        """Delete one batch; return the number of deleted rows, and whether it was the last batch.

        Errors because of a foreign key or a trigger make the batch smaller. Others propagate.
        """
        if not self._targets:
            return 0, True
        size = self._size
        try:
            batch = self._remove()
        except TooLarge:
            self._batch_size = self._size = max(1, size // _SHRINK)
            return 0, False
        except RowsHaveChanged:
            return 0, self._try_again()
        except DBAPIError as error:
            state = sqlstate(error) or ""
            if not isinstance(error, IntegrityError) and not state.startswith(_REFUSALS):
                raise
            return 0, self._step_back(reason(error))
        self._attempts = 0
        self._deleted_rows.keep()
        self._size = min(self._batch_size, size * _SHRINK)
        if batch.deleted < batch.found and self._low.id is None:
            self._low = self._low.exact()  # this finds the remaining rows once more
            return batch.deleted, False
        self._kept += max(0, batch.found - batch.deleted)
        self._low = batch.last or self._low
        return batch.deleted, batch.found < size and self._next_target()

    def report(self) -> None:
        """Log the number of expired rows that are left, and the likely reasons."""
        kept = self._kept
        if self._plan.has_policies and not self._targets:
            # Policies may hide rows from a batch, which locks them, but show them to a read.
            left = self._history.run(Purpose.READ, partial(count_expired, now=self._plan.cutoff))
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

    def _remove(self) -> Deleted:
        if self._archiving is None:
            return self._history.run(Purpose.MAINTAIN_AS_ONE, self._delete)
        note = self._deleted_rows.note
        return self._archiving.delete(self._targets[0], self._low, self._size, note)

    def _delete(self, transaction: Transaction) -> Deleted:
        deleted = self._targets[0].delete(transaction, self._low, self._size)
        self._deleted_rows.note(transaction, deleted.newest)
        return deleted

    def _next_target(self) -> bool:
        """Continue with the next target; return whether there is none."""
        del self._targets[0]
        self._size = self._batch_size
        if self._targets:
            self._low = self._targets[0].beginning
        return not self._targets

    def _try_again(self) -> bool:
        """Read rows again that others have changed; return whether there is nothing left to do.

        Those that others lock are then not found. If that is no help, something keeps them.
        """
        self._attempts += 1
        return self._attempts > _MOST_ATTEMPTS and self._step_back(None)

    def _step_back(self, refusal: str | None) -> bool:
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
            return self._next_target()
        self._low = first
        if refusal is None:
            self._kept += 1
            self._attempts = 0
        else:
            self._refused += 1
            self._refusal = self._refusal or refusal
        return False

    def _first(self, transaction: Transaction) -> Place | None:
        return self._targets[0].first(transaction, self._low)
