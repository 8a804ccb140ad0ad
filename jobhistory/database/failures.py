"""Groups of failures, from the rows of a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from jobhistory.database.functions import FINGERPRINT
from jobhistory.database.statements.reports import earlier_failures, failures_of
from jobhistory.database.transaction import Transaction
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import FailureGroup, before_window
from jobhistory.sanitize.fingerprint import fingerprint


def groups_of(
    transaction: Transaction, query: HistoryQuery, known_for: timedelta | None
) -> list[FailureGroup]:
    """Return the groups of failures, the most frequent group first.

    Args:
        known_for: how long before the window to search for the same failures.
    """
    connection: Any = transaction.connection
    # SQLite has no regular expressions. The function is created once per connection, because
    # SQLite refuses to replace it while another statement is running.
    if transaction.dialect == "sqlite" and FINGERPRINT not in connection.info:
        connection.connection.create_function(FINGERPRINT, 1, fingerprint, deterministic=True)
        connection.info[FINGERPRINT] = True
    earlier = before_window(query, known_for)
    if earlier is None or not transaction.layout.is_distributed:
        return _groups(transaction, query, known_for)
    # Citus does not search for the failures of one shard in another.
    known = {tuple(row) for row in transaction.execute(earlier_failures(earlier))}
    return [
        replace(group, is_new=(group.task_identifier, group.error_type, group.message) not in known)
        for group in _groups(transaction, query, None)
    ]


def _groups(
    transaction: Transaction, query: HistoryQuery, known_for: timedelta | None
) -> list[FailureGroup]:
    session = transaction.loader
    statement = failures_of(query, known_for)
    rows = session.execute(statement, execution_options=transaction.options)
    groups = [FailureGroup(*row) for row in rows]
    session.expunge_all()
    return groups
