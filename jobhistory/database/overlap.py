"""Starting an execution while no other one of its task runs, in a database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String, bindparam, false, text, update

from jobhistory.database.expiry import earlier
from jobhistory.database.lost_workers import reap_batch
from jobhistory.database.retention import read_applied
from jobhistory.database.revision import quoted_table
from jobhistory.database.statements.expire import BEGINNING
from jobhistory.database.statements.reap import started_of_task
from jobhistory.database.statements.write import INSERT
from jobhistory.database.transaction import Transaction
from jobhistory.execution.retention import Retention
from jobhistory.query.overlap import Claim, Overlap
from jobhistory.schema import COLUMNS, TABLE, HistoryRecord, record_from

# By the table itself, because sessions may name its schema or find it by their search path.
_LOCK_TASK = text("""
SELECT pg_advisory_xact_lock(
    hashtextextended(:task, CAST(CAST(to_regclass(:name) AS oid) AS bigint))
)
""").bindparams(bindparam("task", type_=String), bindparam("name", type_=String))

# It changes nothing, but SQLite begins a transaction for it and takes its lock for writers.
_LOCK_FILE = update(TABLE).where(false()).values(status=COLUMNS.status)


def claim(
    transaction: Transaction,
    row: dict[str, Any],
    overlap: Overlap,
    declared: Retention | None,
    now: datetime,
) -> Claim:
    """Write a started row, unless another execution of the task runs; end those that are lost.

    Concurrent calls for the same task take turns until their transactions end.
    """
    if transaction.dialect == "postgresql":
        name = quoted_table(transaction.connection, transaction.schema)
        transaction.execute(_LOCK_TASK, {"task": overlap.task_identifier, "name": name}).close()
    else:
        transaction.execute(_LOCK_FILE)
    claimed = _cleared(transaction, overlap, declared, now)
    if claimed.holder is None:
        transaction.write(INSERT, row)
        transaction.started.append(row["id"])
    return claimed


def end_lost(
    transaction: Transaction, overlap: Overlap, declared: Retention | None, now: datetime
) -> list[HistoryRecord]:
    """End the started executions of a task that are lost, the oldest first, and return them."""
    return _cleared(transaction, overlap, declared, now).lost


def _cleared(
    transaction: Transaction, overlap: Overlap, declared: Retention | None, now: datetime
) -> Claim:
    return overlap.cleared(
        lambda: transaction.find(started_of_task(overlap.query, transaction.dialect)),
        lambda found: _end_lost(transaction, found, overlap, declared, now),
    )


def _end_lost(
    transaction: Transaction,
    found: list[HistoryRecord],
    overlap: Overlap,
    declared: Retention | None,
    now: datetime,
) -> list[HistoryRecord]:
    if not found:
        return []
    now = earlier(transaction, now)
    searches = overlap.lost_among(found, now)
    if not searches:
        return []
    if declared is None:
        _, applied = read_applied(transaction)
        declared = Retention(None) if applied is None else applied.retention
    before = transaction.ended
    rows = [
        row
        for lost in searches
        for row in reap_batch(transaction, declared, lost, now, BEGINNING).rows
    ]
    transaction.ended = [*before, *rows]
    return [record_from(row) for row in rows]
