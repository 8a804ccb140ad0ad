"""The search for lost workers in a database, which ends their executions in batches."""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from jobhistory._runtime.batches import Batches
from jobhistory.database import running_index
from jobhistory.database.expiry import earlier
from jobhistory.database.statements.expire import BEGINNING, Place
from jobhistory.database.statements.reap import reap_statements
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.query.lost import LostQuery
from jobhistory.schema import COLUMN_NAMES

logger = logging.getLogger(__name__)


class Reaped(NamedTuple):
    """The result of a batch: the number of rows found, the ended rows, and the last row found."""

    found: int
    rows: list[dict[str, Any]]
    last: Place | None


def reap(history: RunsTransactions, lost: LostQuery, now: datetime, batches: Batches) -> int:
    """End the executions that are presumed lost, and return their number."""
    now = history.run(Purpose.MAINTAIN, partial(earlier, now=now))
    reaping = Reaping(history, lost.at(now), now)
    reaped = batches.run(reaping.reap_batch)
    reaping.report()
    return reaped


class Reaping:
    """One call of `reap_lost()`, which skips executions that a trigger keeps unchanged."""

    def __init__(self, history: RunsTransactions, lost: LostQuery, now: datetime) -> None:
        self._history = history
        self._lost = lost
        self._now = now
        self._after = BEGINNING
        self._kept = 0

    def reap_batch(self) -> tuple[int, bool]:
        """End one batch; return the number of ended rows, and whether it was the last batch."""
        reaped = self._history.run(Purpose.MAINTAIN, self._reap)
        self._after = reaped.last or self._after
        self._kept += reaped.found - len(reaped.rows)
        return len(reaped.rows), reaped.found < (self._lost.query.limit or 0)

    def report(self) -> None:
        """Log the number of executions that are left, and the likely reason."""
        if self._kept:
            logger.warning(
                "reap_lost() left %d of the lost executions unchanged: a trigger keeps them",
                self._kept,
            )

    def _reap(self, transaction: Transaction) -> Reaped:
        return reap_batch(transaction, self._lost, self._now, self._after)


def reap_batch(transaction: Transaction, lost: LostQuery, now: datetime, after: Place) -> Reaped:
    """End one batch of started executions after a place as lost, the oldest first.

    On PostgreSQL, the batch does not find rows that another session has locked. Rows that it finds
    but does not end are kept by a trigger or by row-level security.
    """
    place = after.exact()
    parameters = {"after_started_at": place.moment, "after_id": place.id}
    find, end = reap_statements(
        lost, transaction.dialect, by_status=running_index.is_supported(transaction.connection)
    )
    if end is None:
        rows = transaction.execute(find, parameters | {"now": now}).mappings().all()
        ended = [{name: row[name] for name in COLUMN_NAMES} for row in rows if row["id"]]
    else:
        rows = transaction.execute(find, parameters).mappings().all()
        found = transaction.execute(end, parameters | {"now": now}).mappings()
        ended = [dict(row) for row in found]
    transaction.ended = ended
    last = Place(rows[-1]["lost_since"], rows[-1]["lost_id"]) if rows else None
    return Reaped(len(rows), ended, last)
