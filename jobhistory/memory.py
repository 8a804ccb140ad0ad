"""The same verbs without a database: history for as long as the process lives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

from jobhistory.criteria import HistoryQuery
from jobhistory.errors import ExecutionAlreadyFinished, ExecutionNotFound
from jobhistory.executions import ExecutionKey, Outcome
from jobhistory.models import HistoryRecord, detached
from jobhistory.ring import RingBuffer

logger = logging.getLogger(__name__)

STARTED_LIMIT = 10_000
"""How many executions may be under way at once before the oldest is forgotten."""

Row = dict[str, Any]


class MemoryHistory:
    """Executions under way in a table of its own, ended ones in the ring buffer; thread-safe."""

    def __init__(self, ended: RingBuffer[Row]) -> None:
        self._started: dict[UUID, Row] = {}
        self._ended = ended
        self._lock = Lock()

    def insert(self, row: Row) -> HistoryRecord:
        """Keep a new row, and return its record."""
        with self._lock:
            if len(self._started) >= STARTED_LIMIT:
                forgotten = self._started.pop(next(iter(self._started)))
                logger.warning(
                    "forgot the started execution of job %r: more than %d are under way in memory",
                    forgotten["job_id"],
                    STARTED_LIMIT,
                )
            self._started[row["id"]] = row
        return detached(row)

    def end(self, outcome: Outcome) -> HistoryRecord:
        """Note how an execution ended and move it into the ring buffer; return its record.

        Raises:
            ExecutionNotFound: if no execution of that key has started.
            ExecutionAlreadyFinished: if it has ended with another outcome.
        """
        key = outcome.key
        with self._lock:
            started = _newest_first(row for row in self._started.values() if _key_of(row) == key)
            if started:
                row = self._started.pop(started[0]["id"]) | outcome.values
                self._ended.append(row)
                return detached(row)
            ended = _newest_first(row for row in self._ended.last() if _key_of(row) == key)
        if not ended:
            raise ExecutionNotFound(key.job_id, key.worker_id, key.correlation_id)
        record = detached(ended[0])
        if record.status != outcome.values["status"]:
            raise ExecutionAlreadyFinished(record)
        return record

    def find_with(self, column: str, value: str) -> list[HistoryRecord]:
        """All records with a value in a column, newest first."""
        return self._find(lambda row: row[column] == value)

    def find(self, query: HistoryQuery) -> list[HistoryRecord]:
        """The records that meet the criteria, newest first."""
        return self._find(lambda row: _meets(row, query), query.limit)

    def count_expired(self, cutoff: datetime) -> int:
        """How many records have expired at the cutoff."""
        return sum(_has_expired(row, cutoff) for row in self._rows())

    def delete_expired(
        self, cutoff: datetime, low_water: datetime, batch_size: int
    ) -> tuple[int, datetime]:
        """Forget all records that have expired, in one batch, as there is no one to be blocked."""
        with self._lock:
            started = [row for row in self._started.values() if _has_expired(row, cutoff)]
            for row in started:
                del self._started[row["id"]]
            ended = self._ended.discard(lambda row: _has_expired(row, cutoff))
        return len(started) + ended, cutoff

    def _find(self, wanted: Callable[[Row], bool], limit: int | None = None) -> list[HistoryRecord]:
        rows = _newest_first(row for row in self._rows() if wanted(row))
        return [detached(row) for row in rows[:limit]]

    def _rows(self) -> list[Row]:
        with self._lock:  # so that an execution is in one of the two, not in both or neither
            return [*self._started.values(), *self._ended.last()]


def _key_of(row: Row) -> ExecutionKey:
    return ExecutionKey(row["job_id"], row["worker_id"], row["correlation_id"])


def _newest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)


def _has_expired(row: Row, cutoff: datetime) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= cutoff


def _meets(row: Row, query: HistoryQuery) -> bool:
    return (
        (query.from_ is None or row["started_at"] >= query.from_)
        and (query.to is None or row["started_at"] <= query.to)
        and (query.task_identifier is None or row["task_identifier"] in query.task_identifier)
        and (query.status is None or row["status"] in query.status)
        and (query.worker_id is None or row["worker_id"] == query.worker_id)
        and (query.error_type is None or row.get("error_type") == query.error_type)
    )
