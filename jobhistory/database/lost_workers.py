"""The search for lost workers in a database, which ends their executions in batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from jobhistory._runtime.batches import Batches
from jobhistory.database import running_index
from jobhistory.database.expiry import earlier
from jobhistory.database.retention import read_applied
from jobhistory.database.statements.expire import BEGINNING, Place
from jobhistory.database.statements.reap import (
    end_in_shards,
    find_in_shards,
    reap_statements,
)
from jobhistory.database.transaction import Purpose, RunsTransactions, Transaction
from jobhistory.execution.outcome import lost_outcome
from jobhistory.execution.retention import Retention
from jobhistory.query.lost import LostQuery
from jobhistory.schema import COLUMN_NAMES

logger = logging.getLogger(__name__)


class Reaped(NamedTuple):
    """The result of a batch: the number of rows found, the ended rows, and the last row found."""

    found: int
    rows: list[dict[str, Any]]
    last: Place | None


def reap(
    history: RunsTransactions,
    declared: Retention | None,
    lost: LostQuery,
    now: datetime,
    batches: Batches,
) -> int:
    """End the executions that are presumed lost, and return their number.

    Args:
        declared: the retention of the store. If it is `None`, that which the database keeps decides
            how long the executions are kept.
    """
    now = history.run(Purpose.MAINTAIN, partial(earlier, now=now))
    if declared is None:
        _, applied = history.run(Purpose.MAINTAIN, read_applied)
        declared = None if applied is None else applied.retention
    reaping = Reaping(history, declared or Retention(None), lost.at(now), now)
    reaped = batches.run(reaping.reap_batch)
    reaping.report()
    return reaped


class Reaping:
    """One call of `reap_lost()`, which skips executions that a trigger keeps unchanged."""

    def __init__(
        self, history: RunsTransactions, retention: Retention, lost: LostQuery, now: datetime
    ) -> None:
        self._history = history
        self._retention = retention
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
        """Log the number of executions that are left, and the likely reasons."""
        if self._kept:
            logger.warning(
                "reap_lost() left %d of the lost executions unchanged: a trigger keeps them, or "
                "others have just changed them",
                self._kept,
            )

    def _reap(self, transaction: Transaction) -> Reaped:
        return reap_batch(transaction, self._retention, self._lost, self._now, self._after)


def reap_batch(
    transaction: Transaction, retention: Retention, lost: LostQuery, now: datetime, after: Place
) -> Reaped:
    """End one batch of started executions after a place as lost, the oldest first.

    On PostgreSQL, the batch does not find rows that another session has locked. Rows that it finds
    but does not end are kept by a trigger or by row-level security.
    """
    place = after.exact()
    parameters = {"after_started_at": place.moment, "after_id": place.id}
    by_status = running_index.is_supported(transaction.connection)
    if transaction.layout.is_distributed:
        return _reap_in_shards(transaction, retention, lost, parameters | {"now": now}, by_status)
    find, end = reap_statements(lost, transaction.dialect, retention, by_status=by_status)
    if end is None:
        rows = transaction.execute(find, parameters | {"now": now}).mappings().all()
        ended = [{name: row[name] for name in COLUMN_NAMES} for row in rows if row["id"]]
    else:
        rows = transaction.execute(find, parameters).mappings().all()
        found = transaction.execute(end, parameters | {"now": now}).mappings()
        ended = [dict(row) for row in found]
    return _reaped(transaction, rows, ended)


def _reap_in_shards(
    transaction: Transaction,
    retention: Retention,
    lost: LostQuery,
    parameters: dict[str, Any],
    by_status: bool,
) -> Reaped:
    find = find_in_shards(lost, by_status=by_status)
    rows = transaction.execute(find, parameters).mappings().all()
    if not rows:
        return Reaped(0, [], None)
    now, by_heartbeat = parameters["now"], lost.heartbeat_before is not None
    listed = {
        "ids": [row["lost_id"] for row in rows],
        "job_ids": [row["job_id"] for row in rows],
        "messages": {
            str(row["lost_id"]): lost_outcome(row, now, by_heartbeat)["error_message"]
            for row in rows
        },
    }
    ended = transaction.execute(end_in_shards(lost, retention), parameters | listed).mappings()
    return _reaped(transaction, rows, [dict(row) for row in ended])


def _reaped(transaction: Transaction, rows: Sequence[Any], ended: list[dict[str, Any]]) -> Reaped:
    transaction.ended = ended
    last = Place(rows[-1]["lost_since"], rows[-1]["lost_id"]) if rows else None
    return Reaped(len(rows), ended, last)
