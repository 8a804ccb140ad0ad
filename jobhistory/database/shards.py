"""Deleting batches of rows in the shards of Citus."""

from __future__ import annotations

from typing import Any

from jobhistory.database.revision import quoted_table
from jobhistory.database.statements.expire import Deleted, Place
from jobhistory.database.statements.shards import TAKE_TURNS
from jobhistory.database.transaction import Transaction


def delete_found(
    transaction: Transaction, find: Any, delete: Any, parameters: dict[str, Any], *, exact: bool
) -> Deleted:
    """Delete the rows that a statement finds: the `address`, `moment` and `job_id` of each.

    Args:
        delete: the statement that deletes those of them that it would still find, by their `ids`
            and `job_ids`, and returns their starts.
        exact: whether the place of the last row has an id.
    """
    name = quoted_table(transaction.connection, transaction.schema)
    transaction.execute(TAKE_TURNS, {"name": name}).close()
    rows = transaction.execute(find, parameters).all()
    if not rows:
        return Deleted(0, 0, None)
    listed = {"ids": [row.address for row in rows], "job_ids": [row.job_id for row in rows]}
    starts = transaction.execute(delete, parameters | listed).scalars().all()
    last = max(Place(row.moment, row.address if exact else None) for row in rows)
    return Deleted(len(rows), len(starts), last, max(starts, default=None))


def first_found(transaction: Transaction, find: Any, parameters: dict[str, Any]) -> Place | None:
    """Return the place of the first row that a statement finds."""
    row = transaction.execute(find, parameters).first()
    return None if row is None else Place(row.moment, row.address)
