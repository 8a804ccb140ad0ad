"""Every verb once, as a function of a session: it neither begins, nor commits, nor closes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from jobhistory import statements
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound
from jobhistory.executions import ExecutionKey, Outcome
from jobhistory.models import HistoryRecord, detached


def insert(session: Session, row: dict[str, Any]) -> HistoryRecord:
    """Write a new row, and return its record."""
    _execute(session, statements.INSERT, row)
    return detached(row)


def end(session: Session, outcome: Outcome) -> tuple[HistoryRecord, bool]:
    """Write how an execution ended; return its record, and whether it was written now.

    It was written before if a caller retries what had been committed: the outcome is the same.

    Raises:
        ExecutionNotFound: if no execution of that key has started.
        ExecutionAlreadyFinished: if it has ended with another outcome.
    """
    ids = _key_parameters(outcome.key)
    row = _execute(session, statements.END, ids | outcome.values).mappings().one_or_none()
    if row is not None:
        return detached(row), True
    ended = find(session, statements.ENDED, ids)
    if not ended:
        raise ExecutionNotFound(
            outcome.key.job_id, outcome.key.worker_id, outcome.key.correlation_id
        )
    if ended[0].status != outcome.values["status"]:
        raise ExecutionAlreadyFinished(ended[0])
    return ended[0], False


def find(
    session: Session, statement: Select[HistoryRecord], parameters: dict[str, Any] | None = None
) -> list[HistoryRecord]:
    """The records that a statement selects, in its order."""
    records = list(session.scalars(statement, parameters))
    for record in records:  # before the commit, which might expire them
        session.expunge(record)
    return records


def count_expired(session: Session, cutoff: datetime) -> int:
    """How many rows have expired at the cutoff."""
    count: int = _execute(session, statements.COUNT_EXPIRED, {"cutoff": cutoff}).scalar_one()
    return count


def delete_expired(
    session: Session, cutoff: datetime, low_water: datetime, batch_size: int
) -> tuple[int, datetime]:
    """Delete one batch, oldest first; return how many went, and the next batch's low-water mark.

    Rows that expired before `low_water` are not looked at. Rows that others hold locked stay.
    """
    deleted = (
        _execute(
            session,
            statements.DELETE_EXPIRED,
            {"cutoff": cutoff, "low_water": low_water, "batch_size": batch_size},
        )
        .scalars()
        .all()
    )
    return len(deleted), max(deleted, default=low_water)


def _key_parameters(key: ExecutionKey) -> dict[str, str]:
    return {
        "key_job_id": key.job_id,
        "key_worker_id": key.worker_id,
        "key_correlation_id": key.correlation_id,
    }


def _execute(session: Session, statement: Any, parameters: dict[str, Any]) -> Any:
    # The mapper finds the engine in a session that is bound class by class.
    return session.execute(statement, parameters, bind_arguments={"mapper": HistoryRecord})
