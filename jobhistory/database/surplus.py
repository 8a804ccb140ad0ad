"""Deleting what rules with `keep_last` do not keep."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

from jobhistory.database import shards
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.statements import surplus as statements
from jobhistory.database.statements.expire import (
    BEGINNING,
    GUARD_STATE,
    Branch,
    Deleted,
    Place,
    newest_of,
)
from jobhistory.database.statements.surplus import Kept
from jobhistory.database.transaction import Transaction
from jobhistory.errors import UnsafeExpiry
from jobhistory.execution.retention import Retention

_BEGINNING = BEGINNING.exact()


@dataclass(frozen=True)
class Surplus:
    """The executions of a task that a rule does not keep, in the order of their start.

    Attributes:
        kept: the executions about which the rule decides.
        end: the place of the oldest execution that it keeps.
    """

    kept: Kept
    end: Place
    beginning: Place = _BEGINNING
    branch: Branch | None = None
    moment: str = "started_at"

    def batch(self, *, exact: bool) -> Select[*tuple[Any, ...]]:
        """Return the statement that selects and locks a batch, see `surplus_batch`."""
        return statements.surplus_batch(self.kept)

    def parameters(self, low: Place, batch_size: int) -> dict[str, Any]:
        """Return the parameters of the statement."""
        return self._parameters(low, batch_size)

    def delete(self, transaction: Transaction, low: Place, batch_size: int) -> Deleted:
        """Delete one batch after a place, oldest first, as `expiry.delete_expired` does.

        Raises:
            UnsafeExpiry: if it would delete more rows than it found. Then it deletes nothing.
        """
        parameters = self._parameters(low, batch_size)
        if transaction.layout.is_distributed:
            find = statements.find_in_shards(self.kept)
            remove = statements.delete_in_shards(self.kept)
            return shards.delete_found(transaction, find, remove, parameters, exact=True)
        if transaction.dialect == "postgresql":
            with safely():
                statement = statements.delete_surplus(self.kept)
                found, deleted, newest, *last = transaction.execute(statement, parameters).one()
        else:
            find = statements.find_surplus(self.kept)
            found, *last = transaction.execute(find, parameters).one()
            delete = statements.delete_found_surplus(self.kept)
            starts = transaction.execute(delete, parameters).scalars().all() if found else []
            deleted, newest = len(starts), newest_of(starts)
        return Deleted(found, deleted, Place(*last) if found else None, newest)

    def first(self, transaction: Transaction, low: Place) -> Place | None:
        """Return the place of the first row that a batch would delete."""
        if transaction.layout.is_distributed:
            find = statements.find_in_shards(self.kept)
            return shards.first_found(transaction, find, self._parameters(low, 1))
        statement = statements.first_surplus(self.kept)
        row = transaction.execute(statement, self._parameters(low, 1)).one_or_none()
        return row and Place(*row)

    def is_in(self, partitions: Collection[int]) -> bool:
        """Return that the rows can be in any partition."""
        return False

    def count(self, transaction: Transaction) -> int:
        """Return the number of rows."""
        parameters = {"end_moment": self.end.moment, "end_id": self.end.id}
        statement = statements.count_surplus(self.kept)
        count: int = transaction.execute(statement, parameters).scalar_one()
        return count

    def _parameters(self, low: Place, batch_size: int) -> dict[str, Any]:
        return {
            "low_moment": low.moment,
            "low_id": low.id,
            "end_moment": self.end.moment,
            "end_id": self.end.id,
            "batch_size": batch_size,
        }


def surplus_of(transaction: Transaction, retention: Retention) -> list[Surplus]:
    """Return the executions that rules do not keep, for each task that has more than those."""
    found = []
    for kept in statements.kept_by(retention):
        oldest = transaction.execute(statements.oldest_kept(kept)).one_or_none()
        if oldest is not None:
            found.append(Surplus(kept, Place(*oldest)))
    return found


@contextmanager
def safely() -> Iterator[None]:
    """Turn the error of a batch that deletes more rows than it found into `UnsafeExpiry`."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == GUARD_STATE:
            raise UnsafeExpiry from error
        raise
