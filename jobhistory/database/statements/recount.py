"""The SQL that recounts statistics from rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, literal_column, select, true

from jobhistory.database.statements.fold import HOUR_SECONDS
from jobhistory.database.statements.measures import measured
from jobhistory.database.statements.read import STARTED
from jobhistory.database.statements.rollups import AS_QUEUED
from jobhistory.rollup_schema import ENDED, ROLLUP
from jobhistory.schema import HistoryRecord, UTCDateTime


def _in_window(moment: Any) -> list[Any]:
    return [
        moment >= bindparam("from_", type_=UTCDateTime),
        moment < bindparam("to", type_=UTCDateTime),
    ]


_ended = AS_QUEUED.where(HistoryRecord.status != STARTED, *_in_window(HistoryRecord.started_at))

COUNT = measured(_ended.subquery().c, HOUR_SECONDS)
"""Measures the rows that started in a window and have ended."""

# Executions without a row are not in the window's rows, so they stay in the queue.
DRAIN = delete(ENDED).where(ENDED.c.is_stored == true(), *_in_window(ENDED.c.started_at))
"""Removes the executions in a window from the queue."""

DRAIN_AND_COUNT = COUNT.add_cte(DRAIN.returning(literal_column("1")).cte("drained"))
"""PostgreSQL: both, in one statement, so that they see the same executions."""

_SPAN = ROLLUP.c.span == bindparam("span")
_BUCKETS = (_SPAN, *_in_window(ROLLUP.c.bucket))

ROLLUPS = select(*ROLLUP.c).where(*_BUCKETS)
"""The rollups of a span in a window."""

REMOVE = delete(ROLLUP).where(*_BUCKETS)
"""Deletes the rollups of a span in a window."""

ADD = insert(ROLLUP)

UNSTORED = select(func.coalesce(func.sum(ROLLUP.c.unstored), 0)).where(*_BUCKETS)
"""The number of executions in rollups of a window that have no row."""
