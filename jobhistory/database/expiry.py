"""Which rows expire, and the deletion of one batch of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.clock import utc_now
from jobhistory.database import shards
from jobhistory.database.archive_reading import Rows
from jobhistory.database.driver_errors import is_missing_object
from jobhistory.database.partitions.expiring import waiting_of
from jobhistory.database.retention import (
    Applied,
    in_force,
    numbers_covered,
    read_applied,
)
from jobhistory.database.revision import quoted_table
from jobhistory.database.statements import expire as statements
from jobhistory.database.statements.expire import (
    BEGINNING,
    Branch,
    Deleted,
    Expiry,
    Place,
    newest_of,
)
from jobhistory.database.surplus import safely, surplus_of
from jobhistory.database.transaction import (
    Transaction,
)
from jobhistory.execution.retention import Retention
from jobhistory.query.reports import WaitingForPartition
from jobhistory.query.retention import RetentionCoverage, coverages


class Target(Rows, Protocol):
    """Rows to delete, in the order of a time."""

    @property
    def beginning(self) -> Place:
        """The place from which the first batch starts."""
        ...

    def delete(self, transaction: Transaction, low: Place, batch_size: int) -> Deleted:
        """Delete one batch, starting at a place, oldest first."""
        ...

    def first(self, transaction: Transaction, low: Place) -> Place | None:
        """Return the place of the first row that a batch would delete."""
        ...

    def is_in(self, partitions: Collection[int]) -> bool:
        """Return whether all rows are in one of some partitions, by their oids."""
        ...


@dataclass(frozen=True)
class Expired:
    """The rows of a branch that have expired, in the order of their expiry."""

    branch: Branch | None
    cutoff: datetime
    beginning: Place = BEGINNING
    moment: str = "expires_at"

    def batch(self, *, exact: bool) -> Select[*tuple[Any, ...]]:
        """Return the statement that selects and locks a batch, see `expired_batch`."""
        return statements.expired_batch(self.branch, exact=exact)

    def parameters(self, low: Place, batch_size: int) -> dict[str, Any]:
        """Return the parameters of the statement."""
        return _parameters(low, self.cutoff, batch_size)

    def delete(self, transaction: Transaction, low: Place, batch_size: int) -> Deleted:
        """Delete one batch, see `delete_expired`."""
        return delete_expired(transaction, self.branch, self.cutoff, low, batch_size)

    def first(self, transaction: Transaction, low: Place) -> Place | None:
        """Return the place of the first row that a batch would delete."""
        return first_expired(transaction, self.branch, self.cutoff, low)

    def is_in(self, partitions: Collection[int]) -> bool:
        """Return whether the branch is one of some partitions."""
        return self.branch is not None and self.branch.oid in partitions


@dataclass(frozen=True)
class Plan:
    """The plan of one call of `expire()`.

    Attributes:
        cutoff: the earlier of the store's clock and the database's.
        targets: the rows to delete, in this order.
        has_policies: whether row-level security can hide rows from the connection.
    """

    cutoff: datetime
    targets: Sequence[Target]
    has_policies: bool

    def without(self, partitions: Collection[int]) -> Plan:
        """Return a plan that leaves the expired rows of some partitions, by their oids."""
        return replace(self, targets=[each for each in self.targets if not each.is_in(partitions)])


def earlier(transaction: Transaction, now: datetime) -> datetime:
    """Return the earlier of `now` and the database's clock, so that a wrong clock does no harm.

    On SQLite, the database's clock is that of this machine.
    """
    if transaction.dialect != "postgresql":
        return min(now, utc_now())
    moment: datetime = transaction.execute(statements.EARLIER, {"now": now}).scalar_one()
    return moment


def plan_expiry(transaction: Transaction, now: datetime, retention: Retention | None) -> Plan:
    """Return which rows to delete, also of those that never expire but are too many for a rule."""
    if transaction.dialect != "postgresql" or transaction.layout.is_distributed:
        expiry = Expiry(earlier(transaction, now))
    else:
        name = quoted_table(transaction.connection, transaction.schema)
        tree = transaction.execute(statements.TREE, {"now": now, "name": name})
        expiry = statements.expiry_of(tree.all())
    targets: list[Target] = [Expired(branch, expiry.cutoff) for branch in expiry.branches]
    if retention is not None:
        targets += surplus_of(transaction, retention)
    return Plan(expiry.cutoff, targets, expiry.has_policies)


def count_deleted(
    transaction: Transaction,
    declared: Retention | None,
    now: datetime,
    *,
    by_partition: bool = False,
) -> int:
    """Return how many rows `expire` would delete, also after it has applied changed rules.

    If rules have changed, it is not known yet which rows will wait for their partition.
    """
    applied = in_force(read_applied(transaction)[1], declared)
    if applied is not None and applied.replaces:
        cutoff = earlier(transaction, now)
        numbers = numbers_covered(transaction, applied, cutoff)
        return sum(deleted for _, _, deleted in numbers.values())
    count = count_expired(transaction, now)
    if by_partition:
        count -= count_waiting(transaction, now).count
    if applied is not None:
        count += sum(each.count(transaction) for each in surplus_of(transaction, applied.retention))
    return count


def count_waiting(transaction: Transaction, now: datetime) -> WaitingForPartition:
    """Return how many rows `expire` would leave until their partition can be dropped."""
    return waiting_of(transaction, earlier(transaction, now))


def coverage_of(
    transaction: Transaction, declared: Retention | None, default: timedelta | None, now: datetime
) -> list[RetentionCoverage]:
    """Return how many rows each rule covers, and how many `expire` would change and delete.

    Args:
        default: the retention of the store without rules.
    """
    applied = in_force(read_applied(transaction)[1], declared) or Applied(Retention(default))
    numbers = numbers_covered(transaction, applied, earlier(transaction, now))
    return coverages(applied.retention, numbers)


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
    if transaction.layout.is_distributed:
        find, remove = statements.find_in_shards(exact=is_exact), statements.DELETE_IN_SHARDS
        return shards.delete_found(transaction, find, remove, parameters, exact=is_exact)
    if transaction.dialect != "postgresql":
        find = statements.find_expired(exact=is_exact)
        found, *last = transaction.execute(find, parameters).one()
        delete = statements.delete_found(exact=is_exact)
        starts = transaction.execute(delete, parameters).scalars().all() if found else []
        deleted, newest = len(starts), newest_of(starts)
    else:
        statement = statements.delete_expired(branch, exact=is_exact)
        try:
            with safely():
                found, deleted, newest, *last = _execute(
                    transaction, statement, parameters, branch
                ).one()
        except DBAPIError as error:
            if branch is None or branch.parent is None or not is_missing_object(error):
                raise
            return Deleted(0, 0, None)  # another session has just dropped the partition
    return Deleted(found, deleted, Place(*last) if found else None, newest)


def first_expired(
    transaction: Transaction, branch: Branch | None, cutoff: datetime, low: Place
) -> Place | None:
    """Return the place of the first row that a batch would delete."""
    parameters = _parameters(low.exact(), cutoff, 1)
    if transaction.layout.is_distributed:
        return shards.first_found(transaction, statements.find_in_shards(exact=True), parameters)
    statement = statements.first_expired(branch)
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
